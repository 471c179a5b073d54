"""Unpaired comparison: known ratios, and intervals with the right coverage."""

import numpy as np
import pytest

from voxport.benchmarks.stats.unpaired import compare_runs


def runs(rng: np.random.Generator, rounds: int, scale: float, spread: float) -> list[list[float]]:
    """Rounds that differ by more than their calls do, as processes do."""
    levels = scale * np.exp(rng.normal(0, spread, rounds))
    return [(level * np.exp(rng.normal(0, 0.02, 15))).tolist() for level in levels]


@pytest.mark.parametrize(("before", "after"), [(5, 5), (5, 10)])
def test_the_interval_covers_the_truth_in_95_of_100(before: int, after: int) -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        interval = compare_runs(runs(rng, before, 1.2, 0.05), runs(rng, after, 1.0, 0.08), seed, resamples=400)
        assert interval is not None
        hits += interval.low <= 1.2 <= interval.high
    assert 0.91 < hits / 200 <= 0.99


def test_runs_without_noise_give_their_ratio() -> None:
    interval = compare_runs([[2.0] * 5] * 5, [[1.0] * 5] * 5, seed=1)
    assert interval is not None
    assert (interval.low, interval.ratio, interval.high) == pytest.approx((2, 2, 2))


def test_one_round_has_no_interval() -> None:
    assert compare_runs([[1.0]], [[1.0], [1.0]], seed=1) is None


def test_times_are_positive() -> None:
    with pytest.raises(ValueError):
        compare_runs([[1.0], []], [[1.0], [1.0]], seed=1)
