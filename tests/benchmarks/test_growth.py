"""Exponents against curves whose exponent is known, and the coverage of their intervals."""

import numpy as np
import pytest

from voxport.benchmarks.stats.power_law import fit_growth


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, -0.5])
def test_a_power_law_gives_its_exponent(exponent: float) -> None:
    x = [10.0, 20, 40, 80, 160, 320]
    growth = fit_growth(x, [3 * value**exponent for value in x])
    assert growth is not None
    assert growth.low is not None
    assert growth.high is not None
    assert (growth.low, growth.exponent, growth.high) == pytest.approx((exponent,) * 3, abs=1e-9)


def test_only_the_tail_counts() -> None:
    x = [1.0, 2, 4, 8, 1000, 2000, 4000, 8000]
    growth = fit_growth(x, [100 + value**2 for value in x])
    assert growth is not None
    assert growth.points == 4
    assert growth.start == pytest.approx(1000)
    assert growth.exponent == pytest.approx(2, abs=1e-3)


def test_the_interval_covers_the_truth_in_95_of_100() -> None:
    rng = np.random.default_rng(1)
    x = [100.0 * 2**i for i in range(5)]
    hits = 0
    for _ in range(600):
        growth = fit_growth(x, [value**1.5 * np.exp(rng.normal(0, 0.1)) for value in x])
        assert growth is not None
        assert growth.low is not None
        assert growth.high is not None
        hits += growth.low <= 1.5 <= growth.high
    assert 0.92 < hits / 600 < 0.98


def test_a_bend_widens_the_interval() -> None:
    x = [10.0, 100, 1000, 10_000]
    straight, bent = fit_growth(x, x), fit_growth(x, [value + 500 for value in x])
    assert straight is not None
    assert bent is not None
    assert straight.high is not None
    assert bent.high is not None
    assert bent.high - bent.exponent > 100 * (straight.high - straight.exponent)


def test_three_points_have_no_interval_and_two_no_exponent() -> None:
    three = fit_growth([1, 2, 4], [1, 2, 4])
    assert three is not None
    assert (three.low, three.high) == (None, None)
    assert fit_growth([1, 2], [1, 2]) is None


@pytest.mark.parametrize(("x", "cost"), [([1, 2, 3], [1, 2]), ([0, 1, 2], [1, 1, 1]), ([1, 2, 3], [1, 0, 1])])
def test_what_no_power_law_has_is_refused(x: list[float], cost: list[float]) -> None:
    with pytest.raises(ValueError):
        fit_growth(x, cost)
