"""What every `voxport export …` that runs the parity gate shares: its options, and how its report is shown."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from voxport.cli.common import emit_json, given_options, needs, show_table

if TYPE_CHECKING:
    from voxport.export.dry_run import Preview
    from voxport.export.verification.report import ParityReport

F = TypeVar("F", bound=Callable[..., Any])

_REAL = 40


class OutputChoice(click.Choice[str]):
    """scores, embedding or both, as the names of outputs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        if str(value).lower() not in self.choices:
            self.fail(
                f"{value!r} is not one of {', '.join(self.choices)}; the file to write is given with -o", param, ctx
            )
        chosen = super().convert(value, param, ctx)
        return ("scores", "embedding") if chosen == "both" else (chosen,)


def gate_options(command: F) -> F:
    """The options of everything that runs the parity gate. Those on accuracy reach `command` as one, `accuracy`."""
    gated = _with_accuracy(command)
    for option in (
        click.option("--accuracy-limit", type=click.IntRange(1), help="Labelled utterances to take, at most."),
        click.option(
            "--max-drop",
            type=click.FloatRange(0, 100, max_open=True),
            default=0.2,
            show_default=True,
            help="Points of accuracy that may be lost on --accuracy-data; more fails where chance does not explain it.",
        ),
        click.option(
            "--accuracy-data",
            type=click.Path(path_type=Path),
            help="Labelled utterances on which the artefact must be as accurate as eager PyTorch: homework folder, "
            "folder per speaker, or CSV/JSONL manifest.",
        ),
        click.option("--progress/--no-progress", default=None, help="Progress bars; default: at a terminal."),
        click.option("--cache", type=click.Path(path_type=Path), help="Folder of computed features, as in training."),
        click.option(
            "--real",
            type=click.IntRange(0),
            default=_REAL,
            show_default=True,
            help="Real utterances to compare, at most, where the checkpoint's data is still there.",
        ),
    ):
        gated = option(gated)
    return gated


def _with_accuracy(command: F) -> F:
    """Hand `command` an AccuracyOptions, or None, in place of the three options that make one."""

    @functools.wraps(command)
    @needs("export", "cpu")
    def wrapper(*, accuracy_data: Path | None, max_drop: float, accuracy_limit: int | None, **choices: Any) -> Any:
        accuracy = None
        if accuracy_data is not None:
            from voxport.export.verification.accuracy import AccuracyOptions

            shown = is_shown(choices["progress"])
            accuracy = AccuracyOptions(accuracy_data, max_drop, accuracy_limit, choices["cache"], shown)
        elif given := given_options(("max_drop", "accuracy_limit")):
            raise click.UsageError(f"{', '.join(given)}: about a labelled set, and there is none; give --accuracy-data")
        return command(accuracy=accuracy, **choices)

    return cast(F, wrapper)


def is_shown(progress: bool | None) -> bool:
    """Whether to show progress: by default at a terminal."""
    return sys.stderr.isatty() if progress is None else progress


def emit_report(report: "ParityReport") -> None:
    """Print the whole report as JSON."""
    from voxport.export.verification.report import plain

    emit_json(plain(report))
    _warn(report)


def show_report(report: "ParityReport") -> None:
    """Print the report's figures as tables."""
    from voxport.export.verification.report import facts

    show_table(f"Parity: {'passed' if report.passed else 'FAILED'}", ("", ""), facts(report))
    click.echo()
    rows = [(check.name, "equal" if check.passed else "FAILED", check.detail) for check in report.checks]
    show_table("Besides the answers", ("", "", ""), rows)
    _warn(report)


def _warn(report: "ParityReport") -> None:
    """Say on stderr what a passing report leaves open."""
    if report.accuracy is not None and report.accuracy.doubt:
        click.echo(f"warning: accuracy {report.accuracy.doubt}", err=True)
    if report.real_lost:
        click.echo(f"warning: the gate compared no real utterances: {report.real_utterances}", err=True)


def dry_run_option(command: F) -> F:
    """`--dry-run`, which reaches `command` as `dry_run`."""
    text = "Only say what would be built, checked and written; nothing is."
    return click.option("--dry-run", is_flag=True, help=text)(command)


def show_preview(found: "Preview", as_json: bool) -> None:
    """Print what would be built, as JSON or as a table."""
    if as_json:
        emit_json(found)
        return
    first = f"{found.writes[0]} ({_standing(found)})"
    rows = [("kind", found.target)]
    rows += [("writes", path) for path in (first, *found.writes[1:])]
    rows.append(("checkpoint", f"{found.checkpoint}: recipe {found.recipe}, {found.speakers} speakers"))
    rows += [("input", str(tensor)) for tensor in found.inputs]
    rows += [("output", str(tensor)) for tensor in found.outputs]
    rows.append(("precision", found.precision))
    if found.opset is not None:
        rows.append(("opset", str(found.opset)))
    rows.append(("length in frames", f"{found.min_frames} to {found.max_frames}"))
    rows.append(("length in seconds", f"{found.min_seconds:.2f} to {found.max_seconds:.2f}"))
    rows.append(("gate", f"{found.utterances} synthetic utterances in {found.runs} runs, alone and in padded batches"))
    rows.append(("real utterances", found.real))
    rows.append(("accuracy", found.accuracy))
    rows += [("note", text) for text in found.notes]
    show_table("Would be built", ("", ""), rows)


def _standing(found: "Preview") -> str:
    if not found.exists:
        return "new"
    return "exists, and would be replaced" if found.replaced else "exists, and would be refused without --force"
