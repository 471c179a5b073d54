"""The base install, as a user meets it: numpy, click, and commands that say what they miss."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.packaging_tools import bare_environment, build
from tests.runtime.tiny_models import make_tiny
from tests.test_packaging import reached


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare environment in `env`, and files that the commands' arguments name."""
    folder = tmp_path_factory.mktemp("base")
    bare_environment(folder / "env", build("wheel", folder))
    make_tiny(folder / "model.onnx")
    soundfile.write(folder / "who.wav", np.zeros(16_000), 16_000)
    (folder / "checkpoint.pt").write_bytes(b"not reached")
    (folder / "corpus").mkdir()
    return folder


def voxport(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(folder / "env/bin/voxport"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_help_needs_no_extra(folder: Path) -> None:
    result = voxport(folder, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    for words in ("train fit", "train evaluate", "train predict", "export onnx", "export check", "inspect"):
        result = voxport(folder, *words.split(), "--help")
        assert (result.returncode, result.stderr) == (0, ""), words
        assert "Example:" in result.stdout


def test_the_contract_is_read_without_any_extra(folder: Path) -> None:
    result = voxport(folder, "inspect", "model.onnx", "--no-verify")
    assert (result.returncode, result.stderr) == (0, "")
    assert "Дмитрий" in result.stdout


@pytest.mark.parametrize(
    ("typed", "missing"),
    [
        ("train fit --data corpus --recipe demo --out run", "torch"),
        ("train evaluate checkpoint.pt --data corpus", "torch"),
        ("train predict checkpoint.pt --data corpus --csv out.csv", "torch"),
        ("train recipes", "torch"),
        ("export onnx checkpoint.pt -o new.onnx", "torch"),
        ("export check model.onnx checkpoint.pt", "torch"),
        ("inspect model.onnx", "onnxruntime"),
        ("identify model.onnx who.wav", "onnxruntime"),
        ("bench latency model.onnx --against checkpoint.pt", "torch"),
        ("demo --out demo-out", "torch"),
    ],
)
def test_a_command_without_its_extra_prints_the_pip_command(folder: Path, typed: str, missing: str) -> None:
    """The command that is printed must bring what is missing."""
    result = voxport(folder, *typed.split())
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    found = re.search(r'pip install "voxport\[([a-z,]+)\]"', result.stderr)
    assert found, result.stderr
    brought = {requirement.name for extra in found[1].split(",") for requirement in reached(extra)}
    assert missing in brought
    left = {"new.onnx", "out.csv", "run", "demo-out"} & {path.name for path in folder.iterdir()}
    assert not left, "a command that could not run left something behind"


def test_doctor_says_what_is_missing_without_any_extra(folder: Path) -> None:
    result = voxport(folder, "doctor", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert set(report["packages"]) == {"voxport", "numpy", "click"}
    assert (report["started"], report["clashes"]) == ({}, [])
    mends = {found["name"]: found["mend"] for found in report["abilities"] if not found["ready"]}
    assert mends["run ONNX on cpu"] in ('pip install "voxport[cpu]"', 'pip install "voxport[gpu]"')
    assert mends["train"] == 'pip install "voxport[train]"'
    page = voxport(folder, "doctor")
    assert (page.returncode, page.stderr) == (0, "")
    assert mends["train"] in page.stdout
