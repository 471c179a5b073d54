"""Thresholds from impostors: voices compared with speakers that they are not."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract.as_norm import MOST_NORMALIZED
from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery.check import MOST_COMPARED, bounds_of, listed, pairs_of
from voxport.runtime.gallery.results import Pair
from voxport.runtime.gallery.search import MatrixSearch
from voxport.runtime.gallery.state import SAME, State
from voxport.runtime.gallery.thresholds import LengthOf, ShortThresholds, Thresholds
from voxport.runtime.gallery.utterances import Float32, Int64, Kept

_BLOCK = 1 << 21  # comparisons at a time: tens of megabytes


@dataclass(frozen=True)
class _Scale:
    """Of the histogram of impostors' scores, from `low` to -low; powers of two, so that its edges are exact."""

    low: float
    steps: int  # to a unit

    @property
    def bins(self) -> int:
        return int(-2 * self.low * self.steps) + 1


_COSINES, _NORMALIZED = _Scale(-1.0, 1 << 19), _Scale(-MOST_NORMALIZED, 1 << 11)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Impostors' scores: `counts` (bins,) of each, and how many `same` are as alike as one and the same recording."""

    counts: Int64
    same: int
    scale: _Scale


SHORT_S = (1.0, 2.0)  # sounds below each of these have thresholds of their own
FEW_STRANGERS = 20


@dataclass(frozen=True, eq=False)
class Strangers:
    """Voices of people who are not enrolled: unit vectors (utterances, embedding_size), seconds (0: not known).

    `names` say whose each is, for messages. `pieces` are of short pieces of the same sounds. `trained` counts the
    sounds that lie in a folder with the name of a speaker of the model's training. `spoken` and `piece_spoken` are
    seconds of active speech in each; None, and 0, where not known.
    """

    vectors: Float32
    seconds: Float32
    names: tuple[str, ...]
    pieces: Float32
    piece_seconds: Float32
    trained: int = 0
    spoken: Float32 | None = None
    piece_spoken: Float32 | None = None


def calibrate(
    state: State, false_accept_rate: float, strangers: Strangers | None, *, accept_anyway: bool = False
) -> Thresholds:
    """Thresholds at which at most `false_accept_rate` of the impostors seen are accepted.

    `strangers` None takes the utterances kept of each enrolled speaker, against all the other speakers. Where
    names, or a stranger and a name, are as alike as one voice (see `gallery_check`), nothing is set: one person
    under two names would move the threshold to where nobody is known. With `accept_anyway` they are counted as
    different people. Sounds below each of SHORT_S have thresholds of their own where enough short sounds and
    pieces were seen; they are never lower than those of all sounds. What counts is the length of the active speech,
    where it is known of all of them, else that of the sound.

    An observed rate cannot be finer than one in the number of observations. Where there are fewer than
    1 / `false_accept_rate` of them, the threshold stays None.

    Raises:
        GalleryError: nobody to compare with, too few comparisons even for `verify`, one voice under two names or
            among the strangers, or impostors that are the enrolled voices themselves.
    """
    if not 0 < false_accept_rate < 1:
        raise GalleryError(f"the false-accept rate must lie between 0 and 1, found {false_accept_rate}; 0.01 is usual")
    if not state.names:
        raise GalleryError("nobody is enrolled, there is nothing to calibrate; enroll speakers first")
    if not accept_anyway:
        _refuse_one_voice(state, strangers)
    whole, pieces = state.whole, state.pieces
    if strangers is not None:
        whole = _kept(strangers.vectors, strangers.seconds, strangers.spoken)
        pieces = _kept(strangers.pieces, strangers.piece_seconds, strangers.piece_spoken)
    among = strangers is None
    pairs, best = _seen(state, whole, among)
    verify, identify = (_threshold(seen, false_accept_rate) for seen in (pairs, best))
    if verify is None:
        raise GalleryError(
            f"a false-accept rate of {false_accept_rate:g} needs at least {math.ceil(1 / false_accept_rate):,} "
            f"comparisons of different people, there are {int(pairs.counts.sum()):,}; "
            "enroll more speakers, give recordings of strangers, or ask for a higher rate"
        )
    length_of = _length_of(whole, pieces)
    as_norm = None if state.rule is None else state.rule.top
    found = Thresholds(verify, identify, false_accept_rate, len(state.names), length_of=length_of, as_norm=as_norm)
    by_length = tuple(_by_length(state, (whole, pieces), among, found))
    return replace(found, by_length=by_length, notes=tuple(_notes(state, strangers, by_length)))


def _refuse_one_voice(state: State, strangers: Strangers | None) -> None:
    alike = bounds_of(state).alike
    pairs = pairs_of(state, alike)
    if pairs:
        raise GalleryError(
            f"names that are one voice (cosine from {alike:.3f} on) would spoil the thresholds: {listed(pairs)}; join "
            "them with: voxport gallery merge; or, where they are different people, count them so with --accept-anyway"
        )
    if strangers is None:
        return
    rows, cosines = MatrixSearch(state.voices)(strangers.vectors, 1)
    known = sorted(np.flatnonzero(cosines[:, 0] >= alike).tolist(), key=lambda i: -cosines[i, 0])
    if known:
        found = tuple(Pair(strangers.names[i], state.names[int(rows[i, 0])], float(cosines[i, 0])) for i in known)
        raise GalleryError(
            f"strangers who are enrolled (cosine from {alike:.3f} on) would spoil the thresholds: {listed(found)}; "
            "leave them out; or, where they are other people whom the model cannot tell apart, count them so with "
            "--accept-anyway"
        )


