"""`voxport bench compare`: two measurements of one thing, usable as a gate in CI."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.bench.common import check_output
from voxport.cli.common import FILE_PATH, emit_json, example, json_option, show_table

if TYPE_CHECKING:
    from voxport.benchmarks.compare.compare import Comparison, Difference

_COLUMNS = ("cell", "back end", "before ms", "after ms", "before / after [95 %]", "change")


@click.command(
    "compare",
    epilog=example(
        """
        voxport bench compare main.json branch.json --threshold 5
        voxport bench compare main.json branch.json --relative --markdown comparison.md
        """
    ),
)
@click.argument("before", metavar="BEFORE.json", type=FILE_PATH)
@click.argument("after", metavar="AFTER.json", type=FILE_PATH)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    default=3.0,
    help="Smallest change that counts, in percent.",
)
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", help="Clock to compare: wall or CPU time.")
@click.option("--relative", is_flag=True, help="Compare speed-ups against each document's own baseline.")
@click.option("--seed", type=int, default=1, help="Seed of the bootstrap.")
@click.option("--markdown", type=FILE_PATH, help="Also write the table as Markdown to this file.")
@json_option
def compare_command(before: Path, after: Path, markdown: Path | None, as_json: bool, **choices: Any) -> None:
    """Compare two documents of `voxport bench latency` or `voxport bench train`, cell by cell.

    Exit code 0: nothing became worse. 1: something became slower by more than the threshold, with a 95 % interval
    that excludes chance, or is gone, or answers differently now. 2: the documents are not comparable, since machine,
    settings, inputs, timed boundary or version differ; the message names the difference.
    """
    from voxport.benchmarks.compare.comparability import RefusalError
    from voxport.benchmarks.compare.compare import CompareOptions, compare_files
    from voxport.benchmarks.core.writing import write_text

    check_output("--markdown", markdown)
    try:
        comparison = compare_files(before, after, CompareOptions(**choices))
    except RefusalError as problem:
        if as_json:
            emit_json({"comparable": False, "differences": problem.differences})
        click.echo(f"error: {problem}", err=True)
        raise click.exceptions.Exit(2) from problem
    if markdown is not None:
        write_text(_markdown(comparison), markdown)
    if as_json:
        regressions = [f"{each.backend} at {each.cell}: {each.change}" for each in comparison.regressions]
        emit_json({"comparable": True, "comparison": comparison, "regressions": regressions})
    else:
        _show(comparison)
    if comparison.regressions:
        raise click.exceptions.Exit(1)


def _show(comparison: "Comparison") -> None:
    click.echo(f"before: {comparison.before} ({comparison.created[0]})")
    click.echo(f"after:  {comparison.after} ({comparison.created[1]})\n")
    show_table("", _COLUMNS, map(_row, comparison.differences))
    click.echo(f"\nabove 1: faster than before; a change below {comparison.options.threshold:g} % is none")
    for note in comparison.notes:
        click.echo(f"- {note}")
    click.echo(_conclusion(comparison))


def _row(each: "Difference") -> tuple[str, ...]:
    from voxport.benchmarks.reporting.wording import number

    change = each.change if each.gate else f"{each.change} (not gated)"
    return each.cell, each.backend, number(each.before_ms), number(each.after_ms), _ratio(each), change


def _ratio(each: "Difference") -> str:
    interval = each.ratio
    return "n/a" if interval is None else f"{interval.ratio:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _conclusion(comparison: "Comparison") -> str:
    worse = comparison.regressions
    if worse:
        return "worse: " + "; ".join(f"{each.backend} at {each.cell} ({each.change})" for each in worse)
    undecided = sum(each.gate and each.change == "undecided" for each in comparison.differences)
    tail = f"; {undecided} undecided: more --rounds would tell" if undecided else ""
    return f"nothing became worse{tail}"


def _markdown(comparison: "Comparison") -> str:
    from voxport.benchmarks.reporting.markdown import plain

    lines = [f"**{plain(_conclusion(comparison))}**", "", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    lines += [f"| {' | '.join(plain(text) for text in _row(each))} |" for each in comparison.differences]
    lines += ["", *(f"- {plain(note)}" for note in comparison.notes)]
    return "\n".join(lines) + "\n"
