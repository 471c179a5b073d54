"""TensorRT's builder: an ONNX graph in, a plan out.

Written for TensorRT 8.6, 10 and 11: only names that all three have, others through getattr. What is gone in
later versions: the implicit batch and its flag (11 has no EXPLICIT_BATCH), build_engine (for
build_serialized_network), the flags FP16 and INT8 and the int8 calibrators (11 builds only what the graph's
types say). So 10 and 11 build the typed graph as it is, and 8.6 builds a float32 graph with a flag.
Source: TensorRT's Python API reference, and its migration guide from 10 to 11.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxport.export.errors import ExportError
from voxport.export.targets.trt.builder import EngineBuilder
from voxport.export.targets.trt.settings import Hardware, PlanSettings
from voxport.export.targets.trt.timings import read_timings, update_timings
from voxport.runtime.backends.trt.library import TENSORRT

if TYPE_CHECKING:
    import tensorrt as trt

_WEAK_FLAGS = {"fp32": (), "fp16": ("FP16", "OBEY_PRECISION_CONSTRAINTS"), "int8": ("INT8",)}


class PlanBuilder(EngineBuilder):
    """Builds plans on the GPU that they are for.

    Timings of tactics are read from the file `timings` and written back to it.
    """

    library = TENSORRT

    def __init__(self, settings: PlanSettings, timings: Path | None = None) -> None:
        super().__init__(settings.profiles, settings.workspace_mib)
        self._settings = settings
        self._timings = timings

    def configure(self, config: "trt.IBuilderConfig", network: "trt.INetworkDefinition") -> None:
        """Compatibility, and for TensorRT 8.6 the precision."""
        if self._settings.version_compatible:
            _set_flag(config, "VERSION_COMPATIBLE")
        if self._settings.hardware != "none":
            config.hardware_compatibility_level = _hardware(self._settings.hardware)
        if not builds_typed_graphs():
            _weaken(config, network, self._settings)

    def build_network(
        self, builder: "trt.Builder", network: "trt.INetworkDefinition", config: "trt.IBuilderConfig"
    ) -> Any:
        """The plan, built with the timings of earlier builds."""
        cache = _use_timings(config, self._timings)
        built = super().build_network(builder, network, config)
        if self._timings is not None:
            _save_timings(config, cache, self._timings)
        return built


def builds_typed_graphs() -> bool:
    """Whether this TensorRT takes each layer's precision from the graph: 10 and 11 do, 8.6 does not."""
    TENSORRT.load()
    import tensorrt as trt

    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _hardware(wanted: Hardware) -> Any:
    import tensorrt as trt

    name = {"ampere": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}[wanted]
    level = getattr(trt.HardwareCompatibilityLevel, name, None)
    if level is None:
        raise ExportError(
            f"hardware compatibility {wanted!r}: TensorRT {TENSORRT.version} has no {name}; choose another, "
            'or pip install "tensorrt>=10,<12"'
        )
    return level


def _set_flag(config: "trt.IBuilderConfig", name: str) -> None:
    """Set a builder flag, and see that it is set: a flag that is missing must not pass for one that is off."""
    import tensorrt as trt

    flag = getattr(trt.BuilderFlag, name, None)
    if flag is None:
        raise ExportError(f"TensorRT {TENSORRT.version} has no builder flag {name}; this export needs it")
    config.set_flag(flag)
    if not config.get_flag(flag):
        raise ExportError(f"TensorRT {TENSORRT.version} did not take the builder flag {name}")


def _weaken(config: "trt.IBuilderConfig", network: "trt.INetworkDefinition", settings: PlanSettings) -> None:
    """The precision of TensorRT 8.6, by flags; norms, softmax and sums stay in float32, as in the typed graph."""
    import tensorrt as trt

    for name in _WEAK_FLAGS[settings.precision]:
        _set_flag(config, name)
    if settings.precision != "fp16":
        return
    sensitive = [getattr(trt.LayerType, name) for name in ("NORMALIZATION", "SOFTMAX", "REDUCE")]
    for index in range(network.num_layers):
        layer: Any = network.get_layer(index)
        if layer.type in sensitive and layer.get_output(0).dtype == trt.DataType.FLOAT:
            layer.precision = trt.DataType.FLOAT


def _use_timings(config: "trt.IBuilderConfig", path: Path | None) -> Any:
    """Give the builder what earlier builds have measured. The cache must live as long as the build."""
    if path is None:
        return None
    again = f"the timing cache {path}, which may be damaged or of another GPU or TensorRT: delete it, or name another;"
    cache = TENSORRT.attempt(f"reading {again}", lambda: config.create_timing_cache(read_timings(path)))
    TENSORRT.attempt(f"using {again}", lambda: config.set_timing_cache(cache, False))
    return cache


def _save_timings(config: "trt.IBuilderConfig", cache: Any, path: Path) -> None:
    """Write the timings back, with those that another build has written meanwhile."""

    def merged(newer: bytes) -> bytes:
        if newer:
            other = TENSORRT.attempt(f"reading {path}", lambda: config.create_timing_cache(newer))
            TENSORRT.attempt(f"adding {path} to the timings of this build", lambda: cache.combine(other, False))
        return bytes(memoryview(TENSORRT.attempt("writing out the timings", cache.serialize)))

    update_timings(path, merged)
