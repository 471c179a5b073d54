"""Every reader of files from strangers, over one table of damage: a right answer or one refusal that names the file."""

import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from fuzz.engines import BETWEEN
from fuzz.mutations import OTHERS, cuts, damaged
from fuzz.seeds import engines, galleries, torch_files
from tests.benchmarks.bench_documents import train, write
from tests.export.tiny import make_checkpoint, write_checkpoint
from tests.runtime.tiny_models import make_tiny
from voxport.benchmarks.documents import read_document
from voxport.runtime import Gallery, VoxportError, read_contract
from voxport.runtime.audio.preprocess import read_features
from voxport.runtime.backends.onnxrt.file import read_onnx
from voxport.runtime.backends.pytorch.file import open_archive
from voxport.runtime.backends.trt.file import read_plan, read_sidecar, sidecar_path
from voxport.runtime.backends.tuned import FILE, Tuned, read_tuned
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.gallery.embeddings import read_embeddings, write_embeddings
from voxport.runtime.storage.serialization import encode
from voxport.train.checkpoint import load_checkpoint


def onnx_model(path: Path) -> None:
    make_tiny(path)


def archive(number: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(torch_files()[number])


def engine(path: Path) -> None:
    whole, _, beside = engines()[1].partition(BETWEEN)
    path.write_bytes(whole)
    sidecar_path(path).write_bytes(beside)


def sidecar(path: Path) -> None:
    whole, _, beside = engines()[1].partition(BETWEEN)
    path.write_bytes(beside)
    path.with_suffix("").write_bytes(whole)


def gallery(path: Path) -> None:
    path.write_bytes(galleries()[1])


def features(path: Path) -> None:
    np.save(path, np.ones((20, 40), np.float32))


def embeddings(path: Path) -> None:
    write_embeddings(path, ["a.wav", "b"], np.eye(2, 4, dtype=np.float32), "ab" * 32)


def checkpoint(path: Path) -> None:
    write_checkpoint(path, make_checkpoint())


def tuned(path: Path) -> None:
    path.write_text(json.dumps(encode(Tuned("model.onnx", "0" * 64, "onnxruntime", None, 1, "a CPU", "it was"))))


def read_model(path: Path) -> Any:
    return read_contract(path), read_onnx(path, METADATA_KEY, graph=True)


def read_archive(path: Path) -> Any:
    with open_archive(path) as found:
        return read_contract(path), found.describe(), found.copy()


def read_gallery(path: Path) -> Any:
    state = Gallery.load(path, None)._state
    return state.names, *(getattr(state, name).tobytes() for name in ("counts", "sums", "voices", "kept", "owners"))


def read_voices(path: Path) -> Any:
    return read_embeddings(path, "ab" * 32, 4).tobytes()


def read_engine(path: Path) -> Any:
    return read_plan(path, read_sidecar(path))


def read_checkpoint(path: Path) -> Any:
    found = load_checkpoint(path)
    return found.labels, found.recipe, [value.numpy().tobytes() for value in found.state.values()]


class Reader(NamedTuple):
    """A kind of file: how a right one is made and read, and what is said of one that is cut short or something else.

    `sums`: checksums cover all that is read.
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    says: str
    sums: bool = False
    runs: int = 150


READERS = {
    reader.name: reader
    for reader in (
        Reader("model.onnx", onnx_model, read_model, "not a whole|this ONNX file has no"),
        Reader("model.torchscript", archive(0), read_archive, "not a whole|a zip archive, but no", sums=True),
        Reader("model.pt2", archive(1), read_archive, "not a whole|a zip archive, but no", sums=True),
        Reader("model.rtx", engine, read_engine, "is damaged or not the plan", sums=True),
        Reader("model.rtx.json", sidecar, lambda path: read_engine(path.with_suffix("")), "not JSON|has no voxport"),
        Reader("people.gallery", gallery, read_gallery, "no voxport gallery", sums=True),
        Reader("voices.npz", embeddings, read_voices, "no file that `voxport embed -o` wrote", sums=True),
        Reader("who.npy", features, lambda path: read_features(path).shape, "no NumPy array"),
        Reader("model.pt", checkpoint, read_checkpoint, "not a readable checkpoint|not a voxport", runs=40),
        Reader("train.json", lambda path: write(train(), path), read_document, "not a readable benchmark|no benchmark"),
        Reader(FILE, tuned, lambda path: read_tuned(path.parent), "cannot be read|missing key"),
    )
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


@pytest.fixture
def path(reader: Reader, tmp_path: Path) -> Path:
    """A whole file of the reader's kind."""
    reader.make(tmp_path / reader.name)
    return tmp_path / reader.name


def answer(reader: Reader, path: Path, says: str = "") -> Any:
    """What is read, or None where it was refused in one short sentence that names the file and what is wrong."""
    try:
        return reader.read(path)
    except VoxportError as problem:
        text = str(problem)
        assert path.name.removesuffix(".json") in text.partition(": ")[0], text
        assert len(text) < 600
        assert text.isprintable()
        assert re.search(says, text), text
        return None


def test_what_is_no_file_is_refused(reader: Reader, path: Path) -> None:
    path.unlink()
    if reader.name == FILE:  # whose absence says that the folder is no model
        pytest.skip("it is named by its folder")
    assert answer(reader, path) is None
    path.mkdir()
    assert answer(reader, path) is None
    path.rmdir()
    if hasattr(os, "mkfifo") and reader.name not in ("model.pt", "train.json", "model.rtx", "model.rtx.json"):
        os.mkfifo(path)  # opening it would wait for a writer
        assert answer(reader, path) is None


@pytest.mark.parametrize("other", OTHERS)
def test_files_of_another_kind_are_refused(reader: Reader, path: Path, other: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(path.parent)
    path.write_bytes(OTHERS[other])
    assert answer(reader, path, reader.says) is None
    assert not Path("evil").exists()


def test_a_file_cut_anywhere_is_refused(reader: Reader, path: Path) -> None:
    whole = path.read_bytes()
    expected = reader.read(path)
    for content in cuts(whole):
        path.write_bytes(content)
        found = answer(reader, path, reader.says)
        if content != whole.rstrip():  # JSON without its last line break is whole
            assert found is None, len(content)
        else:
            assert found == expected


def test_damaged_bytes_are_read_or_refused_at_little_cost(reader: Reader, path: Path) -> None:
    whole, expected = path.read_bytes(), reader.read(path)
    refused = 0
    tracemalloc.start()
    for content in damaged(whole, 5, reader.runs):
        path.write_bytes(content)
        found = answer(reader, path)
        refused += found is None
        assert found is None or not reader.sums or found == expected
    assert tracemalloc.get_traced_memory()[1] < (20 << 20) + 20 * len(whole)
    tracemalloc.stop()
    assert refused > reader.runs // 10
    assert {each.name for each in path.parent.iterdir()} <= {path.name, "model.rtx", "model.rtx.json"}
