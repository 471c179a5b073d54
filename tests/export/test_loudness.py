"""Loudness is not identity: gain changes no answer of a network that has the default frontend for sound."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from tests.export.tiny import OPTIONS, make_checkpoint, write_checkpoint
from voxport.export import (
    ExportOptions,
    Pt2Options,
    QuantizeOptions,
    TorchExportOptions,
    export_onnx,
    export_pt2,
    export_torchscript,
)
from voxport.export.verification.reference import eager_answer
from voxport.runtime.contract import InputKind
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.train.recipe import load_recipe, recipe_names
from voxport.train.training_level import TrainingLevel, at_level

GAINS = (-40, -26, -12, -3, 3, 12)  # dB
FRONTEND = profile("speech_mel40")
# The default for sounds, and frontends at the level, in dB, of the stored features that a network learnt from.
STORED = {"homework_mel40": 20.0, "psf_fbank40": -15.0, "kaldi_fbank80": 100.0, "nemo_mel40": -20.0}
LEVEL_FREE = {"speech_mel40": FRONTEND} | {
    name: at_level(profile(name), TrainingLevel(level, level, level)) for name, level in STORED.items()
}
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
@pytest.mark.parametrize("frontend", LEVEL_FREE.values(), ids=LEVEL_FREE)
def test_features_do_not_hear_gain(frontend: Frontend, decibels: int) -> None:
    sound = speech_like(1, 2.0)
    wanted = compute_features(sound, frontend, np.float64)
    np.testing.assert_allclose(compute_features(change(sound, decibels), frontend, np.float64), wanted, atol=1e-4)


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


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What int8 is calibrated with."""
    folder = tmp_path_factory.mktemp("sounds")
    for speaker in range(2):
        (folder / str(speaker)).mkdir()
        for number in range(4):
            soundfile.write(folder / str(speaker) / f"{number}.wav", speech_like(10 * speaker + number, 1.0), 16000)
    return folder


def write(form: str, kind: InputKind, checkpoint: Path, path: Path, sounds: Path) -> None:
    limits: dict[str, Any] = {"min_frames": 5, "max_frames": 160}  # the sounds below have 148
    if form == "torchscript":
        export_torchscript(checkpoint, path, TorchExportOptions(input_kind=kind, **limits))
    elif form == "pt2":
        export_pt2(checkpoint, path, Pt2Options(input_kind=kind, **limits))
    elif form == "int8":
        quantize = QuantizeOptions(data=sounds, cache=sounds.with_name("cache"))
        export_onnx(checkpoint, path, ExportOptions(input_kind=kind, precision="int8", quantize=quantize, **limits))
    else:
        export_onnx(
            checkpoint, path, ExportOptions(input_kind=kind, precision="fp16" if form == "fp16" else "fp32", **limits)
        )


# A plan and an engine for RTX are built from the same graphs, and answer on a GPU alone.
@pytest.mark.parametrize(
    ("frontend", "form", "kind"),
    [
        ("speech_mel40", "onnx", "waveform"),
        ("speech_mel40", "fp16", "waveform"),
        ("speech_mel40", "int8", "waveform"),
        ("speech_mel40", "torchscript", "waveform"),
        ("speech_mel40", "pt2", "waveform"),
        ("speech_mel40", "onnx", "features"),
        ("speech_mel40", "torchscript", "features"),
        ("psf_fbank40", "onnx", "waveform"),
        ("psf_fbank40", "onnx", "features"),
    ],
)
def test_an_export_answers_the_same_at_every_gain(
    tmp_path: Path, sounds: Path, kind: InputKind, form: str, frontend: str
) -> None:
    checkpoint = dataclasses.replace(make_checkpoint(OPTIONS, frontend), frontend=LEVEL_FREE[frontend])
    path = tmp_path / f"model.{form if form in ('torchscript', 'pt2') else 'onnx'}"
    write(form, kind, write_checkpoint(tmp_path / "model.pt", checkpoint), path, sounds)
    answers_the_same(SpeakerIdentifier.load(path))
    if path.suffix == ".onnx" and form != "fp16":
        pytest.importorskip("openvino")
        answers_the_same(SpeakerIdentifier.load(path, runtime="openvino"))


def answers_the_same(identifier: SpeakerIdentifier) -> None:
    for seed in range(3):
        sound = speech_like(seed, 1.5)
        plain = identifier.embed(sound, sample_rate=16000)
        best = identifier.scores(sound, sample_rate=16000).argmax()
        for decibels in GAINS:
            louder = change(sound, decibels)
            assert float(plain @ identifier.embed(louder, sample_rate=16000)) >= 0.999
            assert identifier.scores(louder, sample_rate=16000).argmax() == best


@pytest.mark.parametrize("name", recipe_names())
def test_the_network_of_every_recipe_answers_the_same_at_every_gain(name: str) -> None:
    options = load_recipe(name).model
    options = dataclasses.replace(options, d_model=16, num_heads=2, ffn_dim=24, kernel_size=7)
    network, sound = make_checkpoint(options, "speech_mel40").network(), speech_like(1, 1.5)
    scores, embedding = eager_answer(network, FRONTEND, sound)
    for decibels in GAINS:
        louder = eager_answer(network, FRONTEND, change(sound, decibels))
        assert float(torch.cosine_similarity(louder[1], embedding, dim=-1)) >= 0.999
        assert int(louder[0].argmax()) == int(scores.argmax())


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_takes_the_level_free_frontend_for_sound_and_its_own_for_features(name: str) -> None:
    recipe = load_recipe(name)
    assert profile(recipe.frontend_for(sounds=True)).level is not None
    assert recipe.frontend_for(sounds=False) == recipe.frontend
    assert dataclasses.replace(recipe, frontend="kaldi_fbank80").frontend_for(sounds=True) == "kaldi_fbank80"


def test_definitions_from_before_keep_their_digest() -> None:
    assert profile("homework_mel40").digest == "7412662793344048"
