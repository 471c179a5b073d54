"""Percentiles, paired speed-ups with intervals, and the verdicts drawn from them.

The unit of replication is the round (a fresh process), not the call: calls of one process share its
memory layout, its caches and the machine's mood, so their number says little about certainty.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Estimate:
    """A median and its distribution-free interval. `low` and `high` are None where the samples are too few."""

    median: float
    low: float | None
    high: float | None
    level: float
    samples: int


Floats = npt.NDArray[np.float64]
Verdict = Literal["faster", "slower", "equivalent", "undecided"]

LEVEL = 0.95
MARGIN = 0.03  # speeds within 3 % of each other are alike to a user
MIN_ROUNDS = 5  # fewer rounds carry no verdict
RESAMPLES = 4000


@dataclass(frozen=True)
class Interval:
    """A ratio of times (baseline / candidate, so above 1 means a faster candidate) and its interval."""

    ratio: float
    low: float
    high: float
    level: float
    rounds: int


def min_samples(q: float, confidence: float = 0.99) -> int:
    """Fewest samples that say anything about quantile `q` in (0, 1).

    With fewer, all of them lie below the true quantile with a probability above 1 - confidence
    (distribution-free order-statistic bound: q ** n <= 1 - confidence): 7 for 0.5, 44 for 0.9, 459 for 0.99.
    """
    if not 0 < q < 1:
        raise ValueError(f"a quantile must lie between 0 and 1, found {q}")
    return math.ceil(math.log(1 - confidence) / math.log(q))


def percentile(samples: npt.ArrayLike, q: float) -> float | None:
    """Quantile `q` in (0, 1) of `samples`, linearly interpolated; None where they are too few."""
    values = np.asarray(samples, dtype=np.float64)
    return float(np.quantile(values, q)) if values.size >= min_samples(q) else None


def median_interval(samples: npt.ArrayLike, level: float = LEVEL) -> Estimate:
    """The median and the narrowest pair of order statistics around it that covers it with at least `level`.

    Distribution-free: the number of samples below the true median is Binomial(n, 1/2). Ten samples give the
    2nd and the 9th; fewer than six cover nothing at 95 %, and the interval is None.

    Raises:
        ValueError: no sample.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = int(ordered.size)
    if n == 0:
        raise ValueError("a median needs at least one sample")
    middle = float(np.median(ordered))
    # With `out` samples left out on each side, the median lies outside with probability 2 · P(X <= out).
    fitting = [out for out in range(n // 2) if 2 * binomial_cdf(out, n, 0.5) <= 1 - level]
    if not fitting:
        return Estimate(middle, None, None, level, n)
    out = fitting[-1]
    return Estimate(middle, float(ordered[out]), float(ordered[n - 1 - out]), 1 - 2 * binomial_cdf(out, n, 0.5), n)


def binomial_cdf(successes: int, trials: int, p: float) -> float:
    """P(X <= successes) for X ~ Binomial(trials, p), summed in logarithms so that thousands of trials do."""
    if successes >= trials:
        return 1.0
    logs = [
        math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1)
        + i * math.log(p) + (trials - i) * math.log1p(-p)
        for i in range(successes + 1)
    ]  # fmt: skip
    return min(1.0, math.fsum(map(math.exp, logs)))


@lru_cache
def queries_needed(late: int, q: float = 0.99, confidence: float = 0.99) -> int:
    """Fewest queries of which `late` may miss a bound, so that quantile `q` keeps it with this confidence.

    If the true share of late queries were 1 - q or more, so few would be late with a probability of at
    most 1 - confidence: 459 for none, 662 for one, 838 for two. MLPerf's early stopping (Reddi et al.,
    "MLPerf Inference Benchmark", 2020) rests on the same bound.
    """
    low, high = late + 1, min_samples(q, confidence) * (late + 2)
    while binomial_cdf(late, high, 1 - q) > 1 - confidence:
        high *= 2
    while low < high:
        middle = (low + high) // 2
        if binomial_cdf(late, middle, 1 - q) <= 1 - confidence:
            high = middle
        else:
            low = middle + 1
    return low


def relative_spread(samples: npt.ArrayLike) -> float:
    """Interquartile range over median: above 0.1 the machine was not quiet."""
    low, middle, high = np.quantile(np.asarray(samples, dtype=np.float64), (0.25, 0.5, 0.75))
    return float((high - low) / middle)


@lru_cache
def student_t(p: float, freedom: int) -> float:
    """Quantile `p` > 0.5 of Student's t, by integrating its density. Benchmarks do not need SciPy."""
    if not 0.5 < p < 1 or freedom < 1:
        raise ValueError(f"student_t needs 0.5 < p < 1 and freedom >= 1, found {p} and {freedom}")
    # With t = sqrt(freedom) · tan(a) the density is proportional to cos(a) ** (freedom - 1) on a finite range.
    angles = np.linspace(0.0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    area = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2)))
    return math.sqrt(freedom) * math.tan(float(np.interp((2 * p - 1) * area[-1], area, angles)))


