"""Progress on stderr, so that stdout stays for results."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def progress_bar(title: str, shown: bool, *, stays: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar, if `shown`, which `stays` or goes at the end; the function that it yields takes (done, total)."""
    if not shown:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=not stays) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def track(items: Iterable[T], description: str, total: int, shown: bool) -> Iterator[T]:
    """Yield `items`, with a bar of `total` steps where `shown`."""
    if not shown or not total:
        yield from items
        return
    with progress_bar(description, shown, stays=True) as show:
        for done, item in enumerate(items, 1):
            yield item
            show(done, total)


@contextmanager
def status(text: str, shown: bool) -> Iterator[None]:
    """A spinner while the block runs, if `shown`."""
    if not shown:
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
