"""Progress of long commands, on stderr so that stdout stays for results: whether it is shown, and the bars."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what comes next

progress_option = click.option(
    "--progress/--no-progress", default=None, help="Show progress bars.  [default: at a terminal]"
)


def is_shown(progress: bool | None = None) -> bool:
    """Whether to show progress: as asked for, else where a person watches stderr."""
    return sys.stderr.isatty() if progress is None else progress


@contextmanager
def counting_bar(label: str, shown: bool) -> Iterator[Callable[[float, float], None]]:
    """A bar that needs click alone; the function that it yields takes what is done, and of how much."""
    if not shown:
        yield lambda done, total: None
        return
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=True) as bar:

        def show(done: float, total: float) -> None:
            bar.length = max(1, int(total))
            bar.update(int(done) - bar.pos)

        yield show


@contextmanager
def step_bar() -> Iterator[Progress]:
    """A bar that is redrawn between steps only: its own thread would disturb what is timed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar
    except ModuleNotFoundError:
        yield lambda done, total, what: click.echo(f"[{done}/{total}] {what}", err=True) if what else None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Bar(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what, refresh=True)
