"""Speakers that are tones, and a scorer that knows them by NumPy's FFT: answers that a test can foretell."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests.runtime.tiny_models import tone

RATE = 16000
HERTZ = {"low": 200.0, "middle": 700.0, "high": 3000.0}
LIKE, UNLIKE = 0.8, 0.1  # cosines


class ToneScorer:
    """Scores 0.8 for the speaker whose tone is the window's strongest, 0.1 for the others."""

    def __init__(self, threshold: float | None = None) -> None:
        self.speakers = tuple(HERTZ)
        self.scale = 30.0
        self.threshold = threshold
        self.calls: list[int] = []

    def __call__(self, windows: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
        self.calls.append(len(windows))
        return np.array([self._row(window) for window in windows])

    def _row(self, window: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        power = np.abs(np.fft.rfft(window)) ** 2
        at = np.array([round(hertz * len(window) / RATE) for hertz in HERTZ.values()])
        strengths = np.array([power[max(0, i - 3) : i + 4].sum() for i in at])
        if strengths.max() < 0.5 * power[1:].sum():  # none of them: a stranger
            return np.full(len(at), self.scale * UNLIKE)
        return np.asarray(self.scale * np.where(np.arange(len(at)) == strengths.argmax(), LIKE, UNLIKE))


class ScriptedScorer:
    """Answers with the rows it was given, in turn; cosines, at scale 1."""

    scale = 1.0

    def __init__(self, rows: Sequence[Sequence[float]], threshold: float | None = None) -> None:
        self._rows = list(rows)
        self.speakers = tuple("ABCDEF"[: len(rows[0])])
        self.threshold = threshold

    def __call__(self, windows: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
        answer, self._rows = self._rows[: len(windows)], self._rows[len(windows) :]
        return np.array(answer)


def spoken(*parts: tuple[str | float | None, float], rate: int = RATE) -> npt.NDArray[np.float32]:
    """Sound of (who, seconds), one after the other; who may be a frequency in Hz, or None for silence."""
    pieces = [
        np.zeros(round(seconds * rate), np.float32)
        if who is None
        else tone(seconds, rate, HERTZ[who] if isinstance(who, str) else who)
        for who, seconds in parts
    ]
    return np.concatenate(pieces)
