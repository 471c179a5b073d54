"""How well scores tell target from non-target trials: DET curve, equal error rate, detection cost."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_curve

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Det:
    """Detection error trade-off: at `threshold[k]`, shares of non-targets accepted and of targets missed.

    Accepted are scores ≥ threshold. It goes from rejecting everything (infinite threshold) to accepting
    everything; points on a straight line between two others are left out.

    Martin et al.: "The DET curve in assessment of detection task performance", Eurospeech 1997.
    """

    false_accept: Float64
    miss: Float64
    threshold: Float64


@dataclass(frozen=True)
class Verification:
    """Speaker verification by the cosine of two embeddings.

    `min_dcf_01` and `min_dcf_05` are minimum detection costs for a prior of targets of 0.01 and 0.05.
    `trials` are those scored, `possible_trials` those from which they were drawn, `source` is "all pairs"
    or the trial list's file. `seen_in_training` counts the compared utterances that the network was
    trained on. `eer_threshold` is a cosine.
    """

    source: str
    trials: int
    target_trials: int
    possible_trials: int
    utterances: int
    seen_in_training: int
    eer: float
    eer_threshold: float
    min_dcf_01: float
    min_dcf_05: float


def det_curve(target: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32]) -> Det:
    """The curve of trials with `scores` (trials,); `target` (trials,) must hold both kinds."""
    # Not scikit-learn's det_curve: that leaves out the points where nothing or everything is accepted.
    false_accept, accept, threshold = roc_curve(target, scores)
    return Det(false_accept, 1.0 - accept, threshold)


def equal_error_rate(det: Det) -> tuple[float, float]:
    """Rate at which as many non-targets are accepted as targets missed, and the nearest threshold.

    Between two thresholds the curve is taken as straight.
    """
    difference = det.miss - det.false_accept  # from 1 down to -1
    after = int(np.argmax(difference <= 0))
    before = after - 1
    step = difference[before] / (difference[before] - difference[after])
    rate = det.miss[before] + step * (det.miss[after] - det.miss[before])
    nearest = after if np.isinf(det.threshold[before]) or step >= 0.5 else before
    return float(rate), float(det.threshold[nearest])


def min_dcf(det: Det, p_target: float, c_miss: float = 1.0, c_false_accept: float = 1.0) -> float:
    """Lowest detection cost over all thresholds, as a multiple of the better of two blind answers.

    NIST, 2008 Speaker Recognition Evaluation plan: C_Det over C_Default. 1 says that the scores are of no use.
    """
    cost = c_miss * p_target * det.miss + c_false_accept * (1 - p_target) * det.false_accept
    return float(cost.min() / min(c_miss * p_target, c_false_accept * (1 - p_target)))
