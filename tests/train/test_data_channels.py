"""Sounds with several channels in a corpus: refused where nobody says whose they are, chosen, or each by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile
from voxport.runtime.storage.serialization import decode
from voxport.train.data import Corpus, CorpusError, CorpusOptions, LayoutOptions, open_corpus

FRONTEND = profile("homework_mel40")
RATE = 16000


def call(seed: int) -> np.ndarray:
    """Two parties in two channels, one after the other."""
    noise = np.random.default_rng(seed).normal(size=(RATE, 2)).astype(np.float32)
    turns = np.repeat([[0.2, 0.0], [0.0, 0.2]], RATE // 2, axis=0).astype(np.float32)
    return noise * turns


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for s, speaker in enumerate(("alice", "bob")):
        for u in range(2):
            path = tmp_path / "corpus" / speaker / f"{u}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, call(10 * s + u), RATE, subtype="FLOAT")
    return tmp_path / "corpus"


@pytest.fixture
def open_(tmp_path: Path, data: Path) -> Callable[[str | None], Corpus]:
    def open_it(channel: str | None, **changes: Any) -> Corpus:
        layout = LayoutOptions(channel=channel)
        options = CorpusOptions(FRONTEND, cache=tmp_path / "cache", progress=False, layout=layout, **changes)
        return open_corpus(data, options)

    return open_it


def test_channels_that_differ_are_refused_by_name(open_: Callable[..., Corpus]) -> None:
    with pytest.raises(CorpusError, match=r"4 channels, 2 empty-speaker\)") as caught:
        open_(None)
    assert "alice/0.wav: channels: channels 1 and 2 hold different sounds; choose one with --channel N" in str(
        caught.value
    )


@pytest.mark.parametrize("channel", ["1", "2", "mix"])
def test_the_chosen_channel_is_learnt(open_: Callable[..., Corpus], channel: str) -> None:
    corpus = open_(channel)
    sound = call(11)  # bob/1.wav
    expected = (
        sound.mean(axis=1, dtype=np.float64).astype(np.float32) if channel == "mix" else sound[:, int(channel) - 1]
    )
    position = corpus.indices(["bob/1.wav"])[0]
    np.testing.assert_array_equal(corpus.features(position), compute_features(expected.copy(), FRONTEND))
    np.testing.assert_array_equal(corpus.samples(position, RATE), expected)


def test_each_channel_is_an_utterance(open_: Callable[..., Corpus]) -> None:
    corpus = open_("each")
    assert [each.key for each in corpus.utterances[:2]] == ["alice/0.wav#channel=1", "alice/0.wav#channel=2"]
    assert len(corpus.utterances) == 8
    for number in (1, 2):
        position = corpus.indices([f"alice/0.wav#channel={number}"])[0]
        expected = compute_features(call(0)[:, number - 1].copy(), FRONTEND)
        np.testing.assert_array_equal(corpus.features(position), expected)


def test_a_channel_that_is_not_there_is_named(open_: Callable[..., Corpus]) -> None:
    with pytest.raises(CorpusError, match="has no channel 3; there are 2"):
        open_("3")
    with pytest.raises(CorpusError, match="from 1 on, mix or each"):
        open_("left")


def test_checkpoints_from_before_this_option_are_read() -> None:
    assert decode(LayoutOptions, {"layout": "folders"}, "model.pt").channel is None
