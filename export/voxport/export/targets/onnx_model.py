"""From a checkpoint to a proven ONNX file, and from both to a proof."""

import os
from pathlib import Path

from voxport.export.dry_run import Kind, Preview, preview
from voxport.export.graph.cleanup import write_onnx
from voxport.export.pipeline import Target, begin, prove_and_name
from voxport.export.quantization.quantizer import QuantizeOptions, calibration_source
from voxport.export.staging import refuse_name
from voxport.export.targets.onnx_graph import ExportOptions, build_graph
from voxport.export.verification.bisection import bisect_onnx
from voxport.export.verification.gate import named
from voxport.export.verification.report import ParityReport
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.contract import METADATA_KEY


def export_onnx(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: ExportOptions | None = None
) -> ParityReport:
    """Write a checkpoint as a self-describing ONNX file, proven equal to the eager network.

    The report is written beside it as NAME.parity.json, .md and .png, also where the gate fails.

    Raises:
        ParityError: the file's answers are not the eager network's; nothing is left under `output`.
        ExportError: the checkpoint or the options cannot be exported, or `output` exists or cannot be written.
        CheckpointError: the checkpoint cannot be read.
    """
    options, output = options or ExportOptions(), Path(output)
    refuse_name(output)
    source = begin(checkpoint_path, output, options)
    built = build_graph(source.checkpoint, options, str(output))
    target = Target(
        write=lambda path, contract: write_onnx(path, built.graph, {METADATA_KEY: contract.to_json()}, contract.title),
        load=lambda path: OnnxModel.load(path, verify=False),
        accept=accept_onnx,
        quantization=built.quantization,
        outputs=options.outputs,
        search=lambda path, evidence, report: bisect_onnx(path, evidence, report.cases),
    )
    return prove_and_name(source, output, target, options.input_kind, options.precision, options)


def preview_onnx(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: ExportOptions | None = None
) -> Preview:
    """What `export_onnx` would build, without building it; raises as it does where the checkpoint is at fault."""
    options, source = options or ExportOptions(), named(checkpoint_path)
    refuse_name(Path(output))
    notes = []
    if options.precision == "fp16":
        notes.append("inputs, outputs, norms, softmax and pooling stay in float32")
    if options.precision == "int8":
        chosen = options.quantize or QuantizeOptions()
        notes.append(f"{chosen.scheme} int8, layers kept in float: {chosen.keep_float}")
        notes.append(f"calibrated on {calibration_source(source.checkpoint, chosen)}")
    kind = Kind("ONNX", options.input_kind, options.outputs, options.precision, options.opset, notes=tuple(notes))
    return preview(source, Path(output), kind, options)


def accept_onnx(path: Path) -> None:
    """Load a finished ONNX artefact as its users will, golden vector included; raises ContractError."""
    OnnxModel.load(path, verify=True)
