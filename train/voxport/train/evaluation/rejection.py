"""A threshold below which a speaker is rejected as unknown."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Rejection
from voxport.runtime.errors import VoxportError
from voxport.train.evaluation.intervals import wilson


@dataclass(frozen=True)
class RejectionReport:
    """A threshold on the best cosine, and what it does to the held-out utterances it was chosen on.

    `asked_false_accept_rate` is the rate that was asked for. Intervals are Wilson's, 95 %.
    """

    threshold: float
    asked_false_accept_rate: float
    utterances: int
    false_accepts: int
    false_accept_rate: float
    false_accept_interval: tuple[float, float]
    false_rejects: int
    false_reject_rate: float
    false_reject_interval: tuple[float, float]

    @property
    def rejection(self) -> Rejection:
        """What a checkpoint and a contract carry."""
        return Rejection(self.threshold, self.asked_false_accept_rate)


def calibrate_rejection(
    cosines: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], false_accept_rate: float
) -> RejectionReport:
    """The lowest threshold that accepts at most a share `false_accept_rate` of impostors.

    `cosines` (utterances, speakers) are held-out utterances' cosines to every speaker, `labels`
    (utterances,) their true speakers. An impostor is simulated from each utterance by taking its own
    speaker out: the best of the others is what an unknown voice would score. That voice helped to
    train the network, so a voice it never heard may score somewhat higher.

    Raises:
        VoxportError: fewer than two speakers, or a rate that `allowed_false_accepts` refuses.
    """
    count, speakers = cosines.shape
    if speakers < 2:
        raise VoxportError("a rejection threshold needs at least two speakers: the others play the impostors")
    allowed = allowed_false_accepts(count, false_accept_rate)
    best = cosines.max(axis=1)
    others = cosines.astype(np.float64)
    others[np.arange(count), labels] = -np.inf
    impostors = np.sort(others.max(axis=1))[::-1]
    threshold = threshold_for(impostors, allowed)
    false_accepts, false_rejects = int((impostors >= threshold).sum()), int((best < threshold).sum())
    return RejectionReport(
        threshold,
        false_accept_rate,
        count,
        false_accepts,
        false_accepts / count,
        wilson(false_accepts / count, count),
        false_rejects,
        false_rejects / count,
        wilson(false_rejects / count, count),
    )


def allowed_false_accepts(count: int, false_accept_rate: float) -> int:
    """How many of `count` utterances may be accepted falsely at this rate.

    Raises:
        VoxportError: a rate outside 0 to 1, or one so small that not even one may be.
    """
    if not 0 < false_accept_rate < 1:
        raise VoxportError(f"the false-accept rate must be between 0 and 1, found {false_accept_rate}")
    allowed = math.floor(false_accept_rate * count + 1e-9)
    if allowed < 1:
        raise VoxportError(
            f"a false-accept rate of {false_accept_rate:g} cannot be measured on {count} held-out utterances: "
            f"at least {math.ceil(1 / false_accept_rate - 1e-9)} are needed; hold out more, or ask for a higher rate"
        )
    return allowed


def threshold_for(descending: npt.NDArray[np.float64], allowed: int) -> float:
    """A value that at most `allowed` of `descending` reach, half-way to the next larger one.

    Half-way, so that neither rounding nor another backend's arithmetic changes the count.
    """
    if allowed >= len(descending):
        return float(descending[-1])
    refused = descending[allowed]
    accepted = descending[:allowed][descending[:allowed] > refused]
    if len(accepted) == 0:  # the best are all equal
        return float(np.nextafter(refused, np.inf))
    middle = (refused + accepted[-1]) / 2
    return float(middle if middle > refused else accepted[-1])
