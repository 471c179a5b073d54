"""Every graph that we call fit for TensorRT, as data, and the process that gives them all to NVIDIA's library.

Recipes that differ in sizes and in the number of layers alone have one graph; `surroundings` is what says so. So the
smallest network with each recipe's operators stands for it.

A build takes a second, so those of `chosen` are built, where each two properties of a graph meet, and each precision,
kind of input and opset. A capture takes five, and neither form of the mask knows of the frontend: so but for
`IN_EVERY_FORM` the networks take features in the processor's form, and sound in the other. With
VOXPORT_WHOLE_MATRIX=1 (`make matrix`) nothing is left out: of graphs that the parser makes one network of, the first
is built.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

import onnx
from onnx import ModelProto

from tests.export.tiny import OPTIONS, make_checkpoint
from voxport.export.graph.capture import OPSETS
from voxport.export.graph.cleanup import keep_outputs
from voxport.export.graph.fp16 import to_half
from voxport.export.quantization.qdq import Scheme, matrix_products, quantize
from voxport.export.targets.onnx_graph import ExportOptions, build_graph
from voxport.runtime.contract import OUTPUTS, InputKind, Output, Precision
from voxport.train.recipe import ModelOptions, load_recipe

# A network is known by the recipe that it is the smallest form of. The official sample's head of two layers is
# refused by every export; the rest of that recipe is here.
NETWORKS = ("sap_am_bn", "sap_max_am", "voxport_long", "voxport", "official_sample")
NOT_ASKED = ("voxport_verification",)  # recipes whose networks were not put to the library, which the page says
# Frontend and network do not know each other: each of either is in some graph with waveform input.
FRONTENDS = (
    ("sap_am_bn", "homework_mel40"),
    ("sap_max_am", "speech_mel40"),
    ("voxport_long", "nemo_mel40"),
    ("voxport", "psf_fbank40"),
    ("official_sample", "kaldi_fbank80"),
)
IN_EVERY_FORM = ("sap_am_bn", "voxport")
CAPTURED = 20  # the opset of the captures; `test_an_opset_is_a_number` is on the others
OUTPUT_SETS: tuple[tuple[Output, ...], ...] = (OUTPUTS, ("scores",), ("embedding",))
# Of attention's mask: what `export onnx` writes in fp32 and int8, and all else. Or of int8: see `dynamic_graphs`.
Form = Literal["cpu", "gpu", "dynamic"]
MADE: tuple[tuple[Precision, Form], ...] = (("fp32", "cpu"), ("fp32", "gpu"), ("fp16", "gpu"), ("int8", "cpu"))
WHOLE = os.environ.get("VOXPORT_WHOLE_MATRIX", "0") != "0"
DOCS = Path(__file__).parents[2] / "docs" / "tensorrt.md"
_ROUNDS = 2


class Graph(NamedTuple):
    """One of them. `outputs` are joined with +."""

    network: str
    kind: InputKind
    precision: Precision
    form: Form
    outputs: str
    opset: int
    frontend: str

    @property
    def file(self) -> str:
        return "-".join(map(str, self)) + ".onnx"


def options_of(recipe: str) -> ModelOptions:
    """The recipe's network, with a head that can be exported."""
    return dataclasses.replace(load_recipe(recipe).model, head="am_softmax")


def smallest(options: ModelOptions) -> ModelOptions:
    """The same operators at the sizes of other tests, who share the captures. None is below 16, where int8 ends."""
    narrow = None if options.embedding_size is None else 16
    same = {name: getattr(OPTIONS, name) for name in ("d_model", "num_heads", "ffn_dim", "kernel_size")}
    return dataclasses.replace(options, **same, embedding_size=narrow)


def operators(options: ModelOptions) -> tuple[object, ...]:
    """What of a recipe decides on operators; all else is a size, is for training, or is folded into a neighbour."""
    narrow, stacked = options.embedding_size is not None, options.stack_frames > 1
    pooled = (options.pooling, options.aggregate_layers, options.band_statistics, options.above_lowest)
    return (options.encoder, *pooled, min(options.num_layers, 2), stacked, narrow)


def captured(network: ModelOptions, kind: InputKind, form: Form, opset: int, frontend: str) -> ModelProto:
    checkpoint = make_checkpoint(network, frontend)
    options = ExportOptions(input_kind=kind, opset=opset, min_frames=5, max_frames=150)
    return build_graph(checkpoint, options, "graph", form == "cpu").graph


