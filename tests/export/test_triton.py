"""Triton repositories: config.pbtxt read by tritonclient's own protobuf and held against the model's true tensors."""

import ast
import base64
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from tests.export.conftest import LIMITS, Exported
from tests.export.test_artefact import one_weight
from tests.export.tiny import LABELS
from voxport.cli.root import cli
from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import keep_outputs, write_onnx
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.triton.config import TritonOptions
from voxport.export.targets.triton.export import export_triton
from voxport.export.verification.report import ParityError
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.trt.file import write_sidecar
from voxport.runtime.contract import METADATA_KEY, Array, Contract
from voxport.runtime.errors import ContractError

model_config = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed; pip install tritonclient grpcio"
)
text_format = pytest.importorskip("google.protobuf.text_format", reason="protobuf is not installed")

FILES = {"1/model.onnx", "README.md", "config.pbtxt", "contract.json", "labels.txt", "perf_input.json"}
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}
NAME = TritonOptions("speakers")


def parse(folder: Path) -> Any:
    """What Triton would read."""
    return text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config.ModelConfig())


def type_name(tensor: Any) -> str:
    return str(model_config.DataType.Name(tensor.data_type))


def full_shape(tensor: Any, batched: bool) -> list[int]:
    """The shape that the back end gets, by Triton's rules: reshape if there is one, behind the batch."""
    dims = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
    return [-1, *dims] if batched else dims


@pytest.fixture(params=["features", "waveform"])
def either(request: pytest.FixtureRequest) -> Exported:
    found: Exported = request.getfixturevalue("exported" if request.param == "features" else "exported_sound")
    return found


def plan_of(exported: Exported, folder: Path, tensorrt: str = "10.9.0", profiles: Any = ((8, 60), (4, 150))) -> Path:
    """A file that passes for a plan, with what export tensorrt writes beside it."""
    path = folder / "model.plan"
    path.write_bytes(b"ftrt" + bytes(60))
    shapes = [
        {"features": [[1, 5, 40], [1, 50, 40], [*most, 40]], "lengths": [[1], [1], most[:1]]} for most in profiles
    ]
    write_sidecar(path, read_contract(exported.model), {"tensorrt": tensorrt, "gpu": "H"}, {"profiles": shapes})
    return path


# --- what is written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("max_batch", [None, 0])
def test_the_config_is_true_to_the_onnx_file(either: Exported, tmp_path: Path, max_batch: int | None) -> None:
    found = export_triton(either.model, tmp_path, TritonOptions("speakers", max_batch))
    folder = tmp_path / "speakers"
    config = parse(folder)
    session = onnxruntime.InferenceSession(folder / "1" / config.default_model_filename)
    batched = config.max_batch_size > 0
    assert (config.name, config.backend, config.max_batch_size) == ("speakers", "onnxruntime", 16 if batched else 0)
    for told, true in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        by_name = {tensor.name: tensor for tensor in told}
        assert list(by_name) == [tensor.name for tensor in true]
        for tensor in true:
            assert type_name(by_name[tensor.name]) == TYPES[tensor.type]
            expected = [dim if isinstance(dim, int) else -1 for dim in tensor.shape]
            assert full_shape(by_name[tensor.name], batched) == expected
    assert config.HasField("dynamic_batching") == batched
    assert set(found.files) >= FILES
    assert {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()} == set(found.files)
    assert Contract.from_json((folder / "contract.json").read_text(encoding="utf-8"), "") == read_contract(either.model)


def test_requests_as_triton_sends_them_are_answered_alike_in_a_batch(exported: Exported, tmp_path: Path) -> None:
    """Wire shapes are (batch, *dims); Triton reshapes and joins them. Padding to a common length changes nothing."""
    export_triton(exported.model, tmp_path, NAME)
    config = parse(tmp_path / "speakers")
    session = onnxruntime.InferenceSession(tmp_path / "speakers" / "1" / "model.onnx")
    rng = np.random.default_rng(0)
    requests = [rng.normal(size=(1, frames, 40)).astype(np.float32) for frames in (9, 40, 23)]
    alone = []
    for request in requests:
        wire = np.full((1, *config.input[1].dims), request.shape[1], np.int64)
        lengths = wire.reshape(1, *config.input[1].reshape.shape)
        alone.append(session.run(None, {"features": request, "lengths": lengths})[0])
    padded = np.concatenate([np.pad(r, ((0, 0), (0, 40 - r.shape[1]), (0, 0)), constant_values=9.0) for r in requests])
    joined = session.run(None, {"features": padded, "lengths": np.array([9, 40, 23])})[0]
    assert joined.shape == (3, *config.output[0].dims)
    np.testing.assert_allclose(joined, np.concatenate(alone), atol=1e-4)


