"""The back ends of `voxport bench gpu` as two calls each: one that is timed from host to host, one on the device.

Imports torch. Everything else is imported where it is needed, so that a missing package costs one back end.
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from voxport.benchmarks.gpu.report import GpuSettings
from voxport.benchmarks.gpu.variants import Variant
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.tasks.device_peaks import autocast, set_float32
from voxport.runtime.errors import BackendError

Float32 = npt.NDArray[np.float32]
_CAPTURE_CALLS = 5  # before a capture, as PyTorch's documentation asks: libraries allocate at their first calls
_EXAMPLE = (2, 200)  # utterances and frames to trace with: a batch of one would fix the batch


class GpuRunner(Protocol):
    """A loaded back end."""

    def run(self, features: Float32) -> Float32:
        """Features (B, T, F) in host memory → scores (B, S) in host memory, the device waited for."""
        ...

    def on_device(self, features: Float32) -> Callable[[], object] | None:
        """A call that leaves its answer on the device, its input being there already; None where there is none."""
        ...

    def facts(self) -> tuple[Fact, ...]:
        """What the library says of itself."""
        ...


def open_runner(variant: Variant, settings: GpuSettings, network: nn.Module) -> GpuRunner:
    """Build or load `variant` of `network`, which is in eval mode on the CPU.

    Raises:
        BackendError: the device, a package or a file is not usable for it.
    """
    reason = variant.unfit(settings.device)
    if reason:
        raise BackendError(reason)
    torch.set_num_threads(settings.threads)
    set_float32(variant.precision)
    if variant.kind == "onnx":
        from voxport.benchmarks.gpu.onnx_backend import OnnxRunner

        return OnnxRunner(variant, settings)
    if variant.kind == "artefact":
        return ArtefactRunner(variant, settings)
    network = network.to(settings.device)
    function = _FUNCTIONS[variant.kind](variant, settings, network)
    return (GraphRunner if variant.graph else TorchRunner)(variant, settings, function)


def _eager(variant: Variant, settings: GpuSettings, network: nn.Module) -> Callable[[Tensor], Tensor]:
    return network


def _example(settings: GpuSettings, network: Any) -> Tensor:
    return torch.randn(*_EXAMPLE, network.project.in_features, device=settings.device)


def _torchscript(variant: Variant, settings: GpuSettings, network: nn.Module) -> Callable[[Tensor], Tensor]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every constant; parity judges
        trace: Any = torch.jit.trace  # untyped
        traced = torch.jit.freeze(trace(network, (_example(settings, network),), check_trace=False))
    function: Callable[[Tensor], Tensor] = traced
    return function


def _compile(variant: Variant, settings: GpuSettings, network: nn.Module) -> Callable[[Tensor], Tensor]:
    compiled: Callable[[Tensor], Tensor] = torch.compile(network, dynamic=True, mode=variant.mode or "default")
    return compiled


def _aoti(variant: Variant, settings: GpuSettings, network: nn.Module) -> Callable[[Tensor], Tensor]:
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network,
            (_example(settings, network),),
            dynamic_shapes=(axes,),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        with tempfile.TemporaryDirectory(prefix="voxport-aoti-") as folder:
            path = torch._inductor.aoti_compile_and_package(program, package_path=str(Path(folder, "network.pt2")))
            loaded = torch._inductor.aoti_load_package(path)  # it keeps what it unpacks elsewhere

    def call(features: Tensor) -> Tensor:
        answer = loaded(features)
        scores: Tensor = answer[0] if isinstance(answer, (list, tuple)) else answer
        return scores

    return call


_FUNCTIONS: dict[str, Callable[[Variant, GpuSettings, nn.Module], Callable[[Tensor], Tensor]]] = {
    "eager": _eager,
    "torchscript": _torchscript,
    "compile": _compile,
    "aoti": _aoti,
}


class TorchRunner:
    """A function of tensors on the device."""

    def __init__(self, variant: Variant, settings: GpuSettings, function: Callable[[Tensor], Tensor]) -> None:
        self.device, self.precision, self.function = settings.device, variant.precision, function

    def run(self, features: Float32) -> Float32:
        with torch.inference_mode(), autocast(self.precision, self.device):
            scores = self.function(torch.from_numpy(features).to(self.device))
            host: Float32 = scores.float().cpu().numpy()  # the copy waits for the device
        return host

    def on_device(self, features: Float32) -> Callable[[], object] | None:
        source = torch.from_numpy(features).to(self.device)

        def call() -> None:
            with torch.inference_mode(), autocast(self.precision, self.device):
                self.function(source)

        return call

    def facts(self) -> tuple[Fact, ...]:
        return (Fact("torch", torch.__version__), Fact("threads", str(torch.get_num_threads())))


class GraphRunner(TorchRunner):
    """One captured CUDA graph for each shape, replayed from then on. Inputs are copied into the graph's own."""

    def __init__(self, variant: Variant, settings: GpuSettings, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(variant, settings, function)
        self._kept: dict[tuple[int, ...], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def _captured(self, features: Float32) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        if features.shape not in self._kept:
            self._kept[features.shape] = self._capture(torch.from_numpy(features).to(self.device))
        return self._kept[features.shape]

    def _capture(self, source: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        # no_grad, not inference_mode: a graph's own tensors are written to later. Autocast must not keep its
        # converted weights from call to call: those made outside a capture may be gone at the replay.
        with torch.no_grad(), autocast(self.precision, self.device):
            torch.set_autocast_cache_enabled(False)
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_CAPTURE_CALLS):
                    self.function(source)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                scores = self.function(source)
        return graph, source, scores

    def run(self, features: Float32) -> Float32:
        graph, source, scores = self._captured(features)
        source.copy_(torch.from_numpy(features))
        graph.replay()
        host: Float32 = scores.float().cpu().numpy()
        return host

    def on_device(self, features: Float32) -> Callable[[], object] | None:
        graph, _, _ = self._captured(features)
        return graph.replay


class ArtefactRunner:
    """A file that voxport's own runtime loads: a TensorRT plan, an RTX engine, or an ONNX model on NVIDIA's plugin."""

    def __init__(self, variant: Variant, settings: GpuSettings) -> None:
        from voxport.runtime.backends.load import load_backend
        from voxport.runtime.backends.options import BackendOptions

        options = BackendOptions(
            device="rtx" if variant.provider == "rtx" else "auto",
            threads=settings.threads,
            max_batch=max(settings.batches),
        )
        self._backend = load_backend(variant.path, options)

    def run(self, features: Float32) -> Float32:
        return self._backend.run(features, np.full(len(features), features.shape[1], np.int64)).scores

    def on_device(self, features: Float32) -> Callable[[], object] | None:
        return None

    def facts(self) -> tuple[Fact, ...]:
        told = self._backend.explain()
        return (Fact("device", told.device), Fact("precision", told.precision))
