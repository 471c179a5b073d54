"""What `Stream` and `Timeline` ask about a window: how well each speaker fits.

The model's own speakers answer by default (`ModelScorer`). Anything that meets `Scorer` can take their
place, for example speakers that are enrolled and compared by embedding.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import VoxportError
from voxport.runtime.identifier import SpeakerIdentifier

Samples = npt.NDArray[np.float32]
Scores = npt.NDArray[np.floating[Any]]


class Scorer(Protocol):
    """Scores windows of sound against speakers."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speakers' names, in the order of the scores."""
        ...

    @property
    def scale(self) -> float:
        """A score is `scale` times a cosine."""
        ...

    @property
    def threshold(self) -> float | None:
        """The cosine below which nobody is the speaker; None: somebody always is."""
        ...

    def __call__(self, windows: Sequence[Samples]) -> Scores:
        """Scores (windows, speakers) of windows (samples,) at the model's rate."""
        ...


class ModelScorer:
    """The speakers that the model was trained on, and the threshold that its contract carries."""

    def __init__(self, identifier: SpeakerIdentifier) -> None:
        """Score with `identifier`, which other threads may use as well."""
        self._identifier = identifier
        contract = identifier.contract
        self.speakers = contract.labels
        self.scale = contract.score_scale
        self.threshold = None if contract.rejection is None else contract.rejection.threshold
        self._rate = contract.frontend.sample_rate

    def __call__(self, windows: Sequence[Samples]) -> Scores:
        """Scores (windows, speakers); raises what `SpeakerIdentifier.scores_batch` raises."""
        return self._identifier.scores_batch(windows, self._rate)


def score(scorer: Scorer, windows: Sequence[Samples]) -> npt.NDArray[np.float64]:
    """The scorer's answer, checked: float64 (windows, speakers), finite.

    Raises:
        VoxportError: another shape, or a score that is no number.
    """
    scores = np.asarray(scorer(windows), np.float64)
    expected = (len(windows), len(scorer.speakers))
    if scores.shape != expected or not np.isfinite(scores).all():
        raise VoxportError(f"the scorer must answer with finite scores of shape {expected}, found {scores.shape}")
    return scores
