"""TensorRT for RTX's builder: an ONNX graph in, an engine for RTX GPUs out, on a machine without one.

What it lacks of TensorRT's: nothing is timed, so there is no timing cache to keep; hardware compatibility is a warning
and else ignored; version compatibility wants a library that is not in the package. Source: the docstrings of
tensorrt_rtx 1.7, and what it said when each was tried.
"""

from typing import TYPE_CHECKING, Any

import onnx

from voxport.export.errors import ExportError
from voxport.export.targets.rtx.advice import foreign_operators, gpu_lacks, refused_nodes
from voxport.export.targets.rtx.network import describe, error_facts
from voxport.export.targets.trt.builder import EngineBuilder
from voxport.export.targets.trt.profiles import ShapeProfile
from voxport.runtime.backends.rtx.library import PORTABLE, RTX, capability_names
from voxport.runtime.errors import BackendError

if TYPE_CHECKING:
    import tensorrt as trt


class RtxBuilder(EngineBuilder):
    """Builds engines for the compute capabilities `capabilities`, "8.9" and the like; for none, for 8.0 and newer.

    Raises:
        ExportError: a compute capability that the library does not build for, or twice the same.
        BackendError: the library is missing or does not load.
    """

    library = RTX

    def __init__(
        self, profiles: tuple[ShapeProfile, ...], capabilities: tuple[str, ...] = (), workspace_mib: int | None = None
    ) -> None:
        super().__init__(profiles, workspace_mib)
        check_capabilities(capabilities)
        self._capabilities = capabilities
        self._graph = b""
        self.network: dict[str, Any] = {}  # what the parser made of the last graph; see `network.describe`

    @property
    def built_for(self) -> str:
        """The GPUs, in words that `backends.rtx.library.fits` reads."""
        return ", ".join(self._capabilities) or PORTABLE

    def build(self, graph: bytes, monitor: Any = None) -> bytes:
        """As `EngineBuilder.build`."""
        self._graph = graph
        return super().build(graph, monitor)

    def describe_error(self, error: Any) -> str:
        """What the parser says of one error, and a way out."""
        foreign = foreign_operators(onnx.load_from_string(self._graph))
        (refused,) = refused_nodes([error_facts(error)], foreign)
        return refused.text

    def configure(self, config: "trt.IBuilderConfig", network: "trt.INetworkDefinition") -> None:
        """For which GPUs is built."""
        self.network = describe(network)
        target(config, self._capabilities)

    def build_network(
        self, builder: "trt.Builder", network: "trt.INetworkDefinition", config: "trt.IBuilderConfig"
    ) -> Any:
        """The engine. The library knows only here which products a GPU has none for."""
        try:
            return super().build_network(builder, network, config)
        except BackendError as problem:
            told = gpu_lacks(str(problem), capability_names(), True)
            if told is None:
                raise
            raise BackendError(f"{told}; or leave out --compute-capability") from problem


def check_capabilities(capabilities: tuple[str, ...]) -> None:
    """Raise ExportError for a compute capability that is not built for, or that is given twice."""
    names = capability_names()
    for each in capabilities:
        if each not in names:
            raise ExportError(
                f"compute capability {each}: this TensorRT for RTX builds for {', '.join(names)}; choose among them"
            )
    if len(set(capabilities)) < len(capabilities):  # the library would put the same code into the engine twice
        raise ExportError(f"compute capabilities {', '.join(capabilities)}: one is given twice")


def target(config: Any, capabilities: tuple[str, ...]) -> None:
    """Have `config` build for `capabilities`; for none of them it stays as it is, which is 8.0 and newer."""
    names, members = capability_names(), RTX.load().ComputeCapability.__members__
    if not capabilities:
        return
    config.num_compute_capabilities = len(capabilities)
    for index, each in enumerate(capabilities):
        if not config.set_compute_capability(members[names[each]], index):
            raise ExportError(f"TensorRT for RTX does not take compute capability {each}")
