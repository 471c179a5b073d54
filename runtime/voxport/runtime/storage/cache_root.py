"""The one folder that voxport caches in, and a sentence for where there is none."""

import os
from typing import TYPE_CHECKING

from voxport.runtime.errors import BackendError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "VOXPORT_CACHE"


def cache_root(option: str | os.PathLike[str] | None = None) -> "Path":
    """`option`, else $VOXPORT_CACHE, else ~/.cache/voxport; absolute, and not made yet.

    Raises:
        BackendError: neither is given and the user has no home folder, as in a container that runs under a
            number without an entry in /etc/passwd and without HOME.
    """
    from pathlib import Path  # a start that caches nothing does without it

    try:
        return Path(option or os.environ.get(VARIABLE) or "~/.cache/voxport").expanduser().absolute()
    except RuntimeError as problem:
        raise BackendError(
            f"there is no home folder to cache in (no HOME, and no entry in /etc/passwd for user {_user()}); "
            f"set {VARIABLE} to a folder that can be written"
        ) from problem


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "this one"
