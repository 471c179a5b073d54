"""From a checkpoint to a proven model for sherpa-onnx (https://github.com/k2-fsa/sherpa-onnx)."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from voxport.export.dry_run import Kind, Preview, preview
from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import check_graph, write_onnx
from voxport.export.inputs.cases import Case
from voxport.export.network.inference_net import deployable_net
from voxport.export.pipeline import Target, begin, prove_and_name
from voxport.export.staging import refuse_name
from voxport.export.targets.sherpa.metadata import framework_of, sherpa_metadata
from voxport.export.targets.sherpa.model import OPSET, SherpaModel, capture_sherpa, sherpa_tensors
from voxport.export.targets.sherpa.validate import check_sherpa
from voxport.export.verification.gate import Evidence, GateOptions, named
from voxport.export.verification.report import ParityReport
from voxport.runtime.contract import METADATA_KEY
from voxport.train.progress import status


@dataclass(frozen=True, kw_only=True)
class SherpaOptions(GateOptions):
    """How to export for sherpa-onnx: what the gate's options say, and free text that sherpa-onnx insists on."""

    language: str = "unspecified"


def export_sherpa(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: SherpaOptions | None = None
) -> ParityReport:
    """Write a checkpoint as a model that sherpa-onnx loads, proven equal to the eager network.

    The report is written beside it as NAME.parity.json, .md and .png, also where the gate fails.

    Raises:
        ParityError: the file's answers are not the eager network's; nothing is left under `output`.
        ExportError: sherpa-onnx cannot compute the checkpoint's frontend, the checkpoint or the options
            cannot be exported, or `output` exists or cannot be written.
        CheckpointError: the checkpoint cannot be read.
    """
    options, output = options or SherpaOptions(), Path(output)
    refuse_name(output)
    source = begin(checkpoint_path, output, options)
    checkpoint = source.checkpoint
    network = deployable_net(checkpoint, "in_keys").float()  # sherpa-onnx is for CPUs first
    comment = f"written by voxport export sherpa; recipe {checkpoint.recipe.name}, {len(checkpoint.labels)} speakers"
    metadata = sherpa_metadata(checkpoint.frontend, network.class_weight_ES.shape[0], options.language, comment)
    with status("Capturing the graph", options.progress):
        graph = capture_sherpa(network, framework_of(checkpoint.frontend), checkpoint.frontend.n_mels)
    check_graph(graph, OPSET, str(output))
    target = Target(
        write=lambda path, contract: write_onnx(
            path, graph, {**metadata, METADATA_KEY: contract.to_json()}, contract.title
        ),
        load=SherpaModel.load,
        accept=_accept,
        evidence=_one_by_one,
    )
    return prove_and_name(source, output, target, "features", "fp32", options)


def preview_sherpa(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: SherpaOptions | None = None
) -> Preview:
    """What `export_sherpa` would build, without building it; raises as it does where the checkpoint is at fault."""
    options, source = options or SherpaOptions(), named(checkpoint_path)
    refuse_name(Path(output))
    frontend, speakers = source.checkpoint.frontend, len(source.checkpoint.labels)
    framework = framework_of(frontend)
    width = deployable_net(source.checkpoint).class_weight_ES.shape[0]
    sherpa_metadata(frontend, width, options.language, "")  # refuses a blank language
    kind = Kind(
        "ONNX for sherpa-onnx",
        opset=OPSET,
        tensors=sherpa_tensors(framework, frontend.n_mels, speakers, width),
        notes=(f"framework {framework}; the gate runs every utterance alone, as sherpa-onnx does",),
    )
    return preview(source, Path(output), kind, options)


def _accept(path: Path) -> None:
    """Look at the finished file by the rules of whoever loads it."""
    found = check_sherpa(path)
    if not found.passed:
        raise ExportError(f"{path.name}: sherpa-onnx could not use it: {'; '.join(found.complaints)}")


def _one_by_one(evidence: Evidence) -> Evidence:
    """Every utterance alone and without padding: sherpa-onnx knows neither batches nor padding."""
    rows = enumerate(evidence.utterances)
    return dataclasses.replace(
        evidence, cases=tuple(Case("alone", (i,), len(utterance.input), "none") for i, utterance in rows)
    )
