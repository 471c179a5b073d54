"""What changed sounds do to a model's answers: a line for each kind of condition, and calibration over all of them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from voxport.runtime.contract import ConditionLine, Rejection
from voxport.train.evaluation.inference import Answers, Float32
from voxport.train.evaluation.verification import det_curve, equal_error_rate

Int64 = npt.NDArray[np.int64]

_HOTTEST = 100.0  # temperatures beyond it leave nothing of an answer
_HONEST = 0.5  # the most that the median wrong answer may claim


def fit_temperature(scores: Float32, labels: Int64) -> float:
    """The temperature at which softmax(scores / temperature) is calibrated: scores (n, speakers), labels (n,).

    The one of the highest likelihood (Guo et al.: "On Calibration of Modern Neural Networks", 2017), not below 1:
    few mistakes seen are no reason to claim more than was trained. Where the median probability of the wrong answers
    is then above a half, the lowest temperature at which it is not.
    """
    wide = scores.astype(np.float64)
    rows = np.arange(len(labels))
    wrong = wide[wide.argmax(axis=1) != labels]

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(wide / np.exp(log_temperature), axis=1)[rows, labels].mean())

    best = float(np.exp(minimize_scalar(loss, bounds=(0, np.log(_HOTTEST)), method="bounded").x))
    if not len(wrong) or _claimed(wrong, best) <= _HONEST:
        return best
    low, high = best, _HOTTEST
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if _claimed(wrong, middle) <= _HONEST else (middle, high)
    return high


def _claimed(scores: npt.NDArray[np.float64], temperature: float) -> float:
    """The median probability of the best of each row of `scores`."""
    return float(np.median(softmax(scores / temperature, axis=1).max(axis=1)))


def between(clean: Float32, changed: Float32, speakers: Int64) -> float | None:
    """Equal error rate of clean (n, width) against changed (n, width) unit embeddings, no recording against itself.

    None where `speakers` (n,) make no trials of both kinds.
    """
    same = speakers[:, None] == speakers[None, :]
    others = ~np.eye(len(speakers), dtype=bool)
    target = same[others]
    if not target.any() or target.all():
        return None
    return equal_error_rate(det_curve(target, (clean @ changed.T)[others]))[0]


def condition_lines(
    answers: Mapping[str, Answers],
    labels: Int64,
    scale: float,
    temperature: float,
    rejection: Rejection | None,
    measured_on: str,
) -> tuple[ConditionLine, ...]:
    """A line for each kind of `answers`, among them `clean`, to utterances of the speakers `labels` (n,)."""
    lines = []
    for kind, (scores, embeddings) in answers.items():
        wrong = scores.argmax(axis=1) != labels
        known = None
        if rejection is not None:
            known = float((wrong & (scores.max(axis=1) / scale >= rejection.threshold)).mean())
        lines.append(
            ConditionLine(
                kind,
                len(labels),
                float(1 - wrong.mean()),
                between(answers["clean"].embeddings, embeddings, labels),
                known,
                _claimed(scores[wrong].astype(np.float64), temperature) if wrong.any() else None,
                measured_on,
            )
        )
    return tuple(lines)
