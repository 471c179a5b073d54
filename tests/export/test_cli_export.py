"""`voxport export …` as a user types it."""

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from tests.export.conftest import Exported
from tests.export.test_artefact import one_weight, tampered
from voxport.cli.root import cli
from voxport.export import artefact

LENGTHS = ("--min-frames", "5", "--max-frames", "150")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch, exported: Exported) -> onnx.ModelProto:
    """The graph of `exported` in place of a capture, which takes seconds."""
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    monkeypatch.setattr(artefact, "capture", lambda *_: graph)
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("onnx", "none.pt", "-o", "model.onnx"), "none.pt: no such checkpoint"),
        (("onnx", "none.pt", "-o", "model.onnx", "--opset", "26"), "opset 26: choose 18 to 22"),
        (("onnx", "none.pt", "-o", "model.onnx", "--min-frames", "9", "--max-frames", "8"), "min_frames 9 and max_fr"),
        (("check", "none.onnx", "none.pt"), "none.onnx"),
    ],
)
def test_mistakes_are_one_clear_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert list(tmp_path.iterdir()) == []
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [(), ("onnx",), ("check",)])
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    if command:
        assert f"Example:\n    voxport export {command[0]} " in result.stdout
