"""From a checkpoint to a TensorRT plan: typed graph, profiles, build, proof of precision, proof of answers."""

import dataclasses
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import to_bytes
from voxport.export.pipeline import Target, prove_and_name
from voxport.export.quantization.qdq import scheme_of
from voxport.export.staging import check_folder, check_output
from voxport.export.targets.onnx_graph import ExportOptions, onnx_graph
from voxport.export.targets.trt.engine_cache import find_engine, store_engine
from voxport.export.targets.trt.plan_builder import PlanBuilder, builds_typed_graphs
from voxport.export.targets.trt.precision_check import PrecisionProof, inspect_plan, precision_proof
from voxport.export.targets.trt.profiles import BatchRange, shape_profiles
from voxport.export.targets.trt.progress import build_monitor
from voxport.export.targets.trt.settings import (
    Hardware,
    Machine,
    PlanSettings,
    engine_key,
    find_machine,
    require_machine,
)
from voxport.export.verification.gate import Named, named
from voxport.export.verification.report import ParityReport
from voxport.runtime.backends.formats import format_named, read_contract
from voxport.runtime.backends.trt.file import VERSION_COMPATIBLE, write_sidecar
from voxport.runtime.backends.trt.model import PlanModel, PlanOptions
from voxport.runtime.contract import Contract, Output, Precision, TensorSpec
from voxport.train.progress import status

_DYNAMIC_INT8 = ("DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, kw_only=True)
class PlanExportOptions(ExportOptions):
    """How to export to TensorRT: what the ONNX graph's options say, and how the plan is built.

    `batch` and `buckets` (frames) make the profiles. `timings` is the file of TensorRT's timing cache, `engines`
    the folder of plans that were proven before. `onnx` names an ONNX file of the same checkpoint to start from;
    its contract then says input, outputs, precision and lengths.
    """

    precision: Precision = "fp16"
    batch: BatchRange = dataclasses.field(default_factory=BatchRange)
    buckets: tuple[int, ...] = ()
    version_compatible: bool = False
    hardware: Hardware = "none"
    workspace_mib: int | None = None
    timings: Path | None = None
    engines: Path | None = None
    onnx: Path | None = None


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
    """What is to be built from."""

    source: Named
    options: PlanExportOptions
    settings: PlanSettings
    model: ModelProto
    graph: bytes

    @property
    def weights(self) -> int:
        """How many numbers the matrices and filters hold; the plan must hold each, in float or in half."""
        every = self.model.graph.initializer
        return sum(math.prod(each.dims) for each in every if each.data_type in _FLOATS and len(each.dims) > 1)


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
    key = engine_key(job.graph, job.settings, machine)
    plan, note = _find(job, key)
    cached = plan is not None
    if plan is None:
        plan = _build(job)
    with status("Inspecting the plan", chosen.progress):
        proof = precision_proof(inspect_plan(plan, job.settings), len(plan), job.weights)
    proof.check(job.settings.precision)
    facts = {**machine.facts(), **({VERSION_COMPATIBLE: "yes"} if chosen.version_compatible else {})}
    more = {**job.settings.facts(), "engine_key": key, "precision_proof": proof.facts()}
    gate = job.options
    target = _target(plan, facts, more, gate.outputs)
    report = prove_and_name(job.source, output, target, gate.input_kind, gate.precision, gate)
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
    key, graph = engine_key(job.graph, job.settings, machine), job.model.graph
    shapes = _specs(graph.input), _specs(graph.output)
    return PlanDryRun(key, *shapes, len(job.graph), len(graph.node), job.settings, machine, missing)


def _prepare(path: str | os.PathLike[str], options: PlanExportOptions, typed: bool) -> _Job:
    """Profiles, settings and graph. Without typed graphs (TensorRT 8.6) flags say what is in half, not the graph."""
    source = named(path)
    if options.onnx is not None:
        options, model = _given_graph(options.onnx, source, options)
    else:
        if options.precision == "int8":
            raise ExportError(
                "int8 needs a calibrated graph: write it with voxport export onnx --precision int8, and give it "
                "with --onnx"
            )
        made = options if typed else dataclasses.replace(options, precision="fp32")
        model = onnx_graph(source.checkpoint, made, "the graph for TensorRT")
    frontend = source.checkpoint.frontend
    settings = PlanSettings(
        options.precision,
        shape_profiles(frontend, options.input_kind, options.limits, options.batch, options.buckets),
        options.version_compatible,
        options.hardware,
        options.workspace_mib,
    )
    del model.metadata_props[:]  # labels and thresholds make no other engine
    return _Job(source, options, settings, model, to_bytes(model))


def _given_graph(path: Path, source: Named, options: PlanExportOptions) -> tuple[PlanExportOptions, ModelProto]:
    """The graph of an ONNX file, and the options that its contract makes of the others."""
    contract = read_contract(path)
    if contract.checkpoint_sha256 != source.sha256:
        raise ExportError(f"{path}: was not made from {source.path} (the checkpoint's hash differs); export it again")
    model = onnx.load(path)
    dynamic = sorted({node.op_type for node in model.graph.node} & set(_DYNAMIC_INT8))
    if scheme_of(model.graph) == "dynamic":
        raise ExportError(
            f"{path}: has unsigned activations with one scale per frame, which TensorRT does not take; "
            "give a model made with --precision int8 --quantize static"
        )
    if dynamic:
        raise ExportError(
            f"{path}: quantizes while it runs ({', '.join(dynamic)}), which TensorRT cannot; give a calibrated graph"
        )
    return _as_contracted(options, contract), model


def _as_contracted(options: PlanExportOptions, contract: Contract) -> PlanExportOptions:
    return dataclasses.replace(
        options,
        input_kind=contract.input_kind,
        precision=contract.precision,
        min_frames=contract.min_frames,
        max_frames=contract.max_frames,
        outputs=contract.outputs,
    )


def _specs(values: Iterable[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
    found = []
    for value in values:
        tensor = value.type.tensor_type
        dims = tuple(
            dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else None) for dim in tensor.shape.dim
        )
        found.append(TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, dims))
    return tuple(found)


def _find(job: _Job, key: str) -> tuple[bytes | None, str]:
    if job.options.engines is None:
        return None, ""
    found = find_engine(job.options.engines, key)
    return found.plan, f"{found.note}; it was built again" if found.note else ""


def _build(job: _Job) -> bytes:
    shown = job.options.progress
    silent = shown and not builds_typed_graphs()  # TensorRT 8.6 tells no progress
    with status("Building the plan, which takes minutes", silent), build_monitor(PlanBuilder.library, shown) as monitor:
        return PlanBuilder(job.settings, job.options.timings).build(job.graph, monitor)


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
    elif output.exists() and not force:
        raise ExportError(f"{output}: exists; give another name, or --force to replace it")
