"""Batches for validation: every utterance once, little padding, the same crops each time."""

import numpy as np

from voxport.train.data.collation import FixedCrops, WholeUtterances

RANDOM = np.random.default_rng(0)
FRAMES = [int(n) for n in RANDOM.integers(5, 300, size=50)]
FEATURES = [RANDOM.normal(size=(n, 3)).astype(np.float32) for n in FRAMES]


def test_whole_utterances_come_once_and_whole() -> None:
    batches = WholeUtterances(lambda i: FEATURES[i], range(50), FRAMES, frames_per_batch=1000)
    seen: list[int] = []
    for batch in batches:
        assert len(batch.lengths) == 1 or batch.features.shape[0] * batch.features.shape[1] <= 1000
        for row, length, position in zip(batch.features, batch.lengths, batch.positions, strict=True):
            assert np.array_equal(row[:length].numpy(), FEATURES[position])
            assert not row[length:].any()
            seen.append(int(position))
    assert sorted(seen) == list(range(50))
    assert len(list(batches)) == len(batches)


def test_an_utterance_beyond_the_limit_is_alone() -> None:
    batches = WholeUtterances(lambda i: FEATURES[i], range(50), FRAMES, frames_per_batch=1)
    assert [len(batch.lengths) for batch in batches] == [1] * 50


def test_fixed_crops_are_cut_from_their_utterance_and_stay() -> None:
    crops = FixedCrops(lambda i: FEATURES[i], range(50), 100, pad_value=-9.0, seed=3, batch_size=16)
    first, again = list(crops), list(crops)
    assert len(first) == len(crops) == 4
    for batch, repeated in zip(first, again, strict=True):
        assert np.array_equal(batch.features, repeated.features)
        for crop, position in zip(batch.features.numpy(), batch.positions, strict=True):
            whole = FEATURES[position]
            if len(whole) < 100:
                assert np.array_equal(crop[: len(whole)], whole)
                assert (crop[len(whole) :] == -9.0).all()
            else:
                places = range(len(whole) - 99)
                assert any(np.array_equal(crop, whole[start : start + 100]) for start in places)


def test_short_crops_repeat_where_training_does() -> None:
    crops = FixedCrops(lambda i: FEATURES[i], range(50), 100, pad_value=-9.0, seed=3, fill="repeat")
    (batch,) = crops
    short = [i for i in range(50) if len(FEATURES[i]) < 50]
    assert short
    for i in short:
        assert np.array_equal(batch.features[i].numpy(), np.resize(FEATURES[i], (100, 3)))
