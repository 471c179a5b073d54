"""The public benchmark CASE, where the user has its folder: trials of clean against changed recordings.

https://pypi.org/project/case-benchmark: `trials/clean_clean.txt` and others beside it, lines
`1 ENROLLED TESTED` (one speaker) or `0 …` (two), with paths below the folder; the list's name says how the tested
recording was changed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.conditions.report import ConditionRow, ConditionsReport, ConditionsSettings, Share
from voxport.benchmarks.conditions.shares import kind_rows
from voxport.runtime.backends.base import Backend
from voxport.runtime.errors import AudioError, LengthError, VoxportError
from voxport.runtime.windowing.hearing import hear, open_sound
from voxport.train.effects.kinds import Kind
from voxport.train.evaluation.verification import TrialList, det_curve, equal_error_rate, read_trials

_CLEAN = "clean_clean"
_KINDS: dict[str, Kind] = {
    "clean": "clean",
    "codec": "codec",
    "mic": "microphone",
    "noise": "noise",
    "reverb": "reverberation",
    "playback": "playback",
}
_RESAMPLES = 200


@dataclass(frozen=True)
class _Scored:
    """Trials of one list that could be scored: kinds (n,) and cosines (n,)."""

    target: npt.NDArray[np.bool_]
    cosine: npt.NDArray[np.float32]


def case_lists(data: Path) -> dict[str, Path]:
    """CASE's trial lists below `data` by name, the clean one first; none where `data` is no such folder."""
    for folder in (data / "trials", data / "benchmark" / "trials"):
        if (folder / f"{_CLEAN}.txt").is_file():
            found = {path.stem: path for path in sorted(folder.glob("clean_*.txt")) if _kind(path.stem) is not None}
            return {_CLEAN: found.pop(_CLEAN), **found}
    return {}


def measure_case(
    backend: Backend,
    lists: dict[str, Path],
    settings: ConditionsSettings,
    progress: Callable[[int, int, str], None] | None = None,
) -> ConditionsReport:
    """Equal error rates of every list, each with its difference from the clean one.

    Intervals are from a bootstrap over trials, of either list by itself.

    Raises:
        VoxportError: the model gives no embeddings, a list is no list of trials, or none of its files is there.
    """
    if "embedding" not in backend.contract.outputs:
        raise VoxportError(f"{settings.model}: gives no embeddings, which CASE compares; export it with them")
    trials = {name: read_trials(path) for name, path in lists.items()}
    keys = sorted({key for listed in trials.values() for key in listed.keys})
    root = Path(settings.data)
    known: dict[str, npt.NDArray[np.float32]] = {}
    for number, key in enumerate(keys):
        if progress is not None:
            progress(number, len(keys), Path(key).name)
        voice = _embed(backend, root / key)
        if voice is not None:
            known[key] = voice
    if progress is not None:
        progress(len(keys), len(keys), "")
    scored = {name: _score(listed, known) for name, listed in trials.items()}
    clean = scored[_CLEAN]
    if clean is None:
        raise VoxportError(f"{lists[_CLEAN]}: none of its recordings lies below {root}; unpack the archives there")
    generator = np.random.default_rng(settings.seed)
    rows = []
    for name, found in scored.items():
        if found is not None:
            share = _difference(clean, found, generator, same=name == _CLEAN)
            kind = _kind(name)
            assert kind is not None
            rows.append(ConditionRow(_title(name), kind, len(found.target), 0, None, share, None, None))
    missing = len(keys) - len(known)
    notes = ["CASE's own trials; `files` of a row are trials, and intervals are of trials as if each stood alone"]
    if missing:
        notes.append(f"{missing} of {len(keys)} recordings are not there or were refused; their trials are left out")
    return ConditionsReport(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=settings,
        model=Path(settings.model).name,
        recipe=backend.contract.recipe,
        frontend=backend.contract.frontend.name,
        files=len(known),
        speakers=0,
        known=0,
        threshold=None,
        rows=tuple(rows),
        kinds=kind_rows(rows),
        notes=tuple(notes),
    )


def _kind(name: str) -> Kind | None:
    found = re.fullmatch(r"clean_([a-z]+)(_.+)?", name)
    return _KINDS.get(found.group(1)) if found else None


def _title(name: str) -> str:
    return "clean" if name == _CLEAN else name.removeprefix("clean_").replace("_", " ")


def _embed(backend: Backend, path: Path) -> npt.NDArray[np.float32] | None:
    try:
        source = open_sound(backend.contract, path, None, str(path))
        return np.asarray(hear(backend, source).answer.embedding[0])
    except (AudioError, LengthError):
        return None


def _score(listed: TrialList, known: dict[str, npt.NDArray[np.float32]]) -> _Scored | None:
    trials = listed.trials
    pairs = [(listed.keys[i], listed.keys[j]) for i, j in zip(trials.left, trials.right, strict=True)]
    there = np.array([one in known and two in known for one, two in pairs])
    target = trials.target[there]
    if not target.any() or target.all():
        return None
    kept = [pair for pair, usable in zip(pairs, there, strict=True) if usable]
    return _Scored(target, np.array([known[one] @ known[two] for one, two in kept], np.float32))


def _difference(clean: _Scored, found: _Scored, generator: np.random.Generator, same: bool) -> Share:
    value, reference = _rate(found), _rate(clean)
    if same:
        return Share(value, 0.0, 0.0, 0.0)
    drawn = [_rate(_resampled(found, generator)) - _rate(_resampled(clean, generator)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Share(value, value - reference, float(low), float(high))


def _resampled(scored: _Scored, generator: np.random.Generator) -> _Scored:
    """Targets and non-targets drawn again, as many of each."""
    targets, others = np.flatnonzero(scored.target), np.flatnonzero(~scored.target)
    at = np.concatenate([generator.choice(targets, len(targets)), generator.choice(others, len(others))])
    return _Scored(scored.target[at], scored.cosine[at])


def _rate(scored: _Scored) -> float:
    return equal_error_rate(det_curve(scored.target, scored.cosine))[0]
