"""The statistics against NumPy, SciPy, brute force, and distributions whose truth is known."""

import math

import numpy as np
import pytest

from voxport.benchmarks.stats.intervals import (
    Interval,
    binomial_cdf,
    decide,
    median_interval,
    min_samples,
    percentile,
    relative_spread,
    resampled_medians,
    speed_up,
    student_t,
)

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(("q", "needed"), [(0.5, 7), (0.9, 44), (0.99, 459), (0.999, 4603)])
def test_fewest_samples_for_a_percentile(q: float, needed: int) -> None:
    assert min_samples(q) == needed
    assert q**needed <= 0.01 < q ** (needed - 1)  # with one less, all may well lie below the quantile
    values = np.random.default_rng(1).exponential(size=needed)
    assert percentile(values, q) == pytest.approx(np.percentile(values, 100 * q))
    assert percentile(values[1:], q) is None


@pytest.mark.parametrize("q", [0.0, 1.0, -1.0])
def test_impossible_quantiles(q: float) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1"):
        min_samples(q)


def test_spread_of_a_normal_distribution() -> None:
    values = np.random.default_rng(2).normal(10, 1, 200_000)
    assert relative_spread(values) == pytest.approx(2 * stats.norm.ppf(0.75) / 10, rel=0.02)


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 30])
@pytest.mark.parametrize("p", [0.9, 0.975, 0.995])
def test_student_t_is_scipys(p: float, freedom: int) -> None:
    assert student_t(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-6)


@pytest.mark.parametrize("size", [1, 2, 9, 10, 61])
def test_medians_of_resamples_are_distributed_as_brute_force_gives_them(size: int) -> None:
    rng = np.random.default_rng(size)
    values = rng.exponential(size=size)
    count = 40_000
    brute = np.median(rng.choice(values, (count, size)), axis=1)
    ours = resampled_medians(values, count, rng)
    assert set(ours) <= set(values) if size % 2 else True
    for q in (0.025, 0.25, 0.5, 0.75, 0.975):
        # Each side's quantile must lie in the band that the other's sampling error allows.
        low, high = np.quantile(brute, [max(q - 0.012, 0), min(q + 0.012, 1)])
        assert low <= np.quantile(ours, q) <= high


def _rounds(rng: np.random.Generator, rounds: int, shift: float, calls: int = 40) -> list[np.ndarray]:
    """Skewed times whose level differs from round to round by 3 %."""
    return [
        math.exp(shift + 0.03 * rng.standard_normal()) * (1 + 0.05 * rng.standard_exponential(calls))
        for _ in range(rounds)
    ]


