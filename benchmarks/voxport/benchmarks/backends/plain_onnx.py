"""The eager network through `torch.onnx.export` as it comes: what a user of other toolkits runs today."""

import contextlib
import io
import os
import warnings
from typing import Any

import torch

from voxport.benchmarks.backends.build import write_facts
from voxport.benchmarks.backends.compiled import example, network_of
from voxport.benchmarks.backends.eager import load_network
from voxport.benchmarks.core.settings import BackendSpec, InputSpec
from voxport.runtime.errors import BackendError

OPSET = 20


def build_plain_onnx(spec: BackendSpec, inputs: InputSpec) -> str:
    """Write `spec.built` with the exporter of today, or with the older one where that fails. No lengths, no tidying."""
    loaded = load_network(spec)
    source = example(inputs, spec, torch.device("cpu"))
    network = network_of(loaded).to("cpu")
    write_facts(spec, loaded.frontend, loaded.speakers)
    names: dict[str, Any] = {"input_names": [spec.input_kind], "output_names": ["scores"], "opset_version": OPSET}
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    reasons = []
    # The exporter talks on stdout and warns of what it cannot know.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        for dynamo in (True, False):
            dynamic: dict[str, Any] = (
                {"dynamic_shapes": (axes,)} if dynamo else {"dynamic_axes": {spec.input_kind: {0: "B", 1: "T"}}}
            )
            try:
                torch.onnx.export(
                    network,
                    (source,),
                    spec.built,
                    dynamo=dynamo,
                    external_data=False,
                    **names,
                    **dynamic,
                )
                return f"torch.onnx.export(dynamo={dynamo}), opset {OPSET}, torch {torch.__version__}"
            except Exception as problem:  # exporters have no common error
                reasons.append(f"dynamo={dynamo}: {(str(problem).strip().splitlines() or [type(problem).__name__])[0]}")
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(spec.built)
    raise BackendError(f"torch.onnx.export cannot export this network ({'; '.join(reasons)})")
