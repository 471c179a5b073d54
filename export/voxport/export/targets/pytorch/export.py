"""From a checkpoint to a proven TorchScript or .pt2 file."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from voxport.export.dry_run import Kind, Preview, preview
from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.export.network.cohort import check_compared
from voxport.export.network.frontend import FrontendGraph
from voxport.export.network.inference_net import DeployableNet, deployable_net
from voxport.export.pipeline import Target, begin, prove_and_name
from voxport.export.staging import refuse_name
from voxport.export.targets.pytorch.archive import Members, write_archive
from voxport.export.targets.pytorch.capture import Subject, program_members, to_program, to_torchscript
from voxport.export.verification.gate import GateOptions, named
from voxport.export.verification.report import ParityReport
from voxport.runtime.backends.pytorch.model import TorchModel
from voxport.runtime.backends.pytorch.session import TorchOptions
from voxport.runtime.contract import OUTPUTS, InputKind, Output
from voxport.runtime.frontend.log_mel import min_samples
from voxport.train.checkpoint import Checkpoint
from voxport.train.progress import status

_EXAMPLE_FRAMES = 53  # no size of a network is likely to equal it

Build = Callable[[Subject], tuple[Members, dict[str, str]]]  # the archive's members, and what it was built with


@dataclass(frozen=True, kw_only=True)
class TorchExportOptions(GateOptions):
    """How to export: what the gate's options say, the network's input and its outputs."""

    input_kind: InputKind = "features"
    outputs: tuple[Output, ...] = OUTPUTS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.outputs or self.outputs != tuple(name for name in OUTPUTS if name in self.outputs):
            raise ExportError(f"outputs must be some of {', '.join(OUTPUTS)}, found {self.outputs or 'none'}")
        check_compared(self.as_norm, self.outputs)


@dataclass(frozen=True, kw_only=True)
class Pt2Options(TorchExportOptions):
    """How to export to .pt2: with `aoti` compiled for `device`, else as a program that runs on any."""

    aoti: bool = False
    device: Literal["cpu", "cuda"] = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device not in ("cpu", "cuda"):
            raise ExportError(f"device {self.device!r}: choose cpu or cuda")
        if self.device != "cpu" and not self.aoti:
            raise ExportError("--device is for --aoti: a .pt2 program runs on any device as it is")


def export_torchscript(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: TorchExportOptions | None = None
) -> ParityReport:
    """Write a checkpoint as a TorchScript file that describes itself, proven equal to the eager network.

    PyTorch has deprecated TorchScript; `export_pt2` writes its successor. The report is written beside the file.

    Raises:
        ParityError: the file's answers are not the eager network's; nothing is left under `output`.
        ExportError: the checkpoint cannot be exported, or `output` exists, cannot be written, or is called *.pt2.
        CheckpointError: the checkpoint cannot be read.
    """
    options, output = options or TorchExportOptions(), Path(output)
    _check_torchscript_name(output)

    def build(subject: Subject) -> tuple[Members, dict[str, str]]:
        with status("Tracing the network", options.progress):
            return to_torchscript(subject), {"torch": str(torch.__version__)}

    return _export(checkpoint_path, output, build, options)


def export_pt2(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: Pt2Options | None = None
) -> ParityReport:
    """Write a checkpoint as a .pt2 file that describes itself, proven equal to the eager network.

    It holds a torch.export program, or with `options.aoti` native code, which takes minutes to compile and
    runs only on processors and releases of torch like this one's. The report is written beside the file.

    Raises:
        ParityError: the file's answers are not the eager network's; nothing is left under `output`.
        ExportError: the checkpoint cannot be exported, or `output` exists, cannot be written, or is no *.pt2.
        BackendError: with `aoti`: no C++ compiler, or no such device.
        CheckpointError: the checkpoint cannot be read.
    """
    options, output = options or Pt2Options(), Path(output)
    _check_pt2_name(output)
    if options.aoti:
        from voxport.export.targets.pytorch.aoti import check_device

        check_device(options.device)

    def build(subject: Subject) -> tuple[Members, dict[str, str]]:
        with status("Capturing the program", options.progress):
            if not options.aoti:
                return program_members(to_program(subject)), {"torch": str(torch.__version__)}
            from voxport.export.targets.pytorch.aoti import any_size, built_with, compile_package

            with any_size():
                program = to_program(subject)
        with status("Compiling with AOTInductor: a minute, or several on a busy machine", options.progress):
            return compile_package(program, options.device), built_with(options.device)

    return _export(checkpoint_path, output, build, options)


def preview_torchscript(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: TorchExportOptions | None = None
) -> Preview:
    """What `export_torchscript` would build, without building it."""
    options, output = options or TorchExportOptions(), Path(output)
    _check_torchscript_name(output)
    notes = ("TorchScript is deprecated by PyTorch; .pt2 is its successor",)
    return preview(
        named(checkpoint_path), output, Kind("TorchScript", options.input_kind, options.outputs, notes=notes), options
    )


def preview_pt2(
    checkpoint_path: str | os.PathLike[str], output: str | os.PathLike[str], options: Pt2Options | None = None
) -> Preview:
    """What `export_pt2` would build, without building it; with `aoti` raises where it cannot be compiled here."""
    options, output = options or Pt2Options(), Path(output)
    _check_pt2_name(output)
    name = "torch.export program"
    if options.aoti:
        from voxport.export.targets.pytorch.aoti import check_device

        check_device(options.device)
        name = f"native code by AOTInductor for {options.device}"
    return preview(named(checkpoint_path), output, Kind(name, options.input_kind, options.outputs), options)


def _check_torchscript_name(output: Path) -> None:
    refuse_name(output)
    if output.suffix.lower() in (".pt2", ".onnx"):
        raise ExportError(
            f"{output}: a TorchScript file, called {output.suffix}, would mislead; "
            f"name it {output.with_suffix('.torchscript')}"
        )


def _check_pt2_name(output: Path) -> None:
    if output.suffix != ".pt2":
        raise ExportError(f"{output}: torch loads such files only by the suffix .pt2; name it {output.stem}.pt2")


class ExactSoundNet(nn.Module):
    """waveform (B, L), lengths (B,) in samples → scores (B, S), unit-length embedding (B, D); the frontend in float64.

    In float32 the spectrum as one matrix product is rounded several times as much as the fast transform is, up
    to the gate's tolerance. The product is a small part of the work, and float64 takes that doubt away.
    """

    def __init__(self, frontend: FrontendGraph, network: DeployableNet) -> None:
        super().__init__()
        self.frontend = frontend
        self.network = network

    def forward(self, waveform_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and embeddings of a padded batch."""
        features_BTF, counts_B = self.frontend(waveform_BL.double(), lengths_B)
        scores_BS, embedding_BD = self.network(features_BTF.float(), counts_B)
        return scores_BS, embedding_BD


