"""One writer at a time, across processes: a lock file beside the file that is changed."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from voxport.runtime.errors import GalleryError
from voxport.runtime.storage.npz import check_file_name

_PAUSE_S = 0.02


@contextlib.contextmanager
def locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold the lock of `path`; the operating system lets go of it where a process dies.

    Raises:
        GalleryError: another process or thread still holds it after `timeout_s` seconds, or the folder
            cannot be written.
    """
    check_file_name(path)
    target = Path(os.path.realpath(path))
    lock = target.with_name(f".{target.name}.lock")
    give_up = time.monotonic() + timeout_s
    try:
        while (handle := _try(lock)) is None:
            if time.monotonic() >= give_up:
                raise GalleryError(f"{path}: another process is changing it, waited {timeout_s:g} s; try again later")
            time.sleep(_PAUSE_S)
    except FileNotFoundError as problem:
        raise GalleryError(f"{path}: there is no folder {target.parent}; make it, or write to another") from problem
    except OSError as problem:
        raise GalleryError(f"{path}: cannot be locked ({problem.strerror or problem}: {lock})") from problem
    try:
        yield
    finally:
        # Removed while it is held: who waits on it notices, in _try, that it is gone. Windows keeps it.
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(handle)


def _try(lock: Path) -> int | None:
    """A handle that holds `lock`, or None where somebody else does."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        if _take(handle) and os.path.samestat(os.fstat(handle), os.stat(lock)):
            return handle
    except FileNotFoundError:  # it was removed between opening and taking it
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _take(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # what Linux and Windows say of a lock that is taken
        return False
    return True
