"""Streams of random numbers by use, seed and name: the same wherever, and in whatever order, they are asked for."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

Use = Literal["training", "calibration", "bench"]

_USES: dict[Use, int] = {"training": 0x747261, "calibration": 0x63616C, "bench": 0x626E63}


def generator(use: Use, seed: int, *names: str | int) -> np.random.Generator:
    """A generator that depends on its arguments alone; two uses never share one."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    return np.random.default_rng([_USES[use], seed & 0xFFFFFFFF, *np.frombuffer(digest, "<u4").tolist()])


def between(span: Sequence[float], chance: np.random.Generator) -> float:
    """A number from the range `span`, lowest and highest, each as likely."""
    low, high = span
    return float(chance.uniform(low, high))
