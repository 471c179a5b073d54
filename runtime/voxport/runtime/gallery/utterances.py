"""Unit vectors of utterances: those that are given to a gallery, and those that it keeps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Utterances:
    """What is added to a speaker: unit vectors (utterances, embedding_size) and their `lengths`, as in `Kept`.

    `pieces` (pieces, embedding_size) are unit vectors of short pieces of the same sounds, for calibration alone.
    """

    vectors: Float64
    lengths: Float32
    pieces: Float64
    piece_lengths: Float32


@dataclass(frozen=True, eq=False)
class Kept:
    """Unit vectors (n, embedding_size) kept of speakers, the row of the speaker of each, and its length.

    `lengths` (n, 2) are seconds of the sound and of the active speech in it; 0 where not known.
    """

    vectors: Float32
    owners: Int64
    lengths: Float32

    @property
    def seconds(self) -> Float32:
        """Of the sounds (n,)."""
        return self.lengths[:, 0]

    @property
    def spoken(self) -> Float32:
        """Seconds of active speech (n,)."""
        return self.lengths[:, 1]

    @classmethod
    def none(cls, embedding_size: int) -> "Kept":
        return cls(np.zeros((0, embedding_size), np.float32), np.zeros(0, np.int64), np.zeros((0, 2), np.float32))

    def add(self, additions: Mapping[int, tuple[Float64, Float32]], each: int, most: int) -> "Kept":
        """With the first few of each speaker: at most `each` of one, and `most` in all."""
        room = most - len(self.vectors)
        kept, owners, lengths = [self.vectors], [self.owners], [self.lengths]
        held = np.bincount(self.owners, minlength=max(additions, default=0) + 1)
        for row, (vectors, given) in additions.items():
            number = max(0, min(len(vectors), each - int(held[row]), room))
            if number:
                kept.append(vectors[:number].astype(np.float32))
                owners.append(np.full(number, row, np.int64))
                lengths.append(given[:number])
                room -= number
        return Kept(np.concatenate(kept), np.concatenate(owners), np.concatenate(lengths))

    def moved(self, rows: Int64) -> "Kept":
        """With the owner of row k at rows[k] from now on; -1: forgotten."""
        owners = rows[self.owners]
        stays = owners >= 0
        return Kept(self.vectors[stays], owners[stays], self.lengths[stays])

    def at_most(self, each: int) -> "Kept":
        """The first `each` of every speaker."""
        seen: dict[int, int] = {}
        stays = []
        for owner in self.owners.tolist():
            seen[owner] = seen.get(owner, 0) + 1
            stays.append(seen[owner] <= each)
        chosen = np.array(stays, bool)
        return Kept(self.vectors[chosen], self.owners[chosen], self.lengths[chosen])
