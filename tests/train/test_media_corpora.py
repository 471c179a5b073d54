"""Corpora of files that phones and browsers wrote, and of Opus."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runtime.media_files import KINDS, encode, voice
from voxport.corpora.layouts import tree as layout_tree
from voxport.corpora.layouts.recognition import list_corpus, listing_lines
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.errors import BackendError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile
from voxport.train.data import Corpus, CorpusError, CorpusOptions, LayoutOptions, open_corpus
from voxport.train.data.survey import survey

FRONTEND = profile("homework_mel40")


def noisy(seed: int, rate: int = 16000) -> np.ndarray:
    return voice(rate, 1.0) + 0.02 * np.random.default_rng(seed).standard_normal(rate)


def two_speakers(root: Path, suffix: str = ".m4a") -> Path:
    for seed, name in enumerate(("ada/1", "ada/2", "ben/1", "ben/2")):
        path = root / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, noisy(seed), KINDS["voxceleb"])
    return root


def opened(path: Path, cache: Path) -> Corpus:
    return open_corpus(path, CorpusOptions(frontend=FRONTEND, jobs=1, cache=cache))


def test_voxceleb2_as_it_comes_is_trained_on(tmp_path: Path) -> None:
    data = two_speakers(tmp_path / "data")
    corpus = opened(data, tmp_path / "cache")
    assert [each.key for each in corpus.utterances] == ["ada/1.m4a", "ada/2.m4a", "ben/1.m4a", "ben/2.m4a"]
    for i, each in enumerate(corpus.utterances):
        np.testing.assert_array_equal(
            corpus.features(i), compute_features(read_audio(data / each.key, 16000), FRONTEND)
        )
    found = survey(data, LayoutOptions(), FRONTEND)
    assert (found.speakers, found.utterances, found.known_lengths) == (2, 4, 4)
    assert found.hours * 3600 == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("suffix", [".opus", ".ogg"])
def test_opus_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(layout_tree, "has_media", lambda: False)
    for seed, name in enumerate(("ada/1", "ben/1")):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        soundfile.write(tmp_path / f"data/{name}{suffix}", noisy(seed), 16000, format="OGG", subtype="OPUS")
    corpus = opened(tmp_path / "data", tmp_path / "cache")
    assert corpus.labels == ("ada", "ben")
    assert len(corpus.features(1)) == pytest.approx(100, abs=4)


def test_a_manifest_names_such_files(tmp_path: Path) -> None:
    two_speakers(tmp_path / "data")
    manifest = tmp_path / "data" / "list.csv"
    manifest.write_text("path,speaker\nada/1.m4a,ada\nben/2.m4a,ben\n")
    assert [each.key for each in opened(manifest, tmp_path / "cache").utterances] == ["ada/1.m4a", "ben/2.m4a"]


def test_without_the_extra_they_are_passed_over_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = two_speakers(tmp_path / "data")
    for seed, name in enumerate(("cid/1.wav", "dot/1.wav")):
        (data / name).parent.mkdir()
        soundfile.write(data / name, noisy(seed), 16000)
    monkeypatch.setattr(layout_tree, "has_media", lambda: False)
    listing = list_corpus(data, LayoutOptions())
    assert listing.labels == ("cid", "dot")
    assert '*.m4a, which needs pip install "voxport[media]" (4)' in listing_lines(listing)[-1]


def test_without_the_extra_a_corpus_of_nothing_else_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = two_speakers(tmp_path / "data")
    monkeypatch.setattr(layout_tree, "has_media", lambda: False)
    with pytest.raises(CorpusError, match=r'4 files need pip install "voxport\[media\]"'):
        list_corpus(data, LayoutOptions())


def test_without_the_extra_a_manifest_ends_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_speakers(tmp_path / "data")
    manifest = tmp_path / "data" / "list.csv"
    manifest.write_text("path,speaker\nada/1.m4a,ada\nben/2.m4a,ben\n")
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(BackendError, match=r'1\.m4a: PyAV reads such files.*pip install "voxport\[media\]"'):
        opened(manifest, tmp_path / "cache")


def test_of_a_download_and_what_was_made_from_it_one_counts(tmp_path: Path) -> None:
    data = two_speakers(tmp_path / "data")
    soundfile.write(data / "ada/1.wav", read_audio(data / "ada/1.m4a", 16000), 16000)
    listing = list_corpus(data, LayoutOptions())
    assert [entry.key for entry in listing.entries] == ["ada/1.wav", "ada/2.m4a", "ben/1.m4a", "ben/2.m4a"]
    assert listing.passed == {"*.m4a beside a sound of the same name": 1}
