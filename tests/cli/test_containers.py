"""Machines that lack what a desktop has: a home, a name for their user, /dev/shm, a writable root."""

import multiprocessing.context
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from voxport.cli.doctor.places import Place, find_places
from voxport.cli.root import COMMANDS, Entry, cli
from voxport.corpora.errors import CorpusError
from voxport.corpora.layouts.base import Entry as CorpusEntry
from voxport.export.verification.report import ParityReport
from voxport.runtime.errors import BackendError
from voxport.runtime.frontend.presets import profile
from voxport.runtime.storage.cache_root import cache_root
from voxport.train.data import features as sound
from voxport.train.data.feature_store import atomic_file
from voxport.train.training.distributed import train_together
from voxport.train.training.lightning_module import TrainingError


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that is a number: no HOME, and nothing in /etc/passwd."""

    def nobody(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "VOXPORT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /dev/shm is read-only or missing."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(multiprocessing.context.BaseContext, "Lock", refuse)
    monkeypatch.setattr(multiprocessing.context.BaseContext, "SimpleQueue", refuse)


def places() -> dict[str, Place]:
    return {place.name: place for place in find_places()}


def test_without_a_home_the_cache_is_asked_for_by_name(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError) as caught:
        cache_root()
    assert f"for user {os.getuid()}); set VOXPORT_CACHE to a folder that can be written" in str(caught.value)
    monkeypatch.setenv("VOXPORT_CACHE", "/somewhere")
    assert cache_root() == Path("/somewhere")
    assert cache_root("/other") == Path("/other")


def test_doctor_tells_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXPORT_CACHE", str(tmp_path / "cache"))
    found = places()
    assert {name: place.problem for name, place in found.items()} == dict.fromkeys(found, "")
    assert found["cache"].where == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_doctor_tells_what_is_missing_and_what_to_set(
    homeless: None, without_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null/nowhere")
    found = places()
    assert all(place.problem for place in found.values())
    for name, wanted in (("cache", "VOXPORT_CACHE"), ("temporary files", "TMPDIR"), ("locks between processes", "shm")):
        assert wanted in found[name].mend
    assert "Read-only file system" in found["locks between processes"].problem
    monkeypatch.setenv("VOXPORT_CACHE", "/dev/null/cache")
    assert "cannot be written (Not a directory)" in places()["cache"].problem


def test_features_are_computed_without_locks(
    without_locks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound, "_POOL_PAYS", 2)
    entries = []
    for number in range(9):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 6000), 16000)
        entries.append(CorpusEntry(path.name, path, "somebody"))
    results = list(sound.compute_all(entries, profile("homework_mel40"), tmp_path / "cache", jobs=2))
    assert [each.unusable for each in results] == [None] * 9
    assert len({each.cached for each in results}) == 9


def test_training_together_needs_locks_and_says_so(without_locks: None) -> None:
    with pytest.raises(TrainingError, match=r"/dev/shm: cannot be written .*--shm-size=1g, or train with --devices 1"):
        train_together(print, (), 2, "cpu")


def test_training_together_is_refused_before_a_corpus_is_read(without_locks: None, tmp_path: Path) -> None:
    for name in ("Ada", "Bob"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "1.wav").touch()
    data = str(tmp_path / "data")
    arguments = ["train", "fit", "--data", data, "--recipe", "voxport", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli, [*arguments, "--device", "cpu", "--devices", "2"])
    assert result.exit_code == 1
    assert result.output.startswith("error: /dev/shm: cannot be written (Read-only file system)")
    assert not (tmp_path / "run").exists()


def test_only_a_full_disk_is_told_to_be_full(tmp_path: Path) -> None:
    for number, wanted in ((28, "free some space, or choose"), (30, "; choose another folder with VOXPORT_CACHE")):
        with pytest.raises(CorpusError, match=wanted), atomic_file(tmp_path / "file"):
            raise OSError(number, os.strerror(number))


def test_a_missing_folder_for_temporary_files_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def hungry() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setitem(COMMANDS, "hungry", Entry(f"{__name__}:hungry", "Fails."))
    monkeypatch.setitem(globals(), "hungry", hungry)
    result = CliRunner().invoke(cli, ["hungry"])
    assert result.exit_code == 1
    assert "set TMPDIR to a folder that can be written" in result.output


@pytest.mark.parametrize(
    ("note", "lost"),
    [
        ("none, because there is no home folder to cache in", True),
        ("none, because /data: there is no such corpus", True),
        ("none, because none were asked for", False),
        ("none, because the checkpoint does not say what it was trained on", False),
        ("7 of corpus, validation part", False),
    ],
)
def test_a_gate_that_lost_its_real_utterances_knows_it(note: str, lost: bool) -> None:
    judge: Callable[[Any], bool] = ParityReport.real_lost.fget  # type: ignore[attr-defined]
    assert judge(SimpleNamespace(real_utterances=note)) is lost
