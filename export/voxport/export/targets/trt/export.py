"""From a checkpoint to a TensorRT plan: typed graph, profiles, build, proof of precision, proof of answers."""

import os
from dataclasses import dataclass
from pathlib import Path

from voxport.export.errors import ExportError
from voxport.export.pipeline import Target, prove_and_name
from voxport.export.staging import check_folder, check_output, refuse_existing, refuse_output
from voxport.export.targets.trt.engine_cache import find_engine, store_engine
from voxport.export.targets.trt.plan_builder import PlanBuilder, builds_typed_graphs
from voxport.export.targets.trt.precision_check import PrecisionProof, inspect_plan, precision_proof
from voxport.export.targets.trt.progress import build_monitor
from voxport.export.targets.trt.settings import (
    Hardware,
    Machine,
    PlanSettings,
    engine_key,
    find_machine,
    require_machine,
)
from voxport.export.targets.trt.source import EngineOptions, EngineSource, engine_source
from voxport.export.verification.report import ParityReport
from voxport.runtime.backends.formats import format_named
from voxport.runtime.backends.trt.file import VERSION_COMPATIBLE, write_sidecar
from voxport.runtime.backends.trt.model import PlanModel, PlanOptions
from voxport.runtime.contract import Contract, Output, TensorSpec
from voxport.train.progress import status


@dataclass(frozen=True, kw_only=True)
class PlanExportOptions(EngineOptions):
    """How to export to TensorRT: what the ONNX graph's options and `EngineOptions` say, and how the plan is built.

    `timings` is the file of TensorRT's timing cache, `engines` the folder of plans that were proven before.
    """

    version_compatible: bool = False
    hardware: Hardware = "none"
    timings: Path | None = None
    engines: Path | None = None


@dataclass(frozen=True)
class PlanExport:
    """A finished export: the parity report, the proof of precision, and where the plan came from."""

    parity: ParityReport
    precision: PrecisionProof
    settings: PlanSettings
    machine: Machine
    key: str
    cached: bool
    note: str = ""

    def facts(self) -> dict[str, object]:
        """What the parity report does not hold, as plain values."""
        proof, machine = self.precision.facts(), self.machine.facts()
        told = {"precision_proof": proof, "built_with": machine, "engine_key": self.key}
        return {**self.settings.facts(), **told, "from_engine_cache": self.cached, "note": self.note}


@dataclass(frozen=True)
class PlanDryRun:
    """What would be built. `missing` is what this machine lacks for it; then the key's last part is unknown."""

    key: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    graph_bytes: int
    nodes: int
    settings: PlanSettings
    machine: Machine | None
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """What is to be built from, and how."""

    source: EngineSource[PlanExportOptions]
    settings: PlanSettings


def export_tensorrt(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: PlanExportOptions | None = None
) -> PlanExport:
    """Build a checkpoint's TensorRT plan on this machine's GPU, and prove its precision and its answers.

    The contract goes into `<plan>.json` beside it, with the profiles and the proof of precision; the parity
    report is written as NAME.parity.json, .md and .png, also where the gate fails.

    Raises:
        ParityError: the plan's answers are not the eager network's; nothing is left under `output`.
        ExportError: the checkpoint or the options cannot be exported, TensorRT cannot take the graph, the plan
            is not in the precision that was asked for, or `output` exists or cannot be written.
        BackendError: TensorRT, cuda-python or the GPU is missing, or refuses anything.
        CheckpointError: the checkpoint cannot be read.
    """
    chosen, output = options or PlanExportOptions(), Path(output)
    _check_plan_output(output, chosen.force)
    if chosen.accuracy is not None:
        chosen.accuracy.check()
    machine = require_machine()
    _check_caches(chosen)
    job = _prepare(checkpoint_path, chosen, builds_typed_graphs())
    key = engine_key(job.source.graph, job.settings, machine)
    plan, note = _find(job, key)
    cached = plan is not None
    if plan is None:
        plan = _build(job)
    with status("Inspecting the plan", chosen.progress):
        proof = precision_proof(inspect_plan(plan, job.settings), len(plan), job.source.weights)
    proof.check(job.settings.precision)
    facts = {**machine.facts(), **({VERSION_COMPATIBLE: "yes"} if chosen.version_compatible else {})}
    more = {**job.settings.facts(), "engine_key": key, "precision_proof": proof.facts()}
    gate = job.source.options
    target = _target(plan, facts, more, gate.outputs)
    report = prove_and_name(job.source.named, output, target, gate.input_kind, gate.precision, gate)
    if chosen.engines is not None and not cached:
        store_engine(chosen.engines, key, plan, {**facts, **job.settings.facts()})
    return PlanExport(report, proof, job.settings, machine, key, cached, note)