def lowered(model: ModelProto, precision: Precision) -> ModelProto:
    if precision == "fp16":
        return to_half(model)
    return in_int8(model, "static") if precision == "int8" else model


def in_int8(model: ModelProto, scheme: Scheme) -> ModelProto:
    """With ranges out of the air: what the parser takes does not depend on their values."""
    products = matrix_products(model.graph)
    return quantize(model, scheme, [each.layer for each in products], {each.input: 6.0 for each in products})


def of_opset(model: ModelProto, opset: int) -> ModelProto:
    """The same nodes under another number."""
    other = ModelProto()
    other.CopyFrom(model)
    other.opset_import[0].version = opset
    return other


@functools.cache
def base(network: str, kind: InputKind, form: Form, frontend: str, opset: int = CAPTURED) -> ModelProto:
    return captured(smallest(options_of(network)), kind, form, opset, frontend)


def graphs() -> Iterator[tuple[Graph, ModelProto]]:
    """All of them."""
    for network in NETWORKS:
        yield from _of(network, "features", "homework_mel40")
    for network, frontend in FRONTENDS:
        yield from _of(network, "waveform", frontend)


def _of(network: str, kind: InputKind, frontend: str) -> Iterator[tuple[Graph, ModelProto]]:
    for precision, form in MADE:
        if not (WHOLE or network in IN_EVERY_FORM or (form == "cpu") == (kind == "features")):
            continue
        whole = lowered(base(network, kind, form, frontend), precision)
        for outputs in OUTPUT_SETS:
            model = keep_outputs(whole, outputs)
            for opset in OPSETS:
                name = Graph(network, kind, precision, form, "+".join(outputs), opset, frontend)
                yield name, of_opset(model, opset)


def dynamic_graphs() -> Iterator[tuple[Graph, ModelProto]]:
    """Int8 whose scales are found while it runs, which we call unfit: one network at each opset."""
    network, frontend = "sap_am_bn", "homework_mel40"
    model = in_int8(base(network, "features", "cpu", frontend), "dynamic")
    for opset in OPSETS:
        yield Graph(network, "features", "int8", "dynamic", "+".join(OUTPUTS), opset, frontend), of_opset(model, opset)


def chosen(every: Sequence[Graph]) -> list[Graph]:
    """One graph for each precision, form, kind of input and opset, in which each two properties meet that ever do."""
    cells: dict[tuple[object, ...], list[Graph]] = {}
    for graph in every:
        cells.setdefault((graph.precision, graph.form, graph.kind, graph.opset), []).append(graph)
    found: list[Graph] = []
    met: set[tuple[object, ...]] = set()
    for cell in cells.values():
        best = max(cell, key=lambda graph: len(meetings(graph) - met))  # of equals the first
        found.append(best)
        met |= meetings(best)
    return found


def meetings(graph: Graph) -> set[tuple[object, ...]]:
    """Each two of a graph's properties. The frontend follows from the network and the kind of input."""
    properties = [(name, value) for name, value in graph._asdict().items() if name != "frontend"]
    return set(itertools.combinations(properties, 2))


# --- the page ---------------------------------------------------------------------------------------------


def stated(table: str) -> dict[str, dict[str, str]]:
    """The table of docs/tensorrt.md whose first column is headed `table`: each row's cells by their columns."""
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(f"| {table} |"))
    rows = [_cells(line) for line in itertools.takewhile(lambda line: line.startswith("|"), lines[start:])]
    (_, *columns), _, *body = rows
    return {title: dict(zip(columns, cells, strict=True)) for title, *cells in body}


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


# --- what two graphs have in common -----------------------------------------------------------------------


def surroundings(model: ModelProto) -> frozenset[str]:
    """What stands in a graph, whatever its sizes and however often a layer is repeated.

    Each node is described by its operator, its attributes but for sizes, the types of its weights, and twice by the
    descriptions of the nodes before and behind it.
    """
    graph = model.graph
    weights = {each.name: f"weight {each.data_type} {len(each.dims)}" for each in graph.initializer}
    sources = {each.name: f"input {each.name}" for each in graph.input}
    readers: dict[str, list[int]] = {}
    for at, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, []).append(at)
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output}
    ends = {each.name for each in graph.output}
    found = [f"{node.op_type} {sorted(filter(None, map(_attribute, node.attribute)))}" for node in graph.node]
    for _ in range(_ROUNDS):
        found = [
            _digest(
                found[at],
                [
                    weights.get(name) or sources.get(name) or (found[makers[name]] if name else "none")
                    for name in node.input
                ],
                sorted({found[reader] for name in node.output for reader in readers.get(name, ())}),
                sorted(ends.intersection(node.output)),
            )
            for at, node in enumerate(graph.node)
        ]
    return frozenset(found)


