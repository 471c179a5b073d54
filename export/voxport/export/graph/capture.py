"""A deployable module → an ONNX model, captured by torch.export with every named dimension free."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from onnx import ModelProto
from torch import Tensor, nn

from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import tidy

# torch's own operators start at 18. From 23 on it writes Attention, whose CPU kernel in ONNX Runtime refuses
# a mask that is the same for all queries; asked for 26 it writes an invalid file.
OPSETS = range(18, 23)
_LAST_WITH_ATTENTION = 25


@dataclass(frozen=True)
class GraphInput:
    """An example input, and for each of its dimensions a name, or None where the size is fixed.

    The example must have at least two rows: torch.export takes a size of 1 for a constant.
    """

    example: Tensor
    dims: tuple[str | None, ...]


def to_onnx(module: nn.Module, inputs: Mapping[str, GraphInput], outputs: tuple[str, ...], opset: int) -> ModelProto:
    """Capture `module`, in eval mode; the same module gives the same bytes.

    Raises:
        ExportError: an opset that is known to break, or a named dimension that the capture froze.
    """
    check_opset(opset)
    with _quiet(), torch.no_grad():
        program = torch.export.export(
            module,
            tuple(each.example for each in inputs.values()),
            dynamic_shapes=tuple(
                {axis: torch.export.Dim.DYNAMIC for axis, name in enumerate(each.dims) if name}
                for each in inputs.values()
            ),
            # Without this, reshapes raise guards on lengths that no length violates.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        captured = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            external_data=False,
            verbose=False,
        )
    if captured is None:
        raise ExportError("torch.onnx captured nothing; check the installation of torch and onnxscript")
    return tidy(captured.model_proto, {name: each.dims for name, each in inputs.items()})


def check_opset(opset: int) -> None:
    """Raise ExportError for an opset that the capture is known to get wrong."""
    if opset in OPSETS:
        return
    why = "torch writes no older one than 18"
    if opset > _LAST_WITH_ATTENTION:
        why = "asked for it, torch writes an invalid file"
    elif opset >= OPSETS.stop:
        why = (
            "from 23 on torch writes the operator Attention, whose CPU kernel in ONNX Runtime refuses a mask that is "
            "the same for all queries"
        )
    raise ExportError(f"opset {opset}: choose {OPSETS.start} to {OPSETS.stop - 1} (20 is the best tested); {why}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on packages and internals that no user can act on."""
    notes, trace = logging.getLogger("torch.onnx"), logging.getLogger("torch.__trace")
    before = notes.level, trace.propagate
    notes.setLevel(logging.ERROR)
    trace.propagate = False  # thousands of debug records, which a root logger's handler would format
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        notes.setLevel(before[0])
        trace.propagate = before[1]
