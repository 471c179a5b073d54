"""What changed sounds do to a model's answers: a line for each kind of condition, and calibration over all of them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from voxport.runtime.contract import ConditionLine, Rejection
from voxport.train.evaluation.inference import Answers, Float32
from voxport.train.evaluation.verification import det_curve, equal_error_rate

Int64 = npt.NDArray[np.int64]

_COLDEST, _HOTTEST = 0.01, 100.0  # temperatures beyond them leave nothing of a doubt, or of an answer
_HONEST = 0.5  # the most that the median wrong answer may claim
_SUREST = 1 - 1e-12  # a wrong answer that claims 1 would cost infinitely much
_FEWEST_WRONG = 20  # answers without which nothing shows that more may be claimed than was trained


def fit_temperature(scores: Float32, labels: Int64) -> float:
    """The temperature at which softmax(scores / temperature) is calibrated: scores (n, speakers), labels (n,).

    Calibrated is what the best speaker is claimed to be right with (Gupta, Ramdas: "Top-label calibration and
    multiclass-to-binary reductions", 2022): the temperature is that of the highest likelihood of right and wrong
    answers. Where the median probability of the wrong ones is then above a half, it is the lowest at which it is
    not. It is below 1 only with 20 wrong answers or more: fewer are no reason to claim more than was trained.
    """
    wide = scores.astype(np.float64)
    best_answers = wide.argmax(axis=1)
    right, wrong = wide[best_answers == labels], wide[best_answers != labels]

    def loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        doubts = np.log1p(-np.minimum(_best_shares(wrong, temperature), _SUREST))
        return -float(np.log(_best_shares(right, temperature)).sum() + doubts.sum())

    coldest = _COLDEST if len(wrong) >= _FEWEST_WRONG else 1.0
    best = float(np.exp(minimize_scalar(loss, bounds=(np.log(coldest), np.log(_HOTTEST)), method="bounded").x))
    if not len(wrong) or _claimed(wrong, best) <= _HONEST:
        return best
    low, high = best, _HOTTEST
    for _ in range(40):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if _claimed(wrong, middle) <= _HONEST else (middle, high)
    return high


def _claimed(scores: npt.NDArray[np.float64], temperature: float) -> float:
    """The median probability of the best of each row of `scores`."""
    return float(np.median(_best_shares(scores, temperature)))


def _best_shares(scores: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
    """The probability (n,) of the best of each row of `scores` (n, speakers)."""
    return np.asarray(softmax(scores / temperature, axis=1).max(axis=1, initial=0.0))


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
