"""The rejection threshold, against trying every threshold."""

import numpy as np
import numpy.typing as npt
import pytest

from voxport.runtime.errors import VoxportError
from voxport.train.evaluation.intervals import wilson
from voxport.train.evaluation.rejection import calibrate_rejection


def cosines(seed: int, count: int = 60, speakers: int = 5) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, speakers, count)
    values = random.uniform(-0.5, 0.6, (count, speakers))
    values[np.arange(count), labels] += 0.3
    return values, labels


def shares(values: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], threshold: float) -> tuple[int, int]:
    """False accepts and false rejects, one utterance at a time."""
    accepts = rejects = 0
    for row, label in zip(values, labels, strict=True):
        others = [value for speaker, value in enumerate(row) if speaker != label]
        accepts += max(others) >= threshold
        rejects += max(row) < threshold
    return accepts, rejects


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("seed", range(4))
def test_lowest_threshold_that_keeps_the_rate(seed: int, rate: float) -> None:
    values, labels = cosines(seed)
    report = calibrate_rejection(values, labels, rate)
    assert (report.false_accepts, report.false_rejects) == shares(values, labels, report.threshold)
    assert report.false_accepts <= rate * 60 < report.false_accepts + 1, "another false accept was allowed"
    assert report.false_accept_rate == report.false_accepts / 60
    assert report.false_accept_interval == wilson(report.false_accepts / 60, 60)
    assert report.false_reject_interval == wilson(report.false_rejects / 60, 60)
    assert report.rejection.threshold == report.threshold
    assert report.rejection.false_accept_rate == rate


def test_float32_rounding_does_not_change_the_count() -> None:
    values, labels = cosines(7)
    report = calibrate_rejection(values, labels, 0.1)
    for noise in (-1e-6, 1e-6):
        assert shares(values + noise, labels, report.threshold) == (report.false_accepts, report.false_rejects)


def test_ties_are_all_rejected_together() -> None:
    values = np.full((10, 3), 0.25)
    values[:, 0] = 0.75
    labels = np.zeros(10, dtype=np.int64)
    report = calibrate_rejection(values, labels, 0.2)  # two may be accepted, but ten are alike
    assert report.false_accepts == 0
    assert report.false_rejects == 0
    assert 0.25 < report.threshold < 0.25 + 1e-9


def test_rates_that_cannot_be_measured_are_refused() -> None:
    values, labels = cosines(0, count=99)
    with pytest.raises(VoxportError, match=r"0\.01 cannot be measured on 99 held-out utterances: at least 100 are"):
        calibrate_rejection(values, labels, 0.01)
    assert calibrate_rejection(*cosines(0, count=100), 0.01).false_accepts == 1
    for rate in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(VoxportError, match="between 0 and 1"):
            calibrate_rejection(values, labels, rate)
    with pytest.raises(VoxportError, match="at least two speakers"):
        calibrate_rejection(values[:, :1], np.zeros_like(labels), 0.1)


def test_wilson_interval_against_published_figures() -> None:
    """Newcombe, Statistics in Medicine 1998, table I, method 3: 81/263 and 15/148."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0.0, 20)[0] == 0.0
    assert wilson(1.0, 20)[1] == 1.0
