"""`voxport export torchscript` and `voxport export pt2`: models that run inside PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from voxport.cli.common import example, json_option, needs
from voxport.cli.export.options import (
    OutputChoice,
    dry_run_option,
    emit_report,
    gate_options,
    is_shown,
    show_preview,
    show_report,
)

if TYPE_CHECKING:
    from voxport.export.verification.report import ParityReport

F = TypeVar("F", bound=Callable[..., Any])


def _shared_options(command: F) -> F:
    """What both commands take besides the gate's options."""
    for option in (
        dry_run_option,
        click.option("--keep-failed", is_flag=True, help="Keep a file that does not pass, as NAME.failed.SUFFIX."),
        click.option("--force", is_flag=True, help="Replace an existing file."),
        click.option("--max-frames", type=click.IntRange(1), default=3000, show_default=True, help="Longest input."),
        click.option("--min-frames", type=click.IntRange(1), default=20, show_default=True, help="Shortest input."),
        click.option(
            "--input",
            "input_kind",
            type=click.Choice(["features", "waveform"]),
            default="features",
            show_default=True,
            help="What the model takes: log-mel features, or sound with the features computed inside.",
        ),
        click.option(
            "--output",
            "outputs",
            type=OutputChoice(["scores", "embedding", "both"]),
            default="both",
            show_default=True,
            help="What the model gives: scores of its speakers, the voice as a vector, or both.",
        ),
        click.option("-o", "output", type=click.Path(path_type=Path), required=True, help="File to write."),
        click.argument("checkpoint", type=click.Path(path_type=Path)),
    ):
        command = option(command)
    return command


@click.command(
    epilog=example(
        """
        voxport export torchscript runs/best/model.pt -o model.torchscript
        voxport export torchscript runs/best/model.pt -o sound.torchscript --input waveform
        """
    )
)
@_shared_options
@gate_options
@json_option
@needs("export")
def torchscript(
    checkpoint: Path,
    output: Path,
    real: int,
    cache: Path | None,
    progress: bool | None,
    dry_run: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Write CHECKPOINT as TorchScript, for applications that load models with torch.jit.

    PyTorch has deprecated TorchScript in favour of torch.export; `voxport export pt2` writes that. Batch
    and time are free, the device is chosen at loading, and the contract is an extra file inside. The file
    is proven as ONNX files are.
    """
    from voxport.export.inputs.corpus_samples import RealOptions
    from voxport.export.targets.pytorch.export import TorchExportOptions, export_torchscript, preview_torchscript

    shown = is_shown(progress)
    options = TorchExportOptions(**choices, real=RealOptions(real, cache, shown), progress=shown)
    if dry_run:
        show_preview(preview_torchscript(checkpoint, output, options), as_json)
        return
    report = export_torchscript(checkpoint, output, options)
    click.echo(
        "note: PyTorch has deprecated TorchScript; its successor is written by voxport export pt2, "
        "and voxport export onnx needs no PyTorch to run",
        err=True,
    )
    _show(report, output, as_json)


@click.command(
    epilog=example(
        """
        voxport export pt2 runs/best/model.pt -o model.pt2
        voxport export pt2 runs/best/model.pt -o native.pt2 --aoti
        voxport export pt2 runs/best/model.pt -o gpu.pt2 --aoti --device cuda
        """
    )
)
@_shared_options
@click.option("--aoti", is_flag=True, help="Compile to native code with AOTInductor; needs a C++ compiler.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="With --aoti: what to compile for. It must be here, since the proof runs on it.",
)
@gate_options
@json_option
@needs("export")
def pt2(
    checkpoint: Path,
    output: Path,
    real: int,
    cache: Path | None,
    progress: bool | None,
    dry_run: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Write CHECKPOINT as a .pt2 file: a torch.export program, or native code with --aoti.

    A program runs on any device of PyTorch. Native code starts faster and runs without Python, but only on
    processors (or GPUs) and releases of PyTorch like the ones here; compiling takes a minute or more. The file
    is proven as ONNX files are.
    """
    from voxport.export.inputs.corpus_samples import RealOptions
    from voxport.export.targets.pytorch.export import Pt2Options, export_pt2, preview_pt2

    shown = is_shown(progress)
    options = Pt2Options(**choices, real=RealOptions(real, cache, shown), progress=shown)
    if dry_run:
        show_preview(preview_pt2(checkpoint, output, options), as_json)
        return
    _show(export_pt2(checkpoint, output, options), output, as_json)


def _show(report: "ParityReport", output: Path, as_json: bool) -> None:
    from voxport.export.pipeline import report_stem

    if as_json:
        emit_report(report)
        return
    show_report(report)
    click.echo(f"report: {report_stem(output)}.json, .md, .png")
