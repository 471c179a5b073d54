"""`voxport export …` as a user types it."""

import dataclasses
import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from tests.export.conftest import Exported
from tests.export.test_artefact import one_weight, tampered
from tests.export.test_bisection import spoil
from tests.train.corpora import write_homework
from voxport.cli.root import cli
from voxport.export import pipeline as proven
from voxport.export.targets import onnx_graph
from voxport.export.verification.report import ParityReport

LENGTHS = ("--min-frames", "5", "--max-frames", "150")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch, exported: Exported) -> onnx.ModelProto:
    """The graph of `exported` in place of a capture, which takes seconds."""
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    monkeypatch.setattr(onnx_graph, "capture", lambda *_: graph)
    return graph


@pytest.mark.usefixtures("captured")
def test_onnx_writes_the_file_and_shows_the_proof(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    result = run("onnx", exported.checkpoint_path, "-o", path, *LENGTHS)
    assert result.exit_code == 0, result.output
    assert path.read_bytes() == exported.model.read_bytes()
    assert "Parity: passed" in result.stdout
    assert "each utterance alone" in result.stdout
    assert "none, because the checkpoint does not say what it was trained on" in result.stdout
    assert f"report: {tmp_path / 'model.parity'}.json" in result.stdout


@pytest.mark.usefixtures("captured")
def test_onnx_json(exported: Exported, tmp_path: Path) -> None:
    result = run("onnx", exported.checkpoint_path, "-o", tmp_path / "model.onnx", *LENGTHS, "--json", "--real", 0)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert report["real_utterances"] == "none, because none were asked for"


def test_failing_export_exits_with_1(exported: Exported, tmp_path: Path, captured: onnx.ModelProto) -> None:
    one_weight(captured)
    result = run("onnx", exported.checkpoint_path, "-o", tmp_path / "model.onnx", *LENGTHS)
    assert result.exit_code == 1
    assert "parity failed" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "model.onnx").exists()


def test_a_failing_export_names_the_part(exported: Exported, tmp_path: Path, captured: onnx.ModelProto) -> None:
    spoil(captured, "layers.0.attention.out.weight")
    result = run("onnx", exported.checkpoint_path, "-o", tmp_path / "model.onnx", *LENGTHS)
    assert result.exit_code == 1
    assert "the first part to leave is layers.0.attention.out: off by" in result.stderr
    assert "## Part by part" in (tmp_path / "model.parity.md").read_text("utf-8")


@pytest.mark.usefixtures("captured")
def test_accuracy_lost_to_rounding_names_the_parts_furthest_off(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parity passes, so that no part is at fault; what lost the answers is named all the same."""
    corpus = write_homework(tmp_path / "corpus")

    def lost(report: ParityReport, *_: object) -> ParityReport:
        return dataclasses.replace(report, passed=False, failures=("accuracy on a set: drop 3 points",))

    monkeypatch.setattr(proven, "judged", lost)
    output = tmp_path / "half.onnx"
    arguments = ("--precision", "fp16", "--accuracy-data", corpus)
    result = run("onnx", exported.checkpoint_path, "-o", output, *LENGTHS, *arguments)
    assert result.exit_code == 1
    assert "drop 3 points; no part is further off than rounding explains; furthest off are " in result.stderr
    assert result.stderr.count(" of its size)") == 3


def test_check(exported: Exported, tmp_path: Path) -> None:
    result = run("check", exported.model, exported.checkpoint_path, "--report", tmp_path / "proof", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["passed"] is True
    names = {each.name for each in (tmp_path / "proof").iterdir()}
    assert names == {"model.parity.json", "model.parity.md", "model.parity.png"}


def test_failing_check_shows_the_page_and_exits_with_1(exported: Exported, tmp_path: Path) -> None:
    path = tampered(exported, tmp_path / "model.onnx", one_weight)
    result = run("check", path, exported.checkpoint_path)
    assert result.exit_code == 1
    assert "Parity: FAILED" in result.stdout
    assert f"error: {path}: parity failed: " in result.stderr.replace("Error", "error")
    assert f"{path}: is damaged or was changed" in " ".join(result.stdout.split())


def test_a_check_finds_the_bit_that_changes_no_answer(exported: Exported, tmp_path: Path) -> None:
    content = bytearray(exported.model.read_bytes())
    weight = max(onnx.load(exported.model).graph.initializer, key=lambda each: len(each.raw_data)).raw_data
    content[content.index(weight)] ^= 1  # the last bit of its first number
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    result = run("check", path, exported.checkpoint_path, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [each["name"] for each in report["checks"] if not each["passed"]] == ["digest"]
    assert len(report["failures"]) == 1
    assert f"{path}: is damaged or was changed" in report["failures"][0]
