"""An RTX engine: what TensorRT for RTX does otherwise than TensorRT.

A context is made from a run-time configuration, which says whether the library records CUDA graphs by itself, when it
compiles kernels for the shapes that come, and where compiled kernels are taken from. Contexts have their own
activation memory: whether graphs may be recorded over memory of ours is said nowhere. Source: the docstrings of
tensorrt_rtx 1.7, and the pages on RTX CUDA graphs, dynamic shapes and the runtime cache of its documentation.
"""

from typing import TYPE_CHECKING, Any, cast

from voxport.runtime.backends.options import Specialization
from voxport.runtime.backends.rtx.library import RTX
from voxport.runtime.backends.trt.engine import Engine
from voxport.runtime.errors import BackendError

if TYPE_CHECKING:
    import tensorrt_rtx as trt

_INVALID = {
    "VERSION_MISMATCH": "it was built by another version of TensorRT for RTX",
    "UNSUPPORTED_CC": "it was not built for this GPU's compute capability",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is too old for it",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old for it",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory",
    "MALFORMED_ENGINE": "the file is no RTX engine, or damaged",
    "CUDA_ERROR": "CUDA or its driver is not installed as it should be",
}


class RtxEngine(Engine):
    """A deserialized RTX engine, and the kernels that were compiled for it."""

    library = RTX

    def __init__(
        self, plan: bytes, where: str, *, graphs: bool, specialization: Specialization, kernels: bytes
    ) -> None:
        """Deserialize `plan`. `kernels` are those of an earlier start, b"" where there are none.

        Raises BackendError where the library is missing, or refuses the engine or a setting.
        """
        self.suboptimal = False
        super().__init__(plan, where)
        self._graphs, self._specialization = graphs, specialization
        self._configs: list[Any] = []  # must outlive their contexts
        self._cache: Any = self.library.attempt("making a kernel cache", self._config().create_runtime_cache)
        self.kernels_fit = bool(self._cache.deserialize(kernels)) if kernels else None
        self.library.log.take()  # why kernels do not fit is no error

    def activation_bytes(self) -> int:
        """None of ours: each context has its own."""
        return 0

    def kernels(self) -> bytes:
        """All that was compiled until now, for `kernels` of the next start."""
        return bytes(memoryview(self.library.attempt("giving out compiled kernels", self._cache.serialize)))

    def _judge(self, plan: bytes, where: str) -> None:
        """Ask the library whether `plan` would run here. It gives bits for why not, and none where it has no driver."""
        if TYPE_CHECKING:
            import tensorrt_rtx as trt
        else:
            trt = self.library.load()
        runtime = cast("trt.Runtime", self._runtime)
        validity, bits = runtime.get_engine_validity(plan)
        self.suboptimal = validity == trt.EngineValidity.SUBOPTIMAL
        reasons = [
            _INVALID.get(name, name)
            for name, bit in trt.EngineInvalidityDiagnostics.__members__.items()
            if int(bits) & int(bit)
        ]
        if validity == trt.EngineValidity.INVALID and reasons:
            raise BackendError(
                f"{where}: TensorRT for RTX {self.library.version} cannot run it: {'; '.join(reasons)}. Build it "
                "again with this version: voxport export tensorrt --for rtx"
            )

    def _config(self) -> "trt.IRuntimeConfig":
        if TYPE_CHECKING:
            import tensorrt_rtx as trt
        else:
            trt = self.library.load()
        engine = cast("trt.ICudaEngine", self._engine)
        config: trt.IRuntimeConfig = self.library.attempt(
            "making a run-time configuration", engine.create_runtime_config
        )
        graphs, kernels = trt.CudaGraphStrategy, trt.DynamicShapesKernelSpecializationStrategy
        wanted = graphs.WHOLE_GRAPH_CAPTURE if self._graphs else graphs.DISABLED
        config.cuda_graph_strategy = wanted
        if config.cuda_graph_strategy != wanted:
            raise BackendError(f"TensorRT for RTX: CUDA graphs were set to {wanted.name} and are not; try graphs=0")
        config.dynamic_shapes_kernel_specialization_strategy = kernels.__members__[self._specialization.upper()]
        return config

    def _new_context(self) -> Any:
        config = self._config()
        self.library.attempt("using the kernel cache", lambda: config.set_runtime_cache(self._cache))
        self._configs.append(config)
        return cast("trt.ICudaEngine", self._engine).create_execution_context(config)

    def _place_activations(self, context: Any, memory: int, size: int) -> None:
        """The context has its own."""
