"""The profile of a training step, as a user asks for it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.train.corpora import RECIPE, write_homework, write_recipe
from voxport.cli.root import cli


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def profiled(line: str) -> dict[str, Any]:
    short = "--recipe tiny.toml --speakers 4 --steps 3 --warmup 1 --device cpu --json"
    result = CliRunner().invoke(cli, ["train", "profile", *short.split(), *line.split()])
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_sections_make_up_the_step_and_the_trace_can_be_read(here: Path) -> None:
    report = profiled("--trace step.json")
    shares = {part["name"]: part["share"] for part in report["sections"]}
    assert sum(shares.values()) == pytest.approx(1.0)
    assert all(share >= 0 for share in shares.values())
    assert set(shares) >= {"data", "copy", "forward and loss", "backward", "optimiser", "logging"}
    assert shares["backward"] > shares["copy"]
    assert report["step_ms"] == pytest.approx(1000 / report["steps_per_second"])
    assert report["ceiling_share"] == pytest.approx(
        report["step_gflop"] * report["steps_per_second"] / report["ceiling_gflops"]
    )
    names = [event.get("name") for event in json.loads((here / "step.json").read_text())["traceEvents"]]
    assert "aten::addmm" in names
    times = [part["milliseconds"] for part in report["operators"]]
    assert times == sorted(times, reverse=True)
    assert len(times) == 10
    for part in report["operators"]:  # three steps are in the trace, and the report counts per step
        in_trace = names.count(part["name"])
        assert in_trace / 2 <= 3 * part["calls"] <= in_trace  # one that calls itself counts once
    assert not list(here.glob(".*part*"))


def test_operations_are_counted_for_the_whole_batch(here: Path) -> None:
    """Twice the batch is twice the arithmetic, and a batch in pieces is the same."""
    once, pieces = profiled(""), profiled("--accumulate 2")
    (here / "tiny.toml").write_text(RECIPE.replace("batch_size = 8", "batch_size = 16"))
    twice = profiled("")
    assert pieces["step_gflop"] == pytest.approx(once["step_gflop"])
    assert twice["step_gflop"] == pytest.approx(2 * once["step_gflop"])


def test_a_real_corpus_and_a_table(here: Path) -> None:
    write_homework(here / "corpus")
    line = "train profile --recipe tiny.toml --data corpus --steps 2 --warmup 1 --device cpu --resident yes"
    result: Result = CliRunner().invoke(cli, line.split())
    assert result.exit_code == 0, result.output
    for word in ("forward and loss", "steps/s", "Slowest operators", "GFLOP per step"):
        assert word in result.stdout
    refused = CliRunner().invoke(cli, ["train", "profile", "--recipe", "tiny.toml", "--accumulate", "3"])
    assert refused.exit_code == 1
    assert "does not divide" in refused.stderr
