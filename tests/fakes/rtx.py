"""A TensorRT for RTX that computes tiny models in NumPy: the fake of TensorRT with the names that RTX has besides.

Its kernel cache remembers which shapes ran, and is of one machine: a block of bytes from another is refused, as the
real one refuses it.
"""

import enum
import importlib.machinery
from typing import Any

from tests.fakes import trt as fake_tensorrt
from tests.fakes.cuda import FakeCuda
from tests.fakes.trt import FakeTensorRT

START = b"vtrt"  # of the real engines


class ComputeCapability(enum.Enum):
    NONE, CURRENT, SM75, SM80, SM86, SM89, SM120, SM121 = 0, -1, 75, 80, 86, 89, 120, 121


class CudaGraphStrategy(enum.Enum):
    DISABLED, WHOLE_GRAPH_CAPTURE = 0, 1


class Kernels(enum.Enum):
    LAZY, EAGER, NONE = 0, 1, 2


class Validity(enum.Enum):
    VALID, SUBOPTIMAL, INVALID = 0, 1, 2


class Diagnostics(enum.IntFlag):
    VERSION_MISMATCH, UNSUPPORTED_CC, OLD_CUDA_DRIVER, OLD_CUDA_RUNTIME = 1, 2, 4, 8
    INSUFFICIENT_GPU_MEMORY, MALFORMED_ENGINE, CUDA_ERROR = 16, 32, 64


class FakeRtx(FakeTensorRT):
    """Stands where `tensorrt_rtx` would. `validity` is what it says of every engine."""

    def __init__(self, cuda: FakeCuda, machine: str = "fake") -> None:
        super().__init__(cuda, "10.0.0")
        self.__name__, self.__version__ = "tensorrt_rtx", "1.7.1.116"
        self.__spec__ = importlib.machinery.ModuleSpec("tensorrt_rtx", None)
        self.machine = machine
        self.validity: tuple[Validity, int] = (Validity.VALID, 0)
        self.caches: list[Cache] = []
        self.configs: list[Config] = []
        self.ComputeCapability = ComputeCapability
        self.CudaGraphStrategy = CudaGraphStrategy
        self.DynamicShapesKernelSpecializationStrategy = Kernels
        self.EngineValidity = Validity
        self.EngineInvalidityDiagnostics = Diagnostics

    def Runtime(self, logger: Any) -> "Runtime":  # type: ignore[override]
        super().Runtime(logger)
        return Runtime(self)


class Runtime:
    def __init__(self, trt: FakeRtx) -> None:
        self._trt = trt

    def get_engine_validity(self, plan: bytes) -> tuple[Validity, int]:
        return self._trt.validity

    def deserialize_cuda_engine(self, plan: bytes) -> "Engine | None":
        assert plan.startswith(START)
        return None if self._trt.failing("deserialize_cuda_engine") else Engine(self._trt, plan.removeprefix(START))


class Cache:
    def __init__(self, trt: FakeRtx) -> None:
        self._trt, self.shapes = trt, set[str]()
        trt.caches.append(self)

    def serialize(self) -> bytes | None:
        if self._trt.failing("serialize"):
            return None
        return "\n".join([self._trt.machine, *sorted(self.shapes)]).encode()

    def deserialize(self, blob: bytes) -> bool:
        machine, *shapes = blob.decode().splitlines()
        if machine != self._trt.machine:
            self._trt.logger.log(fake_tensorrt.Severity.ERROR, "the runtime cache is of another GPU")
            return False
        self.shapes |= set(shapes)
        return True


class Config:
    def __init__(self, trt: FakeRtx) -> None:
        self._trt = trt
        self.cuda_graph_strategy = CudaGraphStrategy.DISABLED
        self.dynamic_shapes_kernel_specialization_strategy = Kernels.LAZY
        self.cache: Cache | None = None
        trt.configs.append(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "cuda_graph_strategy" and "cuda_graph_strategy" in self._trt.fail and hasattr(self, name):
            return
        super().__setattr__(name, value)

    def create_runtime_cache(self) -> Cache | None:
        return None if self._trt.failing("create_runtime_cache") else Cache(self._trt)

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return not self._trt.failing("set_runtime_cache")


class Engine(fake_tensorrt.Engine):
    trt: FakeRtx

    def __init__(self, trt: FakeRtx, plan: bytes) -> None:
        super().__init__(trt, plan)
        self.create_execution_context = self._configured  # type: ignore[assignment]

    def create_runtime_config(self) -> Config | None:
        return None if self.trt.failing("create_runtime_config") else Config(self.trt)

    def _configured(self, config: Config) -> "Context | None":
        assert config.cache is not None, "made without the kernel cache"
        return None if self.trt.failing("create_execution_context") else Context(self, config)


class Context(fake_tensorrt.Context):
    """It has memory of its own. Its kernels are compiled when a shape runs."""

    def __init__(self, engine: Engine, config: Config) -> None:
        super().__init__(engine)
        self.config, self.memory = config, 1

    def _set_device_memory(self, address: int, size: int) -> None:
        raise AssertionError("this context has its own memory")

    def _compute(self) -> None:
        assert self.config.cache is not None
        if self.config.dynamic_shapes_kernel_specialization_strategy is not Kernels.NONE:
            self.config.cache.shapes.add(str(self.shapes[self.engine.kind]))
        super()._compute()


def shapes_of(content: bytes) -> set[str]:
    """The shapes whose kernels a kept file holds."""
    return set(content.decode().splitlines()[1:])
