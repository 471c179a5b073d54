"""What a gallery holds at one moment. A change makes a new state, so a reader's state never changes."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import UNPRINTABLE
from voxport.runtime.errors import GalleryError

MAX_NAME = 200  # characters
MAX_SPEAKERS = 1_000_000
MAX_EMBEDDING_SIZE = 1 << 13
_MAX_NUMBERS = 1 << 28  # of embeddings that are given at once: 2 GB in float64, a million of 256 numbers
KEPT_PER_SPEAKER, KEPT = 5, 4096  # utterances that are kept to calibrate with; means need none

_NO_DIRECTION = 1e-3  # length of a mean of unit vectors, below which it points nowhere

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Thresholds:
    """From which cosine on a voice is accepted; None where there is no such threshold.

    `verify` holds for one comparison: this voice, that speaker. `identify` holds for the best of all
    enrolled speakers, and is therefore higher. `false_accept_rate` is what both were calibrated for,
    None where they were given; `speakers` is how many were enrolled then, which `identify` depends on.
    """

    verify: float | None = None
    identify: float | None = None
    false_accept_rate: float | None = None
    speakers: int = 0

    def __post_init__(self) -> None:
        for name in ("verify", "identify"):
            value = getattr(self, name)
            if value is not None and not -1 <= value <= 1:
                raise ValueError(f"the {name} threshold is a cosine between -1 and 1, found {value}")
        if self.false_accept_rate is not None and not 0 < self.false_accept_rate < 1:
            raise ValueError(f"false_accept_rate must lie between 0 and 1, found {self.false_accept_rate}")
        if not 0 <= self.speakers <= MAX_SPEAKERS:
            raise ValueError(f"speakers must be between 0 and {MAX_SPEAKERS}, found {self.speakers}")


@dataclass(frozen=True, eq=False)
class State:
    """Speakers in the order of their first enrolment, and what their voices are computed from.

    `sums` (speakers, embedding_size) and `counts` (speakers,): the sum and number of the unit vectors
    enrolled, so that a later enrolment gives what enrolling all at once gives. `voices` are the sums as
    unit rows, in float32 for the search. `kept` (utterances, embedding_size) are unit vectors of single
    utterances for calibration, `owners` (utterances,) the index of the speaker of each.
    """

    names: tuple[str, ...]
    counts: Int64
    sums: Float64
    voices: Float32
    kept: Float32
    owners: Int64
    thresholds: Thresholds

    @classmethod
    def empty(cls, embedding_size: int) -> "State":
        rows = np.zeros((0, embedding_size))
        none = np.zeros(0, np.int64)
        return cls((), none, rows, rows.astype(np.float32), rows.astype(np.float32), none, Thresholds())

    @cached_property
    def index(self) -> dict[str, int]:
        """The row of each speaker."""
        return {name: row for row, name in enumerate(self.names)}

    def enroll(self, additions: Mapping[str, Float64]) -> "State":
        """The state with unit vectors (utterances, embedding_size) added to each name, new ones last."""
        new = tuple(name for name in additions if name not in self.index)
        names = self.names + new
        if len(names) > MAX_SPEAKERS:
            raise GalleryError(f"a gallery holds at most {MAX_SPEAKERS:,} speakers; split it")
        size = self.sums.shape[1]
        counts = np.concatenate([self.counts, np.zeros(len(new), np.int64)])
        sums = np.concatenate([self.sums, np.zeros((len(new), size))])
        places = {name: row for row, name in enumerate(new, len(self.names))}
        rows = [places[name] if name in places else self.index[name] for name in additions]
        for row, vectors in zip(rows, additions.values(), strict=True):
            counts[row] += len(vectors)
            sums[row] += vectors.sum(axis=0)
        voices = np.concatenate([self.voices, np.zeros((len(new), size), np.float32)])
        voices[rows] = voices_of(sums[rows], counts[rows], [names[row] for row in rows])
        kept, owners = self._keep(dict(zip(rows, additions.values(), strict=True)), len(names))
        return State(names, counts, sums, voices, kept, owners, self.thresholds)

    def _keep(self, additions: Mapping[int, Float64], speakers: int) -> tuple[Float32, Int64]:
        """Keep the first few utterances of each speaker, as long as there is room."""
        held = np.bincount(self.owners, minlength=speakers)
        room = KEPT - len(self.kept)
        kept, owners = [self.kept], [self.owners]
        for row, vectors in additions.items():
            number = max(0, min(len(vectors), KEPT_PER_SPEAKER - int(held[row]), room))
            if number:
                kept.append(vectors[:number].astype(np.float32))
                owners.append(np.full(number, row, np.int64))
                room -= number
        return np.concatenate(kept), np.concatenate(owners)

    def remove(self, row: int) -> "State":
        """The state without the speaker of `row` and all that is theirs."""
        others = self.owners != row
        owners = self.owners[others]
        return State(
            self.names[:row] + self.names[row + 1 :],
            np.delete(self.counts, row),
            np.delete(self.sums, row, axis=0),
            np.delete(self.voices, row, axis=0),
            self.kept[others],
            owners - (owners > row),
            self.thresholds,
        )

    def with_thresholds(self, thresholds: Thresholds) -> "State":
        return replace(self, thresholds=thresholds)


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
