"""NVIDIA's own parser and builder on every graph that we call fit for TensorRT: `rtx_matrix` says which."""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from tests.export import rtx_matrix as matrix
from tests.export.rtx_matrix import NETWORKS, Graph, base, captured, graphs, options_of, surroundings
from voxport.export.graph.capture import OPSETS
from voxport.export.graph.fp16 import PRODUCTS, half_nodes
from voxport.train.recipe import recipe_names

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "voxport[rtx]"',
)
DOCS = Path(__file__).parents[2] / "docs" / "tensorrt.md"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[Graph, tuple[ModelProto, dict[str, Any]]]:
    """Each graph, and what NVIDIA's library made of it."""
    folder, models = tmp_path_factory.mktemp("graphs"), dict(graphs())
    for graph, model in models.items():
        (folder / graph.file).write_bytes(model.SerializeToString())
    told = matrix.ask_all(folder, [graph.file for graph in models])
    return {graph: (model, told[graph.file]) for graph, model in models.items()}


def test_all_are_parsed_as_what_they_are(answers: dict[Graph, tuple[ModelProto, dict[str, Any]]]) -> None:
    for graph, (model, found) in answers.items():
        assert (found["parsed"], found["errors"]) == (True, []), graph
        # The one remark, about an input that is int64 on purpose, and none of the builder's.
        assert ["Int64 binding" in text for _, text in found["parser_messages"]] == [True], graph
        assert {each["name"] for each in found["inputs"]} == {graph.kind, "lengths"}, graph
        assert not any(each["is_shape"] for each in found["inputs"]), graph
        assert "+".join(each["name"] for each in found["outputs"]) == graph.outputs
        assert {each["dtype"] for each in found["outputs"]} == {"FLOAT"}
        # The products by our own count of the file's nodes, not by the parser's layers.
        every = {node.name for node in model.graph.node if node.op_type in PRODUCTS}
        lower = set()
        if graph.precision == "fp16":
            lower = {node.name for node in half_nodes(model) if node.op_type in PRODUCTS}
        elif graph.precision == "int8":
            quantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
            lower = {node.name for node in model.graph.node if quantized.issuperset(node.input)}
        assert bool(lower) == (graph.precision != "fp32"), graph
        assert {each["node"] for each in found["products"]} == every, graph
        kinds = {each["node"]: set(each["reads"]) for each in found["products"]}
        wanted = {"fp32": "FLOAT", "fp16": "HALF", "int8": "INT8"}[graph.precision]
        assert kinds == {name: {wanted} if name in lower else {"FLOAT"} for name in every}, graph


def test_each_network_is_built(answers: dict[Graph, tuple[ModelProto, dict[str, Any]]]) -> None:
    networks: dict[str, set[Graph]] = {}
    for graph, (_, found) in answers.items():
        networks.setdefault(found["network"], set()).add(graph)
        assert (found["built"], found["builder_messages"]) == (True, []), graph
        assert found["engine_bytes"] > 0
    # What the parser makes of a graph does not depend on its opset, and on all else: nothing stands for another.
    assert {len(each) for each in networks.values()} == {len(OPSETS)}
    assert all(len({graph._replace(opset=0) for graph in each}) == 1 for each in networks.values())


def test_the_page_states_what_was_run(answers: dict[Graph, tuple[ModelProto, dict[str, Any]]]) -> None:
    """docs/tensorrt.md: how many, and a cell for each precision, input and opset."""
    page = DOCS.read_text(encoding="utf-8")
    stated = re.search(r"(\d+) graphs are parsed, (\d+) networks come of them, all of which are built", page)
    assert stated is not None
    assert tuple(map(int, stated.groups())) == (len(answers), len({found["network"] for _, found in answers.values()}))
    header = next(line for line in page.splitlines() if line.startswith("| graph |"))
    assert header == f"| graph | {' | '.join(f'opset {each}' for each in OPSETS)} |"
    ran: Counter[tuple[str, str, int]] = Counter((graph.precision, graph.kind, graph.opset) for graph in answers)
    for precision, title in (("fp32", "fp32"), ("fp16", "fp16"), ("int8", "int8 static")):
        for kind in ("features", "waveform"):
            row = next(line for line in page.splitlines() if line.startswith(f"| {title}, {kind} |"))
            cells = ["run" if ran[precision, kind, opset] else "typed only" for opset in OPSETS]
            assert [cell.strip() for cell in row.strip("|").split("|")[1:]] == cells


def test_an_opset_is_a_number() -> None:
    """torch writes the same nodes for each opset that it is asked for."""
    others = sorted(set(OPSETS) - {matrix.CAPTURED})
    for network, opset in zip(("voxport", "official_sample") * 2, others, strict=True):
        written = base(network, "features", "gpu", "homework_mel40", opset)
        assert written.opset_import[0].version == opset
        assert matrix.of_opset(written, matrix.CAPTURED) == base(network, "features", "gpu", "homework_mel40")


def test_each_recipe_is_one_of_the_networks() -> None:
    """Those that differ in size, in dropout, or in a batch norm that is folded away have the operators of another."""
    known = {network: surroundings(base(network, "features", "cpu", "homework_mel40")) for network in NETWORKS}
    assert len(set(known.values())) == len(NETWORKS)
    for recipe, network in {
        "sap_am_batch128_8heads": "sap_am_bn",
        "sap_am_bn_4layers": "sap_am_bn",
        "sap_max_am": "sap_max_am",
        "voxport": "voxport",
        "voxport_long": "voxport_long",
        "official_sample": "official_sample",
    }.items():
        whole = captured(options_of(recipe), "features", "cpu", matrix.CAPTURED, "homework_mel40")
        assert surroundings(whole) == known[network], recipe
    told = {matrix.operators(options_of(network)) for network in NETWORKS}
    assert {matrix.operators(options_of(recipe)) for recipe in recipe_names()} == told
