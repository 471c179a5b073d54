"""Hidden folders of exports: those of killed processes go, and nothing else does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from voxport.export import leftovers
from voxport.export.leftovers import RECORD, mark, sweep
from voxport.export.staging import Staging

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's start is not told")

# Stages a half-written artefact, says so, and waits.
CHILD = """
import sys, time
from pathlib import Path
from voxport.export.staging import Staging
with Staging(Path(sys.argv[1])) as staging:
    staging.artefact.write_bytes(b"half")
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process in the middle of an export to `model.onnx`."""
    command = [sys.executable, "-c", CHILD, str(tmp_path / "model.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


def home(folder: Path, pid: int, name: str = "model.onnx") -> Path:
    return folder / f".{name}.{pid}.part"


def left(folder: Path, pid: int, **changes: object) -> Path:
    """A folder of this process's kind, whose record has these `changes`."""
    path = home(folder, pid)
    path.mkdir()
    mark(path)
    record = json.loads((path / RECORD).read_text())
    (path / RECORD).write_text(json.dumps(record | {"pid": pid} | changes))
    (path / "model.onnx").write_bytes(b"half")
    return path


def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_next_export_takes_away_what_a_killed_one_left(tmp_path: Path, child: "subprocess.Popen[str]") -> None:
    path = home(tmp_path, child.pid)
    assert (path / "model.onnx").read_bytes() == b"half"
    with Staging(tmp_path / "other.onnx"):
        assert path.exists()  # it is at work
    child.send_signal(signal.SIGKILL)
    child.wait()
    with Staging(tmp_path / "other.onnx") as staging:
        assert not path.exists()
        staging.artefact.write_bytes(b"whole")
        staging.name()
    assert [each.name for each in tmp_path.iterdir()] == ["other.onnx"]


def test_the_record_is_there_after_a_new_start(tmp_path: Path) -> None:
    with Staging(tmp_path / "model.onnx") as staging:
        staging.clear()
        assert (home(tmp_path, os.getpid()) / RECORD).exists()
        assert sweep(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_was_given_again_is_another_process(tmp_path: Path) -> None:
    """The parent's number runs; an export that had it before, and started earlier, has ended."""
    pid = os.getppid()
    earlier, same = left(tmp_path, pid, started="1"), None
    assert sweep(tmp_path) == [earlier]
    same = left(tmp_path, pid, started=leftovers._started(pid))
    assert sweep(tmp_path) == []
    assert same.exists()


@pytest.mark.parametrize("machine", ["another host's start and numbers", ""])
def test_of_another_machine_nothing_is_known_for_a_week(tmp_path: Path, machine: str) -> None:
    path = left(tmp_path, dead(), machine=machine)
    old = time.time() - 6.5 * 86400
    for each in (path, *path.iterdir()):
        os.utime(each, (old, old))
    assert sweep(tmp_path) == []
    old -= 86400
    for each in (*path.iterdir(), path):
        os.utime(each, (old, old))
    os.utime(path / "model.onnx")  # it is being written
    assert sweep(tmp_path) == []
    os.utime(path / "model.onnx", (old, old))
    assert sweep(tmp_path) == [path]


def test_another_users_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left(tmp_path, dead())
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    assert sweep(tmp_path) == []
    monkeypatch.undo()
    assert sweep(tmp_path) == [path]


@pytest.mark.parametrize(
    "record", [None, "", "[]", "{}", '{"pid": "1", "started": "", "machine": ""}', "[" * 4000, "x" * 5000]
)
def test_a_folder_that_is_only_called_so_stays(tmp_path: Path, record: str | None) -> None:
    path = home(tmp_path, dead(), "holiday")
    path.mkdir()
    (path / "photo.jpg").write_bytes(b"dear")
    if record is not None:
        (path / RECORD).write_text(record)
    assert sweep(tmp_path) == []
    assert (path / "photo.jpg").read_bytes() == b"dear"


def test_a_record_that_was_copied_elsewhere_does_not_count(tmp_path: Path) -> None:
    path = left(tmp_path, dead())
    for name in ("copy", f"{path.name}.bak", ".model.onnx.1.part"):
        os.rename(path, tmp_path / name)
        assert sweep(tmp_path) == []
        os.rename(tmp_path / name, path)
    assert sweep(tmp_path) == [path]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    path = left(tmp_path / "kept", dead())
    (tmp_path / path.name).symlink_to(path)
    assert sweep(tmp_path) == []
    assert path.exists()


def test_what_cannot_be_looked_at_is_no_error(tmp_path: Path) -> None:
    assert sweep(tmp_path / "gone") == []
