"""The split and the training batches: pure functions of the seed, held against plain Python."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.train.corpora import write_homework
from voxport.runtime.frontend.presets import profile
from voxport.train.data import Corpus, CorpusError, CorpusOptions, CropBatches, open_corpus, split_utterances

FLOOR = np.float32(np.log(1e-9))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("batches")
    data = write_homework(folder / "corpus", speakers=5, utterances=7)
    return open_corpus(data, CorpusOptions(profile("homework_mel40"), cache=folder / "cache", progress=False))


def test_every_crop_is_a_piece_of_its_utterance(corpus: Corpus) -> None:
    indices = np.arange(35)[::-1]
    batches = CropBatches(corpus, indices, batch_size=8, crop_frames=40, seed=3)
    assert batches.batches_per_epoch == 4
    padded = 0
    for step in range(8):
        features, speakers = batches.batch(step)
        assert features.shape == (8, 40, 40)
        assert features.dtype == np.float32
        assert speakers.shape == (8,)
        assert speakers.dtype == np.int64
        for crop, speaker in zip(features, speakers, strict=True):
            padded += _is_crop(corpus, crop, int(speaker))
    assert padded > 0, "the corpus has utterances shorter than the crop, so that padding is tried"


def _is_crop(corpus: Corpus, crop: np.ndarray, speaker: int) -> bool:
    """Whether the crop is padded; asserts that it comes from an utterance of the speaker."""
    for i, utterance in enumerate(corpus.utterances):
        whole = corpus.features(i)
        starts = np.flatnonzero((whole == crop[0]).all(axis=1))
        if utterance.speaker != speaker or not len(starts):
            continue
        length = min(len(whole), 40)
        np.testing.assert_array_equal(crop[:length], whole[starts[0] : starts[0] + length])
        assert (crop[length:] == FLOOR).all()
        assert length == 40 or starts[0] == 0
        return length < 40
    raise AssertionError("the crop is no piece of any utterance of its speaker")


def test_short_utterances_can_go_round_from_a_random_frame_on(corpus: Corpus) -> None:
    shortest = int(np.argmin(corpus.pack.frames[:35]))
    whole = corpus.features(shortest)
    frames = 2 * len(whole) + 3
    batches = CropBatches(corpus, [shortest], 1, frames, seed=2, fill="repeat")
    first = set()
    for step in range(200):
        crop = batches.batch(step)[0][0]
        start = int(np.flatnonzero((whole == crop[0]).all(axis=1))[0])
        np.testing.assert_array_equal(crop, np.tile(whole, (4, 1))[start : start + frames])
        first.add(start)
    assert len(first) > len(whole) // 2
    long_enough = CropBatches(corpus, np.arange(35), 8, 10, seed=3, fill="repeat").batch(5)[0]
    np.testing.assert_array_equal(long_enough, CropBatches(corpus, np.arange(35), 8, 10, seed=3).batch(5)[0])


def test_an_epoch_sees_no_utterance_twice_and_the_next_another_order(corpus: Corpus) -> None:
    batches = CropBatches(corpus, np.arange(35), batch_size=5, crop_frames=20, seed=0)
    epochs = [np.concatenate([batches._chosen(7 * epoch + i) for i in range(7)]) for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(35))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_only_the_given_utterances_are_used(corpus: Corpus) -> None:
    batches = CropBatches(corpus, [3, 4, 9], batch_size=2, crop_frames=20, seed=0)
    assert batches.batches_per_epoch == 1
    assert {int(i) for step in range(20) for i in batches._chosen(step)} == {3, 4, 9}


def test_a_step_does_not_depend_on_what_came_before(corpus: Corpus) -> None:
    straight = CropBatches(corpus, np.arange(35), 8, 30, seed=5)
    expected = [straight.batch(step) for step in range(12)]
    resumed = CropBatches(corpus, np.arange(35), 8, 30, seed=5)
    for step in (11, 4, 0, 7):
        for got, wanted in zip(resumed.batch(step), expected[step], strict=True):
            np.testing.assert_array_equal(got, wanted)
    other = CropBatches(corpus, np.arange(35), 8, 30, seed=6)
    assert not np.array_equal(other.batch(0)[0], expected[0][0])


def test_crop_positions_cover_the_utterance_evenly(corpus: Corpus) -> None:
    longest = int(np.argmax(corpus.pack.frames[:35]))
    whole = corpus.features(longest)
    positions = len(whole) - 20 + 1
    batches = CropBatches(corpus, [longest], 1, 20, seed=1)
    starts = [int(np.flatnonzero((whole == batches.batch(step)[0][0, 0]).all(axis=1))[0]) for step in range(2000)]
    counts = np.bincount(starts, minlength=positions)
    assert len(counts) == positions
    assert counts.min() > 0
    # Chi-squared with positions - 1 degrees of freedom: mean k, deviation sqrt(2 k).
    statistic = float(((counts - 2000 / positions) ** 2 / (2000 / positions)).sum())
    assert statistic < positions + 5 * (2 * positions) ** 0.5


def test_a_batch_may_be_changed_without_changing_the_corpus(corpus: Corpus) -> None:
    batches = CropBatches(corpus, np.arange(35), 8, 30, seed=5)
    before = batches.batch(0)[0].copy()
    batches.batch(0)[0][:] = 0
    np.testing.assert_array_equal(batches.batch(0)[0], before)
    with pytest.raises(ValueError, match="read-only"):
        corpus.features(0)[0, 0] = 1


def test_too_few_utterances_for_a_batch_are_refused(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"3 training utterances do not fill one batch of 4; use .* at most 3"):
        CropBatches(corpus, [0, 1, 2], 4, 30, seed=0)


def test_a_corpus_survives_pickling(corpus: Corpus) -> None:
    dumped = pickle.dumps(corpus)
    assert len(dumped) < corpus.pack.rows.nbytes / 2
    copy = pickle.loads(dumped)  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(copy.features(11), corpus.features(11))


@pytest.mark.parametrize(("fraction", "total"), [(0.2, 7), (0.1, 4), (0.5, 18), (0.01, 1), (0.99, 30), (0.0, 0)])
def test_a_split_holds_out_the_share_that_was_asked_for(corpus: Corpus, fraction: float, total: int) -> None:
    split = split_utterances(corpus, fraction, seed=1)
    assert sorted(split.train + split.valid) == sorted(utterance.key for utterance in corpus.utterances)
    assert len(split.valid) == total
    trained = corpus.speakers[corpus.indices(split.train)]
    assert set(trained) == {0, 1, 2, 3, 4}, "every speaker keeps a training utterance"
    held_out = np.bincount(corpus.speakers[corpus.indices(split.valid)], minlength=5)
    assert held_out.max() - held_out.min() <= 1, "no speaker gives more than his share"


def test_a_split_is_fixed_by_its_seed_and_not_by_the_order(corpus: Corpus) -> None:
    turned = pickle.loads(pickle.dumps(corpus))  # noqa: S301 - our own bytes
    object.__setattr__(turned, "utterances", corpus.utterances[::-1])
    assert split_utterances(turned, 0.3, 4) == split_utterances(corpus, 0.3, 4)
    assert split_utterances(corpus, 0.3, 4) != split_utterances(corpus, 0.3, 5)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_an_impossible_fraction_is_refused(corpus: Corpus, fraction: float) -> None:
    with pytest.raises(CorpusError, match="fraction must be"):
        split_utterances(corpus, fraction, 0)


def test_one_utterance_per_speaker_cannot_be_split(tmp_path: Path) -> None:
    data = write_homework(tmp_path / "corpus", speakers=3, utterances=1)
    options = CorpusOptions(profile("homework_mel40"), cache=tmp_path / "cache", progress=False)
    with pytest.raises(CorpusError, match="none for validation"):
        split_utterances(open_corpus(data, options), 0.2, 0)


def test_keys_of_another_corpus_are_refused(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"1 of 2 utterances of the split are not in this corpus, first gone\.pt"):
        corpus.indices([corpus.utterances[0].key, "gone.pt"])


def test_a_batch_of_pairs_holds_two_utterances_of_a_speaker_and_every_utterance_in_turn(corpus: Corpus) -> None:
    indices = np.delete(np.arange(35), np.arange(1, 7))  # the first speaker keeps one utterance
    batches = CropBatches(corpus, indices, batch_size=8, crop_frames=40, seed=3, pairs=True)
    assert batches.batches_per_epoch == 29 // 4
    speakers = corpus.speakers
    places = {int(start): i for i, start in enumerate(corpus.pack.offsets)}
    firsts, partners = [], set()
    for step in range(7 * 80):
        plan = batches.plan(step)
        chosen = np.array([places[int(start)] for start in plan.starts])
        np.testing.assert_array_equal(plan.speakers, speakers[chosen])
        np.testing.assert_array_equal(speakers[chosen[::2]], speakers[chosen[1::2]])
        assert set(chosen) <= set(indices)
        assert all((a == b) == (a == 0) for a, b in chosen.reshape(-1, 2))
        firsts += chosen[::2].tolist()
        partners |= {(int(a), int(b)) for a, b in chosen.reshape(-1, 2)}
    assert all(len(set(firsts[i : i + 28])) == 28 for i in range(0, len(firsts), 28))  # an epoch repeats nothing
    pairs = {(int(a), int(b)) for a in indices for b in indices if speakers[a] == speakers[b] and (a != b or a == 0)}
    assert partners == pairs  # every one is drawn, in so many steps
