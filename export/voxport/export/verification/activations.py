"""What the parts of a network say, in PyTorch and in an ONNX graph of it.

The values of an exported graph are named after the modules that they come from, `layers.0.attention.out/Add`,
in every precision. A module's own answer is the last value of its scope that has that answer's shape.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from voxport.export.graph.cleanup import to_bytes
from voxport.runtime.backends.base import default_threads
from voxport.runtime.backends.onnxrt.session import import_onnxruntime

Values = npt.NDArray[Any]
_VALUE = re.compile(r"(?P<scope>[\w.]+)/[A-Z][A-Za-z]*(_\d+)?")  # not what a change of precision put between
_SHAPE_OPERATORS = ("Shape", "Gather", "Range", "ConstantOfShape")
_WRAPPER = ".part"  # of a module that `tolerance` put around another


def module_values(
    module: nn.Module, run: Callable[[], Any], keep: Callable[[str, Tensor], Values] | None = None
) -> dict[str, Values]:
    """What each part of `module` answers during `run`, by its path, in the order in which they finish.

    `keep` may take less of an answer than all of it.
    """
    found: dict[str, Values] = {}

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def remember(_: nn.Module, __: Any, answer: Any) -> None:
            value = answer[0] if isinstance(answer, tuple) else answer
            found.pop(path, None)
            found[path] = keep(path, value) if keep is not None else value.detach().numpy()

        return remember

    handles = [
        part.register_forward_hook(hook(name.replace(_WRAPPER, ""))) for name, part in module.named_modules() if name
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return found


def candidates(model: ModelProto, paths: Sequence[str]) -> dict[str, list[str]]:
    """For each module's path the values of its scope, parts included, in the order of the graph."""
    named: dict[str, list[str]] = {path: [] for path in paths}
    for node in model.graph.node:
        for name in node.output:
            match = _VALUE.fullmatch(name)
            if match is None or node.op_type in _SHAPE_OPERATORS:
                continue
            scope = match["scope"]
            while scope:
                if scope in named:
                    named[scope].append(name)
                scope = scope.rpartition(".")[0]
    return {path: names for path, names in named.items() if names}


def match_values(
    model: ModelProto, shapes: Mapping[str, tuple[int, ...]], feed: Mapping[str, Values]
) -> dict[str, str]:
    """Module path → value of the graph with its answer: the last of its scope with that shape for this input."""
    named = candidates(model, list(shapes))
    run = Exposed(model, sorted({name for names in named.values() for name in names}))
    found = run(feed)
    matched = {}
    for path, names in named.items():
        answers = {name: found[name] for name in names if name in found}
        fitting = [name for name, value in answers.items() if value.shape == shapes[path] and value.dtype.kind == "f"]
        if fitting:
            matched[path] = fitting[-1]
    return matched


class Exposed:
    """An ONNX Runtime session of `model` on the CPU that gives inner values too. Fusions across them do not happen."""

    def __init__(self, model: ModelProto, names: Sequence[str]) -> None:
        copy = ModelProto()
        copy.CopyFrom(model)
        inferred = onnx.shape_inference.infer_shapes(model)
        types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
        outputs = {value.name for value in copy.graph.output}
        for name in names:
            if name not in outputs and types.get(name, 0):
                copy.graph.output.append(onnx.helper.make_tensor_value_info(name, types[name], None))
        runtime = import_onnxruntime("cpu")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = default_threads()
        options.log_severity_level = 3
        self._session: Any = runtime.InferenceSession(to_bytes(copy), options, providers=["CPUExecutionProvider"])
        self._names = [value.name for value in copy.graph.output]

    def __call__(self, feed: Mapping[str, Values]) -> dict[str, Values]:
        """Every output and exposed value by its name."""
        return dict(zip(self._names, self._session.run(self._names, dict(feed)), strict=True))


def relative(found: Values, right: Values) -> tuple[float, float]:
    """Max |Δ| over max |right|, and that size; infinite where `found` holds what is no number."""
    size = float(np.abs(right).max(initial=0.0))
    difference = np.abs(found.astype(np.float64) - right).max(initial=0.0)
    return float(difference) / max(size, 1e-30) if np.isfinite(difference) else float("inf"), size
