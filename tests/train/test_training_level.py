"""The speech level of stored features is measured, and a network that learnt from them hears sounds at it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.export.test_loudness import change, speech_like
from tests.train.corpora import write_recipe
from voxport.export import export_onnx
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.runtime import SpeakerIdentifier
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import PROFILES, profile
from voxport.train import RunOptions, fit
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions, open_corpus
from voxport.train.data.frontend_check import as_stored
from voxport.train.training_level import TrainingLevel, at_level, training_level, utterance_level

RATE = 16000


def with_silence(seed: int, seconds: float = 1.5) -> npt.NDArray[np.float32]:
    """Speech between silences, which lie on every frontend's floor."""
    silence = np.zeros(RATE // 4, np.float32)
    return np.concatenate([silence, speech_like(seed, seconds), silence])


def level_by_hand(samples: npt.NDArray[np.float32], frontend: str) -> float:
    """From the definition: band energies without floor, mean or logarithm, their contraharmonic mean of amplitudes."""
    plain = dataclasses.replace(profile(frontend), floor=1e-300, normalize="none", log="ln")
    amplitudes = np.sqrt(np.exp(compute_features(samples, plain, np.float64)).sum(axis=1))
    return float(20 * np.log10(np.square(amplitudes).sum() / amplitudes.sum()))


def write_stored(folder: Path, frontend: str, decibels: float = -10, speakers: int = 4, files: int = 6) -> Path:
    """Features of sounds at one gain, in float16 and the homework's layout."""
    folder.mkdir()
    entries: dict[str, list[dict[str, object]]] = {}
    for speaker in range(speakers):
        for number in range(files):
            sound = change(with_silence(100 * speaker + number), decibels)
            features = compute_features(sound, profile(frontend)).astype(np.float16)
            name = f"uttr-{speaker}-{number}.pt"
            torch.save(torch.from_numpy(features), folder / name)
            entries.setdefault(f"id{speaker}", []).append({"feature_path": name, "mel_len": len(features)})
    mapping = {
        "speaker2id": {name: i for i, name in enumerate(entries)},
        "id2speaker": {str(i): name for i, name in enumerate(entries)},
    }
    (folder / "mapping.json").write_text(json.dumps(mapping))
    (folder / "metadata.json").write_text(json.dumps({"n_mels": 40, "speakers": entries}))
    return folder


@pytest.mark.parametrize("frontend", ["homework_mel40", "psf_fbank40", "kaldi_fbank80"])
@pytest.mark.parametrize("decibels", [-10, 0])
def test_the_level_is_that_of_the_sound(frontend: str, decibels: int) -> None:
    sound = change(with_silence(1), decibels)
    stored = compute_features(sound, profile(frontend)).astype(np.float16).astype(np.float32)
    found = utterance_level(stored, profile(frontend))
    assert found == pytest.approx(level_by_hand(sound, frontend), abs=0.6)  # of what is on the floor nothing is known


def test_what_features_do_not_show_is_unknown() -> None:
    divided = compute_features(with_silence(1), profile("nemo_mel40"))
    assert utterance_level(divided, profile("nemo_mel40")) is None
    noise = np.random.default_rng(0).normal(size=RATE).astype(np.float32) * np.float32(0.1)  # no band is on the floor
    assert utterance_level(compute_features(noise, profile("psf_fbank40")), profile("psf_fbank40")) is None
    silence = compute_features(np.zeros(RATE, np.float32), profile("homework_mel40"))
    assert utterance_level(silence, profile("homework_mel40")) is None


def test_a_level_is_no_other_kind_of_stored_features() -> None:
    for plain in PROFILES.values():
        assert as_stored(plain) == plain
    heard = dataclasses.replace(profile("psf_fbank40"), level=1e-3, quietest=1e-10)
    assert as_stored(heard) == profile("psf_fbank40")
    other = dataclasses.replace(heard, n_fft=1024)
    assert as_stored(other) == other


def test_sounds_and_level_free_features_have_no_level_to_be_brought_to(tmp_path: Path) -> None:
    stored = write_stored(tmp_path / "stored", "speech_mel40", speakers=2, files=2)
    corpus = open_corpus(stored, CorpusOptions(profile("speech_mel40"), cache=tmp_path, progress=False))
    assert training_level(corpus, np.arange(4)) is None
    assert at_level(corpus.frontend, None, 10.0) == corpus.frontend


def test_sounds_may_be_heard_louder_than_the_training_s_level() -> None:
    plain, level = profile("psf_fbank40"), TrainingLevel(-30.0, -35.0, -25.0)
    heard = at_level(plain, level, 10.0)
    sound = with_silence(1)
    expected = compute_features(change(sound, -20 - level_by_hand(sound, "psf_fbank40")), plain)
    np.testing.assert_allclose(compute_features(sound, heard), expected, atol=0.01)


@pytest.mark.parametrize("frontend", ["homework_mel40", "psf_fbank40"])
def test_a_network_of_stored_features_hears_sounds_at_their_level(frontend: str, tmp_path: Path) -> None:
    data = write_stored(tmp_path / "stored", frontend)
    told: list[str] = []
    options = RunOptions(
        frontend=frontend, steps=4, device="cpu", cache=tmp_path / "cache", announce=told.append, false_accept_rate=0.2
    )
    result = fit(write_recipe(tmp_path), data, tmp_path / "run", options)
    checkpoint = load_checkpoint(result.model)
    assert checkpoint.frontend.level is not None
    wanted = np.median(
        [level_by_hand(change(with_silence(100 * s + n), -10), frontend) for s in range(4) for n in range(6)]
    )
    assert 10 * np.log10(checkpoint.frontend.level) == pytest.approx(wanted, abs=0.5)  # the training part's alone
    assert sum(line.startswith("  loudness: sounds will be heard at") for line in told) == 1

    corpus = open_corpus(data, CorpusOptions(checkpoint.frontend, cache=tmp_path / "cache", progress=False))
    stored = torch.load(data / "uttr-0-3.pt").float().numpy()
    at = corpus.indices([key for key in (each.key for each in corpus.utterances) if "uttr-0-3" in key])
    np.testing.assert_array_equal(corpus.features(int(at[0])), stored)

    export_onnx(result.model, tmp_path / "model.onnx", ExportOptions(min_frames=20, max_frames=300))
    identifier = SpeakerIdentifier.load(tmp_path / "model.onnx")
    assert identifier.contract.frontend == checkpoint.frontend
    loud = with_silence(3)
    plain = identifier.embed(loud, sample_rate=RATE)
    for decibels in (-40, -20, -6, 6, 12):
        assert float(plain @ identifier.embed(change(loud, decibels), sample_rate=RATE)) >= 0.999
    backend = identifier._backend  # what was stored lies at its own level, a few decibels from the middle of them
    same = backend.run(stored[None], np.array([len(stored)])).embedding
    assert same is not None
    assert float(same[0] @ plain) >= 0.99 * float(np.linalg.norm(same[0]))
