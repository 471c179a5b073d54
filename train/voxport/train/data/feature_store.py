"""All features of a corpus in one memory-mapped file, beside a JSON index.

Opening thousands of small files per epoch is slow; one file of float32 rows that the system pages in
is not. The index names its data file, and the data file's name holds the stamp of its sources, so
that index and data always belong together, whichever of several writing processes came last.
"""

import contextlib
import errno
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from voxport.corpora.errors import CorpusError, Problem
from voxport.runtime.storage.cache_root import cache_root

PACK_VERSION = 2  # rises when the layout below or the features change: older packs are then built again


class Pack:
    """Features of many utterances, end to end in one file of little-endian float32 rows.

    `rows` has shape (total frames, n_mels); utterance i is rows[offsets[i] : offsets[i] + frames[i]].
    Pickling carries the file's path, not its content, so that worker processes map it themselves.
    """

    def __init__(self, path: Path, n_mels: int, offsets: npt.ArrayLike, frames: npt.ArrayLike) -> None:
        self.path = path
        self.n_mels = n_mels
        self.offsets: npt.NDArray[np.int64] = np.asarray(offsets, dtype=np.int64)
        self.frames: npt.NDArray[np.int64] = np.asarray(frames, dtype=np.int64)
        self.rows: npt.NDArray[np.float32] = np.empty((0, n_mels), dtype=np.float32)
        if path.stat().st_size:  # an empty file cannot be mapped
            # A plain view of the map: slicing np.memmap itself costs ten times as much.
            self.rows = np.asarray(np.memmap(path, dtype="<f4", mode="r")).reshape(-1, n_mels)

    def features(self, i: int) -> npt.NDArray[np.float32]:
        start = self.offsets[i]
        return self.rows[start : start + self.frames[i]]

    def __reduce__(self) -> tuple[Any, ...]:
        return Pack, (self.path, self.n_mels, self.offsets, self.frames)


@dataclass(frozen=True)
class PackIndex:
    """What the JSON index says: the rows of `keys`, of which the first `labelled` have a speaker.

    `speakers` are indices into `labels`, -1 for test utterances. `offsets` and `frames` are in rows.
    """

    stamp: str
    rows: int
    labels: tuple[str, ...]
    keys: tuple[str, ...]
    speakers: tuple[int, ...]
    offsets: tuple[int, ...]
    frames: tuple[int, ...]
    labelled: int
    problems: tuple[Problem, ...]


def write_rows(folder: Path, key: str, stamp: str, arrays: Iterable[npt.NDArray[np.float32]]) -> int:
    """Write `arrays`, each (frames, n_mels), end to end into the data file; returns the rows written.

    The file appears under its name only when it is complete.
    """
    rows = 0
    with atomic_file(_data_path(folder, key, stamp), durable=True) as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array, dtype="<f4").data)
            rows += len(array)
    return rows


def write_index(folder: Path, key: str, index: PackIndex) -> None:
    """Write the index, then remove data files of the same corpus that it no longer names."""
    content = {
        "version": PACK_VERSION,
        **{name: value for name, value in vars(index).items() if name != "problems"},
        "problems": [[problem.key, problem.kind, problem.reason] for problem in index.problems],
    }
    with atomic_file(_index_path(folder, key)) as file:
        file.write(json.dumps(content).encode())
    for old in _stale(folder, key, index.stamp):
        with contextlib.suppress(OSError):  # another process was faster
            old.unlink()


def read_pack(folder: Path, key: str, stamp: str, n_mels: int) -> tuple[PackIndex, Pack] | None:
    """The pack and its index, or None where there is none, or none of this stamp and size."""
    try:
        content = json.loads(_index_path(folder, key).read_bytes())
        if content.pop("version") != PACK_VERSION or content["stamp"] != stamp:
            return None
        content["problems"] = [Problem(*problem) for problem in content["problems"]]
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        index = PackIndex(**values)
        data = _data_path(folder, key, stamp)
        if data.stat().st_size != index.rows * n_mels * 4:
            return None
        return index, Pack(data, n_mels, index.offsets, index.frames)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        # Absent, cut short or edited: a cache holds nothing that cannot be made again.
        return None


def _index_path(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"


def _data_path(folder: Path, key: str, stamp: str) -> Path:
    return folder / f"{key}-{stamp}.f32"


def _stale(folder: Path, key: str, stamp: str) -> Iterator[Path]:
    """Data files of this corpus that the index no longer names, and what killed processes left behind."""
    yesterday = time.time() - 86400
    for path in folder.iterdir():
        superseded = path.name.startswith(f"{key}-") and path != _data_path(folder, key, stamp)
        with contextlib.suppress(OSError):
            if superseded or (path.name.startswith(PART_PREFIX) and path.stat().st_mtime < yesterday):
                yield path


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
