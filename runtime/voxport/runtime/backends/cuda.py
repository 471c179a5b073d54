"""The few CUDA calls that TensorRT's engines need, through cuda-python. Nothing is imported before it is used.

Names and behaviour: CUDA Runtime API reference, sections on memory, streams and graphs. Every call of
cuda-python returns a tuple that starts with an error code; `Cuda.call` turns the code into an exception.
"""

import contextlib
import ctypes
import importlib
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import BackendError

_INSTALL = 'pip install "voxport[tensorrt]"'


@dataclass(frozen=True, eq=False)
class Buffer:
    """One tensor's memory, as large as it will ever be needed: `host`, which is pinned, and `device`, an address."""

    host: npt.NDArray[Any]
    device: int

    def array(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The front part of the host memory as an array. It is shared, not copied."""
        return self.host[: math.prod(shape)].reshape(shape)


class Cuda:
    """CUDA on one GPU, with a stream of its own that is not the default one. `close` gives everything back."""

    def __init__(self, module: Any, gpu: int = 0) -> None:
        self._module = module
        self._gpu = gpu
        self._held: list[tuple[str, Any]] = []  # (the call that frees it, handle)
        self.use()
        self.stream: Any = self.call("cudaStreamCreateWithFlags", module.cudaStreamNonBlocking)
        self._held.append(("cudaStreamDestroy", self.stream))

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime and return its value, None where it has none.

        Raises:
            BackendError: it returned an error, which the message names, or the driver is missing.
        """
        return _call(self._module, name, *arguments)

    def use(self) -> None:
        """Make this GPU the calling thread's own: CUDA keeps that per thread."""
        self.call("cudaSetDevice", self._gpu)

    def allocate(self, count: int, dtype: npt.DTypeLike) -> Buffer:
        """Memory for `count` elements on both sides."""
        size = max(1, count) * np.dtype(dtype).itemsize
        device = self.allocate_device(size)
        address = int(self.call("cudaHostAlloc", size, self._module.cudaHostAllocDefault))
        self._held.append(("cudaFreeHost", address))
        memory: Any = (ctypes.c_byte * size).from_address(address)
        return Buffer(np.frombuffer(memory, dtype), device)

    def allocate_device(self, size: int) -> int:
        """`size` bytes on the device."""
        address = int(self.call("cudaMalloc", max(1, size)))
        self._held.append(("cudaFree", address))
        return address

    def send(self, buffer: Buffer, count: int) -> None:
        """Queue the copy of `count` elements from the host to the device."""
        host = buffer.host
        self._copy(buffer.device, host.ctypes.data, count * host.itemsize, "cudaMemcpyHostToDevice")

    def fetch(self, buffer: Buffer, count: int) -> None:
        """Queue the copy of `count` elements from the device to the host."""
        host = buffer.host
        self._copy(host.ctypes.data, buffer.device, count * host.itemsize, "cudaMemcpyDeviceToHost")

    def wait(self) -> None:
        """Wait until all that was queued is done."""
        self.call("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        """Record what is queued from now on, without running it. Other threads may use CUDA meanwhile."""
        self.call(
            "cudaStreamBeginCapture", self.stream, self._module.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )

    def end_capture(self) -> Any:
        """Stop recording and return a graph that `launch` runs."""
        graph = self.call("cudaStreamEndCapture", self.stream)
        try:
            ready = self.call("cudaGraphInstantiate", graph, 0)
            self._held.append(("cudaGraphExecDestroy", ready))
        finally:
            self.call("cudaGraphDestroy", graph)
        return ready

    def abandon_capture(self) -> None:
        """End a recording that failed: the stream must not stay in it."""
        # An invalid recording ends with an error and without a graph; the first error is the one to tell.
        with contextlib.suppress(BackendError):
            self.call("cudaGraphDestroy", self.call("cudaStreamEndCapture", self.stream))

    def launch(self, graph: Any) -> None:
        """Queue a recorded graph."""
        self.call("cudaGraphLaunch", graph, self.stream)

    def drop_graph(self, graph: Any) -> None:
        """Free a graph that nothing runs."""
        self._held = [entry for entry in self._held if entry[1] is not graph]
        self.call("cudaGraphExecDestroy", graph)

    def close(self) -> None:
        """Wait, then free all. Errors are not told: nobody can act on them. A second call does nothing."""
        if not self._held:
            return
        with contextlib.suppress(BackendError):
            self.use()
            self.wait()
        while self._held:  # the stream, which came first, goes last
            with contextlib.suppress(BackendError):
                self.call(*self._held.pop())

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        self.call("cudaMemcpyAsync", target, source, size, getattr(self._module.cudaMemcpyKind, kind), self.stream)


@cache
def cuda_module(need: str = "a TensorRT plan", install: str = _INSTALL) -> Any:
    """cuda-python's runtime module under its present or its older name. Raises BackendError where there is none.

    `need` is what needs it, and `install` what brings it.
    """
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise BackendError(f"{need} needs the package cuda-python, which is not installed: {install}")


def compute_capability(module: Any, gpu: int = 0) -> tuple[int, int]:
    """Major and minor, (8, 9) for example. Raises BackendError where there is no GPU or no driver."""
    found = _call(module, "cudaGetDeviceProperties", gpu)
    return int(found.major), int(found.minor)


def gpu_name(gpu: int = 0) -> str:
    """The GPU's name with its compute capability, or `GPU 0` where cuda-python is not there to ask."""
    try:
        module = cuda_module()
        found = _call(module, "cudaGetDeviceProperties", gpu)
    except BackendError:
        return f"GPU {gpu}"
    name = found.name.decode(errors="replace") if isinstance(found.name, bytes) else str(found.name)
    return f"{name} (compute capability {found.major}.{found.minor})"


def cuda_versions() -> tuple[tuple[str, str], ...]:
    """Versions of the CUDA runtime and of the CUDA that the driver supports; empty where they cannot be asked."""
    try:
        module = cuda_module()
        numbers = [_call(module, name) for name in ("cudaRuntimeGetVersion", "cudaDriverGetVersion")]
    except BackendError:
        return ()
    texts = [f"{number // 1000}.{number % 1000 // 10}" for number in numbers]
    return ("CUDA", texts[0]), ("driver's CUDA", texts[1])


def _call(module: Any, name: str, *arguments: Any) -> Any:
    try:
        error, *values = getattr(module, name)(*arguments)
    except RuntimeError as problem:  # older releases raise it where there is no driver
        raise BackendError(f"CUDA: {name} failed ({problem}); check the driver with nvidia-smi") from problem
    if int(error) != 0:
        raise BackendError(f"CUDA: {name} failed ({_describe(module, error)}); check the GPU with nvidia-smi")
    return values[0] if values else None


def _describe(module: Any, error: Any) -> str:
    """Such as `cudaErrorMemoryAllocation: out of memory`."""
    name = getattr(error, "name", str(error))
    try:
        _, text = module.cudaGetErrorString(error)
    except (RuntimeError, ValueError):
        return str(name)
    return f"{name}: {text.decode(errors='replace') if isinstance(text, bytes) else text}"
