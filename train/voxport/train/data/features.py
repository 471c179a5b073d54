"""Features of sound files: computed once, in parallel, and cached by the file's content.

This module runs in worker processes and must not import torch.
"""

import functools
import hashlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.corpora.errors import CorpusError, EntryError
from voxport.corpora.layouts.base import Entry
from voxport.corpora.sounds import read_sound
from voxport.runtime.errors import AudioError, ChannelError, LengthError
from voxport.runtime.frontend.log_mel import compute_features, num_frames
from voxport.runtime.frontend.spec import Frontend
from voxport.train.data.feature_store import atomic_file

FEATURES_VERSION = 2  # rises when the same frontend definition comes to give other numbers

_POOL_PAYS = 24  # files; below, starting processes takes longer than the work
_CHUNK = 4  # files that a worker takes at once


@dataclass(frozen=True)
class SoundResult:
    """Where the cached features of a sound file are, or why there are none."""

    cached: Path | None
    unusable: EntryError | None = None


def compute_all(entries: Sequence[Entry], frontend: Frontend, cache: Path, jobs: int | None) -> Iterator[SoundResult]:
    """Yield a result for each of `entries`, in order, computing what is not in the cache yet.

    Raises:
        BackendError: soundfile or soxr is not installed.
        CorpusError: the cache cannot be written, or a worker process died.
    """
    jobs = min(jobs or cpus(), -(-len(entries) // _CHUNK))
    work = partial(compute_one, frontend=frontend, cache=cache)
    if jobs <= 1 or len(entries) < _POOL_PAYS or not can_lock():
        yield from map(work, entries)
        return
    # spawn: forking a process in which torch or a progress bar has threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=start_worker)
    try:
        yield from pool.map(work, entries, chunksize=_CHUNK)
    except BrokenProcessPool as problem:
        raise CorpusError(
            "a process that computes features died; if memory is short use fewer jobs, and a script that opens "
            'a corpus needs `if __name__ == "__main__":` around its work, or jobs=1'
        ) from problem
    finally:
        pool.shutdown(cancel_futures=True)


def can_lock() -> bool:
    """Whether processes can have a lock together: on Linux that takes a /dev/shm that can be written.

    Without one, as in some containers, one process does the same work, and `voxport doctor` says why.
    """
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError:
        return False
    return True


def compute_one(entry: Entry, frontend: Frontend, cache: Path) -> SoundResult:
    """Make sure that the features of one sound are in the cache, keyed by frontend, content and piece."""
    try:
        digest = _digest(entry)
        cached = cache / "features" / f"v{FEATURES_VERSION}-{frontend.digest}" / digest[:2] / f"{digest}.npy"
        if load_cached(cached, frontend.n_mels) is None:
            features = _features(entry, frontend)
            with atomic_file(cached) as file:
                np.save(file, features)
        return SoundResult(cached)
    except EntryError as problem:
        return SoundResult(None, problem)


def load_cached(path: Path, n_mels: int) -> npt.NDArray[np.float32] | None:
    """Cached features (frames, n_mels) float32, or None where there are none or they are damaged."""
    try:
        features: Any = np.load(path, allow_pickle=False)
        if features.dtype == np.float32 and features.ndim == 2 and features.shape[1] == n_mels:
            checked: npt.NDArray[np.float32] = features
            return checked
    except Exception:  # of NumPy, which reads a damaged head as Python's text; the features are computed again
        return None
    return None


def _features(entry: Entry, frontend: Frontend) -> npt.NDArray[np.float32]:
    try:
        samples = read_sound(entry, frontend.sample_rate)
        if num_frames(frontend, len(samples)) < 1:
            raise EntryError("short", f"{len(samples)} samples at {frontend.sample_rate} Hz")
        features = compute_features(samples, frontend)
    except LengthError as problem:
        raise EntryError("short", str(problem)) from problem
    except AudioError as problem:
        reason = str(problem).removeprefix(f"{entry.path}: ")
        if entry.member is not None:
            reason = reason.partition(": ")[2]  # the file that the message names is gone
        if isinstance(problem, ChannelError):
            raise EntryError("channels", reason) from problem
        raise EntryError("not-finite" if "NaN" in reason else "unreadable", reason) from problem
    if not np.isfinite(features).all():
        raise EntryError("not-finite", "the features are not all finite")
    return np.asarray(features, dtype=np.float32)


def _digest(entry: Entry) -> str:
    """A hash of the sound's content, and of which channel and piece of it is meant."""
    content = _content_digest(entry)
    return content if entry.channel is None else hashlib.sha256(f"{content}#{entry.channel}".encode()).hexdigest()


def _content_digest(entry: Entry) -> str:
    if entry.member is not None:
        try:
            return hashlib.sha256(entry.member.read(entry.path)).hexdigest()
        except (OSError, ValueError) as problem:
            raise EntryError("unreadable", str(problem)) from problem
    if entry.span is None:
        return _sha256(entry.path)
    try:
        status = os.stat(entry.path)
    except OSError:
        return _sha256(entry.path)  # it says why
    whole = _known_sha256(entry.path, status.st_size, status.st_mtime_ns)
    return hashlib.sha256(f"{whole}#{entry.span}".encode()).hexdigest()


@functools.lru_cache(maxsize=16)  # a recording of an hour may have a thousand pieces
def _known_sha256(path: Path, size: int, stamp: int) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except FileNotFoundError as problem:
        raise EntryError("missing", "no such file") from problem
    except OSError as problem:
        raise EntryError("unreadable", str(problem)) from problem


def cpus() -> int:
    """CPUs that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_worker() -> None:
    """One thread per worker: the workers are as many as the CPUs already."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)