def test_labels_name_the_columns_of_the_scores(exported: Exported, tmp_path: Path) -> None:
    export_triton(exported.model, tmp_path, NAME)
    scores = next(each for each in parse(tmp_path / "speakers").output if each.name == "scores")
    lines = (tmp_path / "speakers" / scores.label_filename).read_text(encoding="utf-8").splitlines()
    assert tuple(lines) == LABELS
    assert list(scores.dims) == [len(LABELS)]


@pytest.mark.parametrize("max_batch", [None, 0])
def test_warm_up_and_perf_analyzer_have_data_of_the_shapes_that_are_told(
    either: Exported, tmp_path: Path, max_batch: int | None
) -> None:
    export_triton(either.model, tmp_path, TritonOptions("speakers", max_batch))
    folder, batch = tmp_path / "speakers", [] if max_batch is None else [1]
    config = parse(folder)
    source, contract = config.input[0].name, read_contract(either.model)
    (entry,) = json.loads((folder / "perf_input.json").read_text())["data"]
    shape = entry[source]["shape"]
    values = np.frombuffer(base64.b64decode(entry[source]["content"]["b64"]), "<f4").reshape(shape)
    (length,) = entry["lengths"]["content"]
    assert shape[: len(batch) + 1] == [*batch, length]
    golden = contract.golden.input.values
    np.testing.assert_array_equal(values.reshape(-1)[: golden.size], golden.reshape(-1))
    (warmup,) = config.model_warmup
    assert warmup.batch_size == 1
    assert list(warmup.inputs[source].dims) == shape
    stored = (folder / "warmup" / warmup.inputs["lengths"].input_data_file).read_bytes()
    assert np.frombuffer(stored, "<i8").tolist() == [length]
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert f"--shape {source}:{','.join(map(str, shape))} --shape lengths:1 " in page
    assert "tritonserver --model-repository=/models" in page
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        ast.parse(block)


def test_options_reach_the_config(exported: Exported, tmp_path: Path) -> None:
    options = TritonOptions("speakers", 32, (16, 4, 4), 500, 3, "cpu", 2)
    export_triton(exported.model, tmp_path, options)
    config = parse(tmp_path / "speakers")
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, model_config.ModelInstanceGroup.KIND_CPU)
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    assert config.parameters["intra_op_thread_count"].string_value == "2"
    assert "cudnn_conv_algo_search" not in config.parameters
    export_triton(exported.model, tmp_path, TritonOptions("on-gpu", device="gpu"))
    config = parse(tmp_path / "on-gpu")
    assert config.parameters["cudnn_conv_algo_search"].string_value == "1"
    assert config.optimization.input_pinned_memory.enable


@pytest.mark.parametrize(("tensorrt", "lengths"), [("10.9.0", "TYPE_INT64"), ("8.6.1", "TYPE_INT32")])
def test_a_plan_is_served_with_all_its_profiles(
    exported: Exported, tmp_path: Path, tensorrt: str, lengths: str
) -> None:
    path = plan_of(exported, tmp_path, tensorrt)
    export_triton(path, tmp_path / "models", NAME)
    folder = tmp_path / "models" / "speakers"
    config = parse(folder)
    assert (config.backend, config.max_batch_size) == ("tensorrt", 4)  # what every profile takes
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert config.instance_group[0].kind == model_config.ModelInstanceGroup.KIND_GPU
    assert [type_name(each) for each in config.input] == ["TYPE_FP32", lengths]
    assert (folder / "1" / config.default_model_filename).read_bytes() == path.read_bytes()
    assert f"gpu H, tensorrt {tensorrt}" in (folder / "README.md").read_text(encoding="utf-8")


