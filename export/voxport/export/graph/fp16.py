"""Half precision in an ONNX graph: which values are float16 is said by the graph itself, with Cast nodes.

TensorRT's strongly typed networks take the types as written (https://docs.nvidia.com/deeplearning/tensorrt,
"Strongly Typed Networks"), and ONNX Runtime computes them on any device. In half are the matrix products and
convolutions of the network's body, and what lies between them without another reason to be in float32: biases,
gates, changes of layout. In float32 stay

- inputs and outputs, and the frontend, whose power spectrum leaves the range of half;
- normalisation, softmax and pooling, which add many values up;
- sums of two computed values: the residual stream, and the mask's -inf before a softmax;
- the last product, whose result is the scores.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto

from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import in_body

PRODUCTS = ("MatMul", "Gemm", "Conv")
# What may follow a product in half: no sum over many values, no exponential, nothing that needs a wide range.
FOLLOWERS = ("Add", "Mul", "Sigmoid", "Relu", "Split", "Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze")
_LAYOUT = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand")
_LARGEST = float(np.finfo(np.float16).max)


def to_half(model: ModelProto) -> ModelProto:
    """A copy of `model` (float32, tidied) that computes its body in half; equal graphs give equal copies.

    Raises:
        ExportError: a weight is beyond what half can hold, or a value's type cannot be told.
    """
    return _Half(model).converted()


def half_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes of `model` that compute in half, other than casts."""
    half = {name for name, kind in value_types(model).items() if kind == TensorProto.FLOAT16}
    return [node for node in model.graph.node if node.op_type != "Cast" and half.intersection(node.output)]


def value_types(model: ModelProto) -> dict[str, int]:
    """The element type of every value and weight, by strict inference.

    Raises:
        ExportError: the types in the graph contradict each other.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError as problem:
        raise ExportError(f"the graph's types contradict each other ({problem})") from problem
    graph = inferred.graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


class _Half:
    """One conversion: decides for each node, then writes the graph anew with the casts between."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._types = value_types(model)
        self._weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producer = {name: node for node in model.graph.node for name in node.output}
        self._half: set[str] = set()  # values that are computed in half
        for node in model.graph.node:  # in order: what a node's inputs are is known before it
            if self._in_half(node):
                self._half.update(name for name in node.output if name)
        outside = sorted(self._half.intersection(value.name for value in model.graph.output))
        if outside:
            raise ExportError(f"{', '.join(outside)} would leave the graph in half; such a graph is not known here")
        self._made: dict[str, str] = {}  # value → its cast
        self._weights_used: set[str] = set()
        self._half_weights: dict[str, str] = {}

    def converted(self) -> ModelProto:
        result, graph = ModelProto(), self._model.graph
        result.CopyFrom(self._model)
        del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
        result.graph.node.extend(self._nodes(graph.node))
        for tensor in graph.initializer:
            if tensor.name in self._weights_used:
                result.graph.initializer.append(tensor)
            if tensor.name in self._half_weights:
                result.graph.initializer.append(_half_tensor(tensor, self._half_weights[tensor.name]))
        return result

    def _in_half(self, node: NodeProto) -> bool:
        if not in_body(node.name):
            return False
        if node.op_type in PRODUCTS:
            return True
        if node.op_type not in FOLLOWERS:
            return False
        values = [name for name in node.input if self._is_float(name) and name not in self._weights]
        halves = [name for name in values if name in self._half]
        if node.op_type == "Add" and len(values) > 1:
            return False
        return bool(halves) and all(name in self._half or self._is_mask(name) for name in values)

    def _is_float(self, name: str) -> bool:
        kind = self._types.get(name)
        if kind is None and name:
            raise ExportError(f"the type of {name} in the captured graph cannot be told")
        return kind == TensorProto.FLOAT

    def _is_mask(self, name: str) -> bool:
        """Whether `name` holds only ones and zeros, which half holds exactly."""
        node = self._producer.get(name)
        while node is not None and node.op_type in _LAYOUT:
            node = self._producer.get(node.input[0])
        return node is not None and node.op_type == "Cast" and self._types.get(node.input[0]) == TensorProto.BOOL

    def _nodes(self, nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
        for node in nodes:
            clean = NodeProto()
            clean.CopyFrom(node)
            half = bool(self._half.intersection(node.output))
            for i, name in enumerate(node.input):
                if not name or not self._is_float(name) or node.op_type == "Shape":
                    if name in self._weights:
                        self._weights_used.add(name)
                    continue
                if name in self._weights:
                    clean.input[i] = self._weight(name, half)
                elif (name in self._half) != half:
                    yield from self._cast(name, TensorProto.FLOAT16 if half else TensorProto.FLOAT)
                    clean.input[i] = self._made[name]
            yield clean

    def _weight(self, name: str, half: bool) -> str:
        if not half:
            self._weights_used.add(name)
            return name
        return self._half_weights.setdefault(name, f"{name}/half")

    def _cast(self, name: str, kind: int) -> Iterator[NodeProto]:
        if name not in self._made:
            self._made[name] = f"{name}/{'half' if kind == TensorProto.FLOAT16 else 'float'}"
            made = self._made[name]
            yield onnx.helper.make_node("Cast", [name], [made], name=made, to=kind)


def _half_tensor(tensor: TensorProto, name: str) -> TensorProto:
    values = onnx.numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0.0))
    if not largest <= _LARGEST:
        raise ExportError(
            f"weight {tensor.name} holds {largest:.3g}, and half ends at {_LARGEST:g}; export it with --precision fp32"
        )
    return onnx.numpy_helper.from_array(values.astype(np.float16), name)
