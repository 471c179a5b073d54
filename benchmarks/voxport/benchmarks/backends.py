"""Ways to run a model, as a worker sees them. Each imports its library when it is opened, never before."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.machine import Fact
from voxport.benchmarks.plan import BackendSpec
from voxport.runtime.errors import BackendError, VoxportError
from voxport.runtime.frontend_spec import Frontend

Array = npt.NDArray[np.float32]
Lengths = npt.NDArray[np.int64]


class Backend(Protocol):
    """A loaded model. `run` is one timed call: host arrays in, host scores out, device work finished."""

    frontend: Frontend
    speakers: int

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        """Inputs (B, T, F) or (B, samples), lengths (B,) → scores (B, S)."""
        ...

    def facts(self) -> tuple[Fact, ...]:
        """What the library says about how it runs."""
        ...


class EagerBackend:
    """The checkpoint's own network in eager PyTorch: what a user has without voxport's export.

    All utterances of a call are of full length, so it is called without lengths, which spares it the
    masks; that is its fastest form. For waveform input the frontend runs in PyTorch too.
    """

    def __init__(self, spec: BackendSpec) -> None:
        import torch

        from voxport.train.checkpoint import load_checkpoint

        if spec.device == "cuda" and not torch.cuda.is_available():
            raise BackendError(
                f"device cuda was asked for, but PyTorch {torch.__version__} finds no usable GPU; "
                "install a CUDA build of torch and a driver, or measure with --device cpu"
            )
        torch.set_num_threads(spec.threads)
        torch.set_num_interop_threads(spec.threads)
        # Products in full float32, as the exported models compute them (PyTorch lets cuDNN use TF32).
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        checkpoint = load_checkpoint(spec.path)
        network: torch.nn.Module = checkpoint.network()
        if spec.input_kind == "waveform":
            from voxport.train.frontend import TorchFrontend

            network = torch.nn.Sequential(TorchFrontend(checkpoint.frontend), network)
        self.frontend = checkpoint.frontend
        self.speakers = len(checkpoint.labels)
        self._torch: Any = torch
        self._device = torch.device(spec.device)
        self._network = network.eval().to(self._device)

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        with self._torch.inference_mode():
            scores = self._network(self._torch.from_numpy(inputs).to(self._device))
            host: Array = scores.cpu().numpy()
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()
        return host

    def facts(self) -> tuple[Fact, ...]:
        torch = self._torch
        found = [Fact("threads", str(torch.get_num_threads()))]
        if self._device.type == "cuda":
            found += [
                Fact("gpu", torch.cuda.get_device_name(self._device)),
                Fact("cuda", str(torch.version.cuda)),
                Fact("cudnn", str(torch.backends.cudnn.version())),
            ]
        return tuple(found)


class OnnxBackend:
    """An artefact through the runtime's own API, as an application calls it."""

    def __init__(self, spec: BackendSpec) -> None:
        from voxport.runtime.onnx_model import OnnxModel
        from voxport.runtime.onnx_session import OnnxOptions

        self._spec = spec
        self._model = OnnxModel.load(spec.path, OnnxOptions(device=spec.device, threads=spec.threads))
        self.frontend = self._model.contract.frontend
        self.speakers = len(self._model.contract.labels)

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        return self._model.run(inputs, lengths).scores

    def facts(self) -> tuple[Fact, ...]:
        return (Fact("threads", str(self._spec.threads)), Fact("device", self._spec.device))


KINDS: dict[str, Callable[[BackendSpec], Backend]] = {"eager": EagerBackend, "onnx": OnnxBackend}


def open_backend(spec: BackendSpec) -> Backend:
    """Load `spec`.

    Raises:
        VoxportError: the file, the device or a package is not usable.
    """
    if spec.kind not in KINDS:
        raise VoxportError(f"unknown back end kind {spec.kind!r}; there are {', '.join(KINDS)}")
    try:
        return KINDS[spec.kind](spec)
    except ModuleNotFoundError as problem:
        if (problem.name or "voxport").startswith("voxport"):
            raise
        extra = "train" if spec.kind == "eager" else "cpu"
        raise BackendError(
            f'{spec.name} needs the package {problem.name}, which is not installed: pip install "voxport[{extra}]"'
        ) from problem
