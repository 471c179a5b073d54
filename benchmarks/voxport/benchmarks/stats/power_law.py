"""How a cost grows: the exponent of a power law, by regression between logarithms, with an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxport.benchmarks.stats.intervals import LEVEL, student_t

FEWEST = 4  # points of a tail: three leave one degree of freedom, whose interval says next to nothing


@dataclass(frozen=True)
class Growth:
    """cost ≈ constant · x ** exponent from `start` on. `low` and `high` bound the exponent at `level`.

    They are None where the points are too few to say.
    """

    exponent: float
    low: float | None
    high: float | None
    level: float
    start: float
    points: int


def fit_growth(x: Sequence[float], cost: Sequence[float], level: float = LEVEL) -> Growth | None:
    """The exponent on the tail: the larger half of `x`, and at least four points where there are so many.

    What does not grow (a call's own cost, say) hides the exponent at small `x`, so only the tail is fitted.
    Ordinary least squares of log cost on log x; the interval is the slope's, from the residuals by Student's t
    with n - 2 degrees of freedom (Draper and Smith, "Applied Regression Analysis", 3rd ed., 1998, §1.4). Residuals
    hold both noise and what is no power law, so a bend widens it.

    Returns None for fewer than three points.

    Raises:
        ValueError: unequal numbers of points, or one that is not positive.
    """
    if len(x) != len(cost):
        raise ValueError(f"{len(x)} places, but {len(cost)} costs")
    if any(value <= 0 for value in (*x, *cost)):
        raise ValueError("a power law has positive places and costs only")
    if len(x) < 3:
        return None
    order = np.argsort(np.asarray(x, dtype=np.float64))
    tail = order[-max(FEWEST, -(-len(x) // 2)) :]
    places, costs = (np.log(np.asarray(values, dtype=np.float64)[tail]) for values in (x, cost))
    spread = places - places.mean()
    square = float(spread @ spread)
    if square == 0:
        return None
    slope = float(spread @ costs) / square
    residuals = costs - costs.mean() - slope * spread
    freedom = len(tail) - 2
    start = math.exp(float(places.min()))
    if len(tail) < FEWEST:
        return Growth(slope, None, None, level, start, len(tail))
    error = math.sqrt(float(residuals @ residuals) / freedom / square)
    half = student_t(1 - (1 - level) / 2, freedom) * error
    return Growth(slope, slope - half, slope + half, level, start, len(tail))