def test_a_checkpoint_is_exported_and_proven_first(
    exported: Exported, tmp_path: Path, no_capture: Callable[[], None]
) -> None:
    no_capture()
    graph = ExportOptions(min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames)
    found = export_triton(exported.checkpoint_path, tmp_path, NAME, graph)
    folder = tmp_path / "speakers"
    assert (folder / "1" / "model.onnx").read_bytes() == exported.model.read_bytes()
    report = json.loads((folder / "parity.json").read_text())
    assert report["passed"] is True
    assert report["model"] == str(folder / "1" / "model.onnx")  # not where it was proven
    assert found.precision == "fp32"
    of_run = export_triton(exported.checkpoint_path.parent, tmp_path, TritonOptions("again"), graph)
    assert of_run.files == found.files


def test_a_report_of_another_artefact_is_not_taken_along(exported: Exported, tmp_path: Path) -> None:
    """model.onnx and model.plan in one folder share the report's name; the last export has written it."""
    path = plan_of(exported, tmp_path)
    for suffix in ("json", "md"):
        (tmp_path / f"model.parity.{suffix}").write_text('{"model": "model.onnx"}')
    assert not any("parity" in name for name in export_triton(path, tmp_path / "models", NAME).files)
    (tmp_path / "model.parity.json").write_text('{"model": "somewhere/model.plan"}')
    files = export_triton(path, tmp_path / "models", NAME, ExportOptions(force=True)).files
    assert {"parity.json", "parity.md"} <= set(files)


def test_the_example_asks_for_what_the_model_has(exported: Exported, tmp_path: Path) -> None:
    contract = read_contract(exported.model)
    golden = dataclasses.replace(contract.golden, embedding=Array.of(np.zeros(contract.embedding_size)))
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    voices = contract.replace(outputs=("embedding",), golden=golden)
    path = tmp_path / "voices.onnx"
    write_onnx(path, keep_outputs(graph, ("embedding",)), {METADATA_KEY: voices.to_json()})
    export_triton(path, tmp_path, NAME)
    page = (tmp_path / "speakers" / "README.md").read_text(encoding="utf-8")
    assert 'InferRequestedOutput("embedding")' in page
    assert '"scores"' not in page
    assert [each.name for each in parse(tmp_path / "speakers").output] == ["embedding"]


# --- what is refused ----------------------------------------------------------------------------------


