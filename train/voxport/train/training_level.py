"""How loud is the speech in stored features? A network that learnt from them is to hear sounds at that level.

Features that a corpus brings along were made from recordings whose loudness nobody states, and most frontends hear it:
without a mean subtracted directly, with one by the share of each band that lies on the floor. So the level is
measured from the features, and the model's frontend brings every sound's speech there (`Frontend.level`).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from voxport.runtime.frontend.log_mel import speech_level
from voxport.runtime.frontend.spec import Frontend
from voxport.train.data import Corpus
from voxport.train.effects.mel import audible, exact_energies

MOST = 500  # utterances that are measured, evenly spread

_QUIETEST = 1e-7  # of the level: 70 dB below speech is silence, as in `speech_mel40`
_FEWEST = 0.5  # of the utterances must show their level


@dataclass(frozen=True)
class TrainingLevel:
    """The speech level of stored features, as `voxport.runtime.frontend.log_mel.speech_level` defines it, in dB.

    Half of the utterances lie above `middle`, nine tenths between `low` and `high`.
    """

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.1f} dB (5-95 %: {self.low:.1f} to {self.high:.1f} dB)"


def training_level(corpus: Corpus, indices: npt.NDArray[np.int64]) -> TrainingLevel | None:
    """The speech level of the utterances `indices` (n,), or None where their features do not show it.

    They do not where a frontend divides by each band's deviation, or subtracts the mean and the floor is not seen.
    None too for sounds, whose loudness is the frontend's affair, and where it has a level already.
    """
    frontend = corpus.frontend
    chosen = indices[np.linspace(0, len(indices) - 1, min(MOST, len(indices))).round().astype(np.int64)]
    if frontend.level is not None or any(corpus.has_sound(int(i)) for i in chosen):
        return None
    levels = [level for i in chosen if (level := utterance_level(corpus.features(int(i)), frontend)) is not None]
    if not levels or len(levels) < _FEWEST * len(chosen):
        return None
    low, middle, high = (float(value) for value in np.percentile(levels, [5, 50, 95]))
    return TrainingLevel(middle, low, high)


def utterance_level(features: npt.NDArray[np.float32], frontend: Frontend) -> float | None:
    """The speech level in dB of one utterance's stored features (frames, bands); None where they do not show it.

    What lies on the floor was somewhere below it and counts as nothing. On LibriSpeech with so little gain that 88 % of
    all numbers are on the floor, the level comes out 0.5 dB too high; with the floor's own energy it was off by 2 dB.
    """
    energies = exact_energies(features, frontend)
    if energies is None:
        return None
    level = speech_level(audible(energies, frontend))
    return 10 * math.log10(level) if level > 0 else None


def at_level(frontend: Frontend, level: TrainingLevel | None, louder_db: float = 0.0) -> Frontend:
    """`frontend` as it hears sounds, `louder_db` above `level`, at which a network's features were."""
    if level is None:
        return frontend
    value = 10 ** ((level.middle + louder_db) / 10)
    return replace(frontend, level=value, quietest=_QUIETEST * value)
