"""Equal error rate and detection cost, against counting at every threshold."""

import itertools
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest

from voxport.train.evaluation.verification import det_curve, equal_error_rate, min_dcf

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


def rates(target: Bools, scores: Floats) -> list[tuple[Fraction, Fraction]]:
    """(false accepts, misses) at every threshold, from rejecting all to accepting all, by counting."""
    points = []
    for threshold in [np.inf, *sorted(set(scores.tolist()), reverse=True)]:
        accepted = scores >= threshold
        false_accepts = Fraction(int((accepted & ~target).sum()), int((~target).sum()))
        misses = Fraction(int((~accepted & target).sum()), int(target.sum()))
        points.append((false_accepts, misses))
    return points


def counted_eer(target: Bools, scores: Floats) -> float:
    """Where the polyline through all the points meets the diagonal, in exact arithmetic."""
    points = rates(target, scores)
    for (a0, m0), (a1, m1) in itertools.pairwise(points):
        if m1 <= a1:
            share = (m0 - a0) / ((m0 - a0) + (a1 - m1))
            return float(m0 + share * (m1 - m0))
    raise AssertionError("the curve always meets the diagonal")


def trials(seed: int, ties: bool) -> tuple[Bools, Floats]:
    random = np.random.default_rng(seed)
    target = random.random(int(random.integers(6, 90))) < 0.4
    target[:2] = True, False
    scores = random.normal(size=len(target)) + 1.2 * target
    return target, (scores.round() if ties else scores).astype(np.float32)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_against_counting(seed: int, ties: bool) -> None:
    target, scores = trials(seed, ties)
    det = det_curve(target, scores)
    rate, threshold = equal_error_rate(det)
    assert rate == pytest.approx(counted_eer(target, scores), abs=1e-12)
    assert threshold in scores
    for prior, miss_cost, accept_cost in ((0.01, 1, 1), (0.05, 1, 1), (0.3, 10, 2)):
        costs = [prior * miss_cost * m + (1 - prior) * accept_cost * a for a, m in rates(target, scores)]
        blind = min(prior * miss_cost, (1 - prior) * accept_cost)
        assert min_dcf(det, prior, miss_cost, accept_cost) == pytest.approx(float(min(costs)) / blind, abs=1e-12)
    counted = {(float(a), float(m)) for a, m in rates(target, scores)}
    for accept, miss in zip(det.false_accept, det.miss, strict=True):
        assert any(abs(accept - a) + abs(miss - m) < 1e-9 for a, m in counted)


def test_perfect_and_useless_scores() -> None:
    target = np.array([True, True, False, False, False])
    perfect = det_curve(target, np.array([0.9, 0.8, 0.1, 0.2, 0.3], dtype=np.float32))
    assert equal_error_rate(perfect)[0] == 0.0
    assert equal_error_rate(perfect)[1] == pytest.approx(0.8)
    assert min_dcf(perfect, 0.01) == 0.0
    constant = det_curve(target, np.zeros(5, dtype=np.float32))
    assert equal_error_rate(constant)[0] == pytest.approx(0.5)
    wrong = det_curve(target, np.array([0.1, 0.2, 0.9, 0.8, 0.7], dtype=np.float32))
    assert equal_error_rate(wrong)[0] == 1.0
    # Rejecting everything is always possible, though here the best score is a non-target's.
    assert min_dcf(wrong, 0.01) == pytest.approx(1.0)
    assert min_dcf(constant, 0.05) == pytest.approx(1.0)


def test_equal_error_rate_of_two_normal_distributions() -> None:
    """Scores with means 0 and 2 and deviation 1 cross at 1: the rate is Φ(−1)."""
    random = np.random.default_rng(0)
    target = np.arange(400_000) < 200_000
    scores = (random.normal(size=len(target)) + 2 * target).astype(np.float32)
    rate, threshold = equal_error_rate(det_curve(target, scores))
    assert rate == pytest.approx(0.158655, abs=2e-3)
    assert threshold == pytest.approx(1.0, abs=1e-2)
