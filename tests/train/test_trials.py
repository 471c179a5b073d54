"""Trials: all pairs, samples of them, and lists of them."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from voxport.runtime.errors import VoxportError
from voxport.train.evaluation.verification import Trials, all_pairs, read_trials, score_trials

SPEAKERS = np.array([2, 0, 1, 0, 2, 2, 3, 0])


def as_sets(trials: Trials) -> tuple[set[frozenset[int]], set[frozenset[int]]]:
    """Target and non-target pairs, unordered."""
    pairs = [frozenset((int(a), int(b))) for a, b in zip(trials.left, trials.right, strict=True)]
    assert len(set(pairs)) == len(pairs), "a pair twice"
    assert all(len(pair) == 2 for pair in pairs), "an utterance against itself"
    targets = {pair for pair, target in zip(pairs, trials.target, strict=True) if target}
    return targets, set(pairs) - targets


def expected(speakers: np.ndarray) -> tuple[set[frozenset[int]], set[frozenset[int]]]:
    pairs = [frozenset(pair) for pair in itertools.combinations(range(len(speakers)), 2)]
    targets = {pair for pair in pairs if len({int(speakers[i]) for i in pair}) == 1}
    return targets, set(pairs) - targets


def test_all_pairs_are_all_pairs() -> None:
    trials = all_pairs(SPEAKERS)
    assert as_sets(trials) == expected(SPEAKERS)
    assert trials.possible == len(trials) == 28


@pytest.mark.parametrize("limit", [12, 20, 27])
def test_sample_keeps_the_targets(limit: int) -> None:
    trials = all_pairs(SPEAKERS, limit, seed=3)
    targets, others = as_sets(trials)
    assert targets == expected(SPEAKERS)[0]
    assert others < expected(SPEAKERS)[1]
    assert len(trials) == limit
    assert trials.possible == 28
    again = all_pairs(SPEAKERS, limit, seed=3)
    assert np.array_equal(again.left, trials.left)
    assert np.array_equal(again.right, trials.right)
    assert as_sets(all_pairs(SPEAKERS, limit, seed=4)) != as_sets(trials)


def test_targets_too_are_sampled_beyond_half_of_the_limit() -> None:
    targets, others = as_sets(all_pairs(SPEAKERS, 6))
    assert len(targets) == 3
    assert len(others) == 3
    assert targets < expected(SPEAKERS)[0]


def test_sample_of_many_is_uniform() -> None:
    """The branch that cannot list its pairs: each utterance is drawn about as often as any other."""
    speakers = np.repeat(np.arange(60), 20)
    trials = all_pairs(speakers, 40_000, seed=1)
    targets, others = as_sets(trials)
    assert len(trials) == 40_000
    assert len(targets) == 60 * 190
    assert all(len({int(speakers[i]) for i in pair}) == 2 for pair in others)
    drawn = np.bincount(np.concatenate([trials.left, trials.right])[np.tile(~trials.target, 2)], minlength=1200)
    mean = 2 * len(others) / 1200
    assert abs(drawn - mean).max() < 6 * np.sqrt(mean)


def test_degenerate_sets() -> None:
    assert len(all_pairs(np.array([], dtype=np.int64))) == 0
    assert len(all_pairs(np.array([4]))) == 0
    assert all_pairs(np.array([4, 4])).target.tolist() == [True]
    assert all_pairs(np.array([4, 1])).target.tolist() == [False]


def test_scores_are_cosines_in_every_block() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(500, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    trials = all_pairs(np.arange(500))
    assert len(trials) > 65_536  # more than one block
    gram = vectors @ vectors.T
    np.testing.assert_allclose(score_trials(vectors, trials), gram[trials.left, trials.right], atol=1e-6)


def test_trial_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "trials.txt"
    path.write_text("1 a/1.wav a/2.wav\n\n0\tb c/1.wav\ta/1.wav\n0 a/2.wav a/3.wav\n", encoding="utf-8")
    listed = read_trials(path)
    pairs = [(listed.keys[i], listed.keys[j]) for i, j in zip(listed.trials.left, listed.trials.right, strict=True)]
    assert pairs == [("a/1.wav", "a/2.wav"), ("b c/1.wav", "a/1.wav"), ("a/2.wav", "a/3.wav")]
    assert listed.trials.target.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 a b\nx a c\n", r"trials\.txt, line 2: expected `1 keyA keyB`"),
        ("1 a b\n0 a\n", "line 2"),
        ("1 a b\n0 a b c\n", "line 2"),
        ("1\ta\t\n", "line 1"),
        ("1 a b\n1 a c\n", "2 of 2 trials are of one speaker; both kinds are needed"),
        ("0 a b\n", "0 of 1 trials"),
        ("", "0 of 0 trials"),
        ("\xff\xfe", "cannot be read"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trials.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(VoxportError, match=message):
        read_trials(path)


def test_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(VoxportError, match=r"none\.txt: the trial list cannot be read"):
        read_trials(tmp_path / "none.txt")
