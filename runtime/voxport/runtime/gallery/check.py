"""Is everybody in a gallery one voice, and nobody twice? The rule by which enrolling refuses and `check` complains.

Two cosines decide. Both come from the gallery itself where it keeps at least OBSERVED cosines of utterances to their
own speaker's others, and to other speakers' voices; else they are DIFFERENT and ALIKE.

Below `different` two sounds are of two people: it is the verify threshold where the gallery has one, else half-way
between the medians of both kinds. From `alike` on two names are one voice: as alike as 95 % of the utterances are to
their own speaker, and further from the median of others than four standard deviations (by the median deviation, which
a few people who are enrolled twice do not move). Where scores are normalised, this rule goes by cosines all the same,
and not by the threshold, which is none. An utterance does not fit its speaker where it is less like the
speaker's other utterances than `different` says, or less like them than like another speaker's voice.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxport.runtime.gallery.results import Description, GalleryCheck, Likeness, Match, Misfit, Pair
from voxport.runtime.gallery.search import MatrixSearch
from voxport.runtime.gallery.state import SAME, State
from voxport.runtime.gallery.utterances import Float32, Float64

DIFFERENT, ALIKE, OBSERVED = 0.3, 0.8, 10
_SIGMA = 1.4826  # of a normal distribution, in median deviations
_ROWS = 500  # utterances whose cosines to all others are looked at
MOST_COMPARED = 20_000  # voices that are compared with each other; the work grows with the square
_NAMED = 20  # pairs and misfits that are told


@dataclass(frozen=True)
class Bounds:
    """The two cosines, and whether each was found in the gallery itself."""

    different: float
    alike: float


def bounds_of(state: State) -> Bounds:
    """The cosines that a gallery is judged by."""
    different, alike = DIFFERENT, ALIKE
    own, others = own_cosines(state), other_cosines(state)
    own = own[np.isfinite(own)]
    if min(len(own), len(others)) >= OBSERVED:
        middle = float(np.median(others))
        spread = _SIGMA * float(np.median(np.abs(others - middle)))
        different = (middle + float(np.median(own))) / 2
        alike = max(float(np.quantile(own, 0.05)), middle + 4 * spread)
    if state.thresholds.verify is not None and state.norm is None:
        different = state.thresholds.verify
    return Bounds(different, min(max(alike, different), SAME))


def other_cosines(state: State) -> Float64:
    """Cosines of kept utterances to other speakers' voices, of at most 500 utterances; none in a very large gallery."""
    if not 2 <= len(state.names) <= MOST_COMPARED:
        return np.zeros(0)
    rows = state.kept[:_ROWS]
    cosines = rows @ state.voices.T
    is_own = np.zeros(cosines.shape, np.bool_)
    is_own[np.arange(len(rows)), state.owners[:_ROWS]] = True
    return np.asarray(cosines[~is_own], np.float64)


def own_cosines(state: State) -> Float64:
    """Of each kept utterance, the cosine to its speaker's other utterances (n,); NaN where there are none."""
    kept, owners = state.kept.astype(np.float64), state.owners
    others = state.sums[owners] - kept
    lengths = np.linalg.norm(others, axis=1)
    alone = (state.counts[owners] < 2) | (lengths < 1e-6)
    cosines = np.einsum("ij,ij->i", kept, others) / np.where(alone, 1.0, lengths)
    return np.where(alone, np.nan, np.clip(cosines, -1, 1))


def examine(state: State, name: str, vectors: Float64) -> tuple[Likeness, ...]:
    """What each of `vectors` (utterances, embedding_size), unit rows, would be under `name`."""
    bounds, row = bounds_of(state), state.index.get(name)
    repeated = state.repeated(row, vectors)
    own = _own(state, row, vectors, repeated)
    nearest, cosines = _nearest_others(state, row, vectors)
    found = []
    for i in range(len(vectors)):
        other = None if nearest is None else state.names[nearest[i]]
        cosine = None if nearest is None else float(cosines[i])
        mine = None if np.isnan(own[i]) else float(own[i])
        doubt = None if repeated[i] else _doubt(name, row is None, mine, other, cosine, bounds)
        score = None if nearest is None else state.normalized(int(nearest[i]), vectors[i], float(cosines[i]))
        warning = None if doubt else _warning(state, other, cosine, score, bool(repeated[i]))
        found.append(Likeness(mine, other, cosine, bool(repeated[i]), doubt, warning))
    return tuple(found)


def _own(state: State, row: int | None, vectors: Float64, repeated: npt.NDArray[np.bool_]) -> Float64:
    if row is not None:
        return np.asarray(np.clip(vectors @ state.voices[row].astype(np.float64), -1, 1))
    others = vectors[~repeated].sum(axis=0) - np.where(repeated[:, None], 0, vectors)
    lengths = np.linalg.norm(others, axis=1)
    alone = lengths < 1e-6
    cosines = np.einsum("ij,ij->i", vectors, others) / np.where(alone, 1.0, lengths)
    return np.where(alone, np.nan, np.clip(cosines, -1, 1))