def test_a_checkpoint_whose_model_differs_leaves_no_folder(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    one_weight(graph)
    monkeypatch.setattr("voxport.export.targets.onnx_graph.capture", lambda *_: graph)
    limits = ExportOptions(min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames)
    with pytest.raises(ParityError, match=r"speakers: parity failed: .*; see .*speakers\.parity\.md; no model was wri"):
        export_triton(exported.checkpoint_path, tmp_path, NAME, limits)
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == [f"speakers.parity.{end}" for end in ("json", "md", "png")]
    report = json.loads((tmp_path / "speakers.parity.json").read_text())
    assert (report["passed"], report["model"]) == (False, str(tmp_path / "speakers" / "1" / "model.onnx"))


def test_an_existing_model_is_replaced_only_with_force(exported: Exported, tmp_path: Path) -> None:
    export_triton(exported.model, tmp_path, NAME)
    with pytest.raises(ExportError, match=r"speakers: exists; .* --force"):
        export_triton(exported.model, tmp_path, NAME)
    export_triton(exported.model, tmp_path, TritonOptions("speakers", 8), ExportOptions(force=True))
    assert parse(tmp_path / "speakers").max_batch_size == 8
    (tmp_path / "speakers" / "2").mkdir()
    with pytest.raises(ExportError, match="holds 2, which no export wrote"):
        export_triton(exported.model, tmp_path, NAME, ExportOptions(force=True))
    assert [each.name for each in tmp_path.iterdir()] == ["speakers"]
    assert parse(tmp_path / "speakers").max_batch_size == 8


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "a b", "-x", "é", "x" * 129, 'a"b', "a\nb"])
def test_a_name_that_triton_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="it becomes a folder and a part of URLs"):
        TritonOptions(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TritonOptions("s", 5), r"take 4 rows at most; .* --batch 1,1,5"),
        (TritonOptions("s", device="cpu"), "runs on a GPU alone"),
        (TritonOptions("s", preferred=(2, 8)), "preferred batch 8: must be 1 to 4"),
    ],
)
def test_what_a_plan_cannot_do_is_refused(
    exported: Exported, tmp_path: Path, options: TritonOptions, message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export_triton(plan_of(exported, tmp_path), tmp_path / "models", options)
    assert not (tmp_path / "models").exists()


def test_files_that_cannot_be_served_are_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="does not say the plan's profiles"):
        export_triton(plan_of(exported, tmp_path, profiles=()), tmp_path / "models", NAME)
    plain = onnx.load(exported.model)
    del plain.metadata_props[:]
    onnx.save(plain, tmp_path / "plain.onnx")
    with pytest.raises(ContractError, match="has no voxport contract"):
        export_triton(tmp_path / "plain.onnx", tmp_path / "models", NAME)
    with pytest.raises(ContractError, match="cannot be read"):
        export_triton(tmp_path / "none.onnx", tmp_path / "models", NAME)
    with ZipFile(tmp_path / "model.pt2", "w") as archive:
        archive.writestr("archive/models/model.json", "{}")
    with pytest.raises(ExportError, match=r"model\.pt2: Triton is given ONNX models and TensorRT plans here"):
        export_triton(tmp_path / "model.pt2", tmp_path / "models", NAME)


# --- the command --------------------------------------------------------------------------------------


LENGTHS = ("--min-frames", "5", "--max-frames", "150")  # of the exported model


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["export", "triton", *map(str, arguments)])


def test_a_checkpoint_is_previewed_without_its_model(exported: Exported, tmp_path: Path) -> None:
    of_model = run(exported.model, "-o", tmp_path, "--name", "speakers", "--dry-run")
    of_checkpoint = run(exported.checkpoint_path, "-o", tmp_path, "--name", "speakers", *LENGTHS, "--dry-run")
    assert of_checkpoint.exit_code == 0, of_checkpoint.output
    assert of_checkpoint.stdout == of_model.stdout
    assert not (tmp_path / "speakers").exists()


@pytest.mark.parametrize(
    "option",
    [
        ("--precision", "fp16"),
        ("--input", "waveform"),
        ("--max-frames", "9"),
        ("--accuracy-data", "x"),
        ("--real", "3"),
    ],
)
def test_options_of_a_checkpoint_are_refused_for_a_model(exported: Exported, tmp_path: Path, option: Any) -> None:
    result = run(exported.model, "-o", tmp_path, "--name", "speakers", *option)
    assert result.exit_code == 2
    assert f"{option[0]}: for a checkpoint alone" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_tells_and_previews(exported: Exported, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shown = run(exported.model, "-o", models, "--name", "speakers", "--preferred", "4,8", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert not models.exists()
    told = run(exported.model, "-o", models, "--name", "speakers", "--preferred", "4,8", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["max_batch"] == 16
    assert (models / "speakers" / "config.pbtxt").read_text() == shown.stdout
    there = run(exported.model, "-o", models, "--name", "speakers", "--dry-run")
    assert "speakers exists, and would be refused without --force" in there.stderr
    told = run(exported.model, "-o", models, "--name", "speakers", "--preferred", "4,8", "--dry-run", "--json")
    assert json.loads(told.stdout)["config.pbtxt"] == shown.stdout
    assert (json.loads(told.stdout)["exists"], json.loads(told.stdout)["replaced"]) == (True, False)
    again = run(exported.model, "-o", models, "--name", "speakers")
    assert again.exit_code == 1
    assert "exists; give another name" in again.stderr
    table = run(exported.model, "-o", models, "--name", "speakers", "--force")
    assert "up to 16 rows of equal length" in table.stdout
    assert run(exported.model, "-o", models, "--name", "s", "--preferred", "4,x").exit_code == 2
