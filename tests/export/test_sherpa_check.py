"""The validator for sherpa-onnx: good files pass, every kind of broken file is told, and sherpa-onnx agrees."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto

from tests.export.sherpa_tools import (
    NEMO,
    WESPEAKER,
    Float32,
    nemo_model,
    sherpa_embeddings,
    sherpa_process,
    wespeaker_model,
    write_model,
)
from voxport.cli.root import cli
from voxport.export.targets.sherpa.validate import check_sherpa
from voxport.runtime.errors import ContractError

FLOAT, HALF, INT64 = int(TensorProto.FLOAT), int(TensorProto.FLOAT16), int(TensorProto.INT64)


def noise(seconds: float = 1.0) -> Float32:
    return np.random.default_rng(3).normal(scale=0.1, size=round(16000 * seconds)).astype(np.float32)


def without(metadata: dict[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name != key}


@pytest.mark.parametrize("build", [wespeaker_model, nemo_model])
def test_a_good_file_passes_and_sherpa_takes_it(build: Any, tmp_path: Path) -> None:
    path = build(tmp_path / "model.onnx")
    assert check_sherpa(path).complaints == ()
    dim, rows = sherpa_embeddings(path, [noise()], tmp_path)
    assert dim == 6
    assert rows.shape == (1, 6)


def test_3d_speaker_has_the_tensors_of_wespeaker(tmp_path: Path) -> None:
    path = wespeaker_model(tmp_path / "m.onnx", {**WESPEAKER, "framework": "3d-speaker", "normalize_samples": "1"})
    assert check_sherpa(path).passed


@pytest.mark.parametrize("key", [*without(WESPEAKER, "feature_normalize_type")])
def test_a_missing_key_of_wespeaker(key: str, tmp_path: Path) -> None:
    path = wespeaker_model(tmp_path / "model.onnx", without(WESPEAKER, key))
    (complaint,) = check_sherpa(path).complaints
    assert complaint.startswith(f"{key}: the key is missing")


@pytest.mark.parametrize("key", [key for key in NEMO if key not in ("feature_normalize_type", "window_type")])
def test_a_missing_key_of_nemo(key: str, tmp_path: Path) -> None:
    complaints = check_sherpa(nemo_model(tmp_path / "model.onnx", without(NEMO, key))).complaints
    assert any(each.startswith(f"{key}: the key is missing") for each in complaints)


@pytest.mark.parametrize("key", ["feature_normalize_type", "window_type"])
def test_keys_that_may_be_left_out(key: str, tmp_path: Path) -> None:
    assert check_sherpa(nemo_model(tmp_path / "model.onnx", without(NEMO, key))).passed


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("framework", "speechbrain", "'speechbrain' is unknown, on which sherpa-onnx crashes"),
        ("output_dim", "six", "'six' is no whole number from 1 to"),
        ("output_dim", "0", "'0' is no whole number from 1 to"),
        ("output_dim", "7", "an embedding of shape (1, 6), output_dim promises (1, 7)"),
        ("sample_rate", "16k", "'16k' is no whole number"),
        ("window_size_ms", "-25", "'-25' is no whole number"),
        ("window_stride_ms", "99999999999", "no whole number from 1 to 2147483647"),
        ("feat_dim", "80", "sherpa-onnx gives tensor(float) (1, 80, frames)"),
        ("feature_normalize_type", "global-mean", "'global-mean' is unknown, on which sherpa-onnx ends the process"),
        ("window_type", "hann_periodic", "'hann_periodic' is unknown"),
    ],
)
def test_wrong_values_of_nemo(key: str, value: str, message: str, tmp_path: Path) -> None:
    report = check_sherpa(nemo_model(tmp_path / "model.onnx", {**NEMO, key: value}))
    assert not report.passed
    assert any(message in each for each in report.complaints), report.complaints


@pytest.mark.parametrize(
    ("metadata", "inputs", "outputs", "kind", "message"),
    [
        (WESPEAKER, [("x", FLOAT, [1, "frames", 40])], [[1, 6]], FLOAT, "input x: tensor(float) (1, frames, 40)"),
        (WESPEAKER, [("x", FLOAT, [1, 200, 80])], [[1, 6]], FLOAT, "input x: tensor(float) (1, 200, 80)"),
        (WESPEAKER, [("x", FLOAT, [2, "frames", 80])], [[2, 6]], FLOAT, "input x: tensor(float) (2, frames, 80)"),
        (WESPEAKER, [("x", HALF, [1, "frames", 80])], [[1, 6]], FLOAT, "input x: tensor(float16)"),
        (WESPEAKER, [("x", FLOAT, [1, "frames", 80])], [[1, 6]], HALF, "output out0: tensor(float16)"),
        (WESPEAKER, [("x", FLOAT, [1, "n", 80]), ("lengths", INT64, [1])], [[1, 6]], FLOAT, "inputs: the graph has 2"),
        (NEMO, [("x", FLOAT, [1, 40, "frames"])], [[1, 6]] * 2, FLOAT, "inputs: the graph has 1 (x)"),
        (NEMO, [("x", FLOAT, [1, 40, "frames"]), ("n", FLOAT, [1])], [[1, 6]] * 2, FLOAT, "input n: tensor(float) (1)"),
        (NEMO, [("x", FLOAT, [1, 40, "frames"]), ("n", INT64, [1])], [[1, 6]], FLOAT, "outputs: the graph has 1"),
    ],
)
def test_wrong_tensors(
    metadata: dict[str, str], inputs: Any, outputs: Any, kind: int, message: str, tmp_path: Path
) -> None:
    report = check_sherpa(write_model(tmp_path / "model.onnx", metadata, inputs, outputs, kind))
    assert any(message in each for each in report.complaints), report.complaints


def test_an_embedding_of_three_dims_and_one_that_is_not_finite(tmp_path: Path) -> None:
    path = wespeaker_model(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "flat"
    model.graph.node.add(op_type="Unsqueeze", input=["flat", "zero"], output=["out0"])
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("out0", FLOAT, [1, 1, 6]))
    path.write_bytes(model.SerializeToString())
    assert check_sherpa(path).complaints == ("run: an embedding of shape (1, 1, 6), output_dim promises (1, 6)",)

    model = onnx.load(wespeaker_model(path))
    model.graph.node[-1].output[0] = "flat"
    model.graph.node.add(op_type="Log", input=["flat"], output=["out0"])  # of numbers below zero too
    path.write_bytes(model.SerializeToString())
    assert check_sherpa(path).complaints == ("run: the embedding of 100 frames is not finite",)


@pytest.mark.parametrize("metadata", [{}, without(WESPEAKER, "normalize_samples"), without(WESPEAKER, "language")])
def test_sherpa_does_not_survive_what_is_refused(metadata: dict[str, str], tmp_path: Path) -> None:
    path = wespeaker_model(tmp_path / "model.onnx", metadata)
    assert not check_sherpa(path).passed
    assert sherpa_process(path, [noise()], tmp_path).returncode != 0


def test_files_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.onnx: no such file"):
        check_sherpa(tmp_path / "none.onnx")
    with pytest.raises(ContractError, match="no such file"):
        check_sherpa(tmp_path)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(wespeaker_model(tmp_path / "model.onnx").read_bytes()[:150])
    with pytest.raises(ContractError, match=r"cut\.onnx: onnxruntime cannot load it"):
        check_sherpa(cut)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", "sherpa-check", *map(str, arguments)])


def test_command(tmp_path: Path) -> None:
    good = run(nemo_model(tmp_path / "good.onnx"))
    assert good.exit_code == 0, good.output
    assert "sherpa-onnx: can use it" in good.stdout
    wrong = run(nemo_model(tmp_path / "wrong.onnx", without(NEMO, "framework")), "--json")
    assert wrong.exit_code == 1
    report = json.loads(wrong.stdout)
    assert (report["passed"], report["findings"][0]["name"]) == (False, "framework")
    assert "wrong.onnx: sherpa-onnx cannot use it: framework: the key is missing" in wrong.stderr
    assert "Traceback" not in wrong.output
