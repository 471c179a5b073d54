"""Progress on stderr, so that stdout stays for results."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int, shown: bool) -> Iterator[T]:
    """Yield `items`, with a bar of `total` steps on stderr where `shown`."""
    if not shown or not total:
        yield from items
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(items, total=total, description=description)


@contextmanager
def status(text: str, shown: bool) -> Iterator[None]:
    """A spinner on stderr while the block runs, if `shown`."""
    if not shown:
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
