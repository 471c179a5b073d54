"""Make a captured ONNX graph small, readable and repeatable, and check that it is what was asked for.

torch.onnx leaves the capturing machine's paths and source lines in every node's metadata, and numbers
values as it happened to create them. Here nodes and values are named after the module they came from,
`layers.0.attention/MatMul_1`, which profilers and per-layer reports then show.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from voxport.export.errors import ExportError
from voxport.runtime.storage.seal import seal_onnx

Dims = tuple[str | None, ...]

_FLOAT_PARTS = ("frontend", "pooling")  # modules of the deployable graph that stay in float32 in every precision
_OUTER = "network"  # the module's name where a frontend stands before it

_SCOPES = "pkg.torch.onnx.name_scopes"  # metadata of a node: its modules' names, outermost first
_IR_VERSION = 10  # opset 20 came with 9, opset 22 with 10


def tidy(captured: ModelProto, dims: Mapping[str, Dims]) -> ModelProto:
    """A clean copy of `captured`, whose inputs have the dimensions `dims`, names where they are free.

    Raises:
        ExportError: a named dimension is fixed in the graph, or an operator outside the ONNX standard.
    """
    if captured.functions or any(node.domain for node in captured.graph.node):
        raise ExportError("the captured graph has operators outside the ONNX standard")
    graph = captured.graph
    nodes = _live_nodes(graph)
    names = _new_names(graph, nodes)
    symbols = _symbols(graph.input, dims)
    clean = onnx.helper.make_graph(
        [_clean_node(node, label, names) for node, label in zip(nodes, _labels(nodes), strict=True)],
        "voxport",
        [_clean_value(value, symbols) for value in graph.input],
        [_clean_value(value, symbols) for value in graph.output],
        [_clean_tensor(tensor, names) for tensor in graph.initializer if tensor.name in names],
    )
    opset = next(each.version for each in captured.opset_import if each.domain == "")
    return onnx.helper.make_model(
        clean,
        opset_imports=[onnx.helper.make_opsetid("", opset)],
        ir_version=_IR_VERSION,
        producer_name="voxport",
    )


def check_graph(model: ModelProto, opset: int, where: str) -> None:
    """Raise ExportError unless `model` is valid ONNX of that opset with free dimensions throughout."""
    found = {each.domain: each.version for each in model.opset_import}
    if found != {"": opset}:
        raise ExportError(f"{where}: asked for opset {opset}, the file says {found}")
    for value in (*model.graph.input, *model.graph.output):
        if not value.type.tensor_type.shape.dim[0].dim_param:
            raise ExportError(f"{where}: {value.name} has a fixed batch size; the capture froze it")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as problem:
        raise ExportError(f"{where}: not valid ONNX ({problem})") from problem


def keep_outputs(model: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """A copy of `model` with these outputs alone, and what they depend on."""
    kept = ModelProto()
    kept.CopyFrom(model)
    graph = kept.graph
    values = [value for value in model.graph.output if value.name in outputs]
    del graph.output[:]
    graph.output.extend(values)
    nodes = _live_nodes(graph)
    used = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
    fresh = GraphProto()  # first, since clearing the graph takes its own nodes away
    fresh.node.extend(nodes)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(fresh.node)
    graph.initializer.extend(weights)
    return kept


def write_onnx(path: Path, graph: ModelProto, metadata: Mapping[str, str], name: str | None = None) -> None:
    """Write `graph` with `metadata` to `path`, and a digest at its end; equal graphs and metadata give equal bytes.

    `name` is what the graph is called from now on: `Contract.title`, which loading compares with the contract.
    """
    model = ModelProto()
    model.CopyFrom(graph)
    if name is not None:
        model.graph.name = name
    for key, value in sorted(metadata.items()):
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(seal_onnx(to_bytes(model)))


def in_body(node: str) -> bool:
    """Whether the node of this name is one that a lower precision may compute: `layers.0.attention/MatMul`.

    What belongs to no module but the network itself, the head's product among it, is not.
    """
    scope = node.rpartition("/")[0].split(".")
    if scope[0] == _OUTER:
        scope = scope[1:]
    return bool(scope and scope[0]) and scope[0] not in _FLOAT_PARTS


def to_bytes(model: ModelProto) -> bytes:
    """The model's bytes, equal for equal models."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _live_nodes(graph: GraphProto) -> list[NodeProto]:
    """The nodes that an output depends on, in order."""
    wanted = {value.name for value in graph.output}
    live = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            live.append(node)
    return live[::-1]


