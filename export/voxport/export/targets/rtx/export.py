"""From a checkpoint to an RTX engine: typed graph, profiles, build without a GPU, and the proofs that can be had here.

An engine cannot be run where it is built without a GPU. Then the parity gate runs on its ONNX graph, in ONNX Runtime,
and the file says that the engine itself has not passed it; loading replays the golden vector in any case.
"""

import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import write_onnx
from voxport.export.pipeline import Target, begin, prove_and_name
from voxport.export.staging import refuse_existing, refuse_output
from voxport.export.targets.rtx.builder import RtxBuilder
from voxport.export.targets.rtx.products import products_of
from voxport.export.targets.rtx.report import Product
from voxport.export.targets.trt.profiles import ShapeProfile
from voxport.export.targets.trt.progress import build_monitor
from voxport.export.targets.trt.source import EngineOptions, EngineSource, engine_source
from voxport.export.verification.report import ParityReport
from voxport.runtime.backends.base import Backend
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.rtx.library import RTX, need_library
from voxport.runtime.backends.rtx.model import BUILT_FOR, RtxModel, RtxOptions, check_gpu
from voxport.runtime.backends.trt.file import Proof, read_plan, read_sidecar, write_sidecar
from voxport.runtime.contract import METADATA_KEY, Contract, Precision, TensorSpec
from voxport.runtime.errors import BackendError

SUFFIX = ".rtx"
_MOSTLY = 0.5


@dataclass(frozen=True, kw_only=True)
class RtxExportOptions(EngineOptions):
    """How to export to TensorRT for RTX: what `EngineOptions` say, and for which GPUs.

    `capabilities` are compute capabilities, such as "8.9"; none stands for 8.0 and newer.
    """

    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class RtxExport:
    """A finished export. `proof` says what passed the parity gate, `why` why it was not the engine.

    `products` are the network's matrix products and convolutions, with the types that they read.
    """

    parity: ParityReport
    proof: Proof
    why: str
    products: tuple[Product, ...]
    profiles: tuple[ShapeProfile, ...]
    precision: Precision
    built_for: str
    version: str
    engine_bytes: int

    def counts(self) -> dict[str, int]:
        """How many products compute in which type."""
        return _counts(self.products)

    def facts(self) -> dict[str, object]:
        """What the parity report does not hold, as plain values."""
        return {
            "precision": self.precision,
            "products": self.counts(),
            "profiles": [profile.shapes() for profile in self.profiles],
            "built_for": self.built_for,
            "tensorrt_rtx": self.version,
            "engine_bytes": self.engine_bytes,
            "parity_passed_by": self.proof,
            "why_not_the_engine": self.why,
        }


