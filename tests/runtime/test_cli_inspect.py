"""`voxport inspect`: everything that a model file says, and whether it is still true."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from tests.runtime.tiny_models import LABELS, TinyModel, make_tiny, save, tiny_graph
from voxport.cli.root import cli
from voxport.runtime.backends.trt.file import write_sidecar
from voxport.runtime.contract import Array, Golden, Rejection
from voxport.runtime.storage.serialization import encode


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def test_json_holds_everything(either: TinyModel) -> None:
    result = run(either.path, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    content = either.path.read_bytes()
    model = onnx.load(either.path)
    assert report["path"] == str(either.path)
    assert report["bytes"] == len(content)
    assert report["sha256"] == hashlib.sha256(content).hexdigest()
    assert report["ir_version"] == model.ir_version
    assert report["opsets"] == {"": 20}
    assert [tensor["name"] for tensor in report["inputs"]] == [tensor.name for tensor in model.graph.input]
    assert [tensor["name"] for tensor in report["outputs"]] == ["scores", "embedding"]
    expected = encode(either.contract)
    del expected["golden"]
    assert {name: report["contract"][name] for name in expected} == expected
    assert report["contract"]["golden"]["tolerance"] == either.contract.golden.tolerance
    assert report["contract"]["golden"]["input_shape"] == list(either.contract.golden.input.shape)
    assert (report["min_seconds"], report["max_seconds"]) == (640 / 16000, 9599 / 16000)
    assert report["golden"]["passed"] is True
    assert 0 <= report["golden"]["max_abs_score"] <= 1e-3
    assert report["problem"] is None


def test_the_page_holds_what_a_reader_looks_for(tiny: TinyModel) -> None:
    result = run(tiny.path)
    assert result.exit_code == 0, result.output
    page = result.stdout
    for text in (
        hashlib.sha256(tiny.path.read_bytes()).hexdigest(),
        "features: float32 (batch, frames, 40)",
        "scores: float32 (batch, 5)",
        "opset ai.onnx 20",
        f"5: {', '.join(LABELS)}",
        "5 to 60",
        "0.04 to 0.60",
        "fp32",
        "30 × cosine",
        "homework_mel40",
        "16000 Hz",
        "12 cases",
        "2e-05, tolerance 0.001",
        "as recorded: max |Δscore|",
        "no threshold",
    ):
        assert text in page, text
    assert "and 0 more" not in page


def test_many_speakers_are_counted_not_listed(model_path: Path) -> None:
    labels = tuple(f"s{i:04d}" for i in range(600))
    golden = Golden(Array.of(np.ones((12, 40))), Array.of(np.zeros(600)), 1e-3)
    make_tiny(model_path, labels=labels, golden=golden, rejection=Rejection(0.31, 0.05))
    page = run(model_path, "--no-verify").stdout
    assert "600: s0000, s0001" in page
    assert "and 592 more" in page
    assert "s0599" not in page
    assert "cosine below 0.3100, 5.00% accepted wrongly" in page


def test_a_model_that_is_no_longer_true_is_shown_and_refused(model_path: Path) -> None:
    tiny = make_tiny(model_path)
    save(model_path, tiny_graph("features", -tiny.project, tiny.classes), tiny.contract.to_json())
    result = run(model_path)
    assert result.exit_code == 1
    assert "NOT as recorded" in result.stdout
    assert f"error: {model_path}: the model no longer gives its recorded answer" in result.stderr
    report = json.loads(run(model_path, "--json").stdout)
    assert report["golden"]["passed"] is False
    assert "no longer gives" in report["problem"]
    unverified = run(model_path, "--no-verify")
    assert unverified.exit_code == 0
    assert "not replayed" in unverified.stdout


def test_a_model_that_answers_nan_gives_valid_json(model_path: Path) -> None:
    tiny = make_tiny(model_path)
    save(model_path, tiny_graph("features", tiny.project * np.float32("nan"), tiny.classes), tiny.contract.to_json())
    result = run(model_path, "--json")
    assert result.exit_code == 1
    golden = json.loads(result.stdout)["golden"]
    assert golden == {"max_abs_score": None, "tolerance": 1e-3, "measure": "max |Δscore|", "passed": False}


@pytest.mark.parametrize("verify", ["--verify", "--no-verify"])
def test_a_graph_that_is_not_what_the_contract_promises_is_shown_and_refused(model_path: Path, verify: str) -> None:
    make_tiny(model_path, embedding_size=9)
    result = run(model_path, verify)
    assert result.exit_code == 1
    assert "embedding: float32 (batch, 8)" in result.stdout
    assert "the contract promises the output embedding: float32 (batch, 9)" in result.stderr


def test_without_onnxruntime_the_page_is_shown_and_the_check_asked_for(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run(tiny.path)
    assert result.exit_code == 1
    assert "not replayed" in result.stdout
    assert "onnxruntime is not installed" in result.stderr
    assert "--no-verify" in result.stderr
    assert run(tiny.path, "--no-verify").exit_code == 0


def test_a_plan_is_shown_by_what_lies_beside_it(tiny: TinyModel, tmp_path: Path) -> None:
    """Without TensorRT nothing can be replayed, which is said; the page is there all the same."""
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"ftrt" + bytes(100))
    write_sidecar(plan, tiny.contract, {"tensorrt": "10.3.0", "gpu": "A GPU"})
    result = run(plan, "--no-verify")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "TensorRT plan" in result.stdout
    assert "tensorrt 10.3.0" in result.stdout
    assert LABELS[0] in result.stdout
    report = json.loads(run(plan, "--no-verify", "--json").stdout)
    assert (report["format"], report["built_with"]["gpu"]) == ("plan", "A GPU")
    assert report["sha256"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    if importlib.util.find_spec("tensorrt") is None:
        result = run(plan)
        assert result.exit_code == 1
        assert "not replayed" in result.stderr
    plan.write_bytes(b"ftrt" + bytes(99))
    result = run(plan, "--no-verify")
    assert result.exit_code == 1
    assert "is damaged or not the plan" in result.stderr
    plan.unlink()
    assert f"{plan}" in run(plan).stderr
