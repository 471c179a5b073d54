"""TensorRT's builder: an ONNX graph in, a plan out.

Written for TensorRT 8.6, 10 and 11: only names that all three have, others through getattr. What is gone in
later versions: the implicit batch and its flag (11 has no EXPLICIT_BATCH), build_engine (for
build_serialized_network), the flags FP16 and INT8 and the int8 calibrators (11 builds only what the graph's
types say). So 10 and 11 build the typed graph as it is, and 8.6 builds a float32 graph with a flag.
Source: TensorRT's Python API reference, and its migration guide from 10 to 11.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxport.export.errors import ExportError
from voxport.export.staging import write_atomic
from voxport.export.targets.trt.settings import Hardware, PlanSettings
from voxport.runtime.backends.trt.engine import attempt, error_log, import_tensorrt, tensorrt_version
from voxport.runtime.errors import GalleryError
from voxport.runtime.storage.lock import locked

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20
_SHOWN_ERRORS = 5
_WEAK_FLAGS = {"fp32": (), "fp16": ("FP16", "OBEY_PRECISION_CONSTRAINTS"), "int8": ("INT8",)}


def builds_typed_graphs() -> bool:
    """Whether this TensorRT takes each layer's precision from the graph: 10 and 11 do, 8.6 does not."""
    import_tensorrt()
    import tensorrt as trt

    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def build_plan(graph: bytes, settings: PlanSettings, timings: Path | None = None, monitor: Any = None) -> bytes:
    """Build a plan of an ONNX graph. `monitor` is TensorRT's IProgressMonitor, for 10 and newer.

    Timings of tactics are read from the file `timings` and written back to it.

    Raises:
        ExportError: TensorRT cannot parse the graph, or the settings are none that it has.
        BackendError: TensorRT is missing, or refuses anything, in its own words.
    """
    import_tensorrt()
    import tensorrt as trt

    error_log().take()
    builder: trt.Builder = attempt("starting its builder", lambda: trt.Builder(error_log()))
    network: trt.INetworkDefinition = attempt("making a network", lambda: builder.create_network(_network_flags()))
    _parse(network, graph)
    config: trt.IBuilderConfig = attempt("making a configuration", builder.create_builder_config)
    _configure(config, settings)
    if not builds_typed_graphs():
        _weaken(config, network, settings)
    for profile in settings.profiles:
        _add_profile(builder, config, profile.shapes())
    loose: Any = config
    if monitor is not None and hasattr(config, "progress_monitor"):
        loose.progress_monitor = monitor
    cache = _use_timings(config, timings)
    built = attempt("building the engine", lambda: builder.build_serialized_network(network, config))
    if timings is not None:
        _save_timings(config, cache, timings)
    return bytes(memoryview(built))


def _network_flags() -> int:
    """Typed where there is such a flag, whose bit is another one in 10 than in 11; else with a batch dimension."""
    import tensorrt as trt

    flags = trt.NetworkDefinitionCreationFlag
    flag = getattr(flags, "STRONGLY_TYPED", getattr(flags, "EXPLICIT_BATCH", None))
    return 0 if flag is None else 1 << int(flag)


def _parse(network: "trt.INetworkDefinition", graph: bytes) -> None:
    import tensorrt as trt

    parser: trt.OnnxParser = attempt("starting its ONNX parser", lambda: trt.OnnxParser(network, error_log()))
    if parser.parse(graph):
        return
    errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
    more = f"; and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    told = "; ".join(errors[:_SHOWN_ERRORS]) + more
    raise ExportError(f"TensorRT cannot read the graph: {told or error_log().take() or 'it does not say why'}")


def _describe(error: Any) -> str:
    """What the parser says of one error, and where: 8.6 knows the node's number, later ones its name."""
    name = error.node_name() if hasattr(error, "node_name") else ""
    kind = error.node_operator() if hasattr(error, "node_operator") else ""
    node = f"node {error.node()}" + (f" {name}" if name else "") + (f" ({kind})" if kind else "")
    return f"{error.desc()} [{node}, {error.file()}:{error.line()}]"


