"""Loudness is not identity: gain changes no answer of a network that has the default frontend for sound."""

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.export.tiny import OPTIONS, make_checkpoint, write_checkpoint
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.onnx_model import export_onnx
from voxport.export.targets.pytorch.export import TorchExportOptions, export_torchscript
from voxport.runtime.contract import InputKind
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.train.recipe import load_recipe, recipe_names

GAINS = (-40, -26, -12, -3, 3, 12)  # dB
FRONTEND = profile("speech_mel40")
Floats = npt.NDArray[np.float32]


def speech_like(seed: int, seconds: float) -> Floats:
    """Harmonics in bursts with pauses between, 16 kHz; peaks at 0.2, so that 12 dB more do not clip."""
    random = np.random.default_rng(seed)
    time = np.arange(int(16000 * seconds)) / 16000
    pitch = random.uniform(90, 220)
    voiced = sum(np.sin(2 * np.pi * k * pitch * time + random.uniform(0, 6)) / k for k in range(1, 30))
    bursts = np.maximum(np.sin(2 * np.pi * random.uniform(2, 4) * time), 0) ** 2
    sound = voiced * bursts + 1e-3 * random.normal(size=len(time))
    return np.asarray(0.2 * sound / np.abs(sound).max(), np.float32)


def change(sound: Floats, decibels: float) -> Floats:
    return (sound * np.float32(10 ** (decibels / 20))).astype(np.float32)


@pytest.mark.parametrize("decibels", GAINS)
def test_features_do_not_hear_gain(decibels: int) -> None:
    sound = speech_like(1, 2.0)
    wanted = compute_features(sound, FRONTEND, np.float64)
    np.testing.assert_allclose(compute_features(change(sound, decibels), FRONTEND, np.float64), wanted, atol=1e-4)


@pytest.mark.parametrize("quiet", [0.0, 1e-5])
def test_silence_before_speech_moves_the_level_by_less_than_a_quarter_of_a_decibel(quiet: float) -> None:
    sound = speech_like(2, 2.0)
    lead = quiet * np.random.default_rng(1).normal(size=160 * 1000)
    late = compute_features(np.concatenate([lead, sound]), FRONTEND, np.float64)[-190:-10]
    wanted = compute_features(sound, FRONTEND, np.float64)[-190:-10]
    assert np.abs(late - wanted).max() < 0.25 * np.log(10) / 10


def test_silence_is_not_raised_without_end() -> None:
    dither = np.random.default_rng(2).integers(-1, 2, 32000) / 2**15
    speech = compute_features(speech_like(3, 2.0), FRONTEND)
    assert (compute_features(np.zeros(32000), FRONTEND) == np.float32(np.log(FRONTEND.floor))).all()
    assert np.isfinite(compute_features(dither, FRONTEND)).all()
    assert compute_features(dither, FRONTEND).max() < speech.max() + 1


@pytest.mark.parametrize(
    ("kind", "form"), [("waveform", "onnx"), ("waveform", "torchscript"), ("features", "torchscript")]
)
def test_an_export_answers_the_same_at_every_gain(tmp_path: Path, kind: InputKind, form: str) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.pt", make_checkpoint(OPTIONS, "speech_mel40"))
    path = tmp_path / f"model.{form}"
    if form == "onnx":
        export_onnx(checkpoint, path, ExportOptions(input_kind=kind, min_frames=5, max_frames=400))
    else:
        export_torchscript(checkpoint, path, TorchExportOptions(input_kind=kind, min_frames=5, max_frames=400))
    identifier = SpeakerIdentifier.load(path)
    for seed in range(3):
        sound = speech_like(seed, 1.5)
        plain = identifier.embed(sound, sample_rate=16000)
        best = identifier.scores(sound, sample_rate=16000).argmax()
        for decibels in GAINS:
            louder = change(sound, decibels)
            assert float(plain @ identifier.embed(louder, sample_rate=16000)) >= 0.999
            assert identifier.scores(louder, sample_rate=16000).argmax() == best


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_takes_the_level_free_frontend_for_sound_and_its_own_for_features(name: str) -> None:
    recipe = load_recipe(name)
    assert profile(recipe.frontend_for(sounds=True)).level is not None
    assert recipe.frontend_for(sounds=False) == recipe.frontend
    assert dataclasses.replace(recipe, frontend="kaldi_fbank80").frontend_for(sounds=True) == "kaldi_fbank80"


def test_definitions_from_before_keep_their_digest() -> None:
    assert profile("homework_mel40").digest == "7412662793344048"
