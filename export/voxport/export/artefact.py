"""From a checkpoint to a proven ONNX file, and from both to a proof."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from onnx import ModelProto
from torch import Tensor, nn

from voxport.export.deployable import DeployableNet, deployable_net
from voxport.export.errors import ExportError, ParityError
from voxport.export.files import cannot_write, part_of
from voxport.export.frontend_graph import FrontendGraph
from voxport.export.gate import Evidence, Named, gather, prove
from voxport.export.onnx_tidy import check_graph, to_bytes
from voxport.export.parity_grid import LengthLimits
from voxport.export.parity_report import ParityReport, write_report
from voxport.export.real import RealOptions
from voxport.export.to_onnx import GraphInput, check_opset, to_onnx
from voxport.runtime.contract import METADATA_KEY, Array, Contract, Golden, InputKind
from voxport.runtime.frontend import min_samples
from voxport.runtime.onnx_model import OnnxModel
from voxport.train.checkpoint import Checkpoint, checkpoint_sha256, load_checkpoint

_EXAMPLE_FRAMES = 53  # of the capture; no other size of a network is likely to equal it


@dataclass(frozen=True)
class ExportOptions:
    """How to export. Lengths are in frames, both included; the gate proves the model over the whole range.

    `real` says how many real utterances the gate uses. An existing output is replaced only with `force`.
    With `keep_failed` a file that does not pass stays as NAME.failed.onnx.
    """

    input_kind: InputKind = "features"
    min_frames: int = 20
    max_frames: int = 3000
    opset: int = 20
    force: bool = False
    keep_failed: bool = False
    real: RealOptions = field(default_factory=RealOptions)
    progress: bool = False

    def __post_init__(self) -> None:
        check_opset(self.opset)
        _ = self.limits  # refuses lengths that are impossible

    @property
    def limits(self) -> LengthLimits:
        return LengthLimits(self.min_frames, self.max_frames)


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
    check_output(output, options.force)
    source = named(checkpoint_path)
    network = deployable_net(source.checkpoint).float()
    with status("Capturing the graph", options.progress):
        graph = capture(network, source.checkpoint, options)
    evidence = gather(source, options.input_kind, options.limits, "fp32", options.real)
    contract = contract_for(evidence, options.input_kind)
    part = part_of(output)
    try:
        _write(part, graph, contract)
        check_graph(graph, options.opset, str(output))
        report = prove(OnnxModel.load(part, verify=False), evidence, str(output), options.progress)
        write_report(report, report_stem(output))
        if not report.passed:
            failed = output.with_suffix(".failed.onnx") if options.keep_failed else None
            if failed is not None:
                os.replace(part, failed)
            raise ParityError(refusal(report, output, failed))
        _write(part, graph, contract.replace(parity=report.summary()))
        OnnxModel.load(part, verify=True)  # the file as it will be, by the rules of whoever uses it
        os.replace(part, output)
    except OSError as problem:
        raise cannot_write(output, problem) from problem
    finally:
        part.unlink(missing_ok=True)
    return report


def check(
    model_path: str | os.PathLike[str],
    checkpoint_path: str | os.PathLike[str],
    real: RealOptions | None = None,
    progress: bool = False,
) -> ParityReport:
    """Hold an ONNX file against the checkpoint that it claims to come from.

    Raises:
        ContractError: the file is missing or damaged, has no contract, or its graph is not what the contract promises.
        CheckpointError: the checkpoint cannot be read.
    """
    model = OnnxModel.load(model_path, verify=False)
    contract = model.contract
    limits = LengthLimits(contract.min_frames, contract.max_frames)
    evidence = gather(named(checkpoint_path), contract.input_kind, limits, contract.precision, real or RealOptions())
    return prove(model, evidence, os.fspath(model_path), progress)


def report_stem(output: Path) -> Path:
    """Where the report of `output` goes, but for its suffix: model.onnx → model.parity."""
    return output.with_suffix(".parity")


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


def contract_for(evidence: Evidence, kind: InputKind) -> Contract:
    """The contract of an artefact of `kind`, its golden vector taken from the evidence; parity is not in it yet."""
    checkpoint, golden = evidence.checkpoint, evidence.golden
    return Contract(
        labels=checkpoint.labels,
        frontend=checkpoint.frontend,
        input_kind=kind,
        min_frames=evidence.limits.min_frames,
        max_frames=evidence.limits.max_frames,
        precision=evidence.precision,
        embedding_size=evidence.reference.embeddings.shape[1],
        score_scale=checkpoint.recipe.model.am_scale,
        recipe=checkpoint.recipe.name,
        checkpoint_sha256=evidence.checkpoint_sha256,
        golden=Golden(
            input=Array.of(evidence.utterances[golden].input),
            scores=Array.of(evidence.reference.scores[golden]),
            tolerance=evidence.tolerance.score,
        ),
        rejection=checkpoint.rejection,
    )


def named(path: str | os.PathLike[str]) -> Named:
    """Load the checkpoint at `path`, with the names that reports and artefacts use."""
    return Named(load_checkpoint(path), os.fspath(path), checkpoint_sha256(path))


def check_output(output: Path, force: bool) -> None:
    """Raise ExportError unless an artefact may be written to `output`; makes its folder."""
    if output.is_dir():
        raise ExportError(f"{output}: is a folder; name a file in it, such as {output / 'model.onnx'}")
    if output.exists() and not force:
        raise ExportError(f"{output}: exists; give another name, or --force to replace it")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise cannot_write(output, problem) from problem


def _write(path: Path, graph: ModelProto, contract: Contract) -> None:
    model = ModelProto()
    model.CopyFrom(graph)
    model.metadata_props.add(key=METADATA_KEY, value=contract.to_json())
    path.write_bytes(to_bytes(model))


def refusal(report: ParityReport, output: Path, failed: Path | None) -> str:
    """Why no artefact was written, for a person; `failed` is the file that was kept, if one was."""
    kept = f"the file was kept as {failed}"
    if failed is None:
        kept = "nothing was written; --keep-failed keeps the file for inspection"
    more = f" (and {len(report.failures) - 1} more)" if len(report.failures) > 1 else ""
    page = report_stem(output).with_name(f"{report_stem(output).name}.md")
    return f"{output}: parity failed: {report.failures[0]}{more}; see {page}; {kept}"


@contextmanager
def status(text: str, shown: bool) -> Iterator[None]:
    """A spinner on stderr while the block runs, if `shown`."""
    if not shown:
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
