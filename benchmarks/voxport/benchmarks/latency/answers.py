"""Do the backends give the same answers to the inputs that they are timed on?"""

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.latency.report import AnswerCheck

# The contract's tolerance bounds a file's distance from eager PyTorch, each utterance alone. Here eager
# PyTorch runs batches with its own kernels, so it may itself lie that far from that reference, on the
# other side: twice the tolerance.
FACTOR = 2.0

Scores = npt.NDArray[np.float32]


def check_answers(backend: str, cell: Cell, scores: Scores, reference: Scores, tolerance: float) -> AnswerCheck:
    """Compare scores (inputs, batch, speakers) with the baseline's."""
    allowed = FACTOR * tolerance
    if scores.shape != reference.shape or not np.isfinite(scores).all():
        return AnswerCheck(backend, cell, None, 0.0, allowed, same=False)
    distance = float(np.abs(scores.astype(np.float64) - reference.astype(np.float64)).max())
    top1 = float(np.mean(scores.argmax(axis=-1) == reference.argmax(axis=-1)))
    return AnswerCheck(backend, cell, distance, top1, allowed, same=distance <= allowed)
