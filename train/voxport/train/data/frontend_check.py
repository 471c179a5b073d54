"""Do stored features look like what the declared frontend computes?

Stored features do not say how they were made (the homework's metadata.json tells only n_mels), and a
network trained on features that its declared frontend cannot give answers nonsense to real sound. Two
things can be seen from the numbers: whether the mean (and the deviation) of each band was normalised
over the utterance, and whether the values lie in the range that the frontend's logarithm allows.
A frontend that brings every utterance to one speech level shows that level, too.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from voxport.corpora.errors import CorpusError, Problem
from voxport.runtime.frontend.log_mel import speech_level
from voxport.runtime.frontend.presets import PROFILES
from voxport.runtime.frontend.spec import Frontend

# Offsets are the largest |mean| of a band over the largest standard deviation of one. Features that
# were centred and then stored as float16 stay near 1e-3; log-mels that were not are near 1 or above.
# The largest deviation, not the typical one: nearly silent utterances are constant in most bands.
_CENTRED, _NOT_CENTRED = 0.02, 0.5
_CONSTANT = 1e-3  # deviations and means below are rounding, as in digital silence
_UNIT_DEVIATION = 0.05  # how far from 1 the typical deviation of normalised bands may be
_LEVEL_TOLERANCE = 0.5  # dB; storing as float16 and the floor move the level by a few hundredths
_STORAGE = 1e-3  # relative; float16 rounds by half of that

Look = Literal["none", "mean", "mean_std", "unclear"]


@dataclass(frozen=True)
class Appearance:
    """What the numbers of one utterance's stored features show."""

    key: str
    look: Look  # which normalisation they seem to have
    lowest: float
    highest: float
    spread: float  # the largest range, highest - lowest, of a band
    level: float  # the natural logarithm of the speech level, if the values are logarithms of energies


def appearance(key: str, features: npt.NDArray[np.float32]) -> Appearance:
    """Look at the finite features (frames, n_mels) of utterance `key`."""
    low, high = features.min(axis=0), features.max(axis=0)
    deviation = features.std(axis=0, dtype=np.float64)
    widest = float(deviation.max())
    offset = float(np.abs(features.mean(axis=0, dtype=np.float64)).max())
    look: Look = "unclear"
    if offset > _NOT_CENTRED * widest + _CONSTANT:
        look = "none"
    elif offset <= _CENTRED * widest and widest > _CONSTANT:
        active = deviation[deviation > _CENTRED * widest]
        look = "mean_std" if np.median(np.abs(active - 1)) < _UNIT_DEVIATION else "mean"
    return Appearance(key, look, float(low.min()), float(high.max()), float((high - low).max()), _log_level(features))


def _log_level(features: npt.NDArray[np.float32]) -> float:
    highest = float(features.max())  # taken out before the exponential, which could overflow
    return math.log(speech_level(np.exp(features.astype(np.float64) - highest))) + highest


def check_frontend(path: Path, frontend: Frontend, seen: Sequence[Appearance]) -> list[Problem]:
    """The entries that `frontend` cannot have given, where they are the exception.

    Raises:
        CorpusError: they are the rule; the message says which known frontends would fit.
    """
    problems = [
        Problem(each.key, "wrong-frontend", reason) for each in seen if (reason := contradiction(each, frontend))
    ]
    if 2 * len(problems) <= len(seen):
        return problems
    lines = [
        f"{path}: these features do not come from frontend {frontend.name}: "
        f"{len(problems)} of {len(seen)} utterances contradict it",
        f"  {problems[0].key}: {problems[0].reason}",
        advice(seen, frontend.n_mels),
    ]
    raise CorpusError("\n".join(lines))


def as_stored(frontend: Frontend) -> Frontend:
    """The frontend that made stored features, for one that brings sounds to their level; any other as it is.

    `voxport.train.training_level` gives a frontend the level of the stored features that a network learnt from.
    """
    known = PROFILES.get(frontend.name)
    if known is None or known.level is not None:
        return frontend
    return known if replace(frontend, level=None, quietest=known.quietest) == known else frontend


def contradiction(seen: Appearance, frontend: Frontend) -> str | None:
    """Why `frontend` cannot have given these features, or None where it can."""
    look = f"{_LOOKS[seen.look]}, but {frontend.name} {_DOES[frontend.normalize]}"
    if seen.look not in ("unclear", frontend.normalize):
        return look
    floor, ceiling = value_range(frontend)
    slack = _STORAGE * max(abs(floor), abs(ceiling))
    if frontend.normalize == "none" and seen.lowest < floor - slack:
        return f"lowest value {seen.lowest:.4g}, but the log floor of {frontend.name} is {floor:.4g}"
    if frontend.normalize == "none" and seen.highest > ceiling + slack:
        return f"highest value {seen.highest:.4g}, but {frontend.name} cannot exceed {ceiling:.4g}"
    plain = (frontend.log, frontend.normalize) == ("ln", "none")
    if plain and frontend.level is not None and seen.highest > floor + slack:  # digital silence has no level
        off = 10 / math.log(10) * (seen.level - math.log(frontend.level))
        if abs(off) > _LEVEL_TOLERANCE:
            return f"a speech level {off:+.1f} dB from that to which {frontend.name} brings every utterance"
    if frontend.normalize == "mean" and seen.spread > ceiling - floor + 2 * slack:
        return f"a band ranges over {seen.spread:.4g}, but with {frontend.name} at most over {ceiling - floor:.4g}"
    return None


def value_range(frontend: Frontend) -> tuple[float, float]:
    """The lowest value before normalisation (the floor), and a bound that full-scale sound cannot exceed."""
    # |DFT| of samples within ±1 is at most their number; pre-emphasis at most adds its share.
    magnitude = frontend.win_length * frontend.sample_scale * (1 + frontend.preemphasis)
    bins = frontend.n_fft // 2 + 1  # a filter's weights are at most 1 each (and less with Slaney's norm)
    highest = frontend.power * math.log(magnitude) + math.log(bins * frontend.spectrum_scale)
    if frontend.level is not None:
        # Of n frames the loudest is at most (1 + √n)² / 4 times the level: a million frames are three hours.
        highest = math.log(frontend.level) + math.log(1e6 / 3)
    lowest = math.log(frontend.floor)
    scale = 1.0 if frontend.log == "ln" else 20 / math.log(10)
    return lowest * scale, highest * scale


def advice(seen: Sequence[Appearance], n_mels: int) -> str:
    """Which of the known frontends most of the utterances could come from."""
    fitting = [
        name
        for name, each in PROFILES.items()
        if each.n_mels == n_mels and 2 * sum(contradiction(one, each) is None for one in seen) > len(seen)
    ]
    if fitting:
        return f"Pass the frontend that made them: {' or '.join(f'--frontend {name}' for name in fitting)}."
    looks = Counter(one.look for one in seen).most_common(1)[0][0]
    return f"No known frontend with {n_mels} bands fits ({_LOOKS[looks]}); there are {', '.join(PROFILES)}."


_LOOKS: dict[Look, str] = {
    "none": "the bands' means over the utterance are far from 0",
    "mean": "every band's mean over the utterance is 0",
    "mean_std": "every band has mean 0 and deviation 1 over the utterance",
    "unclear": "the bands' means over the utterance are small, but not 0",
}
_DOES = {
    "none": "does not subtract the mean",
    "mean": "subtracts the mean, and nothing more",
    "mean_std": "normalises mean and deviation",
}
