"""What every `voxport export …` that runs the parity gate shares: its options, and how its report is shown."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from voxport.cli.common import emit_json, show_table

if TYPE_CHECKING:
    from voxport.export.parity_report import ParityReport

F = TypeVar("F", bound=Callable[..., Any])

_REAL = 40


def gate_options(command: F) -> F:
    """The options of everything that runs the parity gate."""
    for option in (
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
        command = option(command)
    return command


def is_shown(progress: bool | None) -> bool:
    """Whether to show progress: by default at a terminal."""
    return sys.stderr.isatty() if progress is None else progress


def emit_report(report: "ParityReport") -> None:
    """Print the whole report as JSON."""
    from voxport.export.parity_report import plain

    emit_json(plain(report))


def show_report(report: "ParityReport") -> None:
    """Print the report's figures as tables."""
    from voxport.export.parity_report import facts

    show_table(f"Parity: {'passed' if report.passed else 'FAILED'}", ("", ""), facts(report))
    click.echo()
    rows = [(check.name, "equal" if check.passed else "FAILED", check.detail) for check in report.checks]
    show_table("Besides the answers", ("", "", ""), rows)
