"""The temperature of probabilities, and a line a kind of condition."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from voxport.runtime.contract import Rejection
from voxport.train.evaluation.conditions import condition_lines, fit_temperature
from voxport.train.evaluation.inference import Answers


def drawn(temperature: float, count: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose softmax at `temperature` is the labels' true distribution."""
    random = np.random.default_rng(seed)
    scores = 6 * random.standard_normal((count, 5))
    shares = softmax(scores / temperature, axis=1)
    return scores.astype(np.float32), (shares.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)


def test_the_temperature_is_that_of_the_highest_likelihood() -> None:
    scores, labels = drawn(4.0)
    found = fit_temperature(scores, labels)
    assert found == pytest.approx(4.0, rel=0.05)
    rows = np.arange(len(labels))
    losses = {t: -log_softmax(scores / t, axis=1)[rows, labels].mean() for t in (0.97 * found, found, 1.03 * found)}
    assert min(losses, key=losses.__getitem__) == found


def test_it_never_sharpens_and_wrong_answers_claim_a_half_at_most() -> None:
    scores = drawn(1.0)[0]
    sure = scores.argmax(axis=1)
    assert fit_temperature(scores, sure) == pytest.approx(1.0, abs=1e-3)
    sure[:200] = (sure[:200] + 1) % 5  # few are wrong, and claimed as much as the rest
    temperature = fit_temperature(3 * scores, sure)
    claimed = softmax(3 * scores[:200].astype(float) / temperature, axis=1).max(axis=1)
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
