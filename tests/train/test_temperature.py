"""The temperature of probabilities, and a line a kind of condition."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from voxport.runtime.contract import Rejection
from voxport.train.evaluation.conditions import condition_lines, fit_temperature
from voxport.train.evaluation.inference import Answers


def drawn(temperature: float, count: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose softmax at `temperature` is the labels' true distribution. Wrong answers claim little there."""
    random = np.random.default_rng(seed)
    scores = 2 * temperature * random.standard_normal((count, 40))
    shares = softmax(scores / temperature, axis=1)
    return scores.astype(np.float32), (shares.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)


@pytest.mark.parametrize("true", [0.3, 0.7, 1.0, 4.0])
def test_the_temperature_is_that_of_the_lowest_loss_on_either_side_of_one(true: float) -> None:
    scores, labels = drawn(true)
    found = fit_temperature(scores, labels)
    assert found == pytest.approx(true, rel=0.05)
    grid = true * np.geomspace(0.9, 1.1, 41)
    right = scores.argmax(axis=1) == labels
    losses = [log_loss(right, softmax(scores.astype(float) / each, axis=1).max(axis=1)) for each in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.006)  # a step of the grid is half a per cent


def test_few_mistakes_sharpen_nothing_and_wrong_answers_claim_a_half_at_most() -> None:
    scores = drawn(1.0)[0]
    sure = scores.argmax(axis=1)
    assert fit_temperature(scores, sure) == pytest.approx(1.0, abs=1e-3)
    faint = np.sort(scores, axis=1) / np.float32(20)  # the best is the last, and claims next to nothing
    labels = np.full(len(faint), 39)
    for wrong, sharpened in ((19, False), (20, True)):
        labels[:wrong] = 38
        assert (fit_temperature(faint.astype(np.float32), labels) < 0.9) is sharpened
    sure[:200] = (sure[:200] + 1) % 40  # few are wrong, and claimed as much as the rest
    temperature = fit_temperature(9 * scores, sure)
    claimed = softmax(9 * scores[:200].astype(float) / temperature, axis=1).max(axis=1)
    assert np.median(claimed) == pytest.approx(0.5, abs=1e-3)


def test_a_line_counts_what_was_right_and_what_passed_under_a_wrong_name() -> None:
    labels = np.array([0, 0, 1, 1])
    voices = np.eye(2, dtype=np.float32)[labels]
    right, wrong = 30 * voices, 30 * np.eye(2, dtype=np.float32)[[0, 1, 1, 1]]
    wrong[1] *= 0.4
    answers = {"clean": Answers(right, voices), "noise": Answers(wrong, voices[[0, 2, 2, 2]])}
    clean, noise = condition_lines(answers, labels, 30.0, 10.0, Rejection(0.3, 0.05), "four")
    assert (clean.kind, clean.accuracy, clean.equal_error_rate, clean.wrong_known) == ("clean", 1.0, 0.0, 0.0)
    assert clean.wrong_probability is None
    assert (noise.accuracy, noise.wrong_known) == (0.75, 0.25)
    assert noise.wrong_probability == pytest.approx(1 / (1 + np.exp(-12 / 10)))
    assert noise.equal_error_rate is not None
    assert 0 < noise.equal_error_rate < 0.5
    strict = condition_lines(answers, labels, 30.0, 10.0, Rejection(0.5, 0.05), "four")[1]
    assert strict.wrong_known == 0.0
