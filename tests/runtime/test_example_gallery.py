"""The example of a gallery does what it says."""

import subprocess
import sys
from pathlib import Path

import soundfile

from tests.runtime.tiny_models import TinyModel, tone

EXAMPLE = Path(__file__).parents[2] / "examples" / "gallery.py"


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_example_enrolls_and_recognises(tiny: TinyModel, tmp_path: Path) -> None:
    gallery, low, high = tmp_path / "people.gallery", tmp_path / "low.wav", tmp_path / "high.wav"
    soundfile.write(low, tone(0.4, hertz=200.0), 16000)
    soundfile.write(high, tone(0.4, hertz=3000.0, size=0.05), 16000)
    for name, file in (("Low", low), ("High", high)):
        added = run(tiny.path, gallery, "add", name, file, file)
        assert added.stdout == f"Enrolled(speaker='{name}', utterances=1, repeated=1)\n", added.stderr
    assert run(tiny.path, gallery, "who", low, high).stdout == f"{low}: Low (1.000)\n{high}: High (1.000)\n"


def test_the_example_explains_itself_and_its_errors(tiny: TinyModel, tmp_path: Path) -> None:
    assert "examples/gallery.py model.onnx people.gallery who" in run().stderr
    missing = run(tiny.path, tmp_path / "absent", "who", "door.wav")
    assert (missing.returncode, missing.stderr.startswith(f"error: {tmp_path / 'absent'}: ")) == (1, True)
