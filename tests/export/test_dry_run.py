"""`--dry-run`: what is said is what an export then does, and nothing is built or written."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.export.conftest import LIMITS, Exported
from tests.export.tiny import LABELS, OPTIONS, make_checkpoint, write_checkpoint
from voxport.cli.root import cli
from voxport.export.dry_run import Kind, preview
from voxport.export.targets import onnx_graph
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.onnx_model import preview_onnx
from voxport.export.verification.gate import named
from voxport.runtime.backends.base import expected_tensors
from voxport.runtime.backends.formats import read_contract

LENGTHS = ("--min-frames", "5", "--max-frames", "150")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint alone in its folder; a graph that is captured fails the test."""

    def captured(*_: Any) -> None:
        raise AssertionError("a dry run captured a graph")

    monkeypatch.setattr(onnx_graph, "capture", captured)
    monkeypatch.setattr("voxport.export.targets.sherpa.export.capture_sherpa", captured)
    monkeypatch.setattr("voxport.export.targets.pytorch.export.subject_of", captured)
    return write_checkpoint(tmp_path / "model.pt", make_checkpoint(OPTIONS, "nemo_mel40"))


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("onnx",), "model.onnx"),
        (("onnx", "--precision", "fp16"), "model.onnx"),
        (("onnx", "--precision", "int8"), "model.onnx"),
        (("sherpa",), "model.onnx"),
        (("torchscript",), "model.torchscript"),
        (("pt2",), "model.pt2"),
    ],
)
def test_every_target_says_what_it_would_do(checkpoint: Path, command: tuple[str, ...], name: str) -> None:
    folder = checkpoint.parent / "new"
    target, *options = command
    result = run(target, checkpoint, "-o", folder / name, *options, *LENGTHS, "--dry-run")
    assert result.exit_code == 0, result.output
    assert f"{folder / name} (new)" in result.stdout
    assert "5 to 150" in result.stdout
    assert "synthetic utterances in" in result.stdout
    assert [each.name for each in checkpoint.parent.iterdir()] == ["model.pt"]
    document = json.loads(run(target, checkpoint, "-o", folder / name, *options, "--dry-run", "--json").stdout)
    assert document["writes"][0] == str(folder / name)
    assert document["precision"] == (options[1] if options else "fp32")
    assert (document["exists"], document["replaced"]) == (False, False)
    assert (document["min_frames"], document["max_frames"]) == (20, 3000)
    widths = {tensor["name"]: tensor["shape"][1] for tensor in document["outputs"]}
    expected = {"logits": 7, "embs": 16} if target == "sherpa" else {"scores": 7, "embedding": 16}
    assert widths == expected
    assert [each.name for each in checkpoint.parent.iterdir()] == ["model.pt"]


def test_the_preview_is_what_the_export_did(exported: Exported) -> None:
    options = ExportOptions(min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames)
    found = preview_onnx(exported.checkpoint_path, exported.model, options)
    contract = read_contract(exported.model)
    assert (found.inputs, found.outputs) == expected_tensors(contract)
    assert found.speakers == len(contract.labels) == len(LABELS)
    assert {Path(path).name for path in found.writes} == {
        each.name for each in exported.model.parent.iterdir() if each.name != "model.pt"
    }
    assert found.runs == len(exported.report.cases)
    assert found.real == exported.report.real_utterances
    assert (found.exists, found.replaced) == (True, False)


def test_int8_tells_its_calibration_and_refuses_to_do_without(checkpoint: Path) -> None:
    asked = ("onnx", checkpoint, "-o", "x.onnx", "--precision", "int8", "--dry-run")
    assert "made-up voices, because the checkpoint does not say what it was trained on" in run(*asked).stdout
    given = run(*asked, "--calibration", checkpoint.parent, "--calibration-count", "5")
    assert f"calibrated on at most 5 utterances of {checkpoint.parent}" in given.stdout
    for more in (("--quantize", "static"), ("--calibration", "nowhere")):
        result = run(*asked, *more)
        assert result.exit_code == 1
        assert "no utterance to calibrate with (" in result.stderr


def test_sherpa_tensors_are_those_of_its_graph(checkpoint: Path) -> None:
    document = json.loads(run("sherpa", checkpoint, "-o", "x.onnx", "--dry-run", "--json").stdout)
    assert document["opset"] == 18
    assert [(each["name"], each["shape"]) for each in document["inputs"]] == [
        ("audio_signal", ["batch", 40, "frames"]),
        ("length", ["batch"]),
    ]


def test_existing_output_is_told(checkpoint: Path) -> None:
    path = checkpoint.parent / "model.onnx"
    path.write_bytes(b"precious")
    assert "would be refused without --force" in run("onnx", checkpoint, "-o", path, "--dry-run").stdout
    assert "would be replaced" in run("onnx", checkpoint, "-o", path, "--dry-run", "--force").stdout
    assert path.read_bytes() == b"precious"


def test_waveform_and_outputs(checkpoint: Path) -> None:
    arguments = ("--input", "waveform", "--output", "embedding", "--dry-run", "--json")
    document = json.loads(run("onnx", checkpoint, "-o", "x.onnx", *arguments).stdout)
    assert [each["name"] for each in document["inputs"]] == ["waveform", "lengths"]
    assert [each["name"] for each in document["outputs"]] == ["embedding"]


def test_files_beside_an_artefact_are_named(checkpoint: Path) -> None:
    found = preview(named(checkpoint), checkpoint.parent / "m.plan", Kind("plan", beside=(".json",)), ExportOptions())
    assert [Path(path).name for path in found.writes][:2] == ["m.plan", "m.plan.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("onnx", "model.pt", "-o", "x.onnx", "--opset", "17"), "opset 17: choose 18 to 22"),
        (("sherpa", "mel.pt", "-o", "x.onnx"), "frontend homework_mel40: sherpa-onnx computes features itself"),
        (("pt2", "model.pt", "-o", "x.onnx"), "only by the suffix .pt2"),
        (("torchscript", "model.pt", "-o", "x.onnx"), "would mislead"),
        (("onnx", "mlp.pt", "-o", "x.onnx"), "the head 'mlp' cannot be exported"),
    ],
)
def test_what_an_export_would_refuse_is_refused(
    checkpoint: Path, arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    write_checkpoint(checkpoint.parent / "mel.pt")
    made = make_checkpoint()
    recipe = dataclasses.replace(made.recipe, model=dataclasses.replace(made.recipe.model, head="mlp"))
    write_checkpoint(checkpoint.parent / "mlp.pt", dataclasses.replace(made, recipe=recipe))
    monkeypatch.chdir(checkpoint.parent)
    for extra in (("--dry-run",), ()):
        result = run(*arguments, *extra)
        assert result.exit_code == 1, result.output
        assert message in result.stderr
        assert "Traceback" not in result.output
    assert {each.name for each in checkpoint.parent.iterdir()} == {"model.pt", "mel.pt", "mlp.pt"}
