"""What `Stream` and `Timeline` ask about a window: how well each speaker fits.

The model's own speakers answer by default (`ModelScorer`), and those of a gallery with `GalleryScorer`.
Anything else that meets `Scorer` can take their place.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from voxport.runtime.backends.base import need_output
from voxport.runtime.errors import GalleryError, VoxportError
from voxport.runtime.identifier import SpeakerIdentifier

if TYPE_CHECKING:
    from voxport.runtime.gallery.gallery import Gallery

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
        """The cosine below which nobody is the speaker; None: somebody always is.

        A scorer whose threshold depends on how much was heard also has `threshold_for(seconds)`, which is then asked.
        """
        ...

    def __call__(self, windows: Sequence[Samples]) -> Scores:
        """Scores (windows, speakers) of windows (samples,) at the model's rate."""
        ...


class ModelScorer:
    """The speakers that the model was trained on, and the threshold that its contract carries."""

    def __init__(self, identifier: SpeakerIdentifier) -> None:
        """Score with `identifier`, which other threads may use as well.

        Raises:
            VoxportError: the model was exported without scores.
        """
        self._identifier = identifier
        contract = identifier.contract
        need_output(contract, "scores")
        self.speakers = contract.labels
        self.scale = contract.score_scale
        self.temperature_for = contract.temperature_for
        self.threshold = None if contract.rejection is None else contract.rejection.threshold
        self._rate = contract.frontend.sample_rate

    def __call__(self, windows: Sequence[Samples]) -> Scores:
        """Scores (windows, speakers); raises what `SpeakerIdentifier.scores_batch` raises."""
        return self._identifier.scores_batch(windows, self._rate)


class GalleryScorer:
    """The speakers who are enrolled in a gallery, compared by the cosine of embeddings.

        Stream(identifier, scorer=GalleryScorer(identifier, gallery))

    A score is the contract's `score_scale` times that cosine. Where the gallery normalises scores, it is `scale` times
    the normalised one, and `unit` says by how much these differ where cosines differ by 1 (the median of the gallery's
    voices): then a score still moves by about `score_scale` times a cosine. Its softmax share ranks the enrolled
    against each other; it is no calibrated probability. The gallery is taken as it is now: enroll, remove or calibrate
    later, and make a new scorer. A window is held to the gallery's threshold for the speech in it, or for its length,
    as `Gallery.identify` holds sounds. The rate of false accepts is that of one window; a stranger who speaks for long
    is heard in many.
    """

    def __init__(self, identifier: SpeakerIdentifier, gallery: "Gallery", *, threshold: float | None = None) -> None:
        """Compare with everybody in `gallery`.

        Args:
            identifier: the model that the gallery was enrolled with; other threads may use it as well.
            gallery: holds at least one speaker.
            threshold: the cosine in [-1, 1], or the normalised score, below which a voice is unknown, however short;
                None takes the gallery's `identify` thresholds, and where it has none, nobody is unknown.

        Raises:
            GalleryError: nobody is enrolled, the gallery is of another model, or the threshold is no cosine.
            VoxportError: the model was exported without embeddings.
        """
        contract = identifier.contract
        need_output(contract, "embedding")
        gallery.check_model(contract)
        state = gallery.state
        if not state.names:
            raise GalleryError("the gallery is empty; enroll a speaker first")
        gallery.check_threshold(threshold)
        self._identifier = identifier
        self._voices, self._norm = state.voices, state.norm
        self._rate = contract.frontend.sample_rate
        self.speakers = state.names
        self.as_norm = state.rule
        self.unit = 1.0 if self._norm is None else self._norm.unit
        self.scale = contract.score_scale / self.unit
        self._given, self._thresholds = threshold, state.thresholds
        self.threshold = self.threshold_for(None)

    def threshold_for(self, seconds: float | None, speech_s: float | None = None) -> float | None:
        """The threshold of sounds of so many seconds, and of speech; None: as long as those that were enrolled."""
        return self._thresholds.for_length(seconds, speech_s).identify if self._given is None else self._given

    def __call__(self, windows: Sequence[Samples]) -> Scores:
        """Scores (windows, speakers); raises what `SpeakerIdentifier.embed_batch` raises."""
        embeddings = self._identifier.embed_batch(windows, self._rate)
        found = np.asarray(np.clip(embeddings @ self._voices.T, -1, 1), np.float64)
        return (found if self._norm is None else self._norm.scores(found, embeddings)) * self.scale


def temperature_of(scorer: Scorer, seconds: float) -> float:
    """What scores of windows of `seconds` are divided by before the softmax; 1 where the scorer is not the model's."""
    return scorer.temperature_for(seconds) if isinstance(scorer, ModelScorer) else 1.0


def unit_of(scorer: Scorer) -> float:
    """What stands for a difference of 1 between cosines in the scorer's scores / scale; 1 where these are cosines."""
    return scorer.unit if isinstance(scorer, GalleryScorer) else 1.0


def threshold_for(scorer: Scorer, seconds: float, speech_s: float | None) -> float | None:
    """The cosine below which a window of so many seconds, and of speech, is nobody's; None: it always is somebody's."""
    if isinstance(scorer, GalleryScorer):
        return scorer.threshold_for(seconds, speech_s)
    by_length = getattr(scorer, "threshold_for", None)
    threshold: float | None = scorer.threshold if by_length is None else by_length(seconds)
    return threshold


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
