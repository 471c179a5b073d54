"""Is there speech in a sound? A check that costs little beside any network, and needs none.

The sound is taken in frames of 20 ms. Its level is that of active speech: the contraharmonic mean of the frames'
amplitudes, squared, so that pauses and lead-ins do not lower it. The frames within `range_db` of it are *active*.
Speech is

- loud enough: its level is at least `floor_db`, which is about what 16 bits can hold;
- long enough: `min_seconds` of active frames, or the share `min_share` of all where the sound is that short;
- restless in level: the active frames' levels in dB have a standard deviation of at least `swing_db`, which noise,
  hums and the tones of telephones have not;
- restless in color: the active frames' spectral flatness in dB (geometric over arithmetic mean of the power from 200
  to 3,400 Hz) has a standard deviation of at least `variety_db`, which noise that merely swells has not;
- no chord of pure tones: the median of that flatness is at least `flatness_db`.

The last two are taken from at most `_LOOKS` active frames, evenly spread, and from half of these where the other half
cannot change the answer. Everything is relative to the sound's own level, so that loudness decides nothing.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.02

_LOOKS = 12
_TONES = slice(200 // 50, 3400 // 50)  # bins of 50 Hz, those of frames of 20 ms
_QUIETEST, _QUIETEST_DB = 1e-12, -120.0  # a power; digital silence has no logarithm
_OFFSET_SHARE = 1e-5  # of the loudest frame's energy; a DC offset below it changes no level that counts
_TO_DB = 10 / math.log(10)

Silence = Literal["silence", "brief", "steady", "uniform", "tonal"]

# What is said of a sound without speech, by what it lacks.
REASONS: dict[Silence, str] = {
    "silence": "it is silent",
    "brief": "there is too little of it",
    "steady": "its level hardly moves, like that of noise, a hum or a tone",
    "uniform": "its spectrum hardly moves, like that of noise",
    "tonal": "it is made of pure tones",
}

# Least and most of the rule's numbers; levels below -120 dB are not told apart.
_RANGES = {
    "floor_db": (-120.0, 0.0),
    "range_db": (1.0, 120.0),
    "min_seconds": (0.0, 3600.0),
    "min_share": (0.0, 1.0),
    "swing_db": (0.0, 120.0),
    "variety_db": (0.0, 120.0),
    "flatness_db": (-200.0, 0.0),
}


@dataclass(frozen=True, kw_only=True)
class SpeechRule:
    """When a sound holds speech; see `voxport.runtime.speech` for what the numbers mean.

    Levels are in dB relative to full scale, the others in dB, seconds, and shares of all frames.
    """

    floor_db: float
    range_db: float
    min_seconds: float
    min_share: float
    swing_db: float
    variety_db: float
    flatness_db: float

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"speech {name} must be between {least:g} and {most:g}, found {value!s:.20}")


# Of files that do not state one. Files leave it out, so that readers from before it take them too: it may not change.
USUAL_RULE = SpeechRule(
    floor_db=-90.0,
    range_db=20.0,
    min_seconds=0.4,
    min_share=0.4,
    swing_db=2.5,
    variety_db=1.2,
    flatness_db=-55.0,
)


@dataclass(frozen=True)
class Speech:
    """What was found in a sound: `lacks` is None where there is speech, else what speaks against it.

    `seconds` of it are active, at a level of `level_db` relative to full scale; `swing_db`, `variety_db` and
    `flatness_db` are those of the rule, None where something else had decided.
    """

    lacks: Silence | None
    seconds: float
    level_db: float
    swing_db: float | None = None
    variety_db: float | None = None
    flatness_db: float | None = None

    @property
    def found(self) -> bool:
        """Whether there is speech."""
        return self.lacks is None

    @property
    def text(self) -> str:
        """What is wrong with the sound, as a clause that follows its name; empty where it holds speech."""
        if self.lacks is None:
            return ""
        amount = f" ({self.seconds:.2f} s)" if self.lacks == "brief" else ""
        return f"holds no speech: {REASONS[self.lacks]}{amount}"


def find_speech(samples: npt.NDArray[np.floating[Any]], sample_rate: int, rule: SpeechRule) -> Speech:
    """Whether `samples` (n,), full scale [-1, 1], at `sample_rate` Hz hold speech.

    After a network has run little of NumPy is left in the processor's cache, and a call costs more than what it
    computes. So there are few calls, and no array of the sound's length is made.
    """
    size = max(1, round(sample_rate * FRAME_SECONDS))
    count = len(samples) // size
    if count == 0:
        return Speech("brief", 0.0, _QUIETEST_DB)
    frames = samples[: count * size].reshape(count, size)
    energies, typical = _energies(frames)
    offset = float(np.add.reduce(samples)) / len(samples)
    width = (size + 1) // 2
    if width * offset**2 > _OFFSET_SHARE * typical:  # a DC offset is no sound
        frames = frames - offset
        energies, typical = _energies(frames)
    level = typical / width
    level_db = 10 * math.log10(max(level, _QUIETEST))
    if level_db < rule.floor_db or level <= 0.0:
        return Speech("silence", 0.0, level_db)
    active = (energies >= typical * 10 ** (-rule.range_db / 10)).nonzero()[0]
    seconds = len(active) * FRAME_SECONDS
    if seconds < min(rule.min_seconds, rule.min_share * len(samples) / sample_rate):
        return Speech("brief", seconds, level_db)
    logs = np.log(energies[active])
    mean = float(np.add.reduce(logs)) / len(logs)
    swing = _TO_DB * math.sqrt(max(0.0, float(logs.dot(logs)) / len(logs) - mean**2))
    if swing < rule.swing_db:
        return Speech("steady", seconds, level_db, swing)
    first, others = _looks(len(active))
    flatness = _flatness(frames.take(active.take(first), axis=0), level)
    if not _is_clear(flatness, rule):
        flatness += _flatness(frames.take(active.take(others), axis=0), level)
    variety, middle = _deviation(flatness), sorted(flatness)[len(flatness) // 2]
    lacks: Silence | None = None
    if variety < rule.variety_db:
        lacks = "uniform"
    elif middle < rule.flatness_db:
        lacks = "tonal"
    return Speech(lacks, seconds, level_db, swing, variety, middle)


def _energies(frames: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], float]:
    """The energy of every other sample of each frame, which tells the level as well; and that of active speech."""
    sparse = frames[:, ::2]
    energies = np.matmul(sparse[:, None, :], sparse[:, :, None]).reshape(-1)  # einsum takes twice as long
    roots = np.sqrt(energies)
    total = float(roots.dot(roots))
    return energies, (total / float(np.add.reduce(roots))) ** 2 if total > 0 else 0.0


@lru_cache(maxsize=256)
def _looks(count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Which of `count` active frames are looked at: every other of those that are spread evenly, and the others."""
    spread = np.arange(count) if count <= _LOOKS else np.arange(_LOOKS) * count // _LOOKS
    return spread[::2], spread[1::2]


