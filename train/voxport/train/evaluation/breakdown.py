"""Accuracy by length and by speaker."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BUCKETS = (0, 128, 256, 400, 600, 1000, 2000)  # lower edges of the length buckets, in frames

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bucket:
    """Accuracy on the utterances of `low` ≤ frames < `high` (None: no upper edge)."""

    low: int
    high: int | None
    utterances: int
    accuracy: float


@dataclass(frozen=True)
class SpeakerAccuracy:
    """One speaker's share of utterances that were recognised, and whom they were most often taken for."""

    speaker: str
    utterances: int
    accuracy: float
    taken_for: str | None


def by_length(frames: Int64, correct: npt.NDArray[np.bool_]) -> tuple[Bucket, ...]:
    """Accuracy in each bucket of length that holds any utterance; both arrays are (utterances,)."""
    edges: Sequence[int | None] = (*BUCKETS, None)
    buckets = []
    for low, high in zip(BUCKETS, edges[1:], strict=True):
        inside = (frames >= low) & (frames < (high if high is not None else np.inf))
        if inside.any():
            buckets.append(Bucket(low, high, int(inside.sum()), float(correct[inside].mean())))
    return tuple(buckets)


def by_speaker(confusion: Int64, labels: tuple[str, ...]) -> tuple[SpeakerAccuracy, ...]:
    """Accuracy of each speaker with utterances, worst first, from counts (true, answered)."""
    rows = []
    for speaker, counts in enumerate(confusion):
        total, correct = int(counts.sum()), int(counts[speaker])
        if total == 0:
            continue
        others = counts.copy()
        others[speaker] = 0
        taken_for = labels[int(others.argmax())] if others.any() else None
        rows.append(SpeakerAccuracy(labels[speaker], total, correct / total, taken_for))
    return tuple(sorted(rows, key=lambda row: (row.accuracy, row.speaker)))