def _nearest_others(state: State, row: int | None, vectors: Float64) -> tuple[npt.NDArray[np.int64] | None, Float32]:
    if len(state.names) - (row is not None) < 1:
        return None, np.zeros(0, np.float32)
    rows, cosines = MatrixSearch(state.voices)(vectors.astype(np.float32), 2)
    second = rows[:, 0] == (-1 if row is None else row)
    at = np.arange(len(vectors))
    return rows[at, second.astype(int)], cosines[at, second.astype(int)]


def _doubt(
    name: str, is_new: bool, own: float | None, other: str | None, cosine: float | None, bounds: Bounds
) -> str | None:
    if cosine is not None and own is not None and cosine > own:
        return f"is more like {other!r} (cosine {cosine:.3f}) than like {name!r} ({own:.3f})"
    if own is not None and own < bounds.different:
        rest = "the other sounds" if is_new else "the enrolled voice"
        return f"is not like {rest} of {name!r}: cosine {own:.3f}, another person's below {bounds.different:.3f}"
    if is_new and cosine is not None and cosine >= bounds.alike:
        return f"is enrolled already, as {other!r}: cosine {cosine:.3f}, one voice from {bounds.alike:.3f} on"
    return None


def _warning(state: State, other: str | None, cosine: float | None, score: float | None, repeated: bool) -> str | None:
    if repeated:
        return "is there already, and counts once"
    threshold = state.thresholds.identify
    what, value = ("cosine", cosine) if score is None else ("normalised score", score)
    if value is not None and threshold is not None and value >= threshold:
        return f"would be taken for {other!r} too: {what} {value:.3f}, known from {threshold:.3f}"
    return None


def pairs_of(state: State, alike: float) -> tuple[Pair, ...]:
    """Names that are one voice, the most alike first; () above MOST_COMPARED names."""
    count = len(state.names)
    if not 2 <= count <= MOST_COMPARED:
        return ()
    rows, cosines = MatrixSearch(state.voices)(state.voices, 1 + _NAMED)
    found: dict[tuple[int, int], float] = {}
    for row, (others, values) in enumerate(zip(rows.tolist(), cosines.tolist(), strict=True)):
        for other, cosine in zip(others, values, strict=True):
            if other != row and cosine >= alike:
                found[min(row, other), max(row, other)] = cosine
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Pair(state.names[one], state.names[two], float(cosine)) for (one, two), cosine in ordered)


def check(state: State) -> GalleryCheck:
    """Everything that is wrong with a gallery's names."""
    bounds = bounds_of(state)
    own, pairs = own_cosines(state), pairs_of(state, bounds.alike)
    twins = {frozenset((pair.first, pair.second)) for pair in pairs}  # whose utterances fit either name
    misfits = []
    if len(state.names):
        numbers = [int((state.owners[:i] == owner).sum()) + 1 for i, owner in enumerate(state.owners.tolist())]
        rows, cosines = MatrixSearch(state.voices)(state.kept, 2)
        for i, (owner, value) in enumerate(zip(state.owners.tolist(), own.tolist(), strict=True)):
            place = 1 if rows[i, 0] == owner else 0
            other = None if place >= rows.shape[1] else int(rows[i, place])
            cosine = None if other is None else float(cosines[i, place])
            named = None if other is None else state.names[other]
            swapped = cosine is not None and value < cosine and {state.names[owner], named} not in twins
            if value < bounds.different or swapped:
                misfits.append(Misfit(state.names[owner], numbers[i], float(value), named, cosine))
    trained = tuple(name for name, known in zip(state.names, state.trained.tolist(), strict=True) if known)
    notes = list(state.thresholds.notes)
    if state.thresholds.false_accept_rate is not None and state.thresholds.speakers != len(state.names):
        notes.append(f"calibrated with {state.thresholds.speakers} speakers, now there are {len(state.names)}")
    if len(state.names) > MOST_COMPARED:
        notes.append(f"voices were not compared with each other: more than {MOST_COMPARED:,} of them")
    return GalleryCheck(
        bounds.different, bounds.alike, pairs_of(state, bounds.alike), tuple(misfits), trained, tuple(notes)
    )


def describe(state: State, row: int) -> Description:
    """What is kept of the speaker of `row`, and the five voices most like theirs."""
    mine = state.owners == row
    own = own_cosines(state)[mine].tolist()
    rows, cosines = MatrixSearch(state.voices)(state.voices[[row]], 6)
    nearest = tuple(
        Match(state.names[other], float(cosine))
        for other, cosine in zip(rows[0].tolist(), cosines[0], strict=True)
        if other != row
    )
    return Description(
        speaker=state.names[row],
        utterances=int(state.counts[row]),
        trained=bool(state.trained[row]),
        own=tuple(None if np.isnan(value) else float(value) for value in own),
        seconds=tuple(float(value) or None for value in state.whole.seconds[mine]),
        pieces=int((state.pieces.owners == row).sum()),
        nearest=nearest[:5],
    )


def listed(pairs: tuple[Pair, ...]) -> str:
    """The first pairs, for a person."""
    shown = ", ".join(f"{pair.first!r} and {pair.second!r} ({pair.cosine:.3f})" for pair in pairs[:5])
    return shown + (f", and {len(pairs) - 5} more" if len(pairs) > 5 else "")
