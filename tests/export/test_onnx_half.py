"""`--precision fp16`: the graph says itself what is in half, and the gate knows what half costs."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.export.conftest import LIMITS, Exported
from tests.export.test_artefact import one_weight
from tests.export.tiny import OPTIONS, make_checkpoint
from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import check_graph, to_bytes
from voxport.export.graph.fp16 import half_nodes, to_half, value_types
from voxport.export.network.inference_net import deployable_net
from voxport.export.targets import onnx_graph
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.onnx_model import export_onnx
from voxport.export.verification.check import check
from voxport.export.verification.gate import Evidence
from voxport.export.verification.report import ParityError
from voxport.export.verification.tolerance import half_noise, half_tolerance, products_in_half
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.model import OnnxModel

# Those that TensorRT and every other runtime compute in half as well as in float32.
IN_HALF = {"MatMul", "Conv", "Add", "Mul", "Sigmoid", "Split", "Reshape", "Transpose"}


def plain(exported: Exported) -> ModelProto:
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    return graph


@pytest.fixture(scope="module")
def half(exported: Exported) -> ModelProto:
    return to_half(plain(exported))


@pytest.mark.parametrize("kind", ["features", "waveform"])
def test_what_is_in_half_and_what_is_not(exported: Exported, exported_sound: Exported, kind: str) -> None:
    before = plain(exported if kind == "features" else exported_sound)
    model = to_half(before)
    check_graph(model, 20, "half")
    nodes = half_nodes(model)
    assert {node.op_type for node in nodes} == IN_HALF
    # One Conformer layer: 4 products of the feed-forwards, queries, keys and values, 2 inside attention, its
    # output, 3 of the convolution; and the input's product.
    assert Counter(node.op_type for node in nodes)["MatMul"] == 12
    types = value_types(model)
    floats = {node.op_type for node in model.graph.node if TensorProto.FLOAT in map(types.get, node.output)}
    assert floats >= {"LayerNormalization", "Softmax", "Clip", "Div", "ReduceL2", "Where"}
    parts = {node.name.split("/")[0].removeprefix("network.") for node in nodes}
    assert not parts & {"", "frontend", "pooling", "network"}
    for value, old in zip(
        (*model.graph.input, *model.graph.output), (*before.graph.input, *before.graph.output), strict=True
    ):
        assert value == old  # names, types and shapes outside are those of float32


def test_types_are_explicit_for_strongly_typed_networks(half: ModelProto) -> None:
    """Every operator has inputs of one float type, and only casts change it."""
    types = value_types(half)
    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    for node in half.graph.node:
        kinds = {types[name] for name in node.input if name} & floats
        results = {types[name] for name in node.output if name} & floats
        if node.op_type == "Cast":
            to = next(each.i for each in node.attribute if each.name == "to")
            assert results == ({to} & floats), node.name
            assert kinds != results, f"{node.name} casts to what it has"
        else:
            assert len(kinds) <= 1, f"{node.name} mixes types"
            assert not results or results == (kinds or {TensorProto.FLOAT}), node.name
    assert len({name for node in half.graph.node for name in node.output}) == sum(
        len(node.output) for node in half.graph.node
    )


def test_weights_in_half_lie_in_half(half: ModelProto, exported: Exported) -> None:
    kinds = Counter(tensor.data_type for tensor in half.graph.initializer)
    assert kinds[TensorProto.FLOAT16] > kinds[TensorProto.FLOAT]
    used = {name for node in half.graph.node for name in node.input}
    assert {tensor.name for tensor in half.graph.initializer} <= used
    assert len(to_bytes(half)) < len(to_bytes(plain(exported)))
    for tensor in half.graph.initializer:  # what a mask holds has no place in half
        if tensor.data_type == TensorProto.FLOAT16:
            assert np.isfinite(numpy_helper.to_array(tensor)).all()


def test_the_same_graph_gives_the_same_bytes(exported: Exported, half: ModelProto) -> None:
    assert to_bytes(to_half(plain(exported))) == to_bytes(half)


def test_weight_beyond_half_is_refused(exported: Exported) -> None:
    graph = plain(exported)
    tensor = next(each for each in graph.graph.initializer if each.name == "project.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = 70000.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ExportError, match=r"weight project\.weight holds 7e\+04, and half ends at 65504; .* fp32"):
        to_half(graph)


def test_contradicting_types_are_refused() -> None:
    nodes = [helper.make_node("Add", ["x", "y"], ["z"], name="layers.0/Add")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])]
    inputs.append(helper.make_tensor_value_info("y", TensorProto.FLOAT16, [2]))
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])])
    with pytest.raises(ExportError, match="types contradict each other"):
        value_types(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))


def test_onnxruntime_agrees_with_pytorch_in_half(exported: Exported, half: ModelProto) -> None:
    """An independent computation of the same rounding, far closer to the graph than float32 is."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(3, 90, 40)).astype(np.float32)
    lengths = np.array([90, 41, 7])
    found = onnxruntime.InferenceSession(to_bytes(half)).run(("scores",), {"features": features, "lengths": lengths})[0]
    rounded, single = products_in_half(deployable_net(exported.checkpoint).float()), deployable_net(exported.checkpoint)
    with torch.no_grad():
        wanted = rounded(torch.from_numpy(features), torch.from_numpy(lengths))[0].numpy()
        exact = single(torch.from_numpy(features).double(), torch.from_numpy(lengths))[0].numpy()
    assert 1e-5 < np.abs(found - exact).max() < 0.05  # it is in half, and it is right
    assert np.abs(found - wanted).max() < 2 * np.abs(wanted - exact).max()


def test_export_is_proven_in_half(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "capture", lambda *_: plain(exported))
    options = ExportOptions(min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames, precision="fp16")
    path = tmp_path / "half.onnx"
    report = export_onnx(exported.checkpoint_path, path, options)
    assert read_contract(path).precision == report.precision == "fp16"
    assert "rounding the products of these inputs to half" in report.tolerance.reason
    assert exported.report.tolerance.score < report.tolerance.score < 0.1
    assert report.agreement is not None
    assert report.agreement.max_abs_score > exported.report.tolerance.score  # float32's would have refused it
    OnnxModel.load(path, verify=True)
    assert check(path, exported.checkpoint_path).passed
    export_onnx(exported.checkpoint_path, path, dataclasses.replace(options, force=True))
    first = path.read_bytes()
    export_onnx(exported.checkpoint_path, tmp_path / "again.onnx", options)
    assert (tmp_path / "again.onnx").read_bytes() == first
    spoilt = plain(exported)
    one_weight(spoilt)
    monkeypatch.setattr(onnx_graph, "capture", lambda *_: spoilt)
    with pytest.raises(ParityError, match="parity failed"):
        export_onnx(exported.checkpoint_path, tmp_path / "wrong.onnx", options)


def test_noise_is_that_of_half(evidence: Evidence) -> None:
    """Between float32's noise and what 11 bits could do to a score; and no mistake of a graph enters it."""
    checkpoint, utterances = make_checkpoint(OPTIONS), evidence.utterances[:6]
    score, embedding = half_noise(checkpoint, utterances, lambda items, _: items)
    assert 2**-18 < embedding < 2**-7
    assert score <= checkpoint.recipe.model.am_scale * embedding * 1.001
    bound = half_tolerance(checkpoint, utterances, evidence.reference, lambda items, _: items)
    assert score < bound.score <= max(6 * score, 2 * evidence.tolerance.score)
