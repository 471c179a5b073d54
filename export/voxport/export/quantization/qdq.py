"""Int8 for the matrix products of an ONNX graph, in plain ONNX operators (QuantizeLinear, DequantizeLinear).

Weights get one scale per output channel. Their integers stay within ±64: kernels of CPUs without VNNI add
two 8-bit products in 16 bits, and larger weights overflow there in silence (255 · 64 · 2 still fits).

Activations get, by scheme,

- dynamic: one scale per frame, computed from that frame alone. A scale for the whole tensor, as
  DynamicQuantizeLinear has it, would let padding and the other rows of a batch change a row's answer.
- static: one scale per product's input, from a calibration. Symmetric int8, as TensorRT wants it.

Everything else stays float: frontend, normalisations, attention's own products, softmax, depthwise
convolution, pooling, and the head.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import in_body

Scheme = Literal["dynamic", "static"]

WEIGHT_LEVELS = 64
ACTIVATION_LEVELS = 127
_SMALLEST_ROW = 1e-12  # a frame of zeros, as padding is, must not be divided by zero
_SMALLEST_SIDE = 16  # of a weight: below, a product gains nothing


@dataclass(frozen=True)
class MatrixProduct:
    """One product of activations with a constant weight (rows, columns)."""

    layer: str
    node: str
    input: str
    weight: str
    rows: int
    columns: int


def matrix_products(graph: GraphProto) -> tuple[MatrixProduct, ...]:
    """The products that int8 can compute, in the graph's order: those of layers, not the frontend's or the head's."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type != "MatMul" or not in_body(node.name):
            continue
        shape = shapes.get(node.input[1], ())
        if len(shape) == 2 and min(shape) >= _SMALLEST_SIDE:
            found.append(MatrixProduct(node.name.rpartition("/")[0], node.name, node.input[0], node.input[1], *shape))
    return tuple(found)


def scheme_of(graph: GraphProto) -> Scheme | None:
    """How a graph that `quantize` wrote quantises its activations; None where it quantises none."""
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    zeros = {
        kinds.get(node.input[2]) for node in graph.node if node.op_type == "QuantizeLinear" and len(node.input) > 2
    }
    if not zeros:
        return None
    return "dynamic" if TensorProto.UINT8 in zeros else "static"


