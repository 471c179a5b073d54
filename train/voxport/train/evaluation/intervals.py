"""Intervals of measured shares."""

import math

_Z95 = 1.959964  # the standard normal's 97.5 % quantile


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a proportion, from `share` in [0, 1] of `count` cases.

    Wilson, "Probable inference", JASA 1927, eq. 5.
    """
    shrink = 1 + _Z95 * _Z95 / count
    centre = (share + _Z95 * _Z95 / (2 * count)) / shrink
    half = _Z95 * math.sqrt(share * (1 - share) / count + _Z95 * _Z95 / (4 * count * count)) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)
