"""The rows of a matrix that are most alike a vector: exact, as a matrix product, in bounded memory."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import AsNorm
from voxport.runtime.contract.as_norm import normalized
from voxport.runtime.errors import BackendError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Adjust = Callable[[Float32, slice], Float32]  # cosines (q, rows) with some of the voices → what they are ranked by

BLOCK_BYTES = 32 << 20  # of cosines at a time: a million voices against 64 questions would take 256 MB at once


@dataclass(frozen=True, eq=False)
class Normalization:
    """By what a gallery's scores are normalised, and each voice's `moments` (voices, 2): mean and deviation."""

    rule: AsNorm
    moments: Float64

    @classmethod
    def of(cls, rule: AsNorm | None, voices: Float32) -> "Normalization | None":
        """That of `voices` (n, d); None where nothing is normalised."""
        return None if rule is None else cls(rule, rule.moments(voices))

    def updated(self, voices: Float32, rows: Sequence[int]) -> "Normalization":
        """Of these `voices`, of which only those of `rows`, and those behind the ones before, are other ones."""
        new = range(len(self.moments), len(voices))
        moments = np.concatenate([self.moments, np.empty((len(new), 2))])
        changed = np.union1d(rows, new).astype(np.int64)
        moments[changed] = self.rule.moments(voices[changed])
        return Normalization(self.rule, moments)

    def without(self, row: int) -> "Normalization":
        """Of all voices but that of `row`."""
        return Normalization(self.rule, np.delete(self.moments, row, axis=0))

    @property
    def unit(self) -> float:
        """By how much normalised scores differ where cosines differ by 1: the median over the voices."""
        return float(np.median(1 / self.moments[:, 1]))

    def scores(self, cosines: npt.NDArray[np.floating[Any]], questions: npt.NDArray[np.floating[Any]]) -> Float64:
        """`cosines` (q, voices) of `questions` (q, d), unit rows, normalised; in float64."""
        asked = self.rule.moments(questions)[:, None]
        return np.asarray(normalized(cosines.astype(np.float64), asked, self.moments[None]), np.float64)

    def adjusting(self, questions: Float32) -> Adjust:
        """The same some voices at a time and in float32, for a search."""
        asked, own = self.rule.moments(questions)[:, None].astype(np.float32), self.moments[None].astype(np.float32)
        return lambda cosines, rows: np.asarray(normalized(cosines, asked, own[:, rows]), np.float32)


class Search(Protocol):
    """Finds the `top` voices (n, d) most alike each of the questions (q, d); rows of both are of unit length."""

    def __call__(self, questions: Float32, top: int) -> tuple[Int64, Float32]:
        """Rows (q, k) of the voices and their cosines (q, k), best first, with k = min(top, n)."""
        ...


class MatrixSearch:
    """Exact search: cosines by a matrix product, block by block, and the best of each block by partition.

    The voices are used where they are, never copied. Equal cosines keep the order of the rows. A full sort of
    a million cosines takes longer than the product that gave them, so only the best are sorted.
    """

    def __init__(self, voices: Float32, block_bytes: int = BLOCK_BYTES) -> None:
        """Search `voices`, float32 (n, d) with rows of unit length."""
        self._voices, self._block_bytes = voices, block_bytes

    def __call__(self, questions: Float32, top: int, adjust: Adjust | None = None) -> tuple[Int64, Float32]:
        """See Search. Memory beside the voices: some times `block_bytes`, whatever their number.

        With `adjust` the best are those of its values, which then take the place of the cosines.
        """
        voices, count = self._voices, len(questions)
        rows = max(1, self._block_bytes // (4 * max(1, count)))
        best_rows = np.zeros((count, 0), np.int64)
        best = np.zeros((count, 0), np.float32)
        for start in range(0, len(voices), rows):
            block = voices[start : start + rows]
            # One question is a matrix-vector product, which reads the voices once and needs no blocks of its own.
            cosines = (block @ questions[0])[None] if count == 1 else questions @ block.T
            np.clip(cosines, -1, 1, out=cosines)
            if adjust is not None:
                cosines = adjust(cosines, slice(start, start + rows))
            chosen = np.stack([_largest(row, top) for row in cosines]) if count else best_rows
            best_rows = np.concatenate([best_rows, chosen + start], axis=1)
            best = np.concatenate([best, np.take_along_axis(cosines, chosen, axis=1)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :top]  # blocks come in the order of rows
        return np.take_along_axis(best_rows, order, axis=1), np.take_along_axis(best, order, axis=1)


def nearest(
    voices: Float32, norm: Normalization | None, questions: Float32, top: int
) -> tuple[Int64, Float32, Float32 | None]:
    """Rows (q, k) of the voices (n, d) that answer `questions` (q, d) best, their cosines, and normalised scores."""
    search = MatrixSearch(voices)
    if norm is None:
        return *search(questions, top), None
    rows, scores = search(questions, top, norm.adjusting(questions))
    return rows, np.clip(np.einsum("qd,qkd->qk", questions, voices[rows]), -1, 1), scores


def _largest(values: Float32, top: int) -> Int64:
    """Positions of the `top` largest of `values` (n,), the largest first; of equal ones the first."""
    if top < len(values):
        least = np.partition(values, len(values) - top)[len(values) - top]
        above = np.flatnonzero(values > least)
        # A partition alone may take any of those that equal the last one chosen.
        equal = np.flatnonzero(values == least)[: top - len(above)]
        chosen = np.sort(np.concatenate([above, equal]))
    else:
        chosen = np.arange(len(values))
    return np.asarray(chosen[np.argsort(-values[chosen], kind="stable")], dtype=np.int64)


class FaissSearch:
    """Exact search by faiss (`IndexFlatIP`), which copies the voices and uses all of OpenMP's threads."""

    def __init__(self, voices: Float32) -> None:
        """Copy `voices` (n, d) into an index. Raises BackendError where faiss is not installed."""
        try:
            self._faiss: Any = importlib.import_module("faiss")
        except ModuleNotFoundError as problem:
            raise BackendError("the search by faiss needs the package faiss-cpu: pip install faiss-cpu") from problem
        self._index = self._faiss.IndexFlatIP(voices.shape[1])
        self._index.add(np.ascontiguousarray(voices, np.float32))

    def __call__(self, questions: Float32, top: int) -> tuple[Int64, Float32]:
        """See Search; of equal cosines faiss may take any."""
        k = min(top, self._index.ntotal)
        cosines, rows = self._index.search(np.ascontiguousarray(questions, np.float32), k)
        return rows.astype(np.int64, copy=False), np.clip(cosines, -1, 1)