class KeptOutputs(nn.Module):
    """A network whose answer holds `outputs` alone. A capture leaves out the work that only the others need."""

    def __init__(self, network: nn.Module, outputs: tuple[Output, ...]) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs

    def forward(self, inputs: Tensor, lengths_B: Tensor) -> tuple[Tensor, ...]:
        """Those of scores (B, S) and unit-length embedding (B, E) that are kept, in this order."""
        answers = dict(zip(OUTPUTS, self.network(inputs, lengths_B), strict=True))
        return tuple(answers[name] for name in self.outputs)


def subject_of(
    checkpoint: Checkpoint, kind: InputKind, limits: LengthLimits, outputs: tuple[Output, ...] = OUTPUTS
) -> Subject:
    """The deployable network of a checkpoint, with the frontend before it for waveform input, and its range."""
    frontend = checkpoint.frontend
    network = deployable_net(checkpoint).float()

    def kept(module: nn.Module) -> nn.Module:
        return module if outputs == OUTPUTS else KeptOutputs(module, outputs).eval()

    # An example of one frame would make 1 a constant of the graph.
    frames = max(2, min(max(_EXAMPLE_FRAMES, limits.min_frames), limits.max_frames))
    if kind == "features":
        example = torch.zeros(2, frames, frontend.n_mels)
        return Subject(kept(network), example, limits.min_frames, max(limits.max_frames, frames))
    longest = min_samples(frontend, limits.max_frames + 1) - 1
    example = torch.zeros(2, min(min_samples(frontend, frames), longest))
    sound = ExactSoundNet(FrontendGraph(frontend), network).eval()
    return Subject(kept(sound), example, min_samples(frontend, limits.min_frames), longest)


def _export(
    checkpoint_path: str | os.PathLike[str], output: Path, build: Build, options: TorchExportOptions | Pt2Options
) -> ParityReport:
    source = begin(checkpoint_path, output, options)
    members, facts = build(subject_of(source.checkpoint, options.input_kind, options.limits, options.outputs))
    run_on = TorchOptions("cuda" if facts.get("device") == "cuda" else "cpu")
    compiled = "device" in facts
    target = Target(
        write=lambda path, contract: write_archive(path, members, contract, facts),
        load=lambda path: _loaded(path, run_on, compiled),
        accept=lambda path: _accept(path, run_on),
        outputs=options.outputs,
    )
    return prove_and_name(source, output, target, options.input_kind, "fp32", options)


def _loaded(path: Path, options: TorchOptions, compiled: bool) -> TorchModel:
    """The artefact for the gate. Compiled code checks its inputs there, and first of all at the ends of its range."""
    model = TorchModel.load(path, options, verify=False)
    if compiled:
        from voxport.export.targets.pytorch.aoti import check_corners

        check_corners(model)
    return model


def _accept(path: Path, options: TorchOptions) -> None:
    """Load the finished file as its users will, golden vector included."""
    TorchModel.load(path, options)