def _is_clear(flatness: list[float], rule: SpeechRule) -> bool:
    """Whether half of the looks say that there is speech, and the other half, whatever it is, cannot change that."""
    if 2 * len(flatness) < _LOOKS:
        return False
    return min(flatness) >= rule.flatness_db and _deviation(flatness) >= math.sqrt(2) * rule.variety_db


def _flatness(frames: npt.NDArray[Any], level: float) -> list[float]:
    """The spectral flatness of each of `frames` (frames, samples) in dB, from 200 to 3,400 Hz."""
    table = _table(frames.shape[1])
    parts = np.matmul(frames, table)  # in this place half of what np.fft takes
    parts *= parts
    width = table.shape[1] // 2
    powers = parts[:, :width] + parts[:, width:]
    powers += 1e-9 * level * len(table)  # what is 90 dB below the sound says no more
    sums = np.add.reduce(powers, axis=1).tolist()
    logs = np.add.reduce(np.log(powers, out=powers), axis=1).tolist()
    return [_TO_DB * (log / width - math.log(total / width)) for log, total in zip(logs, sums, strict=True)]


@lru_cache(maxsize=8)
def _table(size: int) -> npt.NDArray[np.float32]:
    """A frame of `size` samples, by this, are its spectrum's real parts, then the imaginary ones; Hann's window."""
    time = np.arange(size)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi / size * time)
    angles = 2 * np.pi / size * np.outer(time, np.arange(size // 2 + 1)[_TONES])
    return np.asarray(np.hstack([np.cos(angles), np.sin(angles)]) * hann[:, None], np.float32)


def _deviation(values: list[float]) -> float:
    """The standard deviation of a dozen numbers."""
    mean = sum(values) / len(values)
    return math.sqrt(sum([(value - mean) ** 2 for value in values]) / len(values))
