"""The written graph: free sizes, valid at its opset, clean, the same bytes each time, right at any shape."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import voxport.export
from tests.export.conftest import SMALL, Exported
from tests.export.rtx_matrix import of_opset
from tests.export.tiny import LABELS, write_checkpoint
from voxport.export.errors import ExportError
from voxport.export.graph.capture import OPSETS, GraphInput, to_onnx
from voxport.export.graph.cleanup import check_graph, tidy, to_bytes
from voxport.export.graph.fp16 import to_half
from voxport.export.network.frontend import FrontendGraph
from voxport.export.targets.onnx_graph import ExportOptions, build_graph, onnx_graph
from voxport.export.targets.onnx_model import export_onnx
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.frontend.presets import PROFILES
from voxport.runtime.storage.seal import SEAL_KEY, SUMS_KEY


def dims(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_sizes_are_free_and_named(exported: Exported, exported_sound: Exported) -> None:
    graph, sound = onnx.load(exported.model).graph, onnx.load(exported_sound.model).graph
    wanted = {"lengths": ["batch"], "scores": ["batch", len(LABELS)], "embedding": ["batch", 16]}
    for found, source, shape in (
        (graph, "features", ["batch", "frames", 40]),
        (sound, "waveform", ["batch", "samples"]),
    ):
        assert {each.name: dims(each) for each in (*found.input, *found.output)} == {source: shape, **wanted}


def test_valid_at_the_opset_that_was_asked_for(exported: Exported) -> None:
    model = onnx.load(exported.model)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]
    onnx.checker.check_model(model, full_check=True)


def test_nothing_of_the_machine_or_the_capture_is_left(exported: Exported, exported_sound: Exported) -> None:
    repository = Path(voxport.export.__path__[0]).parents[2]
    for each in (exported, exported_sound):
        model = onnx.load(each.model)
        assert [entry.key for entry in model.metadata_props] == [METADATA_KEY, SUMS_KEY, SEAL_KEY]
        assert not model.doc_string
        assert not model.graph.value_info
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        content = each.model.read_bytes()
        for secret in (str(repository), str(each.model.parent), "site-packages", ".py", "pkg.torch"):
            assert secret.encode() not in content, secret


def test_no_dead_nodes_and_no_unused_weights(exported: Exported, exported_sound: Exported) -> None:
    for each in (exported, exported_sound):
        graph = onnx.load(each.model).graph
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in graph.node:
            assert used.intersection(node.output), node.name
        assert {tensor.name for tensor in graph.initializer} <= used


def test_form_made_for_inference(exported: Exported) -> None:
    graph = onnx.load(exported.model).graph
    kinds = [node.op_type for node in graph.node]
    assert not set(kinds) & {"BatchNormalization", "Dropout", "Identity", "If", "Loop"}
    # 4 products of the feed-forwards, 1 of queries, keys and values together, 2 inside attention, its
    # output, 3 of the convolution. Beside the layer: input, pooling's score and sum, classes.
    assert kinds.count("MatMul") == 11 + 4
    assert kinds.count("Conv") == 1
    assert {node.name.split("/")[0] for node in graph.node} >= {"layers.0.attention.qkv", "layers.0.convolution"}
    assert len({node.name for node in graph.node}) == len(kinds)


def test_attention_takes_the_form_of_the_target(exported: Exported) -> None:
    """On a CPU the mask is a row of the keys and no pass over all pairs of frames, or with the other products in int8
    each head stands alone, where its pairs stay in the cache; a GPU gets the sum that it knows."""

    def in_attention(graph: onnx.GraphProto) -> list[str]:
        return [node.op_type for node in graph.node if node.name.startswith("layers.0.attention/")]

    for_cpu = in_attention(onnx.load(exported.model).graph)
    assert "Add" not in for_cpu
    assert "Pad" in for_cpu
    small = build_graph(exported.checkpoint, ExportOptions(precision="int8"), "small.onnx").graph
    heads = SMALL.num_heads
    by_head = Counter(in_attention(small.graph))
    assert (by_head["MatMul"], by_head["Softmax"], by_head["Pad"]) == (2 * heads, heads, 0)
    assert by_head["Transpose"] <= heads  # of the keys alone
    half = build_graph(exported.checkpoint, ExportOptions(precision="fp16"), "half.onnx").graph
    plan = onnx_graph(exported.checkpoint, ExportOptions(), "a plan's graph")
    for graph in (plan.graph, half.graph):
        assert "Add" in in_attention(graph)
        assert "Pad" not in in_attention(graph)


@pytest.mark.usefixtures("fresh_captures")
def test_same_checkpoint_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.pt", exported.checkpoint)
    options = ExportOptions(min_frames=5, max_frames=150)
    export_onnx(path, tmp_path / "again.onnx", options)
    assert (tmp_path / "again.onnx").read_bytes() == exported.model.read_bytes()


# The fourth, psf_fbank40, is that of `exported_sound`, which the gate has been through.
@pytest.mark.parametrize("name", ["homework_mel40", "kaldi_fbank80", "nemo_mel40"])
def test_each_frontend_in_onnxruntime(name: str) -> None:
    frontend = PROFILES[name]
    inputs = {
        "waveform": GraphInput(torch.zeros(2, 9000), ("batch", "samples")),
        "lengths": GraphInput(torch.tensor([9000, 9000]), ("batch",)),
    }
    model = to_onnx(FrontendGraph(frontend).float().eval(), inputs, ("features", "counts"), 20)
    check_graph(model, 20, name)
    assert not {node.op_type for node in model.graph.node} & {"STFT", "DFT"}
    session = onnxruntime.InferenceSession(to_bytes(model))
    rng = np.random.default_rng(1)
    shortest = min_samples(frontend, 1)
    for lengths in ([shortest], [shortest + 1, 5000], [399 + shortest, 16000, 801]):
        rows = [(0.1 * rng.normal(size=length)).astype(np.float32) for length in lengths]
        batch = np.full((len(rows), max(lengths) + 333), np.nan, np.float32)
        for target, row in zip(batch, rows, strict=True):
            target[: len(row)] = row
        features, counts = session.run(None, {"waveform": batch, "lengths": np.array(lengths)})
        for i, row in enumerate(rows):
            wanted = compute_features(row, frontend)
            assert counts[i] == len(wanted)
            np.testing.assert_allclose(features[i, : len(wanted)], wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("opset", "why"),
    [(-1, "no older"), (17, "no older one than 18"), (23, "operator Attention"), (25, "mask"), (26, "invalid file")],
)
def test_opset_that_is_known_to_break_is_refused(opset: int, why: str) -> None:
    with pytest.raises(ExportError, match=f"opset {opset}: choose 18 to 22 \\(20 is the best tested\\); .*{why}"):
        ExportOptions(opset=opset)


@pytest.mark.parametrize("opset", [18, 19, 21, 22])  # 20 is what all other tests export
def test_every_opset_that_is_allowed_gives_the_same_answers(exported: Exported, opset: int) -> None:
    if opset == 22 and tuple(map(int, onnxruntime.__version__.split(".")[:2])) < (1, 21):
        pytest.skip("ONNX Runtime knows opset 22 from 1.21 on")
    # torch writes the same nodes for each, which test_rtx_matrix holds: the oldest and the newest are captured.
    asked = opset if opset in (OPSETS[0], OPSETS[-1]) else 20
    for_cpu = of_opset(build_graph(exported.checkpoint, ExportOptions(opset=asked), "model.onnx").graph, opset)
    model = of_opset(onnx_graph(exported.checkpoint, ExportOptions(opset=asked), "model.onnx"), opset)
    check_graph(model, opset, "model.onnx")
    rng = np.random.default_rng(4)
    feed = {"features": rng.normal(size=(2, 70, 40)).astype(np.float32), "lengths": np.array([70, 33])}
    wanted = OnnxModel.load(exported.model).run(feed["features"], feed["lengths"])
    for graph, tolerance in ((for_cpu, 1e-4), (model, 1e-4), (to_half(model), 0.05)):
        check_graph(graph, opset, "model.onnx")
        scores, embedding = onnxruntime.InferenceSession(to_bytes(graph)).run(("scores", "embedding"), feed)
        np.testing.assert_allclose(scores, wanted.scores, rtol=0, atol=tolerance)
        np.testing.assert_allclose(embedding, wanted.embedding, rtol=0, atol=tolerance)


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 2 * x, lengths + 1


def test_other_opset_that_is_allowed_is_the_one_in_the_file() -> None:
    inputs = {
        "x": GraphInput(torch.zeros(2, 5), ("batch", "frames")),
        "n": GraphInput(torch.tensor([1, 2]), ("batch",)),
    }
    model = to_onnx(Double(), inputs, ("y", "m"), 18)
    check_graph(model, 18, "double")
    session = onnxruntime.InferenceSession(to_bytes(model))
    y, m = session.run(None, {"x": np.ones((3, 7), np.float32), "n": np.array([1, 2, 3])})
    assert y.tolist() == [[2.0] * 7] * 3
    assert m.tolist() == [2, 3, 4]


def test_frozen_size_is_found(exported: Exported) -> None:
    model = onnx.load(exported.model)
    wanted = {"features": ("batch", "frames", None), "lengths": ("batch",)}
    tidy(model, wanted)
    dim = model.graph.input[0].type.tensor_type.shape.dim[1]
    dim.Clear()
    dim.dim_value = 53
    with pytest.raises(ExportError, match="the capture froze axis 1 of features at 53"):
        tidy(model, wanted)


def test_sizes_that_the_capture_took_for_one_are_found(exported: Exported) -> None:
    model = onnx.load(exported.model)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "batch"
    with pytest.raises(ExportError, match="took batch and frames for one size"):
        tidy(model, {"features": ("batch", "frames", None), "lengths": ("batch",)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.opset_import[0].__setattr__("version", 21), r"asked for opset 20, the file says \{'': 21\}"),
        (lambda m: m.graph.output[0].type.tensor_type.shape.dim[0].__setattr__("dim_value", 2), "scores has a fixed"),
        (lambda m: m.graph.node[5].__setattr__("op_type", "NoSuchOperator"), "not valid ONNX"),
    ],
)
def test_invalid_graph_is_found(exported: Exported, change: object, message: str) -> None:
    model = onnx.load(exported.model)
    assert callable(change)
    change(model)
    with pytest.raises(ExportError, match=message):
        check_graph(model, 20, "model.onnx")


def test_dead_nodes_are_removed(exported: Exported) -> None:
    model = onnx.load(exported.model)
    count = len(model.graph.node)
    model.graph.node.append(onnx.helper.make_node("Neg", ["embedding"], ["nowhere"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "unused.weight"))
    clean = tidy(model, {"features": ("batch", "frames", None), "lengths": ("batch",)})
    assert len(clean.graph.node) == count
    assert "unused.weight" not in {tensor.name for tensor in clean.graph.initializer}
    assert not any(re.search("nowhere", name) for node in clean.graph.node for name in node.output)
