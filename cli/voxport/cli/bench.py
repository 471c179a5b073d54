"""`voxport bench …`: how fast, and how sure of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table

if TYPE_CHECKING:
    from voxport.benchmarks.latency import Progress
    from voxport.benchmarks.plan import LatencySettings
    from voxport.benchmarks.report import LatencyReport, Row
    from voxport.benchmarks.statistics import Interval

_COLUMNS = (
    "back end",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "CPU ms",
    "utt/s",
    "RTF",
    "speed-up [95 %]",
    "verdict",
)
_ANSWER_COLUMNS = ("batch × frames", "back end", "max |Δscore|", "allowed", "same best speaker")


@click.group()
def bench() -> None:
    """Measure models against each other."""


@bench.command(
    epilog=example(
        """
        voxport bench latency model.onnx --against runs/best/model.pt -o latency.json --plot latency.png
        voxport bench latency fp32.onnx int8.onnx --against runs/best/model.pt --frames 200 --batch 1 --batch 8
        """
    )
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option(
    "--against",
    "checkpoint",
    required=True,
    metavar="CHECKPOINT",
    type=click.Path(path_type=Path),
    help="The checkpoint behind the models; eager PyTorch runs it as the baseline.",
)
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(1), default=(1,), show_default=True, help="Repeatable."
)
@click.option(
    "--frames",
    multiple=True,
    type=click.IntRange(1),
    help="Length of each utterance; repeatable. Default: those of 128, 400 and 1000 that the models take.",
)
@click.option("--rounds", type=click.IntRange(5), default=5, show_default=True, help="Fresh processes per back end.")
@click.option("--seconds", type=click.FloatRange(0.01), default=2.0, show_default=True, help="Timed, per block.")
@click.option(
    "--warmup", type=click.FloatRange(0), default=1.0, show_default=True, help="Least seconds before each block."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="In every back end.")
@click.option(
    "--control/--no-control", default=True, show_default=True, help="Eager PyTorch against itself: the noise floor."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of inputs, order and bootstrap.")
@click.option(
    "--timeout", type=click.FloatRange(1), default=300.0, show_default=True, help="Seconds a worker may stay silent."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write everything, raw samples too, as JSON.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw a chart (.png, .svg or .pdf).")
@json_option
@needs("bench", "cpu")
def latency(
    models: tuple[Path, ...], checkpoint: Path, output: Path | None, plot: Path | None, as_json: bool, **choices: Any
) -> None:
    """Time each MODEL against eager PyTorch, with an interval and a verdict.

    Each back end runs in a process of its own, one at a time, in an order drawn anew for every round.
    A model is called faster or slower only where the 95 % interval of its speed-up excludes 1 and the
    difference exceeds 3 %. Exits with 0 only where every MODEL could be compared; a model that crashed,
    or whose answers differ from PyTorch's, was not. --json prints the report without the raw samples.
    """
    from voxport.benchmarks.chart import draw_latency
    from voxport.benchmarks.latency import measure
    from voxport.benchmarks.report import write_report

    _check_outputs(output, plot)
    with _progress() as progress:
        report = measure(models, checkpoint, _settings(choices), progress)
    written = []
    if output is not None:
        write_report(report, output)
        written.append(output)
    if plot is not None and report.rows:
        draw_latency(report, plot)
        written.append(plot)
    if as_json:
        emit_json(report.without_samples())
    else:
        _show(report)
        for path in written:
            click.echo(f"wrote {path}")
    if report.not_compared:
        click.echo(f"error: not compared with eager PyTorch: {', '.join(report.not_compared)}", err=True)
        raise click.exceptions.Exit(1)


def _settings(choices: dict[str, Any]) -> "LatencySettings":
    from voxport.benchmarks.plan import LatencySettings
    from voxport.benchmarks.timing import BlockRule

    rule = BlockRule.lasting(choices.pop("seconds"), choices.pop("warmup"))
    return LatencySettings(**dict(choices, frames=choices["frames"] or None), rule=rule)


def _check_outputs(output: Path | None, plot: Path | None) -> None:
    """Find out before minutes of measuring that their result could not be written or drawn."""
    for option, path in (("--output", output), ("--plot", plot)):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.BadParameter(f"{path.parent}: no such folder; make it first", param_hint=option)
        if path is not None and path.is_dir():
            raise click.BadParameter(f"{path} is a folder; name a file in it", param_hint=option)
    if plot is not None:
        if plot.suffix not in (".png", ".svg", ".pdf"):
            raise click.BadParameter(f"{plot}: the name must end in .png, .svg or .pdf", param_hint="--plot")
        import matplotlib.figure  # noqa: F401 - a missing package must show now


@contextmanager
def _progress() -> "Iterator[Progress]":
    """A bar on stderr. It is redrawn between blocks only: its own thread would disturb what is timed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    except ModuleNotFoundError:
        yield lambda done, total, what: click.echo(f"[{done}/{total}] {what}", err=True) if what else None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("")

        def show(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what, refresh=True)

        yield show


def _show(report: "LatencyReport") -> None:
    settings, machine = report.settings, report.machine
    for boundary in report.boundaries:
        click.echo(f"timed: {boundary.text}")
    click.echo(f"scenario: {report.scenario}")
    cores = f"{machine.usable_cores:g} usable core" + ("s" if machine.usable_cores != 1 else "")
    click.echo(f"machine: {machine.cpu}, {cores}; {machine.os}; {machine.python}")
    threads = f"{settings.threads} thread" + ("s" if settings.threads != 1 else "")
    click.echo(f"settings: {settings.device}, {threads}, {settings.rounds} rounds of fresh processes\n")
    show_table("Answers on the timed inputs, against eager PyTorch", _ANSWER_COLUMNS, _answers(report))
    for cell in report.cells:
        rows = [row for row in report.rows if row.cell == cell]
        if rows:
            seconds = report.sound_seconds(cell)
            title = f"\nLatency, batch {cell.batch} × {cell.frames} frames ({seconds:.3g} s of sound each)"
            show_table(title, _COLUMNS, map(_latency, rows))
    click.echo("\nn/a: too few calls for that percentile. RTF: time over duration of sound, below 1 is real time.")
    if report.harness_us is not None:
        click.echo(f"The harness adds {report.harness_us:.1f} µs to each call, measured with a call that does nothing.")
    click.echo("Each interval stands for itself: with 20 of them, expect one to miss its true value.")
    for note in report.notes:
        click.echo(f"- {note}")


def _answers(report: "LatencyReport") -> Iterator[tuple[str, ...]]:
    for check in report.answers:
        distance = "not finite" if check.max_abs is None else f"{check.max_abs:.1e}"
        yield str(check.cell), check.backend, distance, f"{check.allowed:.1e}", f"{check.top1:.1%}"


def _latency(row: "Row") -> tuple[str, ...]:
    return (
        row.backend,
        _ms(row.p50_ms),
        _ms(row.p90_ms),
        _ms(row.p99_ms),
        _ms(row.cpu_p50_ms),
        f"{row.utterances_per_second:.1f}",
        f"{row.real_time_factor:.2g}",
        _ratio(row.speed_up),
        row.verdict + (" (unstable)" if row.unstable_rounds else ""),
    )


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _ratio(interval: "Interval | None") -> str:
    return "" if interval is None else f"{interval.ratio:.2f}× [{interval.low:.2f}, {interval.high:.2f}]"
