"""Adaptive score normalisation: a comparison of two voices, measured by how each compares with known strangers."""

import base64
import binascii
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import ContractError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MOST_NORMALIZED = 512.0  # of a threshold for normalised scores, either way
_LEAST_DEVIATION = 1e-9
_MOST_SPEAKERS, _MOST_SIZE = 1 << 20, 1 << 16
_BLOCK = 1 << 21  # cosines at a time: tens of megabytes
_LENGTH_OFF = 1e-2  # that float16 may leave a unit vector; it leaves less than 1e-3


@dataclass(frozen=True)
class AsNorm:
    """Scores are measured by the `top` speakers of a cohort that are nearest to each side of a comparison.

    The cohort are the speakers whom the network was trained on, each the unit vector that AM-Softmax holds of them: a
    cosine with that is a score / score_scale. They lie in `cohort`, little-endian float16 in base64, and `shape` is
    (speakers, embedding_size).

    A cosine s of the voices e and t becomes ½((s - μe) / σe + (s - μt) / σt), where μ and σ are the mean and the
    deviation (of the population) of a side's `top` largest cosines with the cohort, chosen for each side by itself.
    Matějka et al.: "Analysis of Score Normalization in Multilingual Speaker Recognition", 2017, where it is AS-Norm1.
    """

    top: int
    shape: tuple[int, ...]
    cohort: str

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or not 2 <= self.shape[0] <= _MOST_SPEAKERS or not 1 <= self.shape[1] <= _MOST_SIZE:
            raise ValueError(f"as_norm shape must be (speakers, embedding_size), found {self.shape!s:.40}")
        if not 2 <= self.top <= self.shape[0]:
            raise ValueError(f"as_norm top must be between 2 and the {self.shape[0]} speakers, found {self.top}")
        if len(self.cohort) != -(-2 * self.shape[0] * self.shape[1] // 3) * 4:
            raise ValueError(f"as_norm cohort is not of {self.shape[0]} × {self.shape[1]} numbers")

    @classmethod
    def of(cls, top: int, vectors: npt.ArrayLike) -> "AsNorm":
        """With the cohort `vectors` (speakers, embedding_size), of any length but zero. Raises ValueError."""
        rows = np.asarray(vectors, np.float64)
        return cls.kept(top, rows / np.linalg.norm(rows, axis=1, keepdims=True))

    @classmethod
    def kept(cls, top: int, rows: npt.NDArray[np.floating[Any]]) -> "AsNorm":
        """With the cohort `rows` (speakers, embedding_size), of unit length already. Raises ValueError."""
        raw = np.ascontiguousarray(rows, "<f2").tobytes()
        return cls(top, rows.shape, base64.b64encode(raw).decode("ascii"))

    @cached_property
    def stored(self) -> npt.NDArray[np.float16]:
        """The cohort as it is kept, float16 (speakers, embedding_size).

        Raises:
            ContractError: it is damaged.
        """
        try:
            raw = base64.b64decode(self.cohort, validate=True)
            return np.frombuffer(raw, "<f2").reshape(self.shape).astype(np.float16, copy=False)
        except (binascii.Error, ValueError) as problem:
            raise ContractError(f"as_norm cohort: {problem}; the file is damaged, export it again") from problem

    @cached_property
    def speakers(self) -> Float32:
        """The cohort as unit rows, float32 (speakers, embedding_size). Raises ContractError where they are none."""
        rows = self.stored.astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not bool((np.abs(lengths - 1) < _LENGTH_OFF).all()):  # false for NaN as well
            raise ContractError("as_norm cohort: its vectors are not of unit length; the file is damaged")
        return np.asarray(rows / lengths, np.float32)

    def moments(self, vectors: npt.NDArray[np.floating[Any]]) -> Float64:
        """Mean and deviation (n, 2) of the `top` largest cosines of `vectors` (n, embedding_size), unit rows."""
        found = np.empty((len(vectors), 2))
        rows = max(1, _BLOCK // len(self.speakers))
        for start in range(0, len(vectors), rows):
            block = slice(start, start + rows)
            cosines = (vectors[block].astype(np.float32) @ self.speakers.T).astype(np.float64)
            nearest = np.partition(cosines, -self.top, axis=1)[:, -self.top :]
            found[block, 0] = nearest.mean(axis=1)
            found[block, 1] = np.maximum(nearest.std(axis=1), _LEAST_DEVIATION)
        return found


def normalized(
    cosines: npt.NDArray[np.floating[Any]] | np.floating[Any],
    one: npt.NDArray[np.floating[Any]],
    two: npt.NDArray[np.floating[Any]],
) -> npt.NDArray[np.floating[Any]]:
    """`cosines` as AsNorm says, given both sides' moments, whose last axis holds mean and deviation; all broadcast."""
    both = (cosines - one[..., 0]) / one[..., 1] + (cosines - two[..., 0]) / two[..., 1]
    return np.asarray(both / 2)


def rule_text(as_norm: AsNorm | None) -> str:
    """How voices are compared, for a person."""
    if as_norm is None:
        return "by cosine"
    return f"by cosine, normalised by the {as_norm.top} nearest of {as_norm.shape[0]} training speakers (AS-norm)"
