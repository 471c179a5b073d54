"""From a checkpoint to a proven model for sherpa-onnx (https://github.com/k2-fsa/sherpa-onnx)."""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto

from voxport.export.artefact import check_output, contract_for, named, refusal, report_stem, status
from voxport.export.deployable import deployable_net
from voxport.export.errors import ExportError, ParityError
from voxport.export.files import cannot_write, part_of
from voxport.export.gate import Evidence, gather, prove
from voxport.export.onnx_tidy import check_graph, to_bytes
from voxport.export.parity_grid import Case, LengthLimits
from voxport.export.parity_report import ParityReport, write_report
from voxport.export.real import RealOptions
from voxport.export.sherpa_check import check_sherpa
from voxport.export.sherpa_format import framework_of, sherpa_metadata
from voxport.export.sherpa_model import OPSET, SherpaModel, capture_sherpa
from voxport.runtime.contract import METADATA_KEY, Contract


@dataclass(frozen=True)
class SherpaOptions:
    """How to export for sherpa-onnx. Lengths are in frames, both included; the gate proves that range.

    `language` is free text that sherpa-onnx insists on. `real` says how many real utterances the gate
    uses. An existing output is replaced only with `force`. With `keep_failed` a file that does not pass
    stays as NAME.failed.onnx.
    """

    language: str = "unspecified"
    min_frames: int = 20
    max_frames: int = 3000
    force: bool = False
    keep_failed: bool = False
    real: RealOptions = field(default_factory=RealOptions)
    progress: bool = False

    def __post_init__(self) -> None:
        _ = self.limits  # refuses lengths that are impossible

    @property
    def limits(self) -> LengthLimits:
        return LengthLimits(self.min_frames, self.max_frames)


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
    check_output(output, options.force)
    source = named(checkpoint_path)
    checkpoint = source.checkpoint
    network = deployable_net(checkpoint).float()
    comment = f"written by voxport export sherpa; recipe {checkpoint.recipe.name}, {len(checkpoint.labels)} speakers"
    metadata = sherpa_metadata(checkpoint.frontend, network.class_weight_ES.shape[0], options.language, comment)
    with status("Capturing the graph", options.progress):
        graph = capture_sherpa(network, framework_of(checkpoint.frontend), checkpoint.frontend.n_mels)
    evidence = _one_by_one(gather(source, "features", options.limits, "fp32", options.real))
    contract = contract_for(evidence, "features")
    part = part_of(output)
    try:
        _write(part, graph, metadata, contract)
        check_graph(graph, OPSET, str(output))
        report = prove(SherpaModel.load(part), evidence, str(output), options.progress)
        write_report(report, report_stem(output))
        if not report.passed:
            raise ParityError(refusal(report, output, part if options.keep_failed else None))
        _write(part, graph, metadata, contract.replace(parity=report.summary()))
        found = check_sherpa(part)  # the file as it will be, by the rules of whoever loads it
        if not found.passed:
            raise ExportError(f"{output}: sherpa-onnx could not use it: {'; '.join(found.complaints)}")
        os.replace(part, output)
    except OSError as problem:
        raise cannot_write(output, problem) from problem
    finally:
        part.unlink(missing_ok=True)
    return report


def _one_by_one(evidence: Evidence) -> Evidence:
    """Every utterance alone and without padding: sherpa-onnx knows neither batches nor padding."""
    rows = enumerate(evidence.utterances)
    return dataclasses.replace(
        evidence, cases=tuple(Case("alone", (i,), len(utterance.input), "none") for i, utterance in rows)
    )


def _write(path: Path, graph: ModelProto, metadata: dict[str, str], contract: Contract) -> None:
    model = ModelProto()
    model.CopyFrom(graph)
    for key, value in sorted({**metadata, METADATA_KEY: contract.to_json()}.items()):
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(to_bytes(model))
