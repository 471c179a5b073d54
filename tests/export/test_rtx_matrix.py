"""NVIDIA's own parser and builder on every graph that we call fit for TensorRT: `rtx_matrix` says which."""

import importlib.util
import re
from typing import Any

import pytest
from onnx import ModelProto

from tests.export import rtx_matrix as matrix
from tests.export.rtx_matrix import (
    NETWORKS,
    NOT_ASKED,
    Graph,
    base,
    captured,
    dynamic_graphs,
    graphs,
    options_of,
    surroundings,
)
from voxport.export.graph.capture import OPSETS
from voxport.export.graph.fp16 import PRODUCTS, half_nodes
from voxport.train.recipe import recipe_names

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "voxport[rtx]"',
)

Answers = dict[Graph, tuple[ModelProto, dict[str, Any]]]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Each graph, those that we call unfit too, and what NVIDIA's library made of it."""
    folder, models = tmp_path_factory.mktemp("graphs"), {**dict(graphs()), **dict(dynamic_graphs())}
    for graph, model in models.items():
        (folder / graph.file).write_bytes(model.SerializeToString())
    build = None if matrix.WHOLE else [graph.file for graph in matrix.chosen([graph for graph, _ in graphs()])]
    told = matrix.ask_all(folder, [graph.file for graph in models], build)
    return {graph: (model, told[graph.file]) for graph, model in models.items()}


@pytest.fixture(scope="module")
def answers(every: Answers) -> Answers:
    """Of those that we call fit."""
    return {graph: found for graph, found in every.items() if graph.form != "dynamic"}


def test_all_are_parsed_as_what_they_are(answers: Answers) -> None:
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


def test_those_that_are_built_stand_for_all(answers: Answers) -> None:
    built = [graph for graph, (_, found) in answers.items() if found["built"]]
    meet = {each for graph in built for each in matrix.meetings(graph)}
    assert meet == {each for graph in answers for each in matrix.meetings(graph)}
    assert matrix.WHOLE or len(built) == 40
    for graph in built:
        found = answers[graph][1]
        assert (found["builder_messages"], found["engine_bytes"] > 0) == ([], True), graph


@pytest.mark.skipif(not matrix.WHOLE, reason="make matrix")
def test_the_parser_makes_one_network_of_all_opsets_and_of_nothing_else(answers: Answers) -> None:
    networks: dict[str, set[Graph]] = {}
    for graph, (_, found) in answers.items():
        networks.setdefault(found["network"], set()).add(graph)
    assert {len(each) for each in networks.values()} == {len(OPSETS)}
    assert all(len({graph._replace(opset=0) for graph in each}) == 1 for each in networks.values())


def test_int8_with_scales_found_while_it_runs_is_refused(every: Answers) -> None:
    """As every export to such an engine does (`test_tensorrt`, `test_rtx_export`): see `dynamic_graphs`."""
    refused = {graph: found for graph, (_, found) in every.items() if graph.form == "dynamic"}
    assert [graph.opset for graph in refused] == list(OPSETS)
    for graph, found in refused.items():
        assert not found["parsed"], graph
        assert any("zero point" in each["reason"] for each in found["errors"]), graph


def test_the_page_states_how_many(answers: Answers) -> None:
    page = matrix.DOCS.read_text(encoding="utf-8")
    told = re.search(r"(\d+) graphs are parsed, (\d+) networks come of them, all of which are built", page)
    assert told is not None
    networks = len(NETWORKS) * 2 * len(matrix.MADE) * len(matrix.OUTPUT_SETS)
    assert tuple(map(int, told.groups())) == (networks * len(OPSETS), networks)
    assert len(answers) == networks * len(OPSETS) or not matrix.WHOLE


TITLES = {"fp32": "fp32", "fp16": "fp16", "int8": "int8 static", "dynamic": "int8 dynamic"}


def title(graph: Graph) -> str:
    return TITLES["dynamic" if graph.form == "dynamic" else graph.precision]


def what_was_seen(found: list[dict[str, Any]]) -> str:
    """A cell: of graphs that were all parsed and, where it was tried, built; all refused by the parser; or of none."""
    if not found:
        return "typed only"
    parsed, built = {each["parsed"] for each in found}, {each["built"] for each in found} - {None}
    assert len(parsed) == 1, "some were taken, and some were not"
    assert built == (parsed if parsed == {True} else set())
    return "run" if parsed == {True} else "refused (run)"


def test_the_page_states_what_was_run_at_each_opset(every: Answers) -> None:
    cells: dict[str, dict[str, str]] = {}
    for name in TITLES.values():
        for kind in ("features", "waveform") if name != "int8 dynamic" else ("features",):
            row = cells[name if name == "int8 dynamic" else f"{name}, {kind}"] = {}
            for opset in OPSETS:
                asked = [
                    found
                    for graph, (_, found) in every.items()
                    if (title(graph), graph.kind, graph.opset) == (name, kind, opset)
                ]
                row[f"opset {opset}"] = what_was_seen(asked)
    assert matrix.stated("graph") == cells


def test_the_page_states_what_was_run_in_each_precision(every: Answers) -> None:
    """The rows of TensorRT for RTX; `test_tensorrt` has the others. Nothing is loaded or computed without a GPU."""
    seen = {
        name: what_was_seen([found for graph, (_, found) in every.items() if title(graph) == name])
        for name in TITLES.values()
    }
    table = matrix.stated("library")
    assert table["TensorRT for RTX 1.7: parse, build"] == seen
    loaded = {name: "typed only" if cell == "run" else "–" for name, cell in seen.items()}
    assert table["TensorRT for RTX 1.7: load, compute"] == loaded


def test_an_opset_is_a_number() -> None:
    """torch writes the same nodes for each opset that it is asked for; here for the oldest and the newest."""
    for network, opset in {"voxport": OPSETS[0], "official_sample": OPSETS[-1]}.items():
        written = base(network, "features", "cpu", "homework_mel40", opset)
        assert written.opset_import[0].version == opset
        assert matrix.of_opset(written, matrix.CAPTURED) == base(network, "features", "cpu", "homework_mel40")


def test_each_recipe_is_one_of_the_networks() -> None:
    """Those that differ in size, in dropout, or in a batch norm that is folded away have the operators of another.

    Of whole networks the deepest and the one with the most kinds of operators are compared; each takes ten seconds.
    """
    known = {network: surroundings(base(network, "features", "cpu", "homework_mel40")) for network in NETWORKS}
    assert len(set(known.values())) == len(NETWORKS)
    for recipe, network in {"sap_am_bn_4layers": "sap_am_bn", "voxport": "voxport"}.items():
        whole = captured(options_of(recipe), "features", "cpu", matrix.CAPTURED, "homework_mel40")
        assert surroundings(whole) == known[network], recipe
    told = {matrix.operators(options_of(network)) for network in NETWORKS}
    recipes = {recipe for recipe in recipe_names() if recipe not in NOT_ASKED}
    assert {matrix.operators(options_of(recipe)) for recipe in recipes} == told
    assert not {matrix.operators(options_of(recipe)) for recipe in NOT_ASKED} & told
