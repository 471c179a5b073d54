"""Thresholds from impostors: voices compared with speakers that they are not."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery.state import Float32, Int64, State, Thresholds

_STEPS = 1 << 19  # of the histogram for each unit of cosine; a power of two, so that its edges are exact
_SAME = 1 - 1e-5  # cosine of a recording with itself, and room for rounding
_BLOCK = 1 << 21  # comparisons at a time: tens of megabytes


def calibrate(state: State, false_accept_rate: float, impostors: Float32 | None) -> Thresholds:
    """Thresholds at which at most `false_accept_rate` of the impostors seen are accepted.

    `impostors` are unit vectors (utterances, embedding_size) of people who are not enrolled. None takes
    the utterances kept of each enrolled speaker, against all the other speakers.

    An observed rate cannot be finer than one in the number of observations. Where there are fewer than
    1 / `false_accept_rate` of them, the threshold stays None.

    Raises:
        GalleryError: nobody to compare with, too few comparisons even for `verify`, or impostors that
            are the enrolled voices themselves.
    """
    if not 0 < false_accept_rate < 1:
        raise GalleryError(f"the false-accept rate must lie between 0 and 1, found {false_accept_rate}; 0.01 is usual")
    if not state.names:
        raise GalleryError("nobody is enrolled, there is nothing to calibrate; enroll speakers first")
    pairs, best = _histograms(state, impostors)
    verify, identify = (_threshold(histogram, false_accept_rate) for histogram in (pairs, best))
    if verify is None:
        raise GalleryError(
            f"a false-accept rate of {false_accept_rate:g} needs at least {math.ceil(1 / false_accept_rate):,} "
            f"comparisons of different people, there are {int(pairs.sum()):,}; "
            "enroll more speakers, give recordings of strangers, or ask for a higher rate"
        )
    return Thresholds(verify, identify, false_accept_rate, len(state.names))


def _histograms(state: State, impostors: Float32 | None) -> tuple[Int64, Int64]:
    """Of every comparison, and of every impostor's best one: how often each cosine was seen."""
    pairs, best = (np.zeros(2 * _STEPS + 1, np.int64) for _ in range(2))
    for cosines in _comparisons(state, impostors):
        bins = np.floor((cosines + 1.0) * _STEPS).astype(np.int64)
        compared = bins[bins >= 0]  # the rest are voices against themselves
        pairs += np.bincount(compared, minlength=len(pairs))
        best += np.bincount(bins.max(axis=1), minlength=len(best))
    return pairs, best


def _comparisons(state: State, impostors: Float32 | None) -> Iterator[npt.NDArray[np.float64]]:
    """Cosines (utterances, speakers), some rows at a time; -2 where voice and speaker are one person."""
    if impostors is None and len(state.names) < 2:
        return
    source = state.kept if impostors is None else impostors
    rows = max(1, _BLOCK // len(state.names))
    for start in range(0, len(source), rows):
        chunk = source[start : start + rows]
        cosines = np.clip(chunk @ state.voices.T, -1, 1).astype(np.float64)
        if impostors is None:
            cosines[np.arange(len(chunk)), state.owners[start : start + rows]] = -2
        yield cosines


def _threshold(histogram: Int64, rate: float) -> float | None:
    """The lowest edge that at most `rate` of the cosines reach; None where that would be none of them."""
    allowed = math.floor(rate * int(histogram.sum()) + 1e-9)
    if allowed < 1:
        return None
    reached = np.cumsum(histogram[::-1])[::-1]  # how many lie at or above each edge
    (edges,) = np.nonzero(reached <= allowed)
    threshold = float(edges[0] / _STEPS - 1.0) if edges.size else 1.0
    if threshold > _SAME:  # nobody would be accepted again but the recording itself
        raise GalleryError(
            "more impostors than allowed are as alike as one and the same recording; "
            "look for people who are enrolled twice, or who are among the strangers"
        )
    return threshold
