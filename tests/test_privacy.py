"""Every command in an empty home: no connection to a network, and no file but where a user expects it."""

import json
import os
import re
import subprocess
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pytest

from tests import sandbox
from tests.commands_in_one_process import files_in
from tests.runtime.test_speech import talk
from tests.train.corpora import write_homework, write_recipe
from voxport.cli.root import cli
from voxport.runtime.privacy import NOT_REPORTED, keep_private

ROOT = Path(__file__).parents[1]
VOXPORT = (sys.executable, "-c", "from voxport.cli.root import main; main()")

pytestmark = pytest.mark.skipif(not sandbox.SUPPORTED, reason="Linux on x86-64 or ARM is needed to forbid sockets")


class House:
    """An empty home, an empty folder for temporary files, and a working folder."""

    def __init__(self, folder: Path) -> None:
        self.work, self.home, self.temporary = (folder / name for name in ("work", "home", "temporary"))
        self.notes = folder / "notes"
        for each in (self.work, self.home, self.temporary):
            each.mkdir()

    def run(self, *command: object, said: str = "") -> "subprocess.CompletedProcess[str]":
        """Run a command in the sandbox, where it must succeed; `said` comes from its standard input."""
        names = ("PATH", "LD_LIBRARY_PATH", "PYTHONPYCACHEPREFIX")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        environment = kept | {"HOME": str(self.home), "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        done = self.attempt(command, environment, said)
        assert done.returncode == 0, (command, done.returncode, done.stdout, done.stderr)
        return done

    def attempt(
        self, command: Sequence[object], environment: dict[str, str], said: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        launcher = (sys.executable, sandbox.__file__, self.notes, self.notes.parent)
        return subprocess.run(
            [*map(str, (*launcher, *command))], cwd=self.work, env=environment, input=said, capture_output=True,
            text=True, check=False, timeout=900,
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


# All of voxport's commands but those of EXEMPT; a later one takes what an earlier one wrote.
COMMANDS = """
train corpus corpus
train recipes
train fit --data corpus --recipe tiny.toml --out run --device cpu
train fit --data speech --recipe tiny.toml --frontend nemo_mel40 --out spoken --device cpu --steps 2
train evaluate run --data corpus --out report
train predict run --data corpus --csv answers.csv
train profile --recipe tiny.toml --speakers 4 --steps 1 --warmup 1 --device cpu
train ablate --data corpus --recipes tiny.toml --steps 2 --out ablation --device cpu
export onnx run/model.pt -o model.onnx --max-frames 200 --real 0
export check model.onnx run/model.pt --report proof --real 0
export torchscript run/model.pt -o model.torchscript --max-frames 24 --real 0
export pt2 run/model.pt -o model.pt2 --max-frames 24 --real 0
export sherpa spoken/model.pt -o sherpa.onnx --max-frames 24 --dry-run
export sherpa-check model.onnx
export tensorrt run/model.pt -o model.plan --max-frames 24 --dry-run
export triton model.onnx -o triton --name speakers
inspect model.onnx
identify model.onnx low.wav --json
score speech model.onnx --out scored --engine local --workers 1
embed model.onnx low.wav high.wav -o voices.npz
enroll model.onnx people.gallery Low low.wav --accept-anyway
enroll model.onnx people.gallery High high.wav --accept-anyway
enroll model.onnx people.gallery Other high.wav --accept-anyway
verify model.onnx people.gallery Low high.wav --threshold -1
timeline model.onnx low.wav --plot timeline.png
stream model.onnx low.wav
gallery list people.gallery
gallery show people.gallery Low
gallery rename people.gallery Low Deep
gallery merge people.gallery High Other
gallery convert people.gallery model.onnx
gallery calibrate people.gallery 0.5 --accept-anyway
gallery remove people.gallery Deep
gallery check people.gallery
bench selftest
bench conditions model.onnx speech --limit 2 -o conditions.json --plot conditions.png
bench profile model.onnx --frames 30 --runs 1 --rounds 2
bench scale model.onnx --curve length --sizes length=30,60 --rounds 1 --seconds 0.01 -o scale.json
bench train --recipe tiny.toml --speakers 4 --rounds 1 --seconds 0.01 --warmup 0 -o train.json
bench compare train.json train.json
bench report train.json scale.json conditions.json -o report.html
doctor
"""

EXEMPT = {
    "bench latency": "starts ten processes or more; one round of it is tried by itself",
    "tune": "takes minutes; its steps are export onnx, export check and bench latency",
    "demo": "takes minutes; its steps are commands of the list, but for the speech, which is tried by itself",
    "serve": "listens on a socket, which ends it here; what it leaves is looked at in tests/scale/test_service_ray.py",
    "bench gpu": "needs a GPU; its steps are processes like those of `bench latency` and `bench train`",
}


# Exit codes of those that may say that something is not as it should be.
MAY_END_WITH = {"doctor": (0, 1), "export sherpa-check": (1,)}

ONE_ROUND = """
from pathlib import Path
from voxport.benchmarks.core.settings import LatencySettings, TruthSettings
from voxport.benchmarks.core.timing import BlockRule
from voxport.benchmarks.latency.runner import measure_latency
settings = LatencySettings(
    frames=(30,), rounds=1, control=False, rule=BlockRule.lasting(0.01, 0.0), truth=TruthSettings(limits=False)
)
report = measure_latency([Path("model.onnx")], Path("run/model.pt"), settings)
assert len(report.rows) == 2 and not report.failures, report
"""

SPEAK = """
import os, espeakng_loader
from voxport.cli.demo.espeak import Voice, synthesize
deep = os.path.join(os.getcwd(), 150 * "d")  # longer than espeak-ng can keep: a link in the temporary folder stands in
os.symlink(espeakng_loader.get_data_path(), deep)
espeakng_loader.get_data_path = lambda: deep
assert synthesize(Voice("en-us", "m1"), "Hello.")[0].any()
"""


def leaves(group: click.Group, above: str = "") -> set[str]:
    """The names of all commands below `group`."""
    found: set[str] = set()
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        path = f"{above} {name}".strip()
        found |= leaves(command, path) if isinstance(command, click.Group) else {path}
    return found


def test_every_command_is_run_below() -> None:
    known = leaves(cli)
    named = [next((name for name in known if line.startswith(f"{name} ") or line == name), line) for line in lines()]
    assert set(named) | set(EXEMPT) == known
    assert set(named) & set(EXEMPT) == set()


def lines() -> list[str]:
    return COMMANDS.strip().splitlines()


def test_nothing_leaves_the_machine_and_nothing_is_left_behind(house: House) -> None:
    write_homework(house.work / "corpus")
    write_recipe(house.work)
    write_sound(house.work / "low.wav", 1)
    write_sound(house.work / "high.wav", 2)
    for number in range(12):
        folder = house.work / "speech" / f"id0000{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        write_sound(folder / f"{number}.wav", number)
    script, wanted = ROOT / "tests" / "commands_in_one_process.py", [line.split() for line in lines()]
    done = house.run(sys.executable, script, house.temporary, said=json.dumps(wanted))
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for each in found:
        name = next(name for name in leaves(cli) if " ".join([*each["arguments"], ""]).startswith(f"{name} "))
        assert each["code"] in MAY_END_WITH.get(name, (0,)), (each["arguments"], each["said"])
        assert outside_the_cache(each["home"]) == [], each["arguments"]
        # PyTorch 2.9 keeps a folder until its process ends; what is there now stays for good.
        assert [path for path in each["temporary"] if os.path.lexists(house.temporary / path)] == [], each["arguments"]
    assert [each["arguments"] for each in found] == wanted
    assert house.strange == []
    assert (house.work / "timeline.png").stat().st_size > 0
    house.run(*VOXPORT, "identify", "model.onnx", "low.wav")
    house.run(sys.executable, ROOT / "examples" / "identify.py", "model.onnx", "low.wav")
    for code in (ONE_ROUND, SPEAK):
        house.run(sys.executable, "-c", code)
    assert outside_the_cache(files_in(house.home)) == []
    assert (files_in(house.temporary), house.strange) == ([], [])


def outside_the_cache(files: Sequence[str]) -> list[str]:
    return [path for path in files if not path.startswith(".cache/voxport/")]


def test_onnx_runtime_by_way_of_voxport_keeps_no_record(house: House) -> None:
    start = "import onnxruntime as o; o.InferenceSession(bytes.fromhex(MODEL), providers=['CPUExecutionProvider'])"
    model = "from voxport.cli.doctor.probes import MODEL\n"
    house.run(sys.executable, "-c", f"import voxport.runtime\n{model}{start}")
    assert files_in(house.home) == []


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
    rooms = ("cli", "train", "export", "corpora", "scale", "runtime", "benchmarks", "examples")
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
