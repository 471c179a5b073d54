"""Arrays of every type, shape, order and step, from bytes."""

import struct
from typing import Any

import numpy as np

DTYPES = ("<f4", "<f8", "<f2", "<i2", "<i4", ">i2", ">f4", "|u1", "<i8", "<c8", "|b1", "<u2", "|S3", "|O")


def array_of(data: bytes) -> tuple[Any, int]:
    """The first 8 bytes say how the others become an array, and at which rate in Hz."""
    kind, columns, step, order, rate = struct.unpack("<BBbBi", data[:8].ljust(8, b"\0"))
    name = DTYPES[kind % len(DTYPES)]
    body = data[8:]
    dtype = np.dtype(name)
    if name == "|O":
        array: Any = np.array([None, 1.5, "x", *body[:20]], dtype=object)
    else:
        array = np.frombuffer(body[: len(body) // dtype.itemsize * dtype.itemsize], dtype)  # read-only
    if columns % 12:
        array = array[: array.size // (columns % 12) * (columns % 12)].reshape(-1, columns % 12)
    if order & 1:
        array = array.T
    if step:
        array = array[::step]
    if order & 2:
        array = np.broadcast_to(array, (2, *array.shape))
    return array, rate % 400_000 - 1000
