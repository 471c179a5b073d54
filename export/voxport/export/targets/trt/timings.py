"""The file of TensorRT's timing cache: what builds have measured, for those that come after."""

from collections.abc import Callable
from pathlib import Path

from voxport.export.errors import ExportError
from voxport.export.staging import write_atomic
from voxport.runtime.errors import GalleryError
from voxport.runtime.storage.lock import locked

_WAIT_S = 30.0


def read_timings(path: Path) -> bytes:
    """The file's bytes; none where there is no file yet.

    Raises:
        ExportError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as problem:
        raise ExportError(
            f"{path}: the timing cache cannot be read ({problem.strerror or problem}); name another file"
        ) from problem


def update_timings(path: Path, merge: Callable[[bytes], bytes]) -> None:
    """Replace the file by `merge(its bytes)`; builds that run at once do so one after the other.

    Raises:
        ExportError: it cannot be locked or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, _WAIT_S):
            write_atomic(path, merge(read_timings(path)))
    except (OSError, GalleryError) as problem:
        raise ExportError(f"{path}: the timing cache cannot be written ({problem}); name another file") from problem
