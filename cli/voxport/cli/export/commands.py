"""`voxport export …`: artefacts, and the proof that they give the original's answers."""

from pathlib import Path
from typing import Any

import click

from voxport.cli.common import example, json_option, needs
from voxport.cli.export.check import check
from voxport.cli.export.int8_options import int8_options
from voxport.cli.export.options import (
    OutputChoice,
    dry_run_option,
    emit_report,
    gate_options,
    is_shown,
    show_preview,
    show_report,
)
from voxport.cli.export.pytorch import pt2, torchscript
from voxport.cli.export.sherpa import sherpa, sherpa_check
from voxport.cli.export.triton import triton
from voxport.cli.export.trt import tensorrt


@click.group()
def export() -> None:
    """Turn a checkpoint into a file to deploy, and prove that both give the same answers."""


@export.command(
    epilog=example(
        """
        voxport export onnx runs/best/model.pt -o model.onnx
        voxport export onnx runs/best/model.pt -o sound.onnx --input waveform --max-frames 1000
        voxport export onnx runs/best/model.pt -o half.onnx --precision fp16
        voxport export onnx runs/best/model.pt -o voices.onnx --output embedding
        voxport export onnx runs/best/model.pt -o small.onnx --precision int8 --accuracy-data held-out/
        """
    )
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "output", type=click.Path(path_type=Path), required=True, help="File to write.")
@click.option(
    "--input",
    "input_kind",
    type=click.Choice(["features", "waveform"]),
    default="features",
    show_default=True,
    help="What the model takes: log-mel features, or sound with the features computed inside.",
)
@click.option(
    "--output",
    "outputs",
    type=OutputChoice(["scores", "embedding", "both"]),
    default="both",
    show_default=True,
    help="What the model gives: scores of its speakers, the voice as a vector, or both.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the graph; fp16 keeps inputs, outputs, norms, softmax and pooling in fp32, int8 all but matrix products.",
)
@int8_options
@click.option("--min-frames", type=click.IntRange(1), default=20, show_default=True, help="Shortest input.")
@click.option("--max-frames", type=click.IntRange(1), default=3000, show_default=True, help="Longest input.")
@click.option("--opset", type=int, default=20, show_default=True, help="ONNX operator set, 18 to 22.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--keep-failed", is_flag=True, help="Keep a file that does not pass, as NAME.failed.onnx.")
@dry_run_option
@gate_options
@json_option
@needs("export", "cpu")
def onnx(
    checkpoint: Path,
    output: Path,
    real: int,
    cache: Path | None,
    progress: bool | None,
    dry_run: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Write CHECKPOINT as one ONNX file that describes itself, proven equal to eager PyTorch.

    Lengths are in frames, of 10 ms each in the usual frontends. The proof covers the whole range, so
    a longer range takes longer to prove. Its report is written beside the file, as NAME.parity.json,
    .md and .png. A file that does not pass is not left under its name, and the exit code is 1.
    """
    from voxport.export.inputs.corpus_samples import RealOptions
    from voxport.export.pipeline import report_stem
    from voxport.export.targets.onnx_graph import ExportOptions
    from voxport.export.targets.onnx_model import export_onnx, preview_onnx

    shown = is_shown(progress)
    options = ExportOptions(**choices, real=RealOptions(real, cache, shown), progress=shown)
    if dry_run:
        show_preview(preview_onnx(checkpoint, output, options), as_json)
        return
    report = export_onnx(checkpoint, output, options)
    if as_json:
        emit_report(report)
        return
    show_report(report)
    click.echo(f"report: {report_stem(output)}.json, .md, .png")


export.add_command(check)
export.add_command(torchscript)
export.add_command(pt2)
export.add_command(sherpa)
export.add_command(sherpa_check)
export.add_command(tensorrt)
export.add_command(triton)
