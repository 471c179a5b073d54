"""What the parser made of a graph, as plain data: layers, products and what they read, inputs, outputs, errors.

Source of the calls: the docstrings of tensorrt_rtx 1.7, which has no annotations.
"""

from collections.abc import Iterator
from typing import Any

_PRODUCTS = ("MATRIX_MULTIPLY", "CONVOLUTION", "DECONVOLUTION", "EINSUM")
_SHUFFLES = ("SHUFFLE", "SQUEEZE", "UNSQUEEZE", "IDENTITY", "SLICE")  # which change no value


def describe(network: Any) -> dict[str, Any]:
    """The number of layers, the products, and the tensors of an INetworkDefinition."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    made_by = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
        if layer.get_output(index) is not None
    }
    return {
        "layers": len(layers),
        "products": [_product(layer, made_by) for layer in layers if layer.type.name in _PRODUCTS],
        "inputs": [_tensor(network.get_input(index)) for index in range(network.num_inputs)],
        "outputs": [_tensor(network.get_output(index)) for index in range(network.num_outputs)],
    }


def error_facts(error: Any) -> dict[str, Any]:
    """An IParserError as `advice.refused_nodes` takes it."""
    return {
        "code": error.code().name,
        "reason": error.desc(),
        "index": error.node(),
        "node": error.node_name(),
        "operator": error.node_operator(),
    }


def _product(layer: Any, made_by: dict[str, Any]) -> dict[str, Any]:
    """What a product reads. Int8 is what both operands were before a DEQUANTIZE layer: so TensorRT fuses them."""
    operands = [layer.get_input(index) for index in range(min(2, layer.num_inputs))]
    kinds = [operand.dtype.name for operand in operands if operand is not None]
    before = [_dequantized(operand, made_by) for operand in operands if operand is not None]
    return {
        "layer": layer.name,
        "kind": layer.type.name,
        "node": str(layer.metadata).removeprefix("[ONNX Layer: ").removesuffix("]"),
        "reads": before if before and all(before) else kinds,
        "operands": [_name(operand, made_by) for operand in operands if operand is not None],
    }


def _name(tensor: Any, made_by: dict[str, Any]) -> str:
    """A weight's name is its layer's: the parser calls the tensor NAME_output."""
    layer = made_by.get(tensor.name)
    return str(layer.name if layer is not None and layer.type.name == "CONSTANT" else tensor.name)


def _dequantized(tensor: Any, made_by: dict[str, Any]) -> str | None:
    """The type before the DEQUANTIZE layer that `tensor` comes from, through changes of layout."""
    for layer in _origins(tensor, made_by):
        if layer.type.name == "DEQUANTIZE":
            return str(layer.get_input(0).dtype.name)
    return None


def _origins(tensor: Any, made_by: dict[str, Any]) -> Iterator[Any]:
    for _ in range(16):
        layer = made_by.get(tensor.name)
        if layer is None:
            return
        yield layer
        if layer.type.name not in _SHUFFLES:
            return
        tensor = layer.get_input(0)


def _tensor(tensor: Any) -> dict[str, Any]:
    shape = tuple(tensor.shape)
    return {
        "name": tensor.name,
        "dtype": tensor.dtype.name,
        "dims": [tensor.get_dimension_name(axis) or None if size < 0 else size for axis, size in enumerate(shape)],
        "is_shape": bool(tensor.is_shape_tensor),
    }
