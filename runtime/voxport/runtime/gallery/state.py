"""What a gallery holds at one moment. A change makes a new state, so a reader's state never changes."""

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import UNPRINTABLE, AsNorm
from voxport.runtime.contract.as_norm import normalized
from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery.search import Normalization
from voxport.runtime.gallery.thresholds import MAX_SPEAKERS, Thresholds
from voxport.runtime.gallery.utterances import Float32, Float64, Int64, Kept, Utterances

MAX_NAME = 200  # characters
MAX_EMBEDDING_SIZE = 1 << 13
_MAX_NUMBERS = 1 << 28  # of embeddings that are given at once: 2 GB in float64, a million of 256 numbers
KEPT_PER_SPEAKER, KEPT = 5, 4096  # utterances that are kept to calibrate with; means need none

SAME = 1 - 1e-5  # cosine of a recording with itself, and room for rounding
PIECES_PER_SPEAKER, PIECES = 10, 8192  # short pieces that are kept to calibrate with
_COMPARED = 2000  # utterances of one enrolment that are compared with each other
_NO_DIRECTION = 1e-3  # length of a mean of unit vectors, below which it points nowhere


@dataclass(frozen=True, eq=False)
class State:
    """Speakers in the order of their first enrolment, and what their voices are computed from.

    `sums` (speakers, embedding_size) and `counts` (speakers,): the sum and number of the unit vectors
    enrolled, so that a later enrolment gives what enrolling all at once gives. `voices` are the sums as
    unit rows, in float32 for the search. `whole` are single utterances for calibration, `pieces` short pieces of
    utterances. `trained` (speakers,) says whose name is one of the model's labels. `norm` is what scores are normalised
    by; None: voices are compared by cosine.
    """

    names: tuple[str, ...]
    counts: Int64
    sums: Float64
    voices: Float32
    whole: Kept
    pieces: Kept
    trained: npt.NDArray[np.bool_]
    thresholds: Thresholds
    norm: Normalization | None = None

    @property
    def rule(self) -> AsNorm | None:
        """By whom scores are normalised; None: by nobody."""
        return None if self.norm is None else self.norm.rule

    def normalized(self, row: int, vector: npt.NDArray[np.floating[Any]], cosine: float) -> float | None:
        """The normalised score of `cosine`, of the unit `vector` and the voice of `row`; None where there is none."""
        if self.norm is None:
            return None
        asked = self.norm.rule.moments(vector[None])[0]
        return float(normalized(np.float64(cosine), asked, self.norm.moments[row]))

    @property
    def kept(self) -> Float32:
        """Vectors of `whole`."""
        return self.whole.vectors

    @property
    def owners(self) -> Int64:
        """Owners of `whole`."""
        return self.whole.owners

    @classmethod
    def empty(cls, embedding_size: int, rule: AsNorm | None = None) -> "State":
        rows, none = np.zeros((0, embedding_size)), Kept.none(embedding_size)
        voices, thresholds = rows.astype(np.float32), Thresholds.unset(rule)
        norm = Normalization.of(rule, voices)
        return cls((), np.zeros(0, np.int64), rows, voices, none, none, np.zeros(0, np.bool_), thresholds, norm)

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each speaker."""
        return {name: row for row, name in enumerate(self.names)}

    def enroll(self, additions: Mapping[str, Utterances], labels: Collection[str] = ()) -> "State":
        """The state with utterances added to each name, new ones last; those that are there already count once.

        `labels` are names of the model's training speakers.
        """
        new = tuple(name for name in additions if name not in self.index)
        names = self.names + new
        if len(names) > MAX_SPEAKERS:
            raise GalleryError(f"a gallery holds at most {MAX_SPEAKERS:,} speakers; split it")
        size = self.sums.shape[1]
        counts = np.concatenate([self.counts, np.zeros(len(new), np.int64)])
        sums = np.concatenate([self.sums, np.zeros((len(new), size))])
        places = {name: row for row, name in enumerate(new, len(self.names))}
        rows = [places[name] if name in places else self.index[name] for name in additions]
        fresh: dict[int, tuple[Float64, Float32]] = {}
        for row, given in zip(rows, additions.values(), strict=True):
            is_new = ~self.repeated(row, given.vectors)
            fresh[row] = (given.vectors[is_new], given.lengths[is_new])
            counts[row] += int(is_new.sum())
            sums[row] += fresh[row][0].sum(axis=0)
        voices = np.concatenate([self.voices, np.zeros((len(new), size), np.float32)])
        voices[rows] = voices_of(sums[rows], counts[rows], [names[row] for row in rows])
        whole = self.whole.add(fresh, KEPT_PER_SPEAKER, KEPT)
        short = {row: (given.pieces, given.piece_lengths) for row, given in zip(rows, additions.values(), strict=True)}
        pieces = self.pieces.add(self._new_pieces(short), PIECES_PER_SPEAKER, PIECES)
        trained = np.concatenate([self.trained, np.array([name in labels for name in new], np.bool_)])
        norm = None if self.norm is None else self.norm.updated(voices, rows)
        return State(names, counts, sums, voices, whole, pieces, trained, self.thresholds, norm)

    def repeated(self, row: int | None, vectors: Float64) -> npt.NDArray[np.bool_]:
        """Which of `vectors` (utterances, embedding_size) equal one before them, or one kept of speaker `row`."""
        known = self.kept[self.owners == row].astype(np.float64) if row is not None else vectors[:0]
        found = np.zeros(len(vectors), np.bool_)
        if len(known):
            found = (vectors @ known.T).max(axis=1) >= SAME
        if len(vectors) <= _COMPARED:
            return found | (np.tril(vectors @ vectors.T, -1) >= SAME).any(axis=1)
        _, first = np.unique(vectors, axis=0, return_index=True)  # of very many only what is equal to the last bit
        return found | ~np.isin(np.arange(len(vectors)), first)

    def _new_pieces(self, short: Mapping[int, tuple[Float64, Float32]]) -> dict[int, tuple[Float64, Float32]]:
        new = {}
        for row, (vectors, lengths) in short.items():
            known = self.pieces.vectors[self.pieces.owners == row].astype(np.float64)
            is_new = np.ones(len(vectors), np.bool_)
            if len(known) and len(vectors):
                is_new = (vectors @ known.T).max(axis=1) < SAME
            new[row] = (vectors[is_new], lengths[is_new])
        return new

    def remove(self, row: int) -> "State":
        """The state without the speaker of `row` and all that is theirs."""
        rows = np.arange(len(self.names))
        rows = np.where(rows == row, -1, rows - (rows > row))
        return State(
            self.names[:row] + self.names[row + 1 :],
            np.delete(self.counts, row),
            np.delete(self.sums, row, axis=0),
            np.delete(self.voices, row, axis=0),
            self.whole.moved(rows),
            self.pieces.moved(rows),
            np.delete(self.trained, row),
            self.thresholds,
            None if self.norm is None else self.norm.without(row),
        )

    def rename(self, row: int, name: str) -> "State":
        """The state with another name, which nobody has, for the speaker of `row`, whom training knows as before."""
        return replace(self, names=(*self.names[:row], name, *self.names[row + 1 :]))

    def merge(self, row: int, other: int) -> "State":
        """The state with all of the speaker of row `other` given to that of `row`, and the other name gone."""
        counts, sums, voices = self.counts.copy(), self.sums.copy(), self.voices.copy()
        counts[row] += counts[other]
        sums[row] += sums[other]
        voices[[row]] = voices_of(sums[[row]], counts[[row]], [self.names[row]])
        rows = np.arange(len(self.names))
        rows[other] = row
        whole, pieces = self.whole.moved(rows), self.pieces.moved(rows)
        trained = self.trained.copy()
        trained[row] |= trained[other]
        joined = replace(
            self,
            trained=trained,
            counts=counts,
            sums=sums,
            voices=voices,
            whole=whole.at_most(KEPT_PER_SPEAKER),
            pieces=pieces.at_most(PIECES_PER_SPEAKER),
            norm=None if self.norm is None else self.norm.updated(voices, [row]),
        )
        return joined.remove(other)

    def with_thresholds(self, thresholds: Thresholds) -> "State":
        return replace(self, thresholds=thresholds)

    def compared_by(self, rule: AsNorm | None) -> "State":
        """The state with scores normalised by `rule`, or by nobody; without thresholds where that is another rule."""
        if rule == self.rule:
            return self
        return replace(self, norm=Normalization.of(rule, self.voices), thresholds=Thresholds.unset(rule))


def voices_of(sums: Float64, counts: Int64, names: Sequence[str]) -> Float32:
    """Unit rows in the direction of `sums`. Raises GalleryError where a mean points nowhere."""
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    flat = np.flatnonzero(~(lengths[:, 0] > _NO_DIRECTION * counts))
    if flat.size:
        raise GalleryError(
            f"{names[flat[0]]!r}: the utterances cancel each other out, they are not of one voice; enroll others"
        )
    return np.asarray(sums / lengths, dtype=np.float32)


def check_name(name: str) -> str:
    """`name` in Unicode's composed form (NFC), so that one name typed on two systems is one speaker.

    Raises:
        GalleryError: blank, longer than `MAX_NAME` characters, or with characters that do not print.
    """
    if not isinstance(name, str):
        raise GalleryError(f"a speaker's name is text, found {type(name).__name__} {name!r:.60}")
    if len(name) <= MAX_NAME:  # composing a name of megabytes would cost before it is refused
        name = unicodedata.normalize("NFC", name)
    if len(name) > MAX_NAME:
        raise GalleryError(f"the name {name[:40]!r}… has {len(name):,} characters; at most {MAX_NAME} are allowed")
    if not name.strip():
        raise GalleryError("a speaker's name is blank; give it a character that can be seen")
    if UNPRINTABLE.search(name):
        raise GalleryError(f"the name {name!r:.80} has control characters; rename the speaker")
    return name


def unit_rows(embeddings: npt.ArrayLike, embedding_size: int, what: str) -> Float64:
    """One embedding (embedding_size,) or several (utterances, embedding_size) as unit rows in float64.

    Raises:
        GalleryError: no numbers, another shape, none at all, NaN or infinite values, or a zero vector.
    """
    try:
        rows = np.asarray(embeddings)
    except (ValueError, TypeError) as problem:
        raise GalleryError(f"{what}: expected an array of numbers ({problem})") from problem
    if rows.ndim not in (1, 2) or rows.shape[-1] != embedding_size or not np.issubdtype(rows.dtype, np.floating):
        raise GalleryError(
            f"{what}: expected embeddings of {embedding_size} floating-point numbers, found {rows.dtype} of shape "
            f"{rows.shape}; they come from another model, or they are no embeddings"
        )
    if not rows.size:
        raise GalleryError(f"{what}: no embedding was given; give at least one utterance")
    if rows.size > _MAX_NUMBERS:  # a view of a few bytes may claim any shape
        raise GalleryError(f"{what}: {rows.size // embedding_size:,} embeddings at once are too many; give fewer")
    rows = np.atleast_2d(rows).astype(np.float64)
    if not np.isfinite(rows).all():
        raise GalleryError(f"{what}: the embedding holds NaN or infinite values")
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if not largest.all():
        raise GalleryError(f"{what}: the embedding is all zeros, it has no direction")
    rows = rows / largest  # so that no square overflows or vanishes
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