def _labels(nodes: Sequence[NodeProto]) -> list[str]:
    """A unique name for each node: its module, its operator, and a number where there are several."""
    count: Counter[str] = Counter()
    labels, scope = [], ""
    for node in nodes:
        scope = _scope(node, scope)
        base = f"{scope}/{node.op_type}" if scope else node.op_type
        labels.append(f"{base}_{count[base]}" if count[base] else base)
        count[base] += 1
    return labels


def _scope(node: NodeProto, previous: str) -> str:
    """The innermost module of `node`; that of its neighbour for a node that the capture's optimiser added."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:
            scopes = [part.strip().strip("'\"") for part in entry.value.strip("[]").split(",")]
            # Scopes with a leading underscore are torch.export's own, of sizes that it looked up first.
            return scopes[-2] if len(scopes) > 1 and not scopes[-2].startswith("_") else ""
    return previous


def _new_names(graph: GraphProto, nodes: Sequence[NodeProto]) -> dict[str, str]:
    """Old name → new name for every value in use. Inputs, outputs and weights keep theirs."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    used = {name for node in nodes for name in node.input if name} | kept
    names = {name: name for name in kept}
    constants = 0
    for tensor in graph.initializer:
        if tensor.name not in used:
            continue
        if "." in tensor.name or not tensor.name.startswith(("val_", "unsqueeze")):
            names[tensor.name] = tensor.name
        else:
            names[tensor.name] = f"constant_{constants}"
            constants += 1
    for node, label in zip(nodes, _labels(nodes), strict=True):
        for position, output in enumerate(node.output):
            if output and output not in names:
                names[output] = label if len(node.output) == 1 else f"{label}:{position}"
    return names


def _clean_node(node: NodeProto, label: str, names: Mapping[str, str]) -> NodeProto:
    clean = NodeProto(op_type=node.op_type, name=label)
    clean.input.extend(names[name] if name else "" for name in node.input)
    clean.output.extend(names.get(name, "") for name in node.output)
    for attribute in sorted(node.attribute, key=lambda each: each.name):
        if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            raise ExportError(f"{label}: control flow in the captured graph")
        clean.attribute.add().CopyFrom(attribute)
        clean.attribute[-1].ClearField("doc_string")
    return clean


def _clean_tensor(tensor: TensorProto, names: Mapping[str, str]) -> TensorProto:
    # By way of NumPy: whatever form the values had, the result is plain little-endian bytes.
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), names[tensor.name])


def _symbols(inputs: Sequence[ValueInfoProto], dims: Mapping[str, Dims]) -> dict[str, str]:
    """The capture's symbols → our names."""
    symbols: dict[str, str] = {}
    for value in inputs:
        for axis, (dim, name) in enumerate(zip(value.type.tensor_type.shape.dim, dims[value.name], strict=True)):
            if name is None:
                continue
            if not dim.dim_param:
                raise ExportError(f"the capture froze axis {axis} of {value.name} at {dim.dim_value}")
            if symbols.setdefault(dim.dim_param, name) != name:
                raise ExportError(f"the capture took {symbols[dim.dim_param]} and {name} for one size")
    return symbols


def _clean_value(value: ValueInfoProto, symbols: Mapping[str, str]) -> ValueInfoProto:
    tensor = value.type.tensor_type
    shape = [symbols.get(dim.dim_param, dim.dim_param) if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
    return onnx.helper.make_tensor_value_info(value.name, tensor.elem_type, shape)
