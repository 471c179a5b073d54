"""The checkpoint's own network in eager PyTorch, and behind CUDA graphs. Imported inside a worker only."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxport.benchmarks.backends.precision import autocast, device_times, set_float32
from voxport.benchmarks.backends.registry import Array, Lengths
from voxport.benchmarks.core.settings import BackendSpec
from voxport.benchmarks.system.machine import Fact
from voxport.runtime.errors import BackendError
from voxport.runtime.frontend.spec import Frontend
from voxport.train.checkpoint import load_checkpoint
from voxport.train.models.frontend import TorchFrontend

_cuda: Any = torch.cuda  # much of it has no annotations
_cudnn: Any = torch.backends.cudnn


class FromSound(nn.Module):
    """The frontend and the network: samples (B, n) → scores (B, S)."""

    def __init__(self, frontend: Frontend, network: nn.Module) -> None:
        super().__init__()
        self.frontend, self.network = TorchFrontend(frontend), network

    def forward(self, samples: Tensor, lengths: Tensor | None = None) -> Tensor:
        """A frontend that normalises over the utterance must not see padding, so ragged rows go one by one."""
        if lengths is None:
            scores: Tensor = self.network(self.frontend(samples))
            return scores
        rows = [self.frontend(row[: int(count)]) for row, count in zip(samples, lengths, strict=True)]
        frames = torch.tensor([len(row) for row in rows], device=samples.device)
        return self.network(nn.utils.rnn.pad_sequence(rows, batch_first=True), frames)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Loaded:
    """A network in eval mode, or a program made of it, on its device."""

    network: Callable[..., Any]
    frontend: Frontend
    speakers: int
    device: torch.device


def load_network(spec: BackendSpec) -> Loaded:
    """The network of `spec.path`, with its frontend before it where the input is a waveform.

    Raises:
        BackendError: no usable GPU where one is asked for.
        CheckpointError: the checkpoint is not usable.
    """
    device = prepare_torch(spec)
    checkpoint = load_checkpoint(spec.path)
    network: nn.Module = checkpoint.network()
    if spec.input_kind == "waveform":
        network = FromSound(checkpoint.frontend, network)
    return Loaded(network.eval().to(device), checkpoint.frontend, len(checkpoint.labels), device)


def prepare_torch(spec: BackendSpec) -> torch.device:
    """Threads and precision as the benchmark wants them. Raises BackendError where there is no usable GPU."""
    if spec.device != "cpu" and not torch.cuda.is_available():
        raise BackendError(
            f"device cuda was asked for, but PyTorch {torch.__version__} finds no usable GPU; "
            "install a CUDA build of torch and a driver, or measure with --device cpu"
        )
    torch.set_num_threads(spec.threads)
    if torch.get_num_interop_threads() != spec.threads:
        torch.set_num_interop_threads(spec.threads)
    # Products in full float32, as the exported models compute them (PyTorch lets cuDNN use TF32).
    set_float32(spec.precision)
    return torch.device("cpu" if spec.device == "cpu" else "cuda")


class TorchBackend:
    """Calls `function` with a tensor on the device; host arrays in and out, and the device has finished.

    Where all utterances of a call are of full length it is called without lengths, which spares it the
    masks; that is its fastest form. `takes_lengths` is False for what was traced without them: such a
    program answers padding too, which the comparison of answers then shows. With `spec.graphs` one CUDA graph
    is captured for each shape, and replayed from then on; lengths would be frozen into it.
    """

    takes_lengths = True
    captures = True  # where graphs are asked for; a compiler that makes its own does not

    def __init__(self, spec: BackendSpec, loaded: Loaded) -> None:
        self.frontend, self.speakers = loaded.frontend, loaded.speakers
        self._spec, self._device, self.function = spec, loaded.device, loaded.network
        self._graphs: dict[tuple[int, ...], _Captured] | None = None
        if spec.graphs and spec.device != "cuda":
            raise BackendError(f"{spec.name}: CUDA graphs need a GPU; measure with --device cuda")
        if spec.graphs and self.captures:
            self._graphs, self.takes_lengths = {}, False

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        with self._computing():
            scores = self._scores(torch.from_numpy(inputs).to(self._device), inputs, lengths)
            host: Array = scores.float().cpu().numpy()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return host

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        # no_grad for graphs, not inference_mode: a graph's own tensors are written to later.
        mode = torch.inference_mode() if self._graphs is None else torch.no_grad()
        with mode, autocast(self._spec.precision, self._device.type):
            yield

    def _scores(self, source: Tensor, inputs: Array, lengths: Lengths) -> Tensor:
        if self._graphs is not None:
            found = self._captured(source)
            found.source.copy_(source)
            found.graph.replay()
            return found.scores
        full = bool((lengths == inputs.shape[1]).all())
        if full or not self.takes_lengths:
            scores: Tensor = self.function(source)
        else:
            scores = self.function(source, torch.from_numpy(lengths).to(self._device))
        return scores

    def _captured(self, source: Tensor) -> "_Captured":
        assert self._graphs is not None
        shape = tuple(source.shape)
        if shape not in self._graphs:
            # Autocast must not keep converted weights from call to call: those made outside a capture may be gone
            # at the replay.
            torch.set_autocast_cache_enabled(False)
            self._graphs[shape] = _capture(self.function, source)
        return self._graphs[shape]

    def device_ns(self, inputs: Array, lengths: Lengths) -> list[int]:
        """Nanoseconds between CUDA events around calls whose input is on the GPU already; none on a CPU."""
        if self._device.type != "cuda":
            return []
        with self._computing():
            source = torch.from_numpy(inputs).to(self._device)
            return device_times(lambda: self._scores(source, inputs, lengths))

    def facts(self) -> tuple[Fact, ...]:
        found = [Fact("threads", str(torch.get_num_threads()))]
        if not self.takes_lengths:
            found.append(Fact("lengths", "not taken: a padded batch is answered with its padding"))
        if self._device.type == "cuda":
            found += [
                Fact("gpu", torch.cuda.get_device_name(self._device)),
                Fact("cuda", str(torch.version.cuda)),
                Fact("cudnn", str(_cudnn.version())),
            ]
        return tuple(found)


class EagerBackend(TorchBackend):
    """The network as it is: what a user has without any export. For waveform input the frontend runs in PyTorch too."""

    def __init__(self, spec: BackendSpec) -> None:
        super().__init__(spec, load_network(spec))


WARM_CALLS = 3  # before a capture, as PyTorch's documentation asks: libraries allocate at their first calls


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    source: Tensor
    scores: Tensor


def _capture(function: Callable[..., Any], source: Tensor) -> _Captured:
    still = source.clone()
    side = _cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_CALLS):
            function(still)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores: Tensor = function(still)
    return _Captured(graph, still, scores)
