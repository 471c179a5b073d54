"""`voxport bench latency` as a user meets it."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from voxport.benchmarks.core.records import Accuracy, ColdStart, Floor, Limits, OpTime, Profile
from voxport.benchmarks.core.settings import LatencySettings, ServerRule, TruthSettings
from voxport.benchmarks.core.timing import BlockRule
from voxport.benchmarks.latency import runner as latency
from voxport.benchmarks.latency.report import Failure, LatencyReport, read_report
from voxport.benchmarks.stats.intervals import Estimate
from voxport.cli.root import cli


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", "latency", *map(str, arguments)])


@pytest.fixture
def asked(measured: LatencyReport, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command asks of the room, which answers with a report at hand in which all went well."""
    calls: list[Any] = []
    backends = tuple(item for item in measured.backends if item.spec.name != "wrong.onnx")
    rows = tuple(row for row in measured.rows if row.backend != "wrong.onnx")
    fine = dataclasses.replace(measured, backends=backends, rows=rows)

    def measure_latency(models: Any, checkpoint: Path, settings: LatencySettings, progress: Any) -> LatencyReport:
        calls.append((models, checkpoint, settings))
        progress(0, 1, "first")
        return fine

    monkeypatch.setattr(latency, "measure_latency", measure_latency)
    return calls


def test_defaults_and_choices_reach_the_measurement(asked: list[Any]) -> None:
    assert run("a.onnx", "--against", "model.pt").exit_code == 0
    assert asked[0] == ((Path("a.onnx"),), Path("model.pt"), LatencySettings())
    chosen = (
        "--batch 1 --batch 8 --frames 200 --frames 300 --rounds 7 --seconds 0.5 --warmup 0.25 --threads 2 "
        "--no-control --seed 5 --timeout 9 --device cuda"
    )
    assert run("a.onnx", "b.onnx", "--against", "model.pt", *chosen.split()).exit_code == 0
    assert asked[1][2] == LatencySettings(
        batches=(1, 8),
        frames=(200, 300),
        rounds=7,
        device="cuda",
        threads=2,
        control=False,
        seed=5,
        timeout=9.0,
        rule=BlockRule.lasting(0.5, 0.25),
    )


def test_scenarios_variants_and_truth_reach_the_measurement(asked: list[Any]) -> None:
    chosen = (
        "--scenario server --bound-ms 40 --trace lengths.txt --also plain_onnx --also all "
        "--accuracy-data data --accuracy-limit 50 --max-drop 0.5 --cold-start 12 --no-limits"
    )
    assert run("a.onnx", "--against", "model.pt", *chosen.split()).exit_code == 0
    assert asked[0][2] == LatencySettings(
        scenario="server",
        server=ServerRule(bound_ms=40.0),
        trace="lengths.txt",
        also=("plain_onnx", "all"),
        truth=TruthSettings("data", 50, 0.5, 12, limits=False),
    )
    assert run("a.onnx", "--against", "model.pt", *"--scenario offline --queries 10".split()).exit_code == 0
    assert (asked[1][2].scenario, asked[1][2].queries) == ("offline", 10)
    assert run("a.onnx", "--against", "model.pt", "--profile").exit_code == 0
    assert asked[2][2].truth.profile


def test_without_matplotlib_the_run_goes_on_and_says_so(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    result = run("a.onnx", "--against", "model.pt", "--plot", tmp_path / "out.png", "-o", tmp_path / "out.json")
    assert result.exit_code == 0
    assert "no pictures: matplotlib is not installed" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_everything_beside_speed_is_shown(
    measured: LatencyReport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    estimate = Estimate(120.0, 100.0, 140.0, 0.97, 10)
    cold = ColdStart("eager", measured.cells[0], None, estimate, estimate, estimate, estimate, None, estimate, ())
    floor = Floor("right.onnx", measured.cells[0], 0.5, 4.0, 1.0, 4.0, 125.0, 1.0)
    rows = tuple(dataclasses.replace(row, share=0.5, resident_bytes=50_000_000) for row in measured.rows)
    missing = dataclasses.replace(
        measured.backends[0], spec=dataclasses.replace(measured.backends[0].spec, name="aoti", optional=True)
    )
    full = dataclasses.replace(
        measured,
        rows=rows,
        backends=(*measured.backends, missing),
        failures=(Failure("aoti", "build", None, None, "no compiler was found"),),
        accuracy=(Accuracy("eager", 200, 190, 0.95, 0.0, 0.2, True, "200 utterances of voices"),),
        cold_starts=(cold,),
        limits=Limits("cpu", 1, 9.5, None, (), (floor,)),
        profiles=(Profile("right.onnx", measured.cells[0], "a profiler", 20, 100.0, (OpTime("MatMul", 3, 80, 0.8),)),),
    )
    monkeypatch.setattr(latency, "measure_latency", lambda *_: full)
    pytest.importorskip("matplotlib")
    result = run("a.onnx", "--against", "model.pt", "--pareto", tmp_path / "truth.png")
    for words in (
        "resident",
        "of the limit",
        "200 utterances of voices",
        "95.00 %",
        "120 [100, 140]",
        "a large copy moves 9.50 GB/s",
        "MatMul",
        "80.0 %",
        "aoti",
        "no compiler was found",
        "of a call of 5 ms",
    ):
        assert words in result.stdout
    assert (tmp_path / "truth.png").read_bytes().startswith(b"\x89PNG")


def test_selftest_passes_here_and_says_what_it_measured() -> None:
    result = CliRunner().invoke(cli, ["bench", "selftest", "--json"])
    found = json.loads(result.stdout)
    assert found["coverage"] > 0.9
    assert 0 < found["harness_us"] < 1000
    assert [one["samples"] for one in found["needed"]] == [7, 44, 459, 4603]
    assert result.exit_code == (0 if found["passed"] else 1)


def test_the_table_names_boundary_backends_and_steadiness(asked: list[Any]) -> None:
    result = run("a.onnx", "--against", "model.pt")
    boundary = "features in, scores out; float32 arrays in host memory; no file decoding, no frontend"
    assert boundary in result.stdout
    for word in (
        "right.onnx",
        "eager (control)",
        "baseline",
        "batch 2, 50 frames",
        "speed-up",
        "n/a",
        "unstable",
        "the harness itself",
    ):
        assert word in result.stdout


def test_json_is_the_report_without_samples(asked: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    result = run("a.onnx", "--against", "model.pt", "--json", "-o", path)
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["kind"] == "voxport.latency"
    assert "blocks" not in document
    assert len(document["rows"]) == 6
    assert len(read_report(path).blocks) > 0


def test_files_are_written_and_named(asked: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output, plot = tmp_path / "out.json", tmp_path / "out.png"
    result = run("a.onnx", "--against", "model.pt", "-o", output, "--plot", plot)
    assert result.exit_code == 0
    assert f"wrote {output}" in result.stdout
    assert f"wrote {plot}" in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_model_that_could_not_be_compared_is_a_failure(
    measured: LatencyReport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(latency, "measure_latency", lambda *_: measured)
    path = tmp_path / "out.json"
    result = run("a.onnx", "--against", "model.pt", "-o", path)
    assert result.exit_code == 1
    assert "answers differ" in result.stdout
    assert "error: not compared with eager PyTorch: wrong.onnx" in result.stderr
    assert path.exists()  # what was seen is kept all the same
