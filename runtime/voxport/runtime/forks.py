"""What a forked child may not touch of its parent: libraries' threads are not there, and locks may be held for ever.

ONNX Runtime's threads do not come along. A session that has any can neither run in the child nor be taken apart
there: its end waits for threads that do not exist, so that the child would never end. Here the child keeps such an
object to its end without touching it, and whoever owns it makes another.
"""

import contextlib
import os
import weakref
from typing import Any, Protocol

from voxport.runtime.errors import BackendError


class Forking(Protocol):
    """An object that must know of a fork."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there. Must not wait for a lock, nor raise."""
        ...


_known: "weakref.WeakSet[Any]" = weakref.WeakSet()


def tell_of_forks(one: Forking) -> None:
    """Have `one.after_fork()` called in every process that is forked while `one` lives."""
    _known.add(one)


def keep_for_ever(one: object) -> None:
    """Never take `one` apart in this process, not at its end either."""
    with contextlib.suppress(Exception):  # without ctypes the child may wait at its end, as it did before
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def refuse_after_fork(loaded_in: int, what: str) -> None:
    """Raise BackendError in a process that was forked from the one, `loaded_in`, where a model was loaded."""
    if os.getpid() != loaded_in:
        raise BackendError(
            f"the model was loaded before this process forked, and {what} cannot be used after a fork; load it in "
            "each process, after the fork"
        )


def _in_child() -> None:
    for one in list(_known):
        with contextlib.suppress(Exception):
            one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
