"""A TensorRT that computes tiny models in NumPy, as strict about the order of calls as the real one.

A plan is an .npz file with the weights, the input kind and the optimization profiles. Every call that the
real API answers with False or None can be made to fail, with a message to the logger.
"""

import ctypes
import enum
import io
import types
from typing import Any

import numpy as np

from tests.fakes.cuda import FakeCuda
from tests.runtime.tiny_models import SCALE, embedding_of

Shape = tuple[int, ...]


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO = Severity

    def __init__(self) -> None:
        self.ready = True  # the real one crashes where a subclass forgets to call this


class TensorIOMode(enum.Enum):
    INPUT = 1
    OUTPUT = 2


class Strategy(enum.Enum):
    STATIC = 0
    USER_MANAGED = 2


def make_plan(kind: str, project: Any, classes: Any, profiles: list[tuple[Shape, Shape]], **changes: Any) -> bytes:
    """A plan; `changes`: `dtypes` (name → dtype), `extra` (a further output), `on_host` (an input), `host_code`."""
    content = io.BytesIO()
    np.savez(
        content, project=project, classes=classes, kind=np.array(kind), profiles=np.array(profiles),
        changes=np.array(repr(changes)),
    )  # fmt: skip
    return content.getvalue()


class FakeTensorRT(types.ModuleType):
    """Stands where `tensorrt` would."""

    def __init__(self, cuda: FakeCuda, version: str = "10.16.1.11") -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.major = int(version.partition(".")[0])
        self.cuda = cuda
        self.fail: set[str] = set()
        self.calls: list[str] = []
        self.logger: Any = None
        self.ILogger = ILogger
        self.TensorIOMode = TensorIOMode
        if self.major >= 10:
            self.ExecutionContextAllocationStrategy = Strategy

    def Runtime(self, logger: Any) -> "Runtime":
        assert logger.ready
        self.logger = logger
        if self.failing("Runtime"):
            raise TypeError("factory function returned nullptr")
        return Runtime(self)

    def open_engine(self, plan: bytes) -> "Engine":
        return Engine(self, plan)

    def failing(self, name: str) -> bool:
        self.calls.append(name)
        self.logger.log(Severity.WARNING, "nobody needs this")
        if name in self.fail:
            self.logger.log(Severity.ERROR, f"[core] {name}:\n went wrong")
        return name in self.fail


class Runtime:
    def __init__(self, trt: FakeTensorRT) -> None:
        self._trt = trt
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> "Engine | None":
        if self._trt.failing("deserialize_cuda_engine"):
            return None
        engine = self._trt.open_engine(plan)
        if engine.host_code and not self.engine_host_code_allowed:
            self._trt.logger.log(Severity.ERROR, "the plan carries host code, which is not allowed")
            return None
        return engine


class Engine:
    def __init__(self, trt: FakeTensorRT, plan: bytes) -> None:
        found = np.load(io.BytesIO(plan))
        self.trt = trt
        self.project, self.classes, self.kind = found["project"], found["classes"], str(found["kind"])
        self.profiles = [(tuple(low), tuple(high)) for low, high in found["profiles"].tolist()]
        self.changes: dict[str, Any] = eval(str(found["changes"]))  # noqa: S307, our own repr
        tail = self.profiles[0][0][2:]
        size = self.classes.shape
        self.shapes: dict[str, Shape] = {
            self.kind: (-1, -1, *tail), "lengths": (-1,), "scores": (-1, size[1]), "embedding": (-1, size[0])
        }  # fmt: skip
        if "extra" in self.changes:
            self.shapes[self.changes["extra"]] = (-1, 3)
        self.num_io_tensors = len(self.shapes)
        self.num_optimization_profiles = len(self.profiles)
        self.used: set[int] = set()
        if trt.major >= 10:
            self.device_memory_size_v2 = 4096
            self.create_execution_context = self._managed
        else:
            self.device_memory_size = 4096
            self.create_execution_context_without_device_memory = self._new

    @property
    def host_code(self) -> bool:
        return bool(self.changes.get("host_code"))

    def _managed(self, strategy: Strategy) -> "Context | None":
        assert strategy is Strategy.USER_MANAGED
        return self._new()

    def _new(self) -> "Context | None":
        return None if self.trt.failing("create_execution_context") else Context(self)

    def get_tensor_name(self, index: int) -> str:
        return list(self.shapes)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in (self.kind, "lengths") else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        lengths = "INT64" if self.trt.major >= 10 else "INT32"
        dtype = self.changes.get("dtypes", {}).get(name, lengths if name == "lengths" else "FLOAT")
        return types.SimpleNamespace(name=dtype)

    def get_tensor_shape(self, name: str) -> Shape:
        return self.shapes[name]

    def is_shape_inference_io(self, name: str) -> bool:
        return bool(self.changes.get("on_host") == name)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[Shape]:
        assert self.get_tensor_mode(name) is TensorIOMode.INPUT, "outputs have no profile shapes"
        low, high = self.profiles[profile]
        return [low, low, high]