def preview_tensorrt(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: PlanExportOptions | None = None
) -> PlanDryRun:
    """What `export_tensorrt` would build, without TensorRT or a GPU. Raises as `export_tensorrt` does."""
    chosen = options or PlanExportOptions()
    _check_plan_output(Path(output), chosen.force, dry=True)
    machine, missing = find_machine()
    job = _prepare(checkpoint_path, chosen, machine is None or builds_typed_graphs())
    key, source = engine_key(job.source.graph, job.settings, machine), job.source
    size, nodes = len(source.graph), len(source.model.graph.node)
    return PlanDryRun(key, *source.tensors(), size, nodes, job.settings, machine, missing)


def _prepare(path: str | os.PathLike[str], options: PlanExportOptions, typed: bool) -> _Job:
    source = engine_source(path, options, typed)
    chosen = source.options
    return _Job(
        source,
        PlanSettings(
            chosen.precision, source.profiles, chosen.version_compatible, chosen.hardware, chosen.workspace_mib
        ),
    )


def _find(job: _Job, key: str) -> tuple[bytes | None, str]:
    if job.source.options.engines is None:
        return None, ""
    found = find_engine(job.source.options.engines, key)
    return found.plan, f"{found.note}; it was built again" if found.note else ""


def _build(job: _Job) -> bytes:
    options = job.source.options
    shown = options.progress
    silent = shown and not builds_typed_graphs()  # TensorRT 8.6 tells no progress
    with status("Building the plan, which takes minutes", silent), build_monitor(PlanBuilder.library, shown) as monitor:
        return PlanBuilder(job.settings, options.timings).build(job.source.graph, monitor)


def _target(plan: bytes, facts: dict[str, str], more: dict[str, object], outputs: tuple[Output, ...]) -> Target:
    trusted = PlanOptions(host_code=VERSION_COMPATIBLE in facts)  # the code in it was written a minute ago, here

    def write(path: Path, contract: Contract) -> None:
        path.write_bytes(plan)
        write_sidecar(path, contract, facts, more)

    def accept(path: Path) -> None:
        PlanModel.load(path, trusted, verify=True).close()

    def load(path: Path) -> PlanModel:
        return PlanModel.load(path, trusted, verify=False)

    return Target(write, load, accept, beside=(".json",), outputs=outputs)


def _check_caches(options: PlanExportOptions) -> None:
    """Raise ExportError where a cache cannot be written: told after the build, that would cost minutes."""
    if options.timings is not None:
        check_folder(options.timings.parent, "--timing-cache")
    if options.engines is not None:
        check_folder(options.engines, "--engine-cache")


def _check_plan_output(output: Path, force: bool, dry: bool = False) -> None:
    """Raise ExportError unless a plan may be written to `output`; makes its folder, unless the run is `dry`."""
    if output.suffix.lower() not in format_named("plan").suffixes:
        raise ExportError(f"{output}: a plan is told by its suffix; name it {output.with_suffix('.plan')}")
    if not dry:
        check_output(output, force)
        return
    refuse_output(output)
    refuse_existing(output, force)
