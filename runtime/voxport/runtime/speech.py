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

The last two are taken from at most `_LOOKS` active frames, evenly spread. Everything is relative to the sound's own
level, so that loudness decides nothing.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.02

_LOOKS = 12
_SPREAD = np.arange(_LOOKS)
_TONES = slice(200 // 50, 3400 // 50)  # bins of 50 Hz, those of frames of 20 ms
_QUIETEST = 1e-12  # a power of -120 dB; digital silence has no logarithm
_TO_DB = 10 / np.log(10)

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
    """Whether `samples` (n,), full scale [-1, 1], at `sample_rate` Hz hold speech."""
    size = max(1, round(sample_rate * FRAME_SECONDS))
    count = len(samples) // size
    if count == 0:
        return Speech("brief", 0.0, -120.0)
    frames = samples[: count * size].reshape(count, size)
    offset = np.add.reduce(samples[::4]) / len(samples[::4])  # a DC offset is no sound
    sparse = frames[:, ::2] - offset  # every other sample tells the level as well, in half the time
    powers = np.maximum(np.einsum("ij,ij->i", sparse, sparse) / sparse.shape[1], _QUIETEST)
    level = (float(np.add.reduce(powers)) / float(np.add.reduce(np.sqrt(powers)))) ** 2
    level_db = 10 * math.log10(level)
    if level_db < rule.floor_db:
        return Speech("silence", 0.0, level_db)
    (active,) = np.nonzero(powers >= level * 10 ** (-rule.range_db / 10))
    seconds = len(active) * FRAME_SECONDS
    if seconds < min(rule.min_seconds, rule.min_share * len(samples) / sample_rate):
        return Speech("brief", seconds, level_db)
    swing = _spread(_TO_DB * np.log(powers[active]))
    if swing < rule.swing_db:
        return Speech("steady", seconds, level_db, swing)
    looks = active[_SPREAD * len(active) // _LOOKS] if len(active) > _LOOKS else active
    flatness = _flatness(frames[looks], level)
    variety, middle = _spread(flatness), float(np.sort(flatness)[len(flatness) // 2])
    lacks: Silence | None = None
    if variety < rule.variety_db:
        lacks = "uniform"
    elif middle < rule.flatness_db:
        lacks = "tonal"
    return Speech(lacks, seconds, level_db, swing, variety, middle)


def _flatness(frames: npt.NDArray[Any], level: float) -> npt.NDArray[Any]:
    """The spectral flatness of each of `frames` (frames, samples) in dB, from 200 to 3,400 Hz."""
    size = frames.shape[1]
    bins = np.fft.rfft(frames * _window(size))[:, _TONES]
    powers = bins.real**2 + bins.imag**2 + 1e-9 * level * size  # what is 90 dB below the sound says no more
    width = powers.shape[1]
    geometric = np.add.reduce(np.log(powers), axis=1) / width
    return np.asarray(_TO_DB * (geometric - np.log(np.add.reduce(powers, axis=1) / width)))


@lru_cache(maxsize=8)
def _window(size: int) -> npt.NDArray[np.float32]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi / size * np.arange(size)), np.float32)


def _spread(values: npt.NDArray[Any]) -> float:
    """The standard deviation: numpy's own takes longer than all of this on so few values."""
    away = values - float(np.add.reduce(values)) / len(values)
    return float(np.sqrt(np.dot(away, away) / len(values)))