def _configure(config: "trt.IBuilderConfig", settings: PlanSettings) -> None:
    """What all versions have in common."""
    import tensorrt as trt

    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector tells names alone
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 stays float32
    if settings.version_compatible:
        _set_flag(config, "VERSION_COMPATIBLE")
    if settings.hardware != "none":
        config.hardware_compatibility_level = _hardware(settings.hardware)
    if settings.workspace_mib is not None:
        wanted = settings.workspace_mib * _MIB
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, wanted)
        found = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
        if found != wanted:
            raise ExportError(f"TensorRT: a workspace of {wanted} bytes was asked for, it takes {found}")


def _hardware(wanted: Hardware) -> Any:
    import tensorrt as trt

    name = {"ampere": "AMPERE_PLUS", "same-capability": "SAME_COMPUTE_CAPABILITY"}[wanted]
    level = getattr(trt.HardwareCompatibilityLevel, name, None)
    if level is None:
        raise ExportError(
            f"hardware compatibility {wanted!r}: TensorRT {tensorrt_version()} has no {name}; choose another, "
            'or pip install "tensorrt>=10,<12"'
        )
    return level


def _set_flag(config: "trt.IBuilderConfig", name: str) -> None:
    """Set a builder flag, and see that it is set: a flag that is missing must not pass for one that is off."""
    import tensorrt as trt

    flag = getattr(trt.BuilderFlag, name, None)
    if flag is None:
        raise ExportError(f"TensorRT {tensorrt_version()} has no builder flag {name}; this export needs it")
    config.set_flag(flag)
    if not config.get_flag(flag):
        raise ExportError(f"TensorRT {tensorrt_version()} did not take the builder flag {name}")


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


def _add_profile(builder: "trt.Builder", config: "trt.IBuilderConfig", shapes: dict[str, Any]) -> None:
    profile: trt.IOptimizationProfile = attempt("making a profile", builder.create_optimization_profile)
    for name, (low, best, high) in shapes.items():
        what = f"a profile of {name} from {low} to {high}, tuned for {best},"
        attempt(what, partial(_set_shape, profile, name, low, best, high))
    if not profile or config.add_optimization_profile(profile) < 0:
        raise ExportError(
            f"TensorRT: the profile {shapes} is impossible ({error_log().take() or 'TensorRT does not say why'}); "
            "change --batch, --buckets or the lengths"
        )


def _set_shape(profile: "trt.IOptimizationProfile", name: str, low: Any, best: Any, high: Any) -> bool:
    profile.set_shape(name, low, best, high)  # it answers nothing, and raises where the shapes disagree
    return True


def _use_timings(config: "trt.IBuilderConfig", path: Path | None) -> Any:
    """Give the builder what earlier builds have measured. The cache must live as long as the build."""
    if path is None:
        return None
    again = f"the timing cache {path}, which may be damaged or of another GPU or TensorRT: delete it, or name another;"
    cache = attempt(f"reading {again}", lambda: config.create_timing_cache(read_timings(path)))
    attempt(f"using {again}", lambda: config.set_timing_cache(cache, False))
    return cache


def _save_timings(config: "trt.IBuilderConfig", cache: Any, path: Path) -> None:
    """Write the timings back, with those that another build has written meanwhile."""

    def merged(newer: bytes) -> bytes:
        if newer:
            other = attempt(f"reading {path}", lambda: config.create_timing_cache(newer))
            attempt(f"adding {path} to the timings of this build", lambda: cache.combine(other, False))
        return bytes(memoryview(attempt("writing out the timings", cache.serialize)))

    update_timings(path, merged)


_WAIT_S = 30.0


def read_timings(path: Path) -> bytes:
    """The file's bytes; none where there is no file yet.

    Raises:
        ExportError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as problem:
        raise ExportError(
            f"{path}: the timing cache cannot be read ({problem.strerror or problem}); name another file"
        ) from problem


def update_timings(path: Path, merge: Callable[[bytes], bytes]) -> None:
    """Replace the file by `merge(its bytes)`; builds that run at once do so one after the other.

    Raises:
        ExportError: it cannot be locked or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, _WAIT_S):
            write_atomic(path, merge(read_timings(path)))
    except (OSError, GalleryError) as problem:
        raise ExportError(f"{path}: the timing cache cannot be written ({problem}); name another file") from problem
