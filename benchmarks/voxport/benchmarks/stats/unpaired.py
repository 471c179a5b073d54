"""Are two measurements that were made at different times alike? Their rounds cannot be paired."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.stats.intervals import LEVEL, RESAMPLES, Interval, resampled_medians, student_t

Rounds = Sequence[npt.ArrayLike]


def compare_runs(
    before: Rounds, after: Rounds, seed: int, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval | None:
    """Geometric mean of the rounds' medians before over that after, with a bootstrap interval.

    Above 1 means that `after` takes less time. Rounds are drawn with replacement in each run by itself, and within
    each drawn round its times. As in `intervals.speed_up`, few rounds make the plain interval too narrow: each run
    is stretched by sqrt(n / (n - 1)), and t / z follows with Welch's degrees of freedom (Welch, "The generalization
    of 'Student's' problem when several different population variances are involved", Biometrika 34, 1947).

    Returns None where a run has fewer than two rounds.

    Raises:
        ValueError: an empty round, or a time that is not positive.
    """
    runs = [[_times(times) for times in rounds] for rounds in (before, after)]
    if min(map(len, runs)) < 2:
        return None
    rng = np.random.default_rng(seed)
    means, deviations, variances = [], [], []
    for rounds in runs:
        count = len(rounds)
        medians = np.log([float(np.median(times)) for times in rounds])
        drawn = np.stack([np.log(resampled_medians(times, resamples, rng)) for times in rounds])
        chosen = rng.integers(count, size=(count, resamples))
        resampled = drawn[chosen, rng.integers(resamples, size=chosen.shape)].mean(axis=0)
        means.append(float(medians.mean()))
        deviations.append((resampled - means[-1]) * math.sqrt(count / (count - 1)))
        variances.append(float(medians.var(ddof=1)) / count)
    estimate = means[0] - means[1]
    tail = (1 - level) / 2
    low, high = np.quantile(deviations[0] - deviations[1], (tail, 1 - tail))
    freedom = _welch(variances, [len(rounds) for rounds in runs])
    stretch = student_t(1 - tail, freedom) / NormalDist().inv_cdf(1 - tail)
    return Interval(
        ratio=math.exp(estimate),
        low=math.exp(estimate + float(low) * stretch),
        high=math.exp(estimate + float(high) * stretch),
        level=level,
        rounds=min(map(len, runs)),
    )


def _times(times: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(times, dtype=np.float64)
    if values.size == 0 or not np.all(values > 0):
        raise ValueError("each round needs at least one time, and times are positive")
    return values


def _welch(variances: Sequence[float], counts: Sequence[int]) -> int:
    """Welch and Satterthwaite's degrees of freedom, rounded down; those of both runs where nothing varies."""
    total = sum(variances)
    if total <= 0:
        return sum(counts) - 2
    parts = sum((variance / total) ** 2 / (count - 1) for variance, count in zip(variances, counts, strict=True))
    return max(1, math.floor(1 / parts))
