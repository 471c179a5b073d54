"""Group inputs of different lengths into padded batches."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MAX_ROWS = 32
# Rows × longest row. Bounds the memory of one run: attention alone takes heads × rows × length² floats.
MAX_SECONDS = 60.0


def group_by_length(seconds: Sequence[float]) -> list[list[int]]:
    """Indices in batches of similar length, so that little padding is computed.

    A batch has at most MAX_ROWS rows and, padded, at most MAX_SECONDS of sound; one row may be longer.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(seconds)), key=lambda i: seconds[i]):
        rows = len(groups[-1]) + 1 if groups else 0
        if groups and rows <= MAX_ROWS and rows * seconds[index] <= MAX_SECONDS:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def pad(rows: Sequence[npt.NDArray[np.float32]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Stack rows (length, …) into one array (rows, longest, …), zeros behind the shorter, with their lengths."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    batch = np.zeros((len(rows), int(lengths.max()), *rows[0].shape[1:]), dtype=np.float32)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    return batch, lengths
