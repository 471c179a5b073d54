"""From an ONNX graph to an engine: the steps that TensorRT and TensorRT for RTX have in common.

A subclass names its library and says what is its own: how precision is asked for, for which GPUs is built, what is
kept between builds. Source: the Python API references of TensorRT 8.6, 10 and 11, and the docstrings of tensorrt_rtx.
"""

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from voxport.export.errors import ExportError
from voxport.export.targets.trt.profiles import ShapeProfile
from voxport.runtime.backends.trt.library import Library

if TYPE_CHECKING:
    import tensorrt as trt

_MIB = 1 << 20
_SHOWN_ERRORS = 5


class EngineBuilder(ABC):
    """Builds engines of ONNX graphs with the optimization profiles `profiles`; one subclass a library."""

    library: ClassVar[Library]

    def __init__(self, profiles: tuple[ShapeProfile, ...], workspace_mib: int | None = None) -> None:
        self._profiles = profiles
        self._workspace_mib = workspace_mib

    def build(self, graph: bytes, monitor: Any = None) -> bytes:
        """The engine's bytes. `monitor` is an IProgressMonitor, where the library has such.

        Raises:
            ExportError: the library cannot parse the graph, or the settings are none that it has.
            BackendError: the library is missing, or refuses anything, in its own words.
        """
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self.library.load()
        library = self.library
        library.log.take()
        builder: trt.Builder = library.attempt("starting its builder", lambda: trt.Builder(library.log))
        network: trt.INetworkDefinition = library.attempt(
            "making a network", lambda: builder.create_network(self._network_flags())
        )
        self._parse(network, graph)
        config: trt.IBuilderConfig = library.attempt("making a configuration", builder.create_builder_config)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector tells names alone
        config.clear_flag(trt.BuilderFlag.TF32)  # float32 stays float32
        self._limit_workspace(config)
        self.configure(config, network)
        for profile in self._profiles:
            self._add_profile(builder, config, profile.shapes())
        loose: Any = config
        if monitor is not None and hasattr(config, "progress_monitor"):
            loose.progress_monitor = monitor
        return bytes(memoryview(self.build_network(builder, network, config)))

    @abstractmethod
    def configure(self, config: "trt.IBuilderConfig", network: "trt.INetworkDefinition") -> None:
        """What is the library's own. Raises ExportError for settings that it does not have."""

    def build_network(
        self, builder: "trt.Builder", network: "trt.INetworkDefinition", config: "trt.IBuilderConfig"
    ) -> Any:
        """The engine as the library hands it out."""
        return self.library.attempt("building the engine", lambda: builder.build_serialized_network(network, config))

    def _network_flags(self) -> int:
        """Typed where there is such a flag, whose bit is another one in 10 than in 11; else with a batch dimension."""
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self.library.load()
        flags = trt.NetworkDefinitionCreationFlag
        flag = getattr(flags, "STRONGLY_TYPED", getattr(flags, "EXPLICIT_BATCH", None))
        return 0 if flag is None else 1 << int(flag)

    def _parse(self, network: "trt.INetworkDefinition", graph: bytes) -> None:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self.library.load()
        library = self.library
        parser: trt.OnnxParser = library.attempt(
            "starting its ONNX parser", lambda: trt.OnnxParser(network, library.log)
        )
        if parser.parse(graph):
            return
        errors = [self.describe_error(parser.get_error(index)) for index in range(parser.num_errors)]
        more = f"; and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
        told = "; ".join(errors[:_SHOWN_ERRORS]) + more
        raise ExportError(
            f"{library.name} cannot read the graph: {told or library.log.take() or 'it does not say why'}"
        )

    def describe_error(self, error: Any) -> str:
        """What the parser says of one error, and where: 8.6 knows the node's number, later ones its name."""
        name = error.node_name() if hasattr(error, "node_name") else ""
        kind = error.node_operator() if hasattr(error, "node_operator") else ""
        node = f"node {error.node()}" + (f" {name}" if name else "") + (f" ({kind})" if kind else "")
        return f"{error.desc()} [{node}, {error.file()}:{error.line()}]"

    def _limit_workspace(self, config: "trt.IBuilderConfig") -> None:
        if TYPE_CHECKING:
            import tensorrt as trt
        else:
            trt = self.library.load()
        if self._workspace_mib is None:
            return
        wanted = self._workspace_mib * _MIB
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, wanted)
        found = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
        if found != wanted:
            raise ExportError(f"{self.library.name}: a workspace of {wanted} bytes was asked for, it takes {found}")

    def _add_profile(self, builder: "trt.Builder", config: "trt.IBuilderConfig", shapes: dict[str, Any]) -> None:
        profile: trt.IOptimizationProfile = self.library.attempt(
            "making a profile", builder.create_optimization_profile
        )
        for name, (low, best, high) in shapes.items():
            what = f"a profile of {name} from {low} to {high}, tuned for {best},"
            self.library.attempt(what, partial(_set_shape, profile, name, low, best, high))
        if not profile or config.add_optimization_profile(profile) < 0:
            why = self.library.log.take() or "it does not say why"
            raise ExportError(
                f"{self.library.name}: the profile {shapes} is impossible ({why}); change --batch, --buckets "
                "or the lengths"
            )


def _set_shape(profile: "trt.IOptimizationProfile", name: str, low: Any, best: Any, high: Any) -> bool:
    profile.set_shape(name, low, best, high)  # it answers nothing, and raises where the shapes disagree
    return True