def quantize_weight(weight: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Weight (rows, columns) → integers within ±64 of the same shape, and the scale of each column."""
    largest = np.abs(weight.astype(np.float64)).max(axis=0)
    scale = (np.where(largest > 0, largest, 1.0) / WEIGHT_LEVELS).astype(np.float32)
    levels = np.rint(weight / scale.astype(np.float64))
    return np.clip(levels, -WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8), scale


def quantize(
    model: ModelProto, scheme: Scheme, layers: Collection[str], ranges: Mapping[str, float] | None = None
) -> ModelProto:
    """A copy of `model` that computes the products of `layers` in int8.

    `ranges` are for the static scheme: the largest magnitude of each product's input, by its name.

    Raises:
        ExportError: a layer that the graph has not, or an input without a range.
    """
    chosen = {each.node: each for each in matrix_products(model.graph) if each.layer in layers}
    unknown = sorted(set(layers) - {each.layer for each in chosen.values()})
    if unknown:
        raise ExportError(f"no matrix product of the graph belongs to {', '.join(unknown[:5])}")
    writer = _Writer({tensor.name: tensor for tensor in model.graph.initializer})
    for node in model.graph.node:
        if node.name not in chosen:
            writer.nodes.append(node)
        elif scheme == "dynamic":
            writer.dynamic_product(node)
        else:
            writer.static_product(node, _range_of(node.input[0], ranges or {}))
    result = ModelProto()
    result.CopyFrom(model)
    writer.fill(result.graph, scheme)
    return result


def _range_of(name: str, ranges: Mapping[str, float]) -> float:
    found = ranges.get(name, 0.0)
    if not (np.isfinite(found) and found > 0):
        raise ExportError(f"{name}: no activation range is known ({found}); calibrate it with real utterances")
    return found


@dataclass
class _Writer:
    """The nodes and weights of the new graph as they come to be."""

    old: Mapping[str, TensorProto]
    nodes: list[NodeProto] = field(default_factory=list)
    new: dict[str, TensorProto] = field(default_factory=dict)
    inputs: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # name → integers, scale, zero point
    scales: dict[str, list[bytes]] = field(default_factory=dict)  # value → static scales in use for it

    def dynamic_product(self, node: NodeProto) -> None:
        """Write x @ W as ((x / r) quantised @ W quantised) · r, where r is the largest magnitude of each row of x."""
        x = node.input[0]
        size = f"{x}/largest"
        if x not in self.inputs:
            self._node("Abs", [x], f"{x}/magnitude")
            self._node("ReduceMax", [f"{x}/magnitude", self._constant("last_axis", np.array([-1]))], f"{x}/peak")
            smallest = self._constant("smallest_row", np.array(_SMALLEST_ROW, np.float32))
            self._node("Max", [f"{x}/peak", smallest], size)
            self._node("Div", [x, size], f"{x}/unit")
            scale = self._constant("unit_scale", np.array(1 / ACTIVATION_LEVELS, np.float32))
            # Unsigned: ONNX Runtime has fast kernels of unsigned by signed on every CPU.
            zero = self._constant("unit_zero", np.array(128, np.uint8))
            self._quantize_input(x, f"{x}/unit", scale, zero)
        self._product(node, x, f"{node.output[0]}/unit")
        self._node("Mul", [f"{node.output[0]}/unit", size], node.output[0], name=f"{node.name}/size")

    def static_product(self, node: NodeProto, largest: float) -> None:
        """Write x @ W as x quantised @ W quantised."""
        x, name = node.input[0], node.output[0]
        scale = np.array(largest / ACTIVATION_LEVELS, np.float32)
        # Where several products share an input, each quantises it with a scale one float32 step apart. ONNX
        # Runtime would merge equal ones, and then compute these products in float on x86.
        while scale.tobytes() in self.scales.setdefault(x, []):
            scale = np.nextafter(scale, np.float32(np.inf))
        self.scales[x].append(scale.tobytes())
        zero = self._constant("zero", np.array(0, np.int8))
        self._quantize_input(name, x, self._constant(f"{name}/scale", scale), zero)
        self._product(node, name, name)

    def fill(self, graph: GraphProto, scheme: Scheme) -> None:
        """Put the nodes in `graph`, and of the weights those that they use."""
        nodes = self._without_bias_fusion() if scheme == "static" else self.nodes
        used = {name for node in nodes for name in node.input}
        weights = [tensor for tensor in (*self.old.values(), *self.new.values()) if tensor.name in used]
        fresh = GraphProto()  # first, since clearing the graph takes its own nodes away
        fresh.node.extend(nodes)
        fresh.initializer.extend(weights)
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(fresh.node)
        graph.initializer.extend(fresh.initializer)

    def _quantize_input(self, name: str, source: str, scale: str, zero: str) -> None:
        self._node("QuantizeLinear", [source, scale, zero], f"{name}/int8")
        self.inputs[name] = (f"{name}/int8", scale, zero)

    def _product(self, node: NodeProto, quantized: str, output: str) -> None:
        weight = node.input[1]
        integers, scale = quantize_weight(numpy_helper.to_array(self.old[weight]))
        parts = [
            self._constant(f"{weight}/int8", integers),
            self._constant(f"{weight}/scale", scale),
            self._constant(f"{weight}/zero", np.zeros(len(scale), np.int8)),
        ]
        # Each product has a DequantizeLinear of its own, as ONNX Runtime's fusion into one integer product wants.
        self._node("DequantizeLinear", list(self.inputs[quantized]), f"{output}/input")
        self._node("DequantizeLinear", parts, f"{output}/weight", axis=1)
        self._node("MatMul", [f"{output}/input", f"{output}/weight"], output, name=node.name)

    def _without_bias_fusion(self) -> list[NodeProto]:
        """Each product's bias subtracted with its sign turned, in place of added.

        ONNX Runtime first turns MatMul and Add into Gemm, which it then computes in float: half as fast as
        with no quantisation at all. MatMul and Sub stay two, and the product becomes an integer one.
        """
        products = {node.output[0] for node in self.nodes if node.op_type == "MatMul" and node.input[1] not in self.old}
        return [self._subtraction(node, products) if node.op_type == "Add" else node for node in self.nodes]

    def _subtraction(self, node: NodeProto, products: Collection[str]) -> NodeProto:
        for product, bias in (tuple(node.input), tuple(reversed(node.input))):
            if product in products and bias in self.old:
                values = numpy_helper.to_array(self.old[bias])
                negative = self._constant(f"{bias}/negative", -values)
                return helper.make_node("Sub", [product, negative], list(node.output), name=node.name)
        return node

    def _constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        if name not in self.new:
            self.new[name] = numpy_helper.from_array(values, name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, name: str | None = None, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name or output, **attributes))
