"""What one call of an ONNX model has to do: matrix products, other operations, bytes.

ONNX Runtime executes the graph as it is written, with every optimisation off, and its profile tells the shapes
of each node. So shapes that depend on the input are the real ones, and no rule of shape inference is needed.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

from voxport.benchmarks.core.inputs import Inputs, make_inputs
from voxport.benchmarks.core.protocol import Count, Counted
from voxport.benchmarks.core.records import Product, Work
from voxport.benchmarks.core.settings import BackendSpec
from voxport.runtime.backends.onnxrt.session import import_onnxruntime

Shape = tuple[int, ...]
Typed = tuple[str, Shape]
PRODUCTS = ("MatMul", "Gemm", "MatMulInteger", "Conv", "ConvInteger")
MOVES = ("Reshape", "Unsqueeze", "Squeeze", "Shape", "Identity", "Constant", "Split", "Transpose", "Concat", "Gather")
BYTES = {"float": 4, "float16": 2, "double": 8, "int64": 8, "int32": 4, "int8": 1, "uint8": 1, "bool": 1}


def count(request: Count) -> Counted:
    """The work at each cell."""
    works = []
    for cell in request.cells:
        inputs = make_inputs(request.inputs, cell, request.backend.input_kind)
        nodes = executed_nodes(request.backend, inputs, optimised=False)
        io_bytes = inputs.arrays[0].nbytes + inputs.lengths.nbytes
        works.append(work_of(request.backend.name, cell, nodes, io_bytes))
    return Counted(tuple(works))


def executed_nodes(spec: BackendSpec, inputs: Inputs, optimised: bool, runs: int = 1) -> list[dict[str, Any]]:
    """The profile's events of all nodes over `runs` runs, after a first one that is not counted."""
    runtime = import_onnxruntime("cpu")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = spec.threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # A prepacked weight is no input of its node any more, and its shape is gone from the profile.
        options.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder) / "profile")
        session = runtime.InferenceSession(spec.built or spec.path, options, providers=["CPUExecutionProvider"])
        names = [item.name for item in session.get_inputs()]
        feeds = {name: inputs.lengths if name == "lengths" else inputs.arrays[0] for name in names}
        for _ in range(runs + 1):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [item for item in events if item.get("cat") == "Node" and item["name"].endswith("_kernel_time")]
    return nodes[len(nodes) // (runs + 1) :]


def work_of(model: str, cell: Any, nodes: Iterable[dict[str, Any]], io_bytes: int) -> Work:
    """Add up the nodes of one run.

    A graph in QDQ form writes 8-bit products as float ones between DequantizeLinear nodes, which an engine fuses.
    All its products with a weight are taken for 8-bit ones, so its floor is rather too low than too high.
    """
    nodes = list(nodes)
    quantised = any(node["args"]["op_name"] == "DequantizeLinear" for node in nodes)
    products: Counter[Product] = Counter()
    other = parameters = activations = output = 0
    for node in nodes:
        told = node["args"]
        sources, results = _shapes(told["input_type_shape"]), _shapes(told["output_type_shape"])
        parameters += int(told["parameter_size"])
        output = sum(prod(shape) * BYTES.get(kind, 4) for kind, shape in results)
        activations += output
        found = product_of(told["op_name"], sources, results)
        if found is not None:
            products[found] += 1
        elif told["op_name"] in PRODUCTS:  # a depthwise convolution
            other += 2 * prod(results[0][1]) * prod(sources[1][1][1:])
        elif told["op_name"] not in MOVES:
            other += prod(results[0][1]) if results else 0
    counted = tuple(
        Product(p.batch, p.m, p.k, p.n, times, "int8" if quantised and p.batch == 1 else p.dtype)
        for p, times in sorted(products.items(), key=lambda item: -item[0].flops * item[1])
    )
    return Work(model, cell, counted, other, parameters, io_bytes + output, activations)


def product_of(op: str, sources: Sequence[Typed], results: Sequence[Typed]) -> Product | None:
    """The matrix product that a node is, or None. `count` is 1."""
    if op not in PRODUCTS or len(sources) < 2:
        return None
    (kind, left), (_, right), (_, out) = sources[0], sources[1], results[0]
    dtype = {"float": "float32", "uint8": "int8"}.get(kind, kind)
    if op in ("Conv", "ConvInteger"):
        groups = left[1] // right[1]
        # Each output position is a row; depthwise convolutions are no products that a matrix unit could help.
        return None if groups > 1 else Product(1, out[0] * prod(out[2:]), prod(right[1:]), out[1], 1, dtype)
    if op == "Gemm":
        return Product(1, out[0], left[0] * left[1] // out[0], out[1], 1, dtype)
    if len(right) == 2:  # one weight for all rows
        return Product(1, prod(left[:-1]), left[-1], right[-1], 1, dtype)
    return Product(prod(out[:-2]), left[-2], left[-1], right[-1], 1, dtype)


def _shapes(told: Iterable[dict[str, list[int]]]) -> list[Typed]:
    return [(kind, tuple(shape)) for item in told for kind, shape in item.items()]