@dataclass(frozen=True)
class RtxDryRun:
    """What would be built."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    graph_bytes: int
    nodes: int
    precision: Precision
    profiles: tuple[ShapeProfile, ...]
    workspace_mib: int | None
    built_for: str
    version: str


def export_rtx(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: RtxExportOptions | None = None
) -> RtxExport:
    """Build a checkpoint's RTX engine, which needs no GPU, and prove its answers as far as they can be had here.

    On a machine with a GPU that the engine is for, the parity gate runs on the engine; elsewhere on its ONNX graph.
    Contract, profiles and what was proven go into `<engine>.json`; the parity report is written as NAME.parity.json,
    .md and .png, also where the gate fails.

    Raises:
        ParityError: the answers are not the eager network's; nothing is left under `output`.
        ExportError: the checkpoint or the options cannot be exported, TensorRT for RTX cannot take the graph, the
            network is not in the precision that was asked for, or `output` exists or cannot be written.
        BackendError: TensorRT for RTX is missing, or refuses anything.
        CheckpointError: the checkpoint cannot be read.
    """
    chosen, output = options or RtxExportOptions(), Path(output)
    need_library()
    _check_name(output)
    RtxBuilder((), chosen.capabilities)  # what cannot be built for is told before the checkpoint is read
    begin(checkpoint_path, output, chosen)
    source = engine_source(checkpoint_path, chosen)
    builder = RtxBuilder(source.profiles, chosen.capabilities, chosen.workspace_mib)
    engine = _build(builder, source)
    gate = source.options
    products = products_of(builder.network["products"], None)
    _check_precision(products, gate.precision)
    proof, why = _where_to_prove(builder.built_for)
    facts = {RTX.module: RTX.version, BUILT_FOR: builder.built_for}
    more: dict[str, object] = {
        "profiles": [profile.shapes() for profile in source.profiles],
        "precision": gate.precision,
        "workspace_mib": gate.workspace_mib,
        "products": _counts(products),
    }
    with tempfile.TemporaryDirectory(prefix="voxport-rtx-") as folder:
        target = _target(engine, source, proof, Path(folder), facts, more)
        report = prove_and_name(source.named, output, target, gate.input_kind, gate.precision, gate)
    return RtxExport(
        report, proof, why, products, source.profiles, gate.precision, builder.built_for, RTX.version, len(engine)
    )


def _build(builder: RtxBuilder, source: EngineSource[RtxExportOptions]) -> bytes:
    """The engine; of a given file, its refusal names it."""
    given = source.options.onnx
    try:
        with build_monitor(RTX, source.options.progress) as monitor:
            return builder.build(source.graph, monitor)
    except (ExportError, BackendError) as problem:
        if given is None:
            raise
        raise type(problem)(f"{given}: {problem}") from problem


def preview_rtx(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: RtxExportOptions | None = None
) -> RtxDryRun:
    """What `export_rtx` would build, without building it. Raises as it does."""
    chosen, output = options or RtxExportOptions(), Path(output)
    need_library()
    _check_name(output)
    refuse_output(output)
    refuse_existing(output, chosen.force)
    builder = RtxBuilder((), chosen.capabilities)
    source = engine_source(checkpoint_path, chosen)
    size, nodes = len(source.graph), len(source.model.graph.node)
    gate = source.options
    return RtxDryRun(
        *source.tensors(),
        size,
        nodes,
        gate.precision,
        source.profiles,
        gate.workspace_mib,
        builder.built_for,
        RTX.version,
    )


def _check_name(output: Path) -> None:
    if output.suffix.lower() != SUFFIX:
        raise ExportError(f"{output}: an RTX engine is told by its suffix; name it {output.with_suffix(SUFFIX)}")


def _check_precision(products: tuple[Product, ...], precision: Precision) -> None:
    """Raise ExportError where the parser made another precision of the graph than was asked for.

    The network is strongly typed, so the engine computes in the types that the network has.
    """
    counts = _counts(products)
    told = ", ".join(f"{count} in {name}" for name, count in counts.items()) or "none"
    if precision == "fp16" and counts.get("half", 0) < _MOSTLY * len(products):
        raise ExportError(
            f"half precision was asked for, and of the network's products are {told}; nothing was written"
        )
    if precision == "int8" and not counts.get("int8"):
        raise ExportError(f"int8 was asked for, and of the network's products are {told}; nothing was written")


def _counts(products: tuple[Product, ...]) -> dict[str, int]:
    return dict(Counter(each.computes_in for each in products))


def _where_to_prove(built_for: str) -> tuple[Proof, str]:
    """Whether the engine runs here, and why it does not."""
    try:
        check_gpu(built_for)
    except BackendError as problem:
        return "source", str(problem)
    return "engine", ""


def _target(
    engine: bytes,
    source: EngineSource[RtxExportOptions],
    proof: Proof,
    folder: Path,
    facts: dict[str, str],
    more: dict[str, object],
) -> Target:
    """`folder` takes the ONNX model that is asked in the engine's place."""
    own = RtxOptions(cache=folder)  # kernels of an engine that has no name yet are not kept

    def write(path: Path, contract: Contract) -> None:
        path.write_bytes(engine)
        write_sidecar(path, contract, facts, more, proof)

    def load(path: Path) -> Backend:
        if proof == "engine":
            return RtxModel.load(path, own, verify=False)
        contract, model = read_sidecar(path).contract, folder / "model.onnx"
        write_onnx(model, source.model, {METADATA_KEY: contract.to_json()}, contract.frontend.title)
        return OnnxModel.load(model, verify=False)

    def accept(path: Path) -> None:
        if proof == "engine":
            RtxModel.load(path, own, verify=True).close()
        else:
            read_plan(path, read_sidecar(path))

    return Target(write, load, accept, beside=(".json",), outputs=source.options.outputs)
