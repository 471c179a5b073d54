"""The runtime's own environments, built from the wheel: ONNX Runtime alone, and with what reads sound files."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.packaging_tools import bare_environment, build, required
from tests.runtime.tiny_models import TinyModel, make_tiny, tone
from voxport.runtime import SpeakerIdentifier

TRAINING = {"torch", "torchaudio", "onnx", "onnxscript", "pytorch-lightning", "scipy", "matplotlib"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny(tmp_path_factory.mktemp("model") / "model.onnx")


def run(folder: Path, *command: str, expected: int = 0) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == expected, result.stderr
    return result.stdout


def test_onnxruntime_alone_answers_as_the_whole_installation_does(
    wheel: Path, model: TinyModel, tmp_path: Path
) -> None:
    """`voxport[cpu]`: samples in, the speaker out; a sound file is refused with the pip command."""
    scripts = bare_environment(tmp_path / "env", wheel, "cpu")
    assert "onnxruntime" in required({"cpu"})
    assert not (TRAINING | {"soundfile", "soxr"}) & required({"cpu"})
    np.save(tmp_path / "samples.npy", tone(0.4))
    code = """
import importlib.util, json, sys
import numpy as np
from voxport.runtime import BackendError, SpeakerIdentifier

there = [name for name in ("torch", "onnx", "scipy", "soundfile", "soxr") if importlib.util.find_spec(name)]
identifier = SpeakerIdentifier.load(sys.argv[1])
scores = identifier.scores(np.load("samples.npy"), 16000)
try:
    identifier.identify("who.wav")
except BackendError as problem:
    print(json.dumps([there, scores.tolist(), str(problem)]))
"""
    there, scores, message = json.loads(run(tmp_path, str(scripts / "python"), "-c", code, str(model.path)))
    assert there == []
    assert scores == SpeakerIdentifier.load(model.path).scores(tone(0.4), 16000).tolist()
    assert 'pip install "voxport[audio]"' in message


def test_every_command_that_listens_runs_without_torch(wheel: Path, model: TinyModel, tmp_path: Path) -> None:
    """`voxport[cpu,audio]`: what an application installs."""
    scripts = bare_environment(tmp_path / "env", wheel, "cpu", "audio")
    assert not TRAINING & required({"cpu", "audio"})
    soundfile.write(tmp_path / "who.flac", tone(0.4, 44100), 44100)
    voxport, path = str(scripts / "voxport"), str(model.path)
    found = json.loads(run(tmp_path, voxport, "identify", path, "who.flac", "--json"))
    expected = SpeakerIdentifier.load(model.path).identify(tmp_path / "who.flac")
    assert found["results"][0]["ranked"][0]["speaker"] == expected.best.speaker
    assert found["results"][0]["ranked"][0]["score"] == expected.best.score
    run(tmp_path, voxport, "embed", path, "who.flac", "-o", "voice.npz")
    run(tmp_path, voxport, "enroll", "people.gallery", "--model", path, "Ada", "who.flac")
    run(tmp_path, voxport, "verify", "people.gallery", "--model", path, "Ada", "who.flac", "--threshold", "0.9")
    run(tmp_path, voxport, "timeline", path, "who.flac", "--rttm", "who.rttm")
    run(tmp_path, voxport, "stream", path, "who.flac", "--json")
    run(tmp_path, voxport, "inspect", path)
    missing = subprocess.run(
        [voxport, "timeline", path, "who.flac", "--plot", "who.png"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert missing.returncode == 1
    assert 'pip install "voxport[bench]"' in missing.stderr
