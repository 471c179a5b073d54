"""`voxport bench …`: how fast, and how sure of it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.bench.common import check_output, finish
from voxport.cli.bench.compare import compare_command
from voxport.cli.bench.conditions import conditions_command
from voxport.cli.bench.gpu import gpu_command
from voxport.cli.bench.latency_options import check_together, latency_settings, scenario_options, truth_options
from voxport.cli.bench.profile import profile_command
from voxport.cli.bench.report import report_command
from voxport.cli.bench.scale import scale_command
from voxport.cli.bench.selftest import selftest
from voxport.cli.bench.train import train_command
from voxport.cli.common import FILE_PATH, example, json_option, needs
from voxport.cli.progress import step_bar

if TYPE_CHECKING:
    from voxport.benchmarks.latency.report import LatencyReport


@click.group()
def bench() -> None:
    """Measure models against each other."""


bench.add_command(selftest)
bench.add_command(train_command)
bench.add_command(scale_command)
bench.add_command(gpu_command)
bench.add_command(compare_command)
bench.add_command(conditions_command)
bench.add_command(profile_command, "profile")
bench.add_command(report_command)


@bench.command(
    epilog=example(
        """
        voxport bench latency model.onnx --against runs/best/model.pt -o latency.json --plot latency.png
        voxport bench latency fp32.onnx int8.onnx --against runs/best/model.pt --frames 200 --batch 1 --batch 8
        voxport bench latency model.onnx --against runs/best/model.pt --also plain_onnx --also torchscript
        voxport bench latency model.onnx --against runs/best/model.pt --scenario server --bound-ms 50 --frames 300
        voxport bench latency model.onnx --against runs/best/model.pt --trace data/voices --accuracy-data data/voices
        """
    )
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=FILE_PATH)
@click.option(
    "--against",
    "checkpoint",
    required=True,
    metavar="CHECKPOINT",
    type=FILE_PATH,
    help="The checkpoint behind the models; eager PyTorch runs it as the baseline.",
)
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), default=(1,), help="Batch size; repeatable.")
@click.option(
    "--frames",
    multiple=True,
    type=click.IntRange(1),
    help="Length of each utterance; repeatable. Default: those of 128, 400 and 1000 that the models take; none "
    "with --trace.",
)
@scenario_options
@truth_options
@click.option(
    "--rounds", type=click.IntRange(5), default=5, help="Number of rounds, each in a fresh process per back end."
)
@click.option("--seconds", type=click.FloatRange(0.01), default=2.0, help="Seconds to time in each block.")
@click.option("--warmup", type=click.FloatRange(0), default=1.0, help="Shortest warm-up of a block, in seconds.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Device of all back ends.")
@click.option("--threads", type=click.IntRange(1), default=1, help="CPU threads of each back end.")
@click.option(
    "--control/--no-control", default=True, help="Also time eager PyTorch against itself, for the noise floor."
)
@click.option("--seed", type=int, default=1, help="Seed of inputs, order and bootstrap.")
@click.option("--timeout", type=click.FloatRange(1), default=300.0, help="Worker timeout, in seconds.")
@click.option("-o", "--output", type=FILE_PATH, help="Write everything, raw samples too, as JSON.")
@click.option("--plot", type=FILE_PATH, help="Draw a chart (.png, .svg or .pdf).")
@click.option("--pareto", type=FILE_PATH, help="Draw accuracy, or error, against latency.")
@json_option
@needs("bench", "cpu")
def latency(
    models: tuple[Path, ...],
    checkpoint: Path,
    output: Path | None,
    plot: Path | None,
    pareto: Path | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Time each MODEL against eager PyTorch, with an interval and a verdict.

    Each back end runs in a process of its own, one at a time, in an order drawn anew for every round.
    A model is called faster or slower only where the 95 % interval of its speed-up excludes 1 and the
    difference exceeds 3 %. Exits with 0 only where every MODEL could be compared; a model that crashed,
    or whose answers differ from PyTorch's, was not. --json prints the report without the raw samples.
    """
    from voxport.benchmarks.latency.chart import draw_latency
    from voxport.benchmarks.latency.pareto import draw_pareto
    from voxport.benchmarks.latency.runner import measure_latency

    check_together(click.get_current_context())
    check_output("--output", output)
    pictures = _pictures((("--plot", plot, draw_latency), ("--pareto", pareto, draw_pareto)))
    with step_bar() as progress:
        report = measure_latency(models, checkpoint, latency_settings(choices), progress)
    drawn = pictures if report.rows else []
    for path, draw in drawn:
        draw(report, path)
    finish(report, output, as_json, [path for path, _ in drawn])
    if report.not_compared:
        click.echo(f"error: not compared with eager PyTorch: {', '.join(report.not_compared)}", err=True)
        raise click.exceptions.Exit(1)


Draw = Callable[["LatencyReport", Path], None]


def _pictures(wanted: "tuple[tuple[str, Path | None, Draw], ...]") -> "list[tuple[Path, Draw]]":
    """Those that can be drawn. Without matplotlib there are none, and the user is told now, not after the run."""
    found = []
    for option, path, draw in wanted:
        if path is None:
            continue
        check_output(option, path)
        if path.suffix not in (".png", ".svg", ".pdf"):
            raise click.BadParameter(f"{path}: the name must end in .png, .svg or .pdf", param_hint=option)
        found.append((path, draw))
    if found and importlib.util.find_spec("matplotlib") is None:
        click.echo('no pictures: matplotlib is not installed; pip install "voxport[bench]"', err=True)
        return []
    return found
