"""The cache folder: where it is, and how files get into it without ever being seen half-written."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from voxport.runtime.cache_root import cache_root
from voxport.train.data.problems import CorpusError

PART_PREFIX = ".part-"  # of files that are being written


def cache_folder(option: Path | None) -> Path:
    """The folder of computed features: `option`, else $VOXPORT_CACHE, else ~/.cache/voxport; see `cache_root`."""
    return cache_root(option)


@contextlib.contextmanager
def atomic_file(path: Path, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file opened for writing that becomes `path` on success and vanishes on failure.

    Each writer has its own temporary name, so processes that write the same file at once cannot mix.
    `durable` waits until the disk has it.

    Raises:
        CorpusError: the cache folder cannot be written.
    """
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PART_PREFIX, suffix=path.suffix, dir=path.parent)
        part = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(part, path)
        part = None
    except OSError as problem:
        full = "free some space, or " if problem.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise CorpusError(
            f"{path.parent}: cannot write the feature cache ({problem}); {full}choose another folder with VOXPORT_CACHE"
        ) from problem
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