def resampled_medians(samples: npt.ArrayLike, count: int, rng: np.random.Generator) -> Floats:
    """Medians of `count` bootstrap resamples of `samples`, without drawing the resamples.

    The k-th smallest of n draws with replacement is x[floor(n·U)] of the sorted samples, where U is the
    k-th smallest of n uniform numbers: Beta(k, n - k + 1). That is exact, and one draw instead of n.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    n = ordered.size
    k = (n + 1) // 2
    lower = rng.beta(k, n - k + 1, count)
    low = ordered[np.minimum((n * lower).astype(np.intp), n - 1)]
    if n % 2:
        return low
    upper = lower + (1 - lower) * rng.beta(1, n - k, count)  # the next smallest, given the k-th
    high = ordered[np.minimum((n * upper).astype(np.intp), n - 1)]
    return np.asarray((low + high) / 2)


def speed_up(
    baseline: Sequence[npt.ArrayLike],
    candidate: Sequence[npt.ArrayLike],
    seed: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Geometric mean over rounds of median(baseline) / median(candidate), with a bootstrap interval.

    `baseline[r]` and `candidate[r]` are the times of round r. Hierarchical bootstrap of the paired
    log-ratios: rounds are drawn with replacement, and within each drawn round its calls. The plain
    percentile interval is too narrow for few rounds (five give 85 % coverage where 95 % was asked), so
    it is stretched about the estimate by sqrt(n / (n - 1)) · t / z: Hesterberg, "What Teachers Should
    Know About the Bootstrap", The American Statistician 69(4), 2015, §4.1.

    Returns None for fewer than two rounds, which have no spread to estimate.

    Raises:
        ValueError: unequal numbers of rounds, an empty round, or a time that is not positive.
    """
    if len(baseline) != len(candidate):
        raise ValueError(f"rounds must be paired, found {len(baseline)} and {len(candidate)}")
    rounds = len(baseline)
    if rounds < 2:
        return None
    pairs = [(_times(b), _times(c)) for b, c in zip(baseline, candidate, strict=True)]
    estimate = float(np.mean([np.log(np.median(b) / np.median(c)) for b, c in pairs]))
    rng = np.random.default_rng(seed)
    drawn = [np.log(resampled_medians(b, resamples, rng) / resampled_medians(c, resamples, rng)) for b, c in pairs]
    chosen = rng.integers(rounds, size=(rounds, resamples))
    means = np.stack(drawn)[chosen, rng.integers(resamples, size=chosen.shape)].mean(axis=0)
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    stretch = math.sqrt(rounds / (rounds - 1)) * student_t(1 - tail, rounds - 1) / NormalDist().inv_cdf(1 - tail)
    return Interval(
        ratio=math.exp(estimate),
        low=math.exp(estimate + (float(low) - estimate) * stretch),
        high=math.exp(estimate + (float(high) - estimate) * stretch),
        level=level,
        rounds=rounds,
    )


def _times(times: npt.ArrayLike) -> Floats:
    values = np.asarray(times, dtype=np.float64)
    if values.size == 0 or not np.all(values > 0):
        raise ValueError("each round needs at least one time, and times are positive")
    return values


def decide(interval: Interval | None, margin: float = MARGIN) -> Verdict:
    """What `interval` allows to say.

    "equivalent": the whole interval lies within the margin. "faster" or "slower": the interval excludes
    1 and the ratio exceeds the margin. Anything else, and fewer than MIN_ROUNDS rounds: "undecided".
    """
    if interval is None or interval.rounds < MIN_ROUNDS:
        return "undecided"
    if 1 / (1 + margin) <= interval.low and interval.high <= 1 + margin:
        return "equivalent"
    if interval.low > 1 and interval.ratio > 1 + margin:
        return "faster"
    if interval.high < 1 and interval.ratio < 1 / (1 + margin):
        return "slower"
    return "undecided"
