"""Time by operator: what ran is what ONNX Runtime's own optimised graph holds, and dead nodes are found."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from tests.benchmarks.conftest import Folder
from tests.runtime.tiny_models import FRONTEND, make_tiny
from voxport.benchmarks.profiling.graph import RunNode, executed, graph_facts
from voxport.benchmarks.profiling.operators import OpProfileSettings, profile_models
from voxport.cli.root import cli
from voxport.runtime.errors import ContractError, LengthError, VoxportError

QUICK = OpProfileSettings(frames=(20,), runs=3, rounds=6, block_seconds=0.001)


def silent(done: int, total: int, what: str) -> None:
    assert done <= total


@pytest.fixture
def layered(tmp_path: Path) -> Path:
    """features → Transpose → MatMul → Add → Sigmoid · itself → Transpose, and two nodes that nothing needs."""
    path, size = tmp_path / "layered.onnx", FRONTEND.n_mels
    rng = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(rng.normal(size=(size, 16)).astype(np.float32), "w"),
        numpy_helper.from_array(rng.normal(size=16).astype(np.float32), "b"),
        numpy_helper.from_array(np.array([-1, size]), "rows"),
    ]
    nodes = [
        helper.make_node("Reshape", ["features", "rows"], ["x"], name="flat"),
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Add", ["m", "b"], ["y"], name="bias"),
        helper.make_node("Sigmoid", ["y"], ["s"], name="sigmoid"),
        helper.make_node("Mul", ["y", "s"], ["g"], name="gate"),
        helper.make_node("Exp", ["y"], ["dead 1"], name="dead 1"),
        helper.make_node("Neg", ["dead 1"], ["dead 2"], name="dead 2"),
        helper.make_node("Transpose", ["g"], ["scores"], name="turn", perm=[1, 0]),
    ]
    graph = helper.make_graph(
        nodes,
        "layered",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", "T", size])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def optimised(path: Path, folder: Path) -> Sequence[onnx.NodeProto]:
    """What ONNX Runtime itself writes as its optimised graph."""
    options, target = onnxruntime.SessionOptions(), folder / "optimised.onnx"
    options.optimized_model_filepath, options.log_severity_level = str(target), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(onnx.load(target).graph.node)


def test_what_ran_is_the_optimised_graph(layered: Path, models: Folder, tmp_path: Path) -> None:
    ((model,), _) = models("model.onnx")
    report = profile_models([model], layered, QUICK, silent)
    before, after = report.profiles
    for path, found in ((layered, before), (model, after)):
        expected = Counter(node.op_type for node in optimised(path, tmp_path) if node.op_type != "Constant")
        assert {op.op: op.nodes for op in found.ops} == expected
        assert found.graph.run == expected.total()
        assert found.graph.written == len(onnx.load(path).graph.node)
        assert found.nodes_us == pytest.approx(sum(op.us for op in found.ops))
        assert sum(op.share for op in found.ops) == pytest.approx(1)
    assert before.graph.dead == 2
    assert before.graph.fused == {"Gemm": 1, "QuickGelu": 1}
    assert before.graph.transposes == 1
    assert after.graph.dead == 0


def test_faster_is_the_ratio_to_what_was_before(layered: Path, models: Folder) -> None:
    (paths, _) = models("a.onnx", "b.onnx")
    before, *rest = profile_models(paths, layered, QUICK, silent).profiles
    assert before.model == "layered.onnx (before)"
    assert before.faster is None
    for each in rest:
        assert each.faster is not None
        assert each.faster.samples == QUICK.rounds
        assert each.faster.low is not None
        assert each.faster.low <= each.faster.median
    alone = profile_models(paths, None, QUICK, silent)
    assert alone.before is None
    assert [each.faster for each in alone.profiles] == [None, None]


def test_times_are_medians_without_the_first_call() -> None:
    def event(name: str, op: str, us: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us, "args": {"op_name": op}}

    calls = [(900, 5), (10, 4), (30, 6), (20, 5)]
    events = [e for a, b in calls for e in (event("x", "MatMul", a), event("y", "Add", b))]
    other = {"cat": "Session", "name": "model_run", "dur": 7}
    assert executed([other, *events], 3) == (RunNode("x", "MatMul", 20.0), RunNode("y", "Add", 5.0))
    with pytest.raises(ContractError, match="7 nodes of 4 equal calls"):
        executed(events[:-1], 3)


def test_a_plain_export_of_the_checkpoint_comes_before(real_checkpoint: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    make_tiny(model)
    result = CliRunner().invoke(
        cli, ["bench", "profile", str(model), "--against", str(real_checkpoint), "--frames", "20", "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["before"].startswith("torch.onnx.export(dynamo=")
    before, after = report["profiles"]
    assert (before["model"], after["model"]) == ("torch.onnx.export", "model.onnx")
    assert "Softmax" in {op["op"] for op in before["ops"]}  # the network's own attention
    assert after["faster"]["median"] > 0


def test_the_table_tells_both(layered: Path, models: Folder) -> None:
    ((model,), _) = models("model.onnx")
    arguments = ["--against", layered, "--frames", "20", "--frames", "40", "--runs", "2", "--rounds", "6", "--top", "2"]
    result = CliRunner().invoke(cli, ["bench", "profile", str(model), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    for said in (
        "batch × frames: 1 × 20",
        "batch × frames: 1 × 40",
        "layered.onnx (before)",
        " others",
        "times faster",
    ):
        assert said in result.stdout


def test_mistakes_are_named(layered: Path, models: Folder, tmp_path: Path) -> None:
    ((model,), _) = models("model.onnx")
    with pytest.raises(LengthError, match="takes 5 to 60 frames, not 61"):
        profile_models([model], None, OpProfileSettings(frames=(61,)), silent)
    with pytest.raises(ContractError, match="contract"):  # a file of another tool has none to say what it takes
        profile_models([layered], None, QUICK, silent)
    with pytest.raises(VoxportError, match=r"no such file; give the RUN/model\.pt"):
        profile_models([model], tmp_path / "gone.pt", QUICK, silent)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no protobuf")
    with pytest.raises(ContractError, match=r"broken\.onnx: ONNX Runtime cannot run it"):
        profile_models([model], broken, QUICK, silent)
    with pytest.raises(ContractError, match=r"broken\.onnx: not an ONNX file"):
        graph_facts(broken, ())
    sound = tmp_path / "sound.onnx"
    make_tiny(sound, "waveform")
    with pytest.raises(VoxportError, match="its input is not that of"):
        profile_models([model, sound], None, QUICK, silent)
    with pytest.raises(ContractError, match="it has an input features; it is compared with inputs lengths, waveform"):
        profile_models([sound], layered, QUICK, silent)
