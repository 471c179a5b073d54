"""Features of sound files: computed once, in parallel, and cached by the file's content.

This module runs in worker processes and must not import torch.
"""

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

from voxport.runtime.audio import read_audio
from voxport.runtime.errors import AudioError, LengthError
from voxport.runtime.frontend import compute_features, num_frames
from voxport.runtime.frontend_spec import Frontend
from voxport.train.data.cache import atomic_file
from voxport.train.data.problems import CorpusError, EntryError

FEATURES_VERSION = 1  # rises when the same frontend definition comes to give other numbers

_POOL_PAYS = 24  # files; below, starting processes takes longer than the work
_CHUNK = 4  # files that a worker takes at once


@dataclass(frozen=True)
class SoundResult:
    """Where the cached features of a sound file are, or why there are none."""

    cached: Path | None
    unusable: EntryError | None = None


def compute_all(paths: Sequence[Path], frontend: Frontend, cache: Path, jobs: int | None) -> Iterator[SoundResult]:
    """Yield a result for each of `paths`, in order, computing what is not in the cache yet.

    Raises:
        BackendError: soundfile or soxr is not installed.
        CorpusError: the cache cannot be written, or a worker process died.
    """
    jobs = min(jobs or _cpus(), -(-len(paths) // _CHUNK))
    work = partial(compute_one, frontend=frontend, cache=cache)
    if jobs <= 1 or len(paths) < _POOL_PAYS:
        yield from map(work, paths)
        return
    # spawn: forking a process in which torch or a progress bar has threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker)
    try:
        yield from pool.map(work, paths, chunksize=_CHUNK)
    except BrokenProcessPool as problem:
        raise CorpusError(
            "a process that computes features died; if memory is short use fewer jobs, and a script that opens "
            'a corpus needs `if __name__ == "__main__":` around its work, or jobs=1'
        ) from problem
    finally:
        pool.shutdown(cancel_futures=True)


def compute_one(path: Path, frontend: Frontend, cache: Path) -> SoundResult:
    """Make sure that the features of one sound file are in the cache, keyed by frontend and content."""
    try:
        digest = _sha256(path)
        cached = cache / "features" / f"v{FEATURES_VERSION}-{frontend.digest}" / digest[:2] / f"{digest}.npy"
        if load_cached(cached, frontend.n_mels) is None:
            features = _features(path, frontend)
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
    except (OSError, ValueError, EOFError, AttributeError):
        pass
    return None


def _features(path: Path, frontend: Frontend) -> npt.NDArray[np.float32]:
    try:
        samples = read_audio(path, frontend.sample_rate)
        if num_frames(frontend, len(samples)) < 1:
            raise EntryError("short", f"{len(samples)} samples at {frontend.sample_rate} Hz")
        features = compute_features(samples, frontend)
    except LengthError as problem:
        raise EntryError("short", str(problem)) from problem
    except AudioError as problem:
        reason = str(problem).removeprefix(f"{path}: ")
        raise EntryError("not-finite" if "NaN" in reason else "unreadable", reason) from problem
    if not np.isfinite(features).all():
        raise EntryError("not-finite", "the features are not all finite")
    return np.asarray(features, dtype=np.float32)


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


def _cpus() -> int:
    """CPUs that this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    """One thread per worker: the workers are as many as the CPUs already."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threadpool_limits(limits=1)