def _attribute(attribute: onnx.AttributeProto) -> str:
    if attribute.name in ("kernel_shape", "pads"):
        return attribute.name
    if attribute.name == "group":
        return "depthwise" if attribute.i > 1 else ""
    if attribute.type == onnx.AttributeProto.TENSOR:
        return f"{attribute.name} {attribute.t.data_type} {len(attribute.t.dims)}"
    return f"{attribute.name} {onnx.helper.get_attribute_value(attribute)}"


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


# --- the process ------------------------------------------------------------------------------------------


def ask_all(folder: Path, files: list[str], build: list[str] | None, capability: str = "8.9") -> dict[str, Any]:
    """What the product's own worker finds of each file, by name.

    With `build` those are built. With None every network is built once, and `network` names the one that a file was
    parsed to.
    """
    request = json.dumps({"folder": str(folder), "files": files, "build": build, "capability": capability})
    command = [sys.executable, "-m", "tests.export.rtx_matrix"]
    ended = subprocess.run(command, input=request, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stderr[-2000:]
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Parse each file, and build those that are asked for, or each network that comes of one once."""
    from voxport.export.targets.rtx import worker
    from voxport.export.targets.rtx.network import describe

    request = json.loads(sys.stdin.read())
    whole = request["build"] is None

    def described(network: Any) -> dict[str, Any]:
        return {**describe(network), "network": digest(network) if whole else None}

    built: dict[str, Any] = {}
    told = {}
    with mock.patch.object(worker, "describe", described):
        for file in request["files"]:
            path = str(Path(request["folder"], file))
            told[file] = found = worker.examine(path, None, [])
            name = str(found.get("network") if whole else file)
            if found["parsed"] and name not in built and (whole or file in request["build"]):
                built[name] = worker.examine(path, request["capability"], [profile(found["inputs"])])
    for file, found in told.items():
        if made := built.get(str(found.get("network") if whole else file)):
            found |= {key: made[key] for key in ("built", "engine_bytes", "builder_messages")}
    sys.stdout.write("\n" + json.dumps(told) + "\n")


def profile(inputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Free rows and lengths: 1 to 8 of 20 to 150 frames."""
    shapes: dict[str, Any] = {"lengths": [(1,), (2,), (8,)]}
    source = next(each for each in inputs if each["name"] != "lengths")
    tail = source["dims"][2:]
    lengths = (20, 100, 150) if tail else (4000, 16000, 24000)
    shapes[source["name"]] = [(rows, length, *tail) for rows, length in zip((1, 2, 8), lengths, strict=True)]
    return shapes


def digest(network: Any) -> str:
    """All that the library tells of a network: each layer's kind, settings, weights, inputs and outputs."""
    import tensorrt_rtx as trt

    said = hashlib.sha256()
    common = set(dir(trt.ILayer))
    classes = {name[1:-5].lower(): getattr(trt, name) for name in dir(trt) if name.startswith("I") and "Layer" in name}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        inputs = [_tensor(layer.get_input(at)) for at in range(layer.num_inputs)]
        outputs = [_tensor(layer.get_output(at)) for at in range(layer.num_outputs)]
        said.update(repr((layer.type.name, layer.name, inputs, outputs)).encode())
        kind = classes[layer.type.name.replace("_", "").lower()]
        layer.__class__ = kind  # the library gives each as an ILayer
        for name in sorted(set(dir(kind)) - common):
            try:
                value = getattr(layer, name)
            except RuntimeError:  # a setting that this layer has not
                continue
            if not callable(value):
                said.update(repr((name, value.tobytes() if hasattr(value, "tobytes") else repr(value))).encode())
    ends = [_tensor(network.get_output(at)) for at in range(network.num_outputs)]
    return hashlib.sha256(repr(ends).encode() + said.digest()).hexdigest()


def _tensor(tensor: Any) -> Any:
    return None if tensor is None else (tensor.name, tensor.dtype.name, tuple(tensor.shape))


if __name__ == "__main__":
    main()