@pytest.mark.parametrize("rounds", [5, 10])
def test_interval_covers_the_truth_as_often_as_it_says(rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    trials, truth, hits = 400, 1.25, 0
    for trial in range(trials):
        found = speed_up(_rounds(rng, rounds, math.log(truth)), _rounds(rng, rounds, 0.0), trial, resamples=800)
        assert found is not None
        hits += found.low <= truth <= found.high
    # Binomial: three standard errors about 95 %.
    assert abs(hits / trials - 0.95) < 3 * math.sqrt(0.95 * 0.05 / trials) + 0.005


def test_interval_of_a_steady_difference_is_narrow_and_centred() -> None:
    rng = np.random.default_rng(3)
    slow = [2.0 + 0.001 * rng.random(50) for _ in range(5)]
    fast = [1.0 + 0.001 * rng.random(50) for _ in range(5)]
    found = speed_up(slow, fast, seed=0)
    assert found is not None
    assert found.ratio == pytest.approx(2, rel=1e-3)
    assert (found.level, found.rounds) == (0.95, 5)
    assert 1.99 < found.low <= found.ratio <= found.high < 2.01
    back = speed_up(fast, slow, seed=0)
    assert back is not None
    assert back.ratio == pytest.approx(1 / found.ratio)


def test_pairing_takes_the_machines_drift_out() -> None:
    rng = np.random.default_rng(4)
    drift = [1.0, 1.7, 0.8, 1.3, 2.1]
    slow = [1.5 * d * (1 + 0.01 * rng.random(50)) for d in drift]
    fast = [d * (1 + 0.01 * rng.random(50)) for d in drift]
    paired, crossed = speed_up(slow, fast, seed=0), speed_up(slow, fast[::-1], seed=0)
    assert paired is not None
    assert crossed is not None
    assert paired.high - paired.low < 0.05 < 1 < crossed.high - crossed.low


def test_intervals_are_reproducible() -> None:
    rng = np.random.default_rng(5)
    slow, fast = _rounds(rng, 5, 0.2), _rounds(rng, 5, 0.0)
    assert speed_up(slow, fast, seed=7) == speed_up(slow, fast, seed=7)


def test_one_round_has_no_interval() -> None:
    assert speed_up([[2.0]], [[1.0]], seed=0) is None
    assert speed_up([], [], seed=0) is None


@pytest.mark.parametrize(
    ("baseline", "candidate"), [([[1.0]] * 2, [[1.0]]), ([[1.0], []], [[1.0], [1.0]]), ([[1.0], [0.0]], [[1.0], [1.0]])]
)
def test_unusable_times_are_refused(baseline: list[list[float]], candidate: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"paired|positive"):
        speed_up(baseline, candidate, seed=0)


@pytest.mark.parametrize(
    ("low", "ratio", "high", "rounds", "verdict"),
    [
        (1.10, 1.20, 1.30, 5, "faster"),
        (1.001, 1.05, 1.10, 5, "faster"),
        (0.99, 1.20, 1.45, 5, "undecided"),  # includes 1
        (1.001, 1.02, 1.04, 5, "undecided"),  # excludes 1, but too small to matter and too wide for equality
        (0.98, 1.00, 1.02, 5, "equivalent"),
        (1.005, 1.01, 1.02, 5, "equivalent"),  # surely faster, by less than anybody feels
        (0.95, 1.00, 1.02, 5, "undecided"),
        (0.60, 0.70, 0.80, 5, "slower"),
        (0.96, 0.98, 0.999, 5, "undecided"),
        (0.90, 0.96, 0.99, 5, "slower"),
        (1.10, 1.20, 1.30, 4, "undecided"),  # too few rounds
    ],
)
def test_verdicts(low: float, ratio: float, high: float, rounds: int, verdict: str) -> None:
    assert decide(Interval(ratio, low, high, 0.95, rounds)) == verdict


def test_no_interval_no_verdict() -> None:
    assert decide(None) == "undecided"


def test_equals_are_seldom_called_different() -> None:
    rng = np.random.default_rng(6)
    wrong = 0
    for trial in range(200):
        found = speed_up(_rounds(rng, 5, 0.0), _rounds(rng, 5, 0.0), trial, resamples=800)
        wrong += decide(found) in ("faster", "slower")
    assert wrong / 200 < 0.097  # 5 % asked for, and three standard errors


@pytest.mark.parametrize(("successes", "trials", "p"), [(0, 10, 0.5), (3, 10, 0.5), (7, 1400, 0.01), (10, 10, 0.3)])
def test_binomial_cdf_is_scipys(successes: int, trials: int, p: float) -> None:
    assert binomial_cdf(successes, trials, p) == pytest.approx(stats.binom.cdf(successes, trials, p), rel=1e-9)


def test_the_medians_interval_is_a_pair_of_order_statistics() -> None:
    found = median_interval(list(range(1, 11)))
    assert (found.median, found.low, found.high, found.samples) == (5.5, 2.0, 9.0, 10)
    assert found.level == pytest.approx(1 - 2 * stats.binom.cdf(1, 10, 0.5))
    few = median_interval([3.0, 1.0, 2.0, 4.0, 5.0])
    assert (few.median, few.low, few.high) == (3.0, None, None)  # all five lie on one side in 6 % of cases
    with pytest.raises(ValueError, match=r"at least one"):
        median_interval([])


@pytest.mark.parametrize("size", [10, 25])
def test_the_medians_interval_covers_the_truth(size: int) -> None:
    rng = np.random.default_rng(size)
    hits = 0
    for _ in range(2000):
        found = median_interval(rng.exponential(size=size))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= math.log(2) <= found.high
    level = 1 - 2 * stats.binom.cdf({10: 1, 25: 7}[size], size, 0.5)
    assert hits / 2000 == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 2000))
    assert level >= 0.95