class Context:
    """A plain context: TensorRT 10 and newer take memory through a method, 8.6 through an attribute."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.trt = engine.trt
        self.memory = 0
        self.profile: int | None = None
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}
        self.warm: dict[str, Shape] = {}  # the shapes of the last run that was no recording
        if self.trt.major >= 10:
            self.set_device_memory = self._set_device_memory

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "device_memory":
            assert self.trt.major < 10
            self._set_device_memory(value, 4096)
        else:
            super().__setattr__(name, value)

    def _set_device_memory(self, address: int, size: int) -> None:
        assert size >= 4096
        self.trt.cuda.view(address, size)
        self.memory = address

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        if self.trt.failing("set_optimization_profile_async"):
            return False
        self.trt.cuda.stream(stream)
        if self.trt.major < 10 and profile in self.engine.used:
            self.trt.logger.log(Severity.ERROR, "another context uses this profile")
            return False
        self.engine.used.add(profile)
        self.profile = profile
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return not self.trt.failing("set_tensor_address")

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        if self.trt.failing("set_input_shape"):
            return False
        assert self.profile is not None
        low, high = self.engine.profiles[self.profile]
        fits = all(a <= size <= b for a, size, b in zip(low, shape, high, strict=False))
        self.shapes[name] = shape
        return fits and (name != self.engine.kind or len(shape) == len(low))

    def infer_shapes(self) -> list[str]:
        return [name for name in (self.engine.kind, "lengths") if name not in self.shapes] + (
            ["mood"] if self.trt.failing("infer_shapes") else []
        )

    def get_tensor_shape(self, name: str) -> Shape:
        shape = (self.shapes["lengths"][0], self.engine.shapes[name][1])
        return (*shape, 1) if self.trt.failing("get_tensor_shape") else shape

    def execute_async_v3(self, stream: int) -> bool:
        queue = self.trt.cuda.stream(stream)
        if self.trt.failing("execute_async_v3"):
            return False
        assert set(self.addresses) == set(self.engine.shapes)
        assert self.memory
        shapes = dict(self.shapes)
        if queue.recording is None:
            self.warm = shapes
        else:
            assert self.warm == shapes, "the first run of a shape must not be recorded"

        def compute() -> None:
            assert self.shapes == shapes, "a graph is run after its context took another shape"
            self._compute()

        queue.put(compute)
        return True

    def _compute(self) -> None:
        values = self._at(self.engine.kind, "<f4", self.shapes[self.engine.kind])
        kind = "<i8" if self.trt.major >= 10 else "<i4"
        lengths = self._at("lengths", kind, self.shapes["lengths"])
        assert lengths.min() > 0
        scores = self._at("scores", "<f4", (len(lengths), self.engine.classes.shape[1]))
        embedding = self._at("embedding", "<f4", (len(lengths), self.engine.classes.shape[0]))
        for row, (one, length) in enumerate(zip(values, lengths, strict=True)):
            assert length <= len(one)
            assert not one[length:].any(), "padding must be zero"
            with np.errstate(invalid="ignore"):  # a row of padding is all zero, and nobody reads its answer
                embedding[row] = embedding_of(one[:length], self.engine.project)
            scores[row] = SCALE * embedding[row] @ self.engine.classes

    def _at(self, name: str, dtype: str, shape: Shape) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self.trt.cuda.view(self.addresses[name], size)
        memory: Any = (ctypes.c_byte * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
