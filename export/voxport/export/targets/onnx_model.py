"""From a checkpoint to a proven ONNX file, and from both to a proof."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from onnx import ModelProto
from torch import Tensor, nn

from voxport.export.dry_run import Kind, Preview, preview
from voxport.export.errors import ExportError
from voxport.export.graph.capture import GraphInput, check_opset, to_onnx
from voxport.export.graph.cleanup import check_graph, keep_outputs, write_onnx
from voxport.export.graph.fp16 import to_half
from voxport.export.inputs.cases import LengthLimits
from voxport.export.inputs.corpus_samples import RealOptions
from voxport.export.network.frontend import FrontendGraph
from voxport.export.network.inference_net import DeployableNet, deployable_net
from voxport.export.pipeline import Target, begin, prove_and_name
from voxport.export.quantization.quantizer import (
    QuantizationReport,
    QuantizeOptions,
    calibration_source,
    quantize_graph,
)
from voxport.export.staging import refuse_plan_name
from voxport.export.status import status
from voxport.export.verification.accuracy import AccuracyOptions
from voxport.export.verification.artifacts import open_artefact
from voxport.export.verification.bisection import bisect_onnx
from voxport.export.verification.gate import GateOptions, gather, named, prove
from voxport.export.verification.judgement import judged
from voxport.export.verification.report import ParityReport
from voxport.export.verification.scored import scored
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.contract import METADATA_KEY, OUTPUTS, InputKind, Output, Precision
from voxport.runtime.frontend.log_mel import min_samples
from voxport.train.checkpoint import Checkpoint

_EXAMPLE_FRAMES = 53  # of the capture; no other size of a network is likely to equal it


@dataclass(frozen=True, kw_only=True)
class ExportOptions(GateOptions):
    """How to export: what the gate's options say, the graph's input, its outputs, its precision and its opset.

    `quantize` is for precision int8, where None takes the defaults.
    """

    input_kind: InputKind = "features"
    outputs: tuple[Output, ...] = OUTPUTS
    precision: Precision = "fp32"
    opset: int = 20
    quantize: QuantizeOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_opset(self.opset)
        if not self.outputs or not set(self.outputs) <= set(OUTPUTS):
            raise ExportError(f"outputs must be some of {', '.join(OUTPUTS)}, found {self.outputs or 'none'}")


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
    refuse_plan_name(output)
    source = begin(checkpoint_path, output, options)
    built = build_graph(source.checkpoint, options, str(output))
    target = Target(
        write=lambda path, contract: write_onnx(path, built.graph, {METADATA_KEY: contract.to_json()}),
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
    refuse_plan_name(Path(output))
    notes = []
    if options.precision == "fp16":
        notes.append("inputs, outputs, norms, softmax and pooling stay in float32")
    if options.precision == "int8":
        chosen = options.quantize or QuantizeOptions()
        notes.append(f"{chosen.scheme} int8, layers kept in float: {chosen.keep_float}")
        notes.append(f"calibrated on {calibration_source(source.checkpoint, chosen)}")
    kind = Kind("ONNX", options.input_kind, options.outputs, options.precision, options.opset, notes=tuple(notes))
    return preview(source, Path(output), kind, options)


class Built(NamedTuple):
    """A graph without a contract, and for int8 what that costs each layer."""

    graph: ModelProto
    quantization: QuantizationReport | None = None


def build_graph(checkpoint: Checkpoint, options: ExportOptions, where: str, for_cpu: bool = True) -> Built:
    """The ONNX graph of a checkpoint in the precision that is asked for, without a contract. `where` names it.

    Half is for GPUs in any case; `for_cpu` says what the other precisions are for.

    Raises:
        ExportError: the checkpoint cannot be exported, or not in that precision or opset.
    """
    network = deployable_net(checkpoint, mask_in_keys=for_cpu and options.precision != "fp16").float()
    with status("Capturing the graph", options.progress):
        graph = capture(network, checkpoint, options)
    quantization = None
    if options.precision == "fp16":
        graph = to_half(graph)
    if options.precision == "int8":
        chosen = options.quantize or QuantizeOptions(cache=options.real.cache, progress=options.progress)
        graph, quantization = quantize_graph(graph, checkpoint, options.input_kind, options.limits, chosen)
    graph = keep_outputs(graph, options.outputs)  # last: what int8 costs is measured on scores and embeddings
    check_graph(graph, options.opset, where)
    return Built(graph, quantization)


def onnx_graph(checkpoint: Checkpoint, options: ExportOptions, where: str) -> ModelProto:
    """The graph alone, for a GPU; see `build_graph`."""
    return build_graph(checkpoint, options, where, for_cpu=False).graph


def check(
    model_path: str | os.PathLike[str],
    checkpoint_path: str | os.PathLike[str],
    real: RealOptions | None = None,
    progress: bool = False,
    accuracy: AccuracyOptions | None = None,
    bisect: bool = False,
) -> ParityReport:
    """Hold an artefact of any kind against the checkpoint that it claims to come from.

    With `bisect` an ONNX file is also compared part by part, whether it passes or not; see `bisection`.

    Raises:
        ContractError: the file is missing or damaged, has no contract, or its graph is not what the contract promises.
        BackendError: what is needed to run it is not there.
        CheckpointError: the checkpoint cannot be read.
        ExportError: there is no such labelled set.
    """
    if accuracy is not None:
        accuracy.check()
    model = open_artefact(model_path)
    contract = model.contract
    limits = LengthLimits(contract.min_frames, contract.max_frames)
    evidence = gather(named(checkpoint_path), contract.input_kind, limits, contract.precision, real or RealOptions())
    report = prove(model, evidence, os.fspath(model_path), progress)
    if bisect:
        report = dataclasses.replace(report, bisection=bisect_onnx(Path(model_path), evidence, report.cases))
    return judged(report, scored(model, evidence.reference.class_weight), evidence.checkpoint, accuracy, None)


class SoundNet(nn.Module):
    """waveform (B, L), lengths (B,) in samples → scores (B, S), unit-length embedding (B, D)."""

    def __init__(self, frontend: FrontendGraph, network: DeployableNet) -> None:
        super().__init__()
        self.frontend = frontend
        self.network = network

    def forward(self, waveform_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and embeddings of a padded batch."""
        features_BTF, counts_B = self.frontend(waveform_BL, lengths_B)
        scores_BS, embedding_BD = self.network(features_BTF, counts_B)
        return scores_BS, embedding_BD


def capture(network: DeployableNet, checkpoint: Checkpoint, options: ExportOptions) -> ModelProto:
    """The ONNX graph of the deployable network, with the frontend before it for waveform input."""
    frontend = checkpoint.frontend
    module: nn.Module
    if options.input_kind == "features":
        example = torch.zeros(2, _EXAMPLE_FRAMES, frontend.n_mels)
        module, source = network, ("features", GraphInput(example, ("batch", "frames", None)))
    else:
        example = torch.zeros(2, min_samples(frontend, _EXAMPLE_FRAMES))
        module = SoundNet(FrontendGraph(frontend).float(), network).eval()
        source = ("waveform", GraphInput(example, ("batch", "samples")))
    lengths = GraphInput(torch.full((2,), example.shape[1]), ("batch",))
    return to_onnx(module, {source[0]: source[1], "lengths": lengths}, ("scores", "embedding"), options.opset)


def accept_onnx(path: Path) -> None:
    """Load a finished ONNX artefact as its users will, golden vector included; raises ContractError."""
    OnnxModel.load(path, verify=True)
