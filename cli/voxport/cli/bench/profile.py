"""`voxport bench profile`: where an ONNX model's time goes, by operator, before and after."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voxport.cli.common import FILE_PATH, emit_json, example, json_option, needs, show_table
from voxport.cli.progress import step_bar

if TYPE_CHECKING:
    from voxport.benchmarks.profiling.operators import ModelProfile, OpProfileReport


@click.command(
    epilog=example(
        """
        voxport bench profile model.onnx --against runs/best/model.pt
        voxport bench profile fp32.onnx int8.onnx --against runs/best/model.pt --frames 128 --frames 1000
        voxport bench profile after.onnx --against before.onnx --json
        """
    )
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=FILE_PATH)
@click.option(
    "--against",
    metavar="CHECKPOINT|ONNX",
    type=FILE_PATH,
    help="What was before: a checkpoint, whose eager network torch.onnx.export writes as it comes, or an ONNX file.",
)
@click.option("--frames", multiple=True, type=click.IntRange(1), default=(128,), help="Length in frames; repeatable.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1), default=(1,), help="Batch size; repeatable.")
@click.option("--runs", type=click.IntRange(1), default=20, help="Number of calls under the profiler.")
@click.option("--rounds", type=click.IntRange(1), default=9, help="Rounds of timing without the profiler.")
@click.option("--top", type=click.IntRange(1), default=15, help="Number of operators to show.")
@json_option
@needs("bench", "export", "cpu")
def profile_command(
    models: tuple[Path, ...],
    against: Path | None,
    frames: tuple[int, ...],
    batches: tuple[int, ...],
    runs: int,
    rounds: int,
    top: int,
    as_json: bool,
) -> None:
    """Show nodes and time of each operator as ONNX Runtime ran them, on one CPU thread.

    With --against also those before, on equal inputs in the same run, and how many times faster each MODEL
    is (CPU time, taken in turns, with a 95 % interval). For a verdict on latency use `voxport bench latency`.
    """
    from voxport.benchmarks.profiling.operators import OpProfileSettings, profile_models

    settings = OpProfileSettings(frames, batches, runs, rounds)
    with step_bar() as progress:
        report = profile_models(models, against, settings, progress)
    if as_json:
        emit_json(report)
    else:
        _show(report, top)


def _show(report: "OpProfileReport", top: int) -> None:
    if report.before is not None:
        click.echo(f"before: {report.before}")
    click.echo(f"ONNX Runtime {report.onnxruntime}, one thread; operators: medians of {report.runs} profiled calls")
    for cell, group in groupby(report.profiles, key=lambda each: each.cell):
        profiles = list(group)
        click.echo()
        columns = ("model", "nodes", "dead", "run", "fused", "transposes", "operators µs", "call ms", "times faster")
        show_table(f"batch × frames: {cell}", columns, [_graph_row(each) for each in profiles])
        click.echo()
        show_table(
            "By operator: nodes, µs, share", ("operator", *(each.model for each in profiles)), _ops(profiles, top)
        )


def _graph_row(each: "ModelProfile") -> tuple[str, ...]:
    from voxport.benchmarks.reporting.wording import estimate

    graph = each.graph
    return (
        each.model,
        str(graph.written),
        str(graph.dead),
        str(graph.run),
        str(sum(graph.fused.values())),
        str(graph.transposes),
        f"{each.nodes_us:,.0f}",
        estimate(each.call_ms),
        "" if each.faster is None else estimate(each.faster, "×"),
    )


def _ops(profiles: "Sequence[ModelProfile]", top: int) -> list[tuple[str, ...]]:
    """Operators by the time that they take in any of the models, each model in a column."""
    from voxport.benchmarks.reporting.wording import number

    found = [{op.op: op for op in each.ops} for each in profiles]
    most = {op: max(ops[op].us for ops in found if op in ops) for ops in found for op in ops}
    order = sorted(most, key=lambda op: -most[op])
    rows = []
    for op in order[:top]:
        cells = [f"{ops[op].nodes}, {number(ops[op].us)}, {ops[op].share:.1%}" if op in ops else "" for ops in found]
        rows.append((op, *cells))
    if order[top:]:
        rest = [[ops[op] for op in order[top:] if op in ops] for ops in found]
        cells = [
            f"{sum(op.nodes for op in ops)}, {number(sum(op.us for op in ops))}, {sum(op.share for op in ops):.1%}"
            for ops in rest
        ]
        rows.append((f"{len(order) - top} others", *cells))
    return rows
