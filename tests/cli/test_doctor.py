"""`voxport doctor`: how it looks, and what it does with what it sees."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from tests.cli.doctor_environments import made
from voxport.cli.doctor import environment as doctor_facts
from voxport.cli.doctor.environment import cpu_features, look, probe_all
from voxport.cli.doctor.probes import CPU, CUDA, MODEL, PROBES, Probe, Script, run_probe
from voxport.cli.root import cli


def test_cpu_features_of_two_makes(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    file = tmp_path / "proc/cpuinfo"
    assert cpu_features(tmp_path) == ()
    file.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni amx_int8 avx2x\n\nflags\t\t: fma\n")
    assert cpu_features(tmp_path) == ("avx2", "avx512_vnni", "amx_int8")
    file.write_text("processor\t: 0\nFeatures\t: fp asimd i8mm\n")
    assert cpu_features(tmp_path) == ("asimd", "i8mm")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make this code the only probe, `fake`."""

    def use(code: str) -> None:
        monkeypatch.setitem(PROBES, "fake", Script(code, ("json",)))

    return use


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it crashed (SIGSEGV)"),
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("sys.exit('it computes |-2| = 3')", "it computes |-2| = 3"),
        ("print('loaded')", "it ended without an answer"),
        ("", "it ended without an answer"),
        ("raise SystemExit(3)", "it ended with code 3"),
        (
            "sys.stderr.write('\\x1b[1;31m2026 [E:onnxruntime:Default] no libcudnn.so.9\\x1b[m\\n'); sys.exit('end')",
            "2026 [E:onnxruntime:Default] no libcudnn.so.9",
        ),
    ],
)
def test_a_probe_survives_its_library(script: Callable[[str], None], code: str, problem: str) -> None:
    script(code)
    assert run_probe("fake", 60) == Probe(False, problem=problem)


def test_a_probe_that_hangs_is_ended(script: Callable[[str], None]) -> None:
    script("import time; time.sleep(600)")
    problem = "it did not answer within 0.5 seconds"
    assert run_probe("fake", 0.5) == Probe(False, problem=problem, mend="voxport doctor --timeout 2")


def test_a_probe_takes_the_last_line_and_no_module_of_the_working_folder(
    script: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wave.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    script("import wave; print('noise'); print(json.dumps({'version': '1'}))")
    assert run_probe("fake", 60) == Probe(True, {"version": "1"})


def test_a_gpus_providers_are_tried_where_there_is_a_gpu_and_they_are_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(name: str, timeout: float) -> Probe:
        return Probe(True, {"providers": f"{CUDA}, {CPU}"} if name == CPU else {})

    monkeypatch.setattr(doctor_facts, "run_probe", answer)
    monkeypatch.setattr(doctor_facts, "_is_there", lambda module: module == "onnxruntime")
    assert set(probe_all(gpu=True, timeout=1)) == {CPU, CUDA}
    assert set(probe_all(gpu=False, timeout=1)) == {CPU}


def test_the_model_of_the_probe_is_valid_onnx() -> None:
    model = onnx.load_from_string(bytes.fromhex(MODEL))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Abs"]


# The command


@pytest.mark.parametrize("clashes", [False, True])
def test_the_exit_code_says_whether_something_clashes(monkeypatch: pytest.MonkeyPatch, clashes: bool) -> None:
    environment = made({"onnxruntime-gpu": "1.31.1"} if clashes else {})
    monkeypatch.setattr(doctor_facts, "look", lambda timeout: environment)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == int(clashes), result.output
    assert ("Nothing that is installed clashes." in result.output) is not clashes
    mend = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "voxport[cpu]"'
    assert (f"mend it: {mend}\n" in result.output) is clashes
    report = CliRunner().invoke(cli, ["doctor", "--json"])
    assert report.exit_code == int(clashes)
    said = json.loads(report.output)
    assert said["ok"] is not clashes
    assert [clash["mend"] for clash in said["clashes"]] == [mend] * clashes


def test_the_present_environment() -> None:
    """A real run, in a process that must not have imported what it asks about."""
    code = """
import sys
from voxport.cli.root import cli
code = cli(["doctor", "--json", "--timeout", "300"], prog_name="voxport", standalone_mode=False)
heavy = {"torch", "torchaudio", "onnxruntime", "onnx", "tensorrt", "soundfile", "soxr", "pytorch_lightning"}
sys.exit(f"imported {heavy & set(sys.modules)}" if heavy & set(sys.modules) else code)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode in (0, 1), done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] is (done.returncode == 0)
    for name in ("torch", "onnx", "numpy", "soxr"):
        assert said["packages"][name] == metadata.version(name)
    assert said["started"]["torch"]["facts"]["version"].partition("+")[0] == metadata.version("torch").partition("+")[0]
    assert said["started"][CPU]["ok"], said["started"][CPU]
    ready = {found["name"] for found in said["abilities"] if found["ready"]}
    assert {"inspect a contract", "train", "export onnx", "run ONNX on cpu", "read sound files"} <= ready
    if shutil.which("nvidia-smi") is None:
        assert not ready & {"train on cuda", "run ONNX on cuda", "run TensorRT plans"}


def test_doctor_runs_what_it_finds_within_the_time_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answer(name: str, timeout: float) -> Probe:
        asked.append(timeout)
        return Probe(True)

    monkeypatch.setattr(doctor_facts, "run_probe", answer)
    environment = look(timeout=7)
    assert set(asked) == {7}
    assert environment.version("voxport") == metadata.version("voxport")
    assert PROBES.keys() >= environment.probes.keys()