def _kept(vectors: Float32, seconds: Float32, spoken: Float32 | None) -> Kept:
    lengths = np.stack([seconds, np.zeros_like(seconds) if spoken is None else spoken], axis=1)
    return Kept(vectors, np.full(len(vectors), -1, np.int64), lengths)


def _length_of(*sources: Kept) -> LengthOf:
    """Active speech, where that of every sound with a length is known: pauses make no sound longer."""
    seconds, spoken = (np.concatenate([getattr(one, name) for one in sources]) for name in ("seconds", "spoken"))
    return "speech" if (spoken > 0).any() and bool((spoken[seconds > 0] > 0).all()) else "sound"


def _by_length(state: State, sources: tuple[Kept, Kept], among: bool, found: Thresholds) -> Iterator[ShortThresholds]:
    rate, low = found.false_accept_rate or 0.0, 0.0
    for high in SHORT_S:
        lengths = [one.spoken if found.length_of == "speech" else one.seconds for one in sources]
        rows = [np.flatnonzero((each > low) & (each < high)) for each in lengths]
        low = np.nextafter(np.float32(high), np.float32(0))
        short = Kept(
            np.concatenate([one.vectors[at] for one, at in zip(sources, rows, strict=True)]),
            np.concatenate([one.owners[at] for one, at in zip(sources, rows, strict=True)]),
            np.concatenate([one.lengths[at] for one, at in zip(sources, rows, strict=True)]),
        )
        verify, identify = (_threshold(seen, rate) for seen in _seen(state, short, among))
        if verify is not None:
            yield ShortThresholds(high, _higher(verify, found.verify), _higher(identify, found.identify))


def _higher(one: float | None, two: float | None) -> float | None:
    given = [value for value in (one, two) if value is not None]
    return max(given, default=None)


def _notes(state: State, strangers: Strangers | None, by_length: tuple[ShortThresholds, ...]) -> Iterator[str]:
    taught = int(state.trained.sum())
    why = "the model tells those apart better than people it never heard, so strangers are accepted more often"
    if strangers is None and taught:
        yield (
            f"the rate is untrue: {taught} of {len(state.names)} enrolled have names of the model's training speakers; "
            f"{why}. Calibrate with strangers whom it was not trained on"
        )
    if strangers is not None and strangers.trained:
        yield (
            f"the rate is untrue: {strangers.trained} of {len(strangers.vectors)} strangers lie in folders with names "
            f"of the model's training speakers; {why}. Take others"
        )
    folders = set() if strangers is None else {PurePath(name).parent for name in strangers.names}
    if 1 < len(folders) < FEW_STRANGERS:  # of one folder nobody knows how many people are in it
        yield (
            f"the rate is rough: the strangers' sounds lie in {len(folders)} folders, and so few people show little of "
            "others; give sounds of more"
        )
    if len(state.names) > MOST_COMPARED:
        yield f"nobody looked for one voice under two names: more than {MOST_COMPARED:,} voices"
    if not any(each.below_s == SHORT_S[0] for each in by_length):
        yield f"sounds below {SHORT_S[0]:g} s have no threshold of their own: too few were seen, the rate is not theirs"


def _seen(state: State, source: Kept, among: bool) -> tuple[_Seen, _Seen]:
    """Of every comparison, and of every impostor's best one, how often each score was seen."""
    scale = _COSINES if state.norm is None else _NORMALIZED
    pairs, best = (np.zeros(scale.bins, np.int64) for _ in range(2))
    same = same_best = 0
    for bins, alike in _comparisons(state, source, among, scale):
        compared = bins[bins >= 0]  # the rest are voices against themselves
        pairs += np.bincount(compared, minlength=len(pairs))
        best += np.bincount(bins.max(axis=1), minlength=len(best))
        same, same_best = same + int(alike.sum()), same_best + int(alike.any(axis=1).sum())
    return _Seen(pairs, same, scale), _Seen(best, same_best, scale)


def _comparisons(
    state: State, source: Kept, among: bool, scale: _Scale
) -> Iterator[tuple[Int64, npt.NDArray[np.bool_]]]:
    """Bins of scores (utterances, speakers), some rows at a time, and which are as alike as one recording.

    The bin is -1 where voice and speaker are one person.
    """
    if among and len(state.names) < 2:
        return
    rows = max(1, _BLOCK // len(state.names))
    for start in range(0, len(source.vectors), rows):
        chunk = source.vectors[start : start + rows]
        cosines = np.clip(chunk @ state.voices.T, -1, 1).astype(np.float64)
        scores = cosines if state.norm is None else state.norm.scores(cosines, chunk)
        bins = np.floor((np.clip(scores, scale.low, -scale.low) - scale.low) * scale.steps).astype(np.int64)
        alike = cosines > SAME
        if among:
            own = np.arange(len(chunk)), source.owners[start : start + rows]
            bins[own], alike[own] = -1, False
        yield bins, alike


def _threshold(seen: _Seen, rate: float) -> float | None:
    """The lowest edge that at most `rate` of the scores reach; None where that would be none of them."""
    allowed = math.floor(rate * int(seen.counts.sum()) + 1e-9)
    if allowed < 1:
        return None
    reached = np.cumsum(seen.counts[::-1])[::-1]  # how many lie at or above each edge
    (edges,) = np.nonzero(reached <= allowed)
    if seen.same > allowed or not edges.size:  # nobody would be accepted again but the recording itself
        raise GalleryError(
            "more impostors than allowed are as alike as one and the same recording; "
            "look for people who are enrolled twice, or who are among the strangers"
        )
    return float(edges[0] / seen.scale.steps + seen.scale.low)
