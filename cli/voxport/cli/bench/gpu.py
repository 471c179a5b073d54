"""`voxport bench gpu`: all evidence from a GPU machine in one command."""

from pathlib import Path
from typing import Any

import click

from voxport.cli.bench.common import finish
from voxport.cli.common import FILE_PATH, example, json_option, needs


@click.command(
    "gpu",
    epilog=example(
        """
        voxport bench gpu --out gpu-evidence
        voxport bench gpu --out gpu-evidence --checkpoint runs/best/model.pt --onnx model.onnx --onnx model-fp16.onnx
        voxport bench gpu --out rehearsal --device cpu --budget-s 120 --batch 1 --frames 128
        """
    ),
)
@click.option("--out", required=True, type=FILE_PATH, help="Folder to write gpu.json to.")
@click.option("--checkpoint", type=FILE_PATH, help="Checkpoint to measure. Default: the recipe, freshly initialised.")
@click.option("--onnx", multiple=True, type=FILE_PATH, help="ONNX file exported from the checkpoint; repeatable.")
@click.option("--plan", "plans", multiple=True, type=FILE_PATH, help="A TensorRT plan or an RTX engine; repeatable.")
@click.option("--recipe", default="sap_am_bn_3layers", help="Recipe of the fresh network and of training.")
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(1), default=(1, 8, 64), help="Batch size; repeatable."
)
@click.option(
    "--frames", multiple=True, type=click.IntRange(1), default=(128, 400, 1000), help="Length in frames; repeatable."
)
@click.option("--seconds", type=click.FloatRange(0.01), default=0.3, help="Seconds to time each cell.")
@click.option("--warmup", type=click.FloatRange(0), default=0.1, help="Shortest warm-up of a cell, in seconds.")
@click.option(
    "--train-seconds", type=click.FloatRange(0.05), default=4.0, help="Seconds to time each training variant."
)
@click.option("--budget-s", type=click.FloatRange(1), default=480.0, help="Time limit of the whole run, in seconds.")
@click.option("--step-s", type=click.FloatRange(1), default=150.0, help="Time limit of one step, in seconds.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Most rounds, as far as the budget allows.")
@click.option(
    "--only", multiple=True, help="Measure only eager fp32 and back ends whose names contain this; repeatable."
)
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), default="cuda", help="Device; cpu rehearses the procedure."
)
@click.option("--threads", type=click.IntRange(1), default=4, help="Number of CPU threads.")
@click.option("--seed", type=int, default=1, help="Seed of inputs, weights and order.")
@click.option("--resume", is_flag=True, help="Measure what the folder still lacks.")
@json_option
@needs("train")
def gpu_command(out: Path, resume: bool, as_json: bool, **choices: Any) -> None:
    """Measure every way of running a network on this GPU, within a budget of time.

    Environment, measured ceilings, answers against float64, a grid of latencies, training rates: each back
    end in a process of its own, so that one that is missing, crashes or hangs costs itself alone, and the
    report says why. OUT/gpu.json is written after every step; `voxport bench report` reads it. Exits with
    0 where eager fp32 was measured, whatever else failed.
    """
    from voxport.benchmarks.gpu.report import GpuSettings
    from voxport.benchmarks.gpu.runner import DOCUMENT, measure_gpu

    settings = GpuSettings(**_plain(choices))
    _check_files(settings)
    report = measure_gpu(settings, out, resume, lambda what: click.echo(what, err=True))
    finish(report, None, as_json, (out / DOCUMENT,))  # which was written after every step
    if not any(row.verdict == "baseline" for row in report.rows):
        click.echo("error: eager fp32 could not be measured, so nothing can be compared", err=True)
        raise click.exceptions.Exit(1)


def _plain(choices: dict[str, Any]) -> dict[str, Any]:
    """Paths as absolute text: the steps run elsewhere, and a resumed run must find the same."""
    absolute = {name: tuple(str(path.resolve()) for path in choices[name]) for name in ("onnx", "plans")}
    checkpoint = choices["checkpoint"]
    if checkpoint is not None and checkpoint.is_dir():
        checkpoint = checkpoint / "model.pt"
    return {**choices, **absolute, "checkpoint": "" if checkpoint is None else str(checkpoint.resolve())}


def _check_files(settings: Any) -> None:
    """Find out before the clock runs that a file is missing, or is of another checkpoint."""
    from voxport.runtime.backends.formats import read_contract
    from voxport.runtime.errors import ContractError
    from voxport.runtime.storage.atomic import file_sha256

    for path in (settings.checkpoint, *settings.onnx, *settings.plans):
        if path and not Path(path).is_file():
            raise click.BadParameter(f"{path}: no such file")
    if (settings.onnx or settings.plans) and not settings.checkpoint:
        raise click.BadParameter("a model file needs the --checkpoint that it was exported from", param_hint="--onnx")
    for path in (*settings.onnx, *settings.plans):
        try:
            told = read_contract(path).checkpoint_sha256
        except ContractError:
            continue  # a plain ONNX file: the comparison of answers will judge it
        if told != file_sha256(settings.checkpoint):
            raise click.BadParameter(f"{path}: was exported from another checkpoint than {settings.checkpoint}")
