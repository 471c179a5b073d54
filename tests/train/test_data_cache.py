"""The cache: nothing is computed twice, a change is noticed, and processes do not spoil each other's work."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.corpora import write_homework
from tests.train.test_data_sounds import tone
from voxport.corpora.layouts.base import Entry
from voxport.runtime.frontend.presets import profile
from voxport.runtime.frontend.spec import Frontend
from voxport.train.data import Corpus, CorpusError, CorpusOptions, open_corpus
from voxport.train.data import builder as reading
from voxport.train.data import features as sound
from voxport.train.data.feature_store import atomic_file, cache_folder

FRONTEND = profile("homework_mel40")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(6):
        tone(tmp_path / "corpus" / f"s{i % 2}" / f"{i}.wav", 100 + 20 * i)
    return tmp_path / "corpus"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def open_(data: Path, cache: Path) -> Corpus:
    return open_corpus(data, CorpusOptions(FRONTEND, cache=cache, jobs=1, progress=False))


def forbid(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(module, name, fail)


def test_a_second_opening_reads_no_file(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_(data, cache)
    forbid(monkeypatch, reading, "compute_all")
    forbid(monkeypatch, reading, "read_stored")
    second = open_(data, cache)
    assert second.utterances == first.utterances
    assert second.labels == first.labels
    np.testing.assert_array_equal(second.pack.rows, first.pack.rows)


def test_only_a_changed_file_is_computed_again(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_(data, cache)
    old = np.array(before.features(0))
    tone(data / "s0" / "0.wav", 500)
    os.utime(data / "s0" / "0.wav", ns=(1, 1))  # same size: the time alone tells
    computed: list[str] = []
    features = sound._features

    def watched(entry: Entry, frontend: Frontend) -> object:
        computed.append(entry.key)
        return features(entry, frontend)

    monkeypatch.setattr(sound, "_features", watched)
    after = open_(data, cache)
    assert computed == ["s0/0.wav"]
    assert not np.array_equal(after.features(0), old)
    np.testing.assert_array_equal(before.features(0), old)  # who has the old pack open keeps it
    np.testing.assert_array_equal(after.features(1), before.features(1))
    assert len(list((cache / "packs").glob("*.f32"))) == 1, "the superseded pack is removed"


def test_more_and_fewer_files_are_noticed(data: Path, cache: Path) -> None:
    open_(data, cache)
    tone(data / "s1" / "new.wav", 444)
    assert len(open_(data, cache).utterances) == 7
    (data / "s1" / "new.wav").unlink()
    assert len(open_(data, cache).utterances) == 6


def test_a_changed_tensor_is_noticed(tmp_path: Path, cache: Path) -> None:
    data = write_homework(tmp_path / "homework")
    name = open_(data, cache).utterances[3].key
    changed = torch.load(data / name, weights_only=True) + 1
    torch.save(changed, data / name)
    np.testing.assert_array_equal(open_(data, cache).features(3), changed.numpy())


@pytest.mark.parametrize("pattern", ["packs/*.json", "packs/*.f32", "features/*/*/*.npy"])
@pytest.mark.parametrize("damage", ["cut", "empty", "removed"])
def test_a_damaged_cache_is_made_again(data: Path, cache: Path, pattern: str, damage: str) -> None:
    expected = np.array(open_(data, cache).pack.rows)
    for path in cache.glob(pattern):
        content = path.read_bytes()
        path.unlink()
        if damage != "removed":
            path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    if pattern.endswith("npy"):  # they are read only when the pack is made
        for path in cache.glob("packs/*"):
            path.unlink()
    np.testing.assert_array_equal(open_(data, cache).pack.rows, expected)


def test_processes_at_once_do_not_spoil_the_cache(data: Path, cache: Path) -> None:
    program = (
        "import sys, time, hashlib; from pathlib import Path; from voxport.runtime.frontend.presets import profile\n"
        "from voxport.train.data import CorpusOptions, open_corpus\n"
        "time.sleep(max(0, float(sys.argv[3]) - time.time()))\n"  # so that all begin at once
        "for i in range(5):\n"
        "    cache = Path(sys.argv[2], str(i))\n"
        "    options = CorpusOptions(profile('homework_mel40'), cache=cache, jobs=1, progress=False)\n"
        "    corpus = open_corpus(sys.argv[1], options)\n"
        "    print(hashlib.sha256(corpus.pack.rows.tobytes()).hexdigest())\n"
        "print('torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(data), str(cache), str(time.time() + 2)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = []
    for process in running:
        out, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        answers.append(out)
    assert len(set(answers)) == 1
    *hashes, torch_loaded = answers[0].split()
    assert len(set(hashes)) == 1
    assert torch_loaded == "False", "sound files need no torch"
    assert not list(cache.rglob(".part-*"))


def test_the_folder_is_the_option_then_the_variable_then_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXPORT_CACHE", "/elsewhere")
    assert cache_folder(Path("/option")) == Path("/option")
    assert cache_folder(None) == Path("/elsewhere")
    monkeypatch.delenv("VOXPORT_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder(None) == Path("/home/somebody/.cache/voxport")


def test_a_folder_that_cannot_be_written_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CorpusError, match=r"file.*cannot write the feature cache.*VOXPORT_CACHE"):
        open_(data, tmp_path / "file" / "cache")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"old")

    def write() -> None:
        with atomic_file(tmp_path / "kept") as file:
            file.write(b"half of the new")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_progress_goes_to_stderr(data: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_corpus(data, CorpusOptions(FRONTEND, cache=cache, jobs=1))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "6/6" in captured.err
