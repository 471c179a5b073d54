"""A CUDA runtime in host memory, as cuda-python would offer it. It is as lazy and as strict as the real one.

What is queued on a stream runs when the stream is waited for, so that an answer read too early is seen to be
old. What is queued during a capture is recorded and does not run. Every call is recorded and can be made to fail.
"""

import contextlib
import ctypes
import enum
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from voxport.runtime.backends import cuda as cuda_memory
from voxport.runtime.backends.trt import library

Work = Callable[[], object]


class Error(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorStreamCaptureInvalidated = 901


class CopyKind(enum.Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class CaptureMode(enum.Enum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


class Stream:
    def __init__(self) -> None:
        self.queue: list[Work] = []
        self.recording: list[Work] | None = None

    def __int__(self) -> int:
        return id(self)

    def put(self, work: Work) -> None:
        (self.queue if self.recording is None else self.recording).append(work)


class Graph:
    """Recorded work."""

    def __init__(self, work: list[Work]) -> None:
        self.work = work


class Properties:
    name = b"Fake GPU"

    def __init__(self, capability: tuple[int, int]) -> None:
        self.major, self.minor = capability


class FakeCuda:
    """Stands where `cuda.bindings.runtime` would."""

    cudaError_t = Error
    cudaMemcpyKind = CopyKind
    cudaStreamCaptureMode = CaptureMode
    cudaStreamNonBlocking = 1
    cudaHostAllocDefault = 0

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fail: dict[str, int] = {}  # name → the how-manieth call fails, from 1
        self.device: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: list[Graph] = []  # neither destroyed nor instantiated
        self.ready: list[Graph] = []  # instantiated
        self.largest = 0  # bytes on the device at once
        self.capability = (9, 0)

    @property
    def clean(self) -> bool:
        """Whether everything was given back."""
        return not (self.device or self.pinned or self.streams or self.graphs or self.ready)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        function = getattr(type(self), f"_{name}")

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if self.fail.get(name) == self.calls.count(name):
                if name == "cudaStreamEndCapture":  # it ends the recording in any case
                    arguments[0].recording = None
                return Error.cudaErrorMemoryAllocation, None
            result = function(self, *arguments)
            return (Error.cudaSuccess,) if result is None else (Error.cudaSuccess, result)

        return call

    def cudaGetErrorString(self, error: Error) -> tuple[Error, bytes]:
        return Error.cudaSuccess, b"out of memory" if error == Error.cudaErrorMemoryAllocation else b"something else"

    def stream(self, handle: Any) -> Stream:
        return self.streams[int(handle)]

    def view(self, address: int, size: int) -> Any:
        """`size` bytes of device memory, which must lie in one allocation."""
        for start, memory in self.device.items():
            if start <= address and address + size <= start + len(memory):
                return memory
        raise AssertionError(f"{size} bytes at {address:#x} are not allocated")

    def _cudaSetDevice(self, gpu: int) -> None:
        assert gpu >= 0

    def _cudaGetDeviceProperties(self, gpu: int) -> Properties:
        return Properties(self.capability)

    def _cudaRuntimeGetVersion(self) -> int:
        return 12090

    def _cudaDriverGetVersion(self) -> int:
        return 13010

    def _cudaMalloc(self, size: int) -> int:
        return self._new(self.device, size)

    def _cudaHostAlloc(self, size: int, flags: int) -> int:
        return self._new(self.pinned, size)

    def _new(self, where: dict[int, Any], size: int) -> int:
        assert size > 0
        memory = (ctypes.c_byte * size)(*([0x7F] * min(size, 64)))  # new memory is not zero
        where[ctypes.addressof(memory)] = memory
        self.largest = max(self.largest, sum(map(len, self.device.values())))
        return ctypes.addressof(memory)

    def _cudaFree(self, address: int) -> None:
        del self.device[address]

    def _cudaFreeHost(self, address: int) -> None:
        del self.pinned[address]

    def _cudaStreamCreateWithFlags(self, flags: int) -> Stream:
        assert flags == self.cudaStreamNonBlocking
        stream = Stream()
        self.streams[int(stream)] = stream
        return stream

    def _cudaStreamDestroy(self, stream: Stream) -> None:
        del self.streams[int(stream)]

    def _cudaStreamSynchronize(self, stream: Stream) -> None:
        assert stream.recording is None, "waiting is forbidden while a stream is captured"
        work, stream.queue = stream.queue, []
        for step in work:
            step()

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: CopyKind, stream: Stream) -> None:
        device = target if kind is CopyKind.cudaMemcpyHostToDevice else source
        self.view(device, size)
        stream.put(lambda: ctypes.memmove(target, source, size))

    def _cudaStreamBeginCapture(self, stream: Stream, mode: CaptureMode) -> None:
        assert mode is CaptureMode.cudaStreamCaptureModeThreadLocal
        assert stream.recording is None
        stream.recording = []

    def _cudaStreamEndCapture(self, stream: Stream) -> Graph:
        assert stream.recording is not None
        graph, stream.recording = Graph(stream.recording), None
        self.graphs.append(graph)
        return graph

    def _cudaGraphInstantiate(self, graph: Graph, flags: int) -> Graph:
        ready = Graph(graph.work)
        self.ready.append(ready)
        return ready

    def _cudaGraphDestroy(self, graph: Graph) -> None:
        self.graphs.remove(graph)

    def _cudaGraphExecDestroy(self, graph: Graph) -> None:
        self.ready.remove(graph)

    def _cudaGraphLaunch(self, graph: Graph, stream: Stream) -> None:
        assert graph in self.ready
        stream.queue.extend(graph.work)


def forget_libraries() -> None:
    """Drop what the runtime remembers of TensorRT, of TensorRT for RTX and of CUDA."""
    for cached in (cuda_memory.cuda_module, library.error_log):
        cached.cache_clear()


@contextlib.contextmanager
def installed(patch: pytest.MonkeyPatch, module: types.ModuleType, cuda: FakeCuda) -> Iterator[None]:
    """The fake library `module` and its CUDA in place of the real ones."""
    patch.setitem(sys.modules, module.__name__, module)
    patch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    forget_libraries()
    yield
    forget_libraries()
