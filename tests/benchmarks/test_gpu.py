"""`voxport bench gpu`: budget, crashes and resumption with a stand-in for its steps; the whole way on a CPU."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.benchmarks.bench_documents import gpu
from tests.benchmarks.test_scale import TINY
from tests.runtime.tiny_models import make_tiny
from voxport.benchmarks.gpu.report import GpuReport, GpuSettings
from voxport.benchmarks.gpu.runner import DOCUMENT, measure_gpu, read_gpu
from voxport.benchmarks.gpu.variants import ALLOWED, BASELINE, variants
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.worker.job import JobError
from voxport.cli.root import cli
from voxport.runtime.errors import VoxportError

CELL = {"batch": 1, "frames": 50, "trace": False}
WARM = {"stable": True, "calls": 9, "seconds": 0.1, "spread": 0.0, "first_ns": 5}


class Steps:
    """Stands in for the processes: answers at once, on a clock of its own, and fails where it is told to."""

    def __init__(self, fail: dict[str, str] | None = None, seconds: float = 1.0) -> None:
        self.fail, self.seconds = fail or {}, seconds
        self.now, self.asked, self.timeouts = 0.0, [], []  # type: float, list[str], list[float]

    def clock(self) -> float:
        return self.now

    def __call__(self, where: str, request: dict[str, Any], timeout: float, threads: int | None) -> Any:
        name = request["variant"]["spec"]["name"] if "variant" in request else where.rpartition(":")[2]
        self.asked.append(name)
        self.timeouts.append(timeout)
        self.now += self.seconds
        if "variant" in request:
            self.say(request)
        if name in self.fail:
            raise JobError(self.fail[name])
        return {
            "environment_step": {"torch": "2.11", "providers": "CPUExecutionProvider"},
            "network_step": {"network": "net", "parameters": 5, "plain": {"path": "", "how": "no onnxscript"}},
            "ceilings_step": {"products": [], "copy_gb_s": 1.0, "launch_us": None, "network_gflop": []},
        }.get(name, {"build_seconds": 0.5, "device_bytes": None, "facts": []})

    def say(self, request: dict[str, Any]) -> None:
        name, number = request["variant"]["spec"]["name"], request["round"]
        wall = 2_000_000 if name == BASELINE else 1_000_000
        block = {"round": number, "backend": name, "cell": CELL, "warmup": WARM, "wall_ns": [wall] * 9, "device_ns": []}
        lines = [{"block": block}]
        if number == 0:
            parity = {"backend": name, "cell": CELL, "max_abs": 1e-6, "relative": 1e-7, "top1": 1.0}
            lines.insert(0, {"parity": {**parity, "allowed": 1e-4, "same": True}})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        Path(request["partial"]).write_text(text + '{"block": {"cut off')


def settings(**changes: Any) -> GpuSettings:
    plain: dict[str, Any] = {"device": "cpu", "batches": (1,), "frames": (50,), "only": ("bf16", "TorchScript fp32")}
    return GpuSettings(**{**plain, **changes})


def measure(folder: Path, steps: Steps, resume: bool = False, **changes: Any) -> GpuReport:
    return measure_gpu(settings(**changes), folder, resume, run=steps, clock=steps.clock)


def test_what_is_cut_off_keeps_what_came_before(tmp_path: Path) -> None:
    report = measure(tmp_path, Steps({"eager bf16": "was ended by SIGSEGV"}), rounds=1)
    found = {backend.name: (backend.status, backend.reason) for backend in report.backends}
    assert found["eager bf16"] == ("failed", "was ended by SIGSEGV")
    assert found["TorchScript fp32"] == ("ok", "")
    assert found["eager bf16, graphs"] == ("skipped", "CUDA graphs need a GPU")
    assert {block.backend for block in report.blocks} >= {BASELINE, "eager bf16", "TorchScript fp32"}
    assert any("eager bf16: failed, was ended by SIGSEGV" in note for note in report.notes)
    assert read_gpu(tmp_path / DOCUMENT) == report
    assert report.finished


def test_rounds_go_on_while_the_budget_lasts(tmp_path: Path) -> None:
    steps = Steps()
    report = measure(tmp_path, steps, rounds=5)
    (row,) = (row for row in report.rows if row.backend == "TorchScript fp32")
    assert (row.rounds, row.verdict) == (5, "faster")
    assert row.ratio == pytest.approx(2)


def test_the_budget_holds_and_what_it_left_out_is_told(tmp_path: Path) -> None:
    steps = Steps(seconds=20.0)
    report = measure(tmp_path, steps, budget_s=100.0, step_s=30.0, rounds=5)
    assert steps.now <= 100
    assert max(steps.timeouts) <= 30
    assert any(step.status == "skipped" and "budget of 100 s" in step.reason for step in report.steps)
    assert all(row.verdict in ("baseline", "undecided") for row in report.rows)
    assert any("fewer than 5 rounds, which the budget did not allow" in note for note in report.notes)
    few = measure(tmp_path / "few", Steps(), rounds=2)
    assert any("fewer than 5 rounds, since 2 were asked for" in note for note in few.notes)


def test_a_resumed_run_does_only_what_is_missing(tmp_path: Path) -> None:
    measure(tmp_path, Steps({"eager bf16": "crashed"}), rounds=1)
    again = Steps()
    report = measure(tmp_path, again, resume=True, rounds=1)
    assert "eager bf16" in again.asked
    assert not {BASELINE, "TorchScript fp32", "network_step"} & set(again.asked)
    assert {backend.name for backend in report.backends if backend.status == "ok"} >= {"eager bf16", BASELINE}
    names = [(row.backend, row.cell) for row in report.rows]
    assert len(names) == len(set(names))
    assert {row.rounds for row in report.rows} == {1}


def test_a_round_that_failed_and_is_done_again_counts_once(tmp_path: Path) -> None:
    """What it had timed before it crashed was kept, and is taken back when it runs whole."""

    class Later(Steps):
        def __call__(self, where: str, request: dict[str, Any], timeout: float, threads: int | None) -> Any:
            self.fail = {"TorchScript fp32": "crashed"} if request.get("round") == 2 else {}
            return super().__call__(where, request, timeout, threads)

    first = measure(tmp_path, Later(), rounds=3)
    assert any(step.name == "TorchScript fp32, round 3" and step.status == "failed" for step in first.steps)
    again = measure(tmp_path, Steps(), resume=True, rounds=3)
    assert [row.rounds for row in again.rows if row.backend == "TorchScript fp32"] == [3]


def test_cells_that_a_model_does_not_take_are_told(tmp_path: Path) -> None:
    class Short(Steps):
        def __call__(self, where: str, request: dict[str, Any], timeout: float, threads: int | None) -> Any:
            answer = super().__call__(where, request, timeout, threads)
            left_out = ["64 × 1000 left out: it takes 20 to 400 frames"]
            return {**answer, "left_out": left_out} if "variant" in request else answer

    report = measure(tmp_path, Short(), rounds=5)
    (found,) = (backend for backend in report.backends if backend.name == "TorchScript fp32")
    assert (found.status, found.reason) == ("ok", "64 × 1000 left out: it takes 20 to 400 frames")
    assert {row.rounds for row in report.rows} == {5}
    assert "TorchScript fp32: 64 × 1000 left out: it takes 20 to 400 frames" in report.notes


def test_a_folder_is_not_overwritten_nor_mixed(tmp_path: Path) -> None:
    measure(tmp_path, Steps(), rounds=1)
    with pytest.raises(VoxportError, match="--resume"):
        measure(tmp_path, Steps())
    with pytest.raises(VoxportError, match="other settings"):
        measure(tmp_path, Steps(), resume=True, frames=(60,))


def test_without_a_device_the_reason_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(VoxportError, match="environment: no usable GPU"):
        measure(tmp_path, Steps({"environment_step": "no usable GPU"}))


def test_the_document_is_written_after_every_step(tmp_path: Path) -> None:
    steps = Steps()

    def run(*arguments: Any) -> Any:
        if len(steps.asked) == 4:
            raise KeyboardInterrupt
        return steps(*arguments)

    with pytest.raises(KeyboardInterrupt):
        measure_gpu(settings(), tmp_path, run=run, clock=steps.clock)
    kept = read_gpu(tmp_path / DOCUMENT)
    assert not kept.finished
    assert [step.name for step in kept.steps] == ["environment", "network", "ceilings", BASELINE]


def test_back_ends_have_names_of_their_own_and_a_tolerance() -> None:
    every = variants(GpuSettings(onnx=("a/model.onnx", "a/model-fp16.onnx"), plans=("a/model.plan",)))
    names = [variant.name for variant in every]
    assert len(names) == len(set(names))
    assert names[0] == BASELINE
    assert {variant.spec.precision for variant in every} <= set(ALLOWED)
    assert {variant.spec.precision for variant in every if "fp16.onnx" in variant.spec.path} == {"fp16"}
    costly = [variant.costly for variant in every]
    assert any(costly)


def test_files_of_one_name_are_told_apart() -> None:
    """A second of the same name would pass for done."""
    every = variants(GpuSettings(onnx=("a/model.onnx", "b/model.onnx"), plans=("a/m.plan", "b/m.plan", "c/n.plan")))
    names = [variant.name for variant in every]
    assert len(names) == len(set(names))
    assert {"m.plan #1", "m.plan #2", "n.plan"} <= set(names)
    assert {variant.spec.path for variant in every} >= {"a/model.onnx", "b/model.onnx"}


def test_a_files_precision_is_what_its_contract_says(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "model.onnx", precision="fp16")
    plain = tmp_path / "fp16-by-name.onnx"
    plain.write_bytes(b"no contract")
    every = variants(GpuSettings(onnx=(str(tiny.path), str(plain), "float.onnx")))
    found = {
        Path(variant.spec.path).name: variant.spec.precision
        for variant in every
        if variant.spec.kind == "onnx_session" and variant.spec.device == "cuda"
    }
    assert found == {"model.onnx": "fp16", "fp16-by-name.onnx": "fp16", "float.onnx": "fp32"}
    (tensorrt,) = (each for each in variants(GpuSettings(onnx=("float.onnx",))) if each.spec.device == "tensorrt")
    assert tensorrt.spec.precision == "tf32"


def test_a_given_file_runs_on_rtx_too_and_a_plain_export_does_not() -> None:
    (rtx,) = (each for each in variants(GpuSettings(onnx=("float.onnx",)), "plain.onnx") if each.spec.device == "rtx")
    assert (rtx.name, rtx.spec.kind, rtx.costly) == ("ONNX Runtime TensorRT for RTX, float.onnx", "artefact", True)
    assert rtx.how == "voxport's runtime, TensorRT for RTX"
    assert not [each for each in variants(GpuSettings(), "plain.onnx") if each.spec.device == "rtx"]
    (engine,) = (each for each in variants(GpuSettings(plans=("model.rtx",))) if each.name == "model.rtx")
    assert (engine.spec.kind, engine.spec.device) == ("artefact", "rtx")


def test_rows_are_judged_by_their_answers() -> None:
    verdicts = {row.backend: row.verdict for row in gpu().rows}
    assert verdicts == {"eager fp32": "baseline", "eager bf16": "answers differ"}


@pytest.mark.parametrize(
    "installed",
    [
        {"onnxruntime": "1.30.0", "onnxruntime-gpu": "not installed"},
        {"onnxruntime": "not installed", "onnxruntime-gpu": "1.31.1"},
    ],
)
def test_the_onnx_runtime_that_is_there_is_named(
    installed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = (*(Fact(name, value) for name, value in installed.items()), Fact("providers", "CPU"))
    report = dataclasses.replace(gpu(), environment=facts)
    monkeypatch.setattr("voxport.benchmarks.gpu.runner.measure_gpu", lambda *_: report)
    result = CliRunner().invoke(cli, ["bench", "gpu", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    assert all([name, version] in lines for name, version in installed.items())
    assert "eager fp32 answers fastest" in result.stdout.partition("wrote ")[0].splitlines()[-2]  # the end says most


# The machine may be bare: these are not there, and every step must do without them.
BARE = """
import importlib, sys
for name in "torchaudio soundfile soxr sklearn scipy matplotlib onnxscript psutil tensorboard rich".split():
    sys.modules[name] = None
