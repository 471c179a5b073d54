"""A stranger's ONNX file, looked at before any library's parser may."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from voxport.export.errors import ExportError
from voxport.runtime.backends.onnxrt.file import read_onnx
from voxport.runtime.contract import METADATA_KEY


def load_graph(path: Path) -> ModelProto:
    """The model without its external weights, of which it is seen that they are there and beside it.

    TensorRT takes a file without a graph, and even one that is no ONNX at all, for an empty network.

    Raises:
        ContractError: the file is missing, damaged or no ONNX.
        ExportError: it holds no graph, or its external data is missing, short, or outside its folder.
    """
    read_onnx(path, METADATA_KEY)
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as problem:
        raise ExportError(f"{path}: no ONNX file, or damaged ({problem}); export the model again") from problem
    if not model.graph.node:
        raise ExportError(f"{path}: holds no operators; give a whole ONNX model")
    inner = chain.from_iterable(_of_nodes(function.node) for function in model.functions)
    for tensor in chain(_tensors(model.graph), inner):
        if tensor.data_location == TensorProto.EXTERNAL:
            _check_external(path, tensor)
    return model


def size_with_weights(path: Path, model: ModelProto) -> int:
    """Bytes of the file and of all files that `load_graph` has found beside it."""
    places = {
        each.value
        for tensor in _tensors(model.graph)
        if tensor.data_location == TensorProto.EXTERNAL
        for each in tensor.external_data
        if each.key == "location"
    }
    files = [path, *(path.parent / str(place) for place in places)]
    return sum(file.stat().st_size for file in files)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """The weights of a graph, of its constants and of the graphs inside its nodes."""
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _check_external(path: Path, tensor: TensorProto) -> None:
    told = {each.key: each.value for each in tensor.external_data}
    place = told.get("location", "")
    folder = path.parent.resolve()
    if not place or "\0" in place or not (folder / place).resolve().is_relative_to(folder):
        raise ExportError(f"{path}: the weight {tensor.name} lies at {place!r}, outside the model's folder; refused")
    file = folder / place
    if not file.is_file():
        raise ExportError(
            f"{path}: its external data {place} is missing; put it beside the model, in {path.absolute().parent}"
        )
    try:
        end = int(told.get("offset", "0")) + int(told.get("length", "0"))
    except ValueError as problem:
        raise ExportError(f"{path}: damaged: where {tensor.name} lies in {place} is no number") from problem
    if end > file.stat().st_size:
        raise ExportError(f"{path}: its external data {place} is cut short; copy it again")
