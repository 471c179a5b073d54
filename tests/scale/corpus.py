"""A corpus with everything that a run must live through, and runs of it in processes that can be killed."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.runtime.tiny_models import TinyModel, make_tiny, save, tiny_graph, tone
from voxport.runtime.contract import Array

BAD = {"bad/cut.wav": b"RIFF\x24\x00\x00\x00WAVE", "bad/empty.wav": b"", "bad/text.flac": b"This is no sound."}


def write_corpus(root: Path, count: int = 40) -> Path:
    """`count` sounds of 0.3 to 0.6 s at three rates, one much longer, one in two channels that differ, and BAD."""
    root.mkdir()
    (root / "bad").mkdir()
    for number in range(count):
        rate = (8000, 16000, 22050)[number % 3]
        samples = tone(0.3 + 0.01 * (7 * number % 30), rate, 150 + 37 * number)
        soundfile.write(root / f"{number:04d}.{'flac' if number % 2 else 'wav'}", samples, rate)
    soundfile.write(root / "long.wav", np.concatenate([tone(2, hertz=300), tone(2, hertz=900)]), 16000)
    turns = np.stack([np.r_[tone(0.4), np.zeros(6400)], np.r_[np.zeros(6400), tone(0.4, hertz=700)]], axis=1)
    soundfile.write(root / "two.wav", turns, 16000)
    for name, content in BAD.items():
        (root / name).write_bytes(content)
    return root


def model_in(folder: Path) -> TinyModel:
    return make_tiny(folder / "model.onnx", "waveform")


def rows_of(out: Path) -> list[dict[str, Any]]:
    import pyarrow.dataset

    rows: list[dict[str, Any]] = pyarrow.dataset.dataset(out / "parts").to_table().sort_by("id").to_pylist()
    return rows


def start(corpus: Path, model: Path, out: Path, *options: str, env: Mapping[str, str] | None = None) -> Any:
    """`voxport score` in a process group of its own."""
    command = [sys.executable, "-c", "from voxport.cli.root import main; main()", "score", corpus, model, "--out", out]
    return subprocess.Popen(
        [*map(str, command), *options],
        env=os.environ | dict(env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


DEADLY = """
import os
import signal

from voxport.runtime.audio import decode

opened = decode._open


def deadly(name):
    if name.endswith("0007.flac"):
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(name)


decode._open = deadly
"""


def deadly_decoder(folder: Path) -> dict[str, str]:
    """Variables with which every Python process dies when it opens 0007.flac, as a fault in a decoder's C code does."""
    folder.mkdir()
    (folder / "deadly.py").write_text(DEADLY)
    (folder / "sitecustomize.py").write_text(
        "import importlib.abc, importlib.util, sys\n"
        "class Finder(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name != 'voxport.scale.scoring.listening':\n"
        "            return None\n"
        "        sys.meta_path.remove(self)\n"
        "        import deadly\n"
        "        return importlib.util.find_spec(name)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    return {"PYTHONPATH": str(folder)}


def embedding_only(folder: Path, model: TinyModel) -> Path:
    """A model file whose contract says that it has no scores."""
    contract = model.contract
    golden = replace(contract.golden, embedding=Array.of(model.embedding(contract.golden.input.values)))
    text = contract.replace(outputs=("embedding",), golden=golden).to_json()
    save(folder / "embedding.onnx", tiny_graph("waveform", model.project, model.classes), text)
    return folder / "embedding.onnx"
