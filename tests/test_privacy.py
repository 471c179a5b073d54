"""Every kind of command in an empty home: no connection to a network, and no file but where a user expects it."""

import os
import re
import subprocess
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests import sandbox
from tests.runtime.test_speech import talk
from tests.train.corpora import write_homework, write_recipe
from voxport.runtime.privacy import NOT_REPORTED, keep_private

ROOT = Path(__file__).parents[1]
VOXPORT = (sys.executable, "-c", "from voxport.cli.root import main; main()")

pytestmark = pytest.mark.skipif(not sandbox.SUPPORTED, reason="Linux on x86-64 or ARM is needed to forbid sockets")


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


class House:
    """An empty home, an empty folder for temporary files, and a working folder."""

    def __init__(self, folder: Path) -> None:
        self.work, self.home, self.temporary = (folder / name for name in ("work", "home", "temporary"))
        self.notes = folder / "notes"
        for each in (self.work, self.home, self.temporary):
            each.mkdir()

    def run(self, *command: object) -> "subprocess.CompletedProcess[str]":
        """Run a command in the sandbox, where it must succeed."""
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        environment = kept | {"HOME": str(self.home), "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        done = self.attempt(command, environment)
        assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
        return done

    def attempt(self, command: Sequence[object], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        launcher = (sys.executable, sandbox.__file__, self.notes, self.notes.parent)
        return subprocess.run(
            [*map(str, (*launcher, *command))], cwd=self.work, env=environment, capture_output=True, text=True,
            check=False, timeout=300,
        )  # fmt: skip

    @property
    def strange(self) -> list[str]:
        """Files that were opened for writing outside the three folders."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def write_sound(path: Path, seed: int) -> Path:
    wanted = np.clip(talk(1.5, seed), -1, 1) * 32000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(wanted.astype("<i2").tobytes())
    return path


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
@pytest.mark.parametrize("by", ["python", "another process"])
def test_the_sandbox_ends_who_makes_a_socket(house: House, family: str, by: str) -> None:
    code = f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)"
    if by != "python":
        code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {code!r}]))"
    done = house.attempt([sys.executable, "-c", code], dict(os.environ))
    assert done.returncode in (-31, 225), done.stderr  # SIGSYS, or what another process says of it
    assert house.attempt([sys.executable, "-c", "import socket; socket.socketpair()"], dict(os.environ)).returncode == 0


def test_the_sandbox_notes_strange_files(house: House, tmp_path_factory: pytest.TempPathFactory) -> None:
    strange = tmp_path_factory.mktemp("strange") / "file"
    house.run(sys.executable, "-c", f"open({str(strange)!r}, 'w').close(); open('here', 'w').close()")
    assert house.strange == [str(strange)]


def test_nothing_leaves_the_machine_and_nothing_is_left_behind(house: House) -> None:
    corpus, recipe = write_homework(house.work / "corpus"), write_recipe(house.work)
    sound, other = write_sound(house.work / "low.wav", 1), write_sound(house.work / "high.wav", 2)
    commands = {
        "train corpus": (corpus,),
        "train fit": ("--data", corpus, "--recipe", recipe, "--out", "run", "--device", "cpu"),
        "export onnx": ("run/model.pt", "-o", "model.onnx", "--max-frames", 200),
        "inspect": ("model.onnx",),
        "identify": ("model.onnx", sound, "--json"),
        "embed": ("model.onnx", sound),
        "enroll": ("model.onnx", "people.gallery", "Low", sound, "--accept-anyway"),
        "verify": ("model.onnx", "people.gallery", "Low", other, "--threshold", -1),
        "timeline": ("model.onnx", sound, "--plot", "timeline.png"),
        "stream": ("model.onnx", sound),
    }
    for name, arguments in commands.items():
        house.run(*VOXPORT, *name.split(), *arguments)
        cached = files_in(house.home)
        assert {path for path in cached if not path.startswith(".cache/voxport/")} == set(), name
        assert files_in(house.temporary) == set(), name
        assert house.strange == [], name
    assert (house.work / "timeline.png").stat().st_size > 0
    house.run(sys.executable, ROOT / "examples" / "identify.py", "model.onnx", sound)
    assert all(path.startswith(".cache/voxport/") for path in files_in(house.home))


def test_onnx_runtime_by_way_of_voxport_keeps_no_record(house: House) -> None:
    start = "import onnxruntime as o; o.InferenceSession(bytes.fromhex(MODEL), providers=['CPUExecutionProvider'])"
    model = "from voxport.cli.doctor.probes import MODEL\n"
    house.run(sys.executable, "-c", f"import voxport.runtime\n{model}{start}")
    assert files_in(house.home) == set()


@pytest.mark.parametrize("own", [None, "0"])
def test_a_users_own_setting_is_kept(monkeypatch: pytest.MonkeyPatch, own: str | None) -> None:
    for name in NOT_REPORTED:
        monkeypatch.delenv(name, raising=False)
        if own is not None:
            monkeypatch.setenv(name, own)
    keep_private()
    assert {name: os.environ[name] for name in NOT_REPORTED} == (
        NOT_REPORTED if own is None else dict.fromkeys(NOT_REPORTED, own)
    )


def test_openvino_finds_nothing_to_report_with(tmp_path: Path) -> None:
    """A stand-in for the real one, which does just that on its import."""
    (tmp_path / "openvino.py").write_text(
        "try:\n    import openvino_telemetry\n    reports = True\nexcept ImportError:\n    reports = False\n"
    )
    (tmp_path / "openvino_telemetry.py").write_text("")
    code = "from voxport.runtime.privacy import import_openvino; print(import_openvino().reports)"
    plain = "import openvino; print(openvino.reports)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    said = [
        subprocess.run([sys.executable, "-c", each], env=environment, capture_output=True, text=True, check=True).stdout
        for each in (code, plain)
    ]
    assert said == ["False\n", "True\n"]


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_what_reports_is_imported_in_one_place(package: str) -> None:
    rooms = ("cli", "train", "export", "runtime", "benchmarks", "examples")
    place = {
        # The second is a script that `doctor` runs in a process of its own, after keep_private().
        "onnxruntime": {"runtime/voxport/runtime/backends/onnxrt/session.py", "cli/voxport/cli/doctor/probes.py"},
        "openvino": {"runtime/voxport/runtime/privacy.py"},
    }
    found = {
        str(path.relative_to(ROOT))
        for room in rooms
        for path in (ROOT / room).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(rf"\s*(import|from) (\w+, )?{package}\b(?!_)", line) or f'import_module("{package}"' in line
    }
    assert found == place[package]
