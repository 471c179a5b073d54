"""Identifiers go to other processes as the path and the options of their model, galleries as they are."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.tiny_models import TinyModel, features, make_tiny, tone
from voxport.runtime import Batcher, ContractError, Gallery, Identification, OnnxModel, SpeakerIdentifier, VoxportError

SOUND = tone(0.4)


def copy(value: object) -> object:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own


def in_another_process(identifier: SpeakerIdentifier, gallery: Gallery) -> tuple[Identification, int, bool]:
    gallery.enroll("Ada", identifier.embed(SOUND, 16000))
    return identifier.identify(SOUND, 16000), len(gallery), identifier.explain() is not None


def test_an_identifier_goes_to_spawned_processes(tiny_waveform: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_waveform.path.parent)
    identifier = SpeakerIdentifier.load(tiny_waveform.path.name, threads=1)
    monkeypatch.chdir("/")  # the other process starts elsewhere than where the name was right
    gallery = Gallery(identifier.contract)
    gallery.enroll("Bo", np.ones(identifier.contract.embedding_size, np.float32))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        answer, enrolled, explained = pool.apply(in_another_process, (identifier, gallery))
    assert answer == identifier.identify(SOUND, 16000)
    assert (enrolled, explained, len(gallery)) == (2, True, 1)


def test_the_options_go_along(tiny_waveform: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(tiny_waveform.path, threads=3, device="cpu")
    other = copy(identifier)
    assert isinstance(other, SpeakerIdentifier)
    assert other.explain() == identifier.explain()
    assert other.contract == identifier.contract
    assert len(pickle.dumps(identifier)) < 1000  # a path, and no model


def test_a_gallery_goes_along_as_it_is(tiny: TinyModel) -> None:
    gallery = Gallery(tiny.contract)
    gallery.enroll_many({"Ada": np.eye(8, dtype=np.float32)[:2], "Bo": np.eye(8, dtype=np.float32)[3]})
    gallery.set_thresholds(verify=0.4)
    other = copy(gallery)
    assert isinstance(other, Gallery)
    assert (other.speakers, other.thresholds) == (gallery.speakers, gallery.thresholds)
    question = np.arange(8, dtype=np.float32)
    assert other.identify(question) == gallery.identify(question)
    gallery.remove("Ada")
    assert len(other) == 2


def test_a_file_that_was_replaced_meanwhile_is_refused(model_path: Path) -> None:
    first = make_tiny(model_path)
    pickled = pickle.dumps(OnnxModel.load(model_path))
    make_tiny(model_path, seed=1)
    with pytest.raises(ContractError, match="another model lies there"):
        pickle.loads(pickled)  # noqa: S301 - our own
    make_tiny(model_path)
    again = pickle.loads(pickled)  # noqa: S301 - our own
    values = features(9)
    np.testing.assert_allclose(again.run(values[None], [9]).scores[0], first.scores(values), atol=1e-4)


def test_what_cannot_be_pickled_says_so(tiny_waveform: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(tiny_waveform.path)
    with Batcher(identifier) as batcher, pytest.raises(VoxportError, match="pickle the identifier"):
        pickle.dumps(batcher)
    loaded = OnnxModel.load(tiny_waveform.path)
    with pytest.raises(VoxportError, match="not loaded from a file"):
        pickle.dumps(OnnxModel(tiny_waveform.contract, loaded._session))