sys.path[:0] = sys.argv[2].split(":")
from pathlib import Path
from voxport.benchmarks.gpu.report import GpuSettings
from voxport.benchmarks.gpu.runner import measure_gpu
from voxport.benchmarks.worker.job import JobError
from voxport.runtime.storage.serialization import encode

def run(where, request, timeout, threads):
    module, _, name = where.partition(":")
    try:
        return encode(getattr(importlib.import_module(module), name)(request))
    except Exception as problem:
        raise JobError(f"{type(problem).__name__}: {problem}")

folder = Path(sys.argv[1])
report = measure_gpu(
    GpuSettings(
        device="cpu", recipe=str(folder / "tiny.toml"), batches=(1, 2), frames=(30,), seconds=0.01, warmup=0.0,
        rounds=2, threads=1, only=("TorchScript", "ONNX"), budget_s=9000,
    ),
    folder / "out", run=run,
)
"""  # fmt: skip


def test_the_whole_way_on_a_bare_machine(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "tiny.toml").write_text(TINY)
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONSAFEPATH="1")
    command = [sys.executable, "-W", "ignore", "-c", BARE, str(tmp_path), ""]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    report = read_gpu(tmp_path / "out" / DOCUMENT)
    assert report.finished
    assert "freshly initialised" in report.network
    facts = {fact.name: fact.value for fact in report.environment}
    assert "give a file with --onnx" in facts["plain ONNX export"]
    found = {backend.name: (backend.status, backend.reason) for backend in report.backends}
    assert found["eager fp32"] == found["TorchScript fp32"] == ("ok", "")
    assert found["TorchScript fp32, graphs"] == ("skipped", "CUDA graphs need a GPU")
    assert all(check.same for check in report.parity)
    assert {(row.backend, row.cell.batch) for row in report.rows} == {
        (name, batch) for name in ("eager fp32", "TorchScript fp32") for batch in (1, 2)
    }
    assert {row.rounds for row in report.rows} == {2}
