"""Int8 in a graph: the right products, exact integers, answers that no batch mate changes, no float in disguise."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.export.conftest import Exported
from voxport.export.errors import ExportError
from voxport.export.quantization.qdq import Scheme, matrix_products, quantize, quantize_weight, scheme_of

Floats = npt.NDArray[np.float32]
LAYERS = (
    "project",
    "layers.0.feed_forward_1.expand",
    "layers.0.feed_forward_1.contract",
    "layers.0.attention.qkv",
    "layers.0.attention.out",
    "layers.0.convolution.value",
    "layers.0.convolution.gate",
    "layers.0.convolution.out",
    "layers.0.feed_forward_2.expand",
    "layers.0.feed_forward_2.contract",
)


def one_product(weights: Sequence[Floats], bias: Floats) -> ModelProto:
    """x → x @ weight + bias for each weight, all of one input."""
    nodes, outputs = [], []
    for i, _ in enumerate(weights):
        nodes += [
            helper.make_node("MatMul", ["x", f"w{i}"], [f"product{i}"], name=f"layer{i}/MatMul"),
            helper.make_node("Add", [f"product{i}", "bias"], [f"y{i}"], name=f"layer{i}/Add"),
        ]
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["n", len(bias)]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(weights[0])])]
    tensors = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "test", inputs, outputs, [*tensors, numpy_helper.from_array(bias, "bias")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def session(model: ModelProto, literal: bool = False, dump: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if literal:  # every node as it stands: Q and DQ in float, no integer kernel
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if dump is not None:
        options.optimized_model_filepath = str(dump)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def layers_of(model: ModelProto) -> tuple[str, ...]:
    return tuple(each.layer for each in matrix_products(model.graph))


def ranges_of(model: ModelProto, largest: float = 6.0) -> dict[str, float]:
    return {each.input: largest for each in matrix_products(model.graph)}


def test_the_layers_products_and_no_others(exported: Exported, exported_sound: Exported) -> None:
    assert layers_of(onnx.load(exported.model)) == LAYERS
    assert layers_of(onnx.load(exported_sound.model)) == tuple(f"network.{layer}" for layer in LAYERS)


def test_the_head_stays_in_float_behind_a_frontend_too(exported_sound: Exported) -> None:
    """With more speakers than the smallest side of a weight: then nothing but its module tells it from a layer."""
    model = onnx.load(exported_sound.model)
    head = next(each for each in model.graph.initializer if each.name.endswith("class_weight_ES"))
    head.CopyFrom(numpy_helper.from_array(np.zeros((head.dims[0], 40), np.float32), head.name))
    assert layers_of(model) == tuple(f"network.{layer}" for layer in LAYERS)


def test_weights_keep_within_their_levels() -> None:
    weight = np.random.default_rng(1).normal(size=(20, 5)) * [1, 100, 1e-6, 0, 3]
    integers, scale = quantize_weight(weight)
    assert integers.dtype == np.int8
    assert np.abs(integers).max(axis=0).tolist() == [64, 64, 64, 0, 64]
    assert (np.abs(integers * scale.astype(np.float64) - weight) <= scale / 2 * (1 + 1e-6)).all()


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
def test_arithmetic_is_that_of_integers(scheme: Scheme) -> None:
    rng = np.random.default_rng(2)
    x, weight, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((7, 32), (32, 16), (16,)))
    x[3] *= 40  # a loud frame
    model = quantize(one_product([weight], bias), scheme, ["layer0"], {"x": 5.0})
    size = np.abs(x).max(axis=1, keepdims=True) if scheme == "dynamic" else np.float32(5.0)
    integers, scale = quantize_weight(weight)
    levels = np.clip(np.rint(x / size * 127), -127 if scheme == "dynamic" else -128, 127).astype(np.int64)
    wanted = (levels @ integers.astype(np.int64)) * (size / 127) * scale + bias
    (found,) = session(model).run(None, {"x": x})
    # A value just between two levels may fall to either; none does here.
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def test_a_loud_batch_mate_changes_nothing(exported: Exported) -> None:
    run = session(quantize(onnx.load(exported.model), "dynamic", LAYERS))
    rng = np.random.default_rng(3)
    batch = rng.normal(size=(2, 60, 40)).astype(np.float32)
    batch[1] *= 1000
    both = run.run(None, {"features": batch, "lengths": np.array([41, 60])})
    alone = run.run(None, {"features": batch[:1, :41], "lengths": np.array([41])})
    for mine, right in zip(both, alone, strict=True):
        np.testing.assert_allclose(mine[:1], right, rtol=0, atol=1e-4)


def test_frames_of_zeros_stay_finite(exported: Exported) -> None:
    run = session(quantize(onnx.load(exported.model), "dynamic", LAYERS))
    scores, embedding = run.run(None, {"features": np.zeros((1, 30, 40), np.float32), "lengths": np.array([30])})
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(np.linalg.norm(embedding), 1, atol=1e-5)


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
def test_onnxruntime_computes_every_product_in_integers(exported: Exported, tmp_path: Path, scheme: Scheme) -> None:
    model = onnx.load(exported.model)
    small = quantize(model, scheme, LAYERS, ranges_of(model))
    onnx.checker.check_model(small, full_check=True)
    assert {node.domain for node in small.graph.node} == {""}
    session(small, dump=tmp_path / "optimized.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["MatMulIntegerToFloat"] == len(LAYERS)
    assert kinds["DequantizeLinear"] == 0


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
def test_the_largest_sums_do_not_overflow(scheme: Scheme) -> None:
    """Kernels without VNNI add pairs of products in 16 bits: with full 8-bit weights this gives about half."""
    weight = np.ones((256, 16), np.float32)
    weight[:, 1::2] = -1
    model = quantize(one_product([weight], np.zeros(16, np.float32)), scheme, ["layer0"], {"x": 1.0})
    for sign in (1, -1):
        (found,) = session(model).run(None, {"x": np.full((4, 256), sign, np.float32)})
        np.testing.assert_allclose(found, sign * 256 * weight[:4], rtol=1e-6)


def test_weights_take_a_byte_each(exported: Exported) -> None:
    model = onnx.load(exported.model)
    small = quantize(model, "dynamic", LAYERS)
    kinds = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
    for each in matrix_products(model.graph):
        assert each.weight not in kinds
        assert kinds[f"{each.weight}/int8"] == TensorProto.INT8
    used = {name for node in small.graph.node for name in node.input}
    assert set(kinds) <= used


def test_layers_left_in_float_are_untouched(exported: Exported) -> None:
    model = onnx.load(exported.model)
    small = quantize(model, "dynamic", LAYERS[1:])
    weights = {tensor.name: tensor for tensor in small.graph.initializer}
    before = {tensor.name: tensor for tensor in model.graph.initializer}
    assert weights["project.weight"] == before["project.weight"]
    assert quantize(model, "static", [], {}) == model


def test_equal_graphs_give_equal_bytes(exported: Exported) -> None:
    model = onnx.load(exported.model)
    first, second = (quantize(model, "static", LAYERS, ranges_of(model)).SerializeToString() for _ in range(2))
    assert first == second


def test_a_graph_says_how_it_was_quantised(exported: Exported) -> None:
    model = onnx.load(exported.model)
    assert scheme_of(model.graph) is None
    assert scheme_of(quantize(model, "dynamic", LAYERS).graph) == "dynamic"
    assert scheme_of(quantize(model, "static", LAYERS, ranges_of(model)).graph) == "static"


def test_what_cannot_be_quantised_is_named(exported: Exported) -> None:
    model = onnx.load(exported.model)
    with pytest.raises(ExportError, match=r"no matrix product of the graph belongs to layers\.9\.attention\.qkv"):
        quantize(model, "dynamic", ["project", "layers.9.attention.qkv"])
    with pytest.raises(ExportError, match="no activation range is known"):
        quantize(model, "static", LAYERS, {**ranges_of(model), "Reshape": float("nan")})
