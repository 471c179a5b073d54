"""What a long step is doing, shown on stderr, so that stdout stays for results."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def status(text: str, shown: bool) -> Iterator[None]:
    """A spinner on stderr while the block runs, if `shown`."""
    if not shown:
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
