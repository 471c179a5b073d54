"""The checkpoint's network through PyTorch's own compilers and ONNX export: what a user has without voxport.

Each is made once, by a worker of its own, before anything is timed; later workers open what was made.
"""

import contextlib
import dataclasses
import io
import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from voxport.benchmarks.backends.build import read_facts, write_facts
from voxport.benchmarks.backends.eager import Loaded, TorchBackend, load_network, prepare_torch
from voxport.benchmarks.core.inputs import make_inputs
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec
from voxport.runtime.errors import BackendError

_jit: Any = torch.jit  # deprecated, and without annotations
EXAMPLE = Cell(2, 200)  # a batch of one would fix the batch


def example(inputs: InputSpec, spec: BackendSpec, device: torch.device) -> Tensor:
    """An input to trace with."""
    return torch.from_numpy(make_inputs(inputs, EXAMPLE, spec.input_kind).arrays[0]).to(device)


def network_of(loaded: Loaded) -> nn.Module:
    """The module, which a compiler wants to see."""
    assert isinstance(loaded.network, nn.Module)
    return loaded.network


def build_torchscript(spec: BackendSpec, inputs: InputSpec) -> str:
    """Trace the network and freeze it."""
    loaded = load_network(spec)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of every constant; the comparison of answers judges
        traced = _jit.trace(network_of(loaded), (example(inputs, spec, loaded.device),), check_trace=False)
        torch.jit.save(torch.jit.freeze(traced), spec.built)
    write_facts(spec, loaded.frontend, loaded.speakers)
    return "torch.jit.trace, frozen"


class TorchScriptBackend(TorchBackend):
    """A traced and frozen network."""

    takes_lengths = False

    def __init__(self, spec: BackendSpec) -> None:
        device = prepare_torch(spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated
            program = _jit.load(spec.built, map_location=device)
        facts = read_facts(spec)
        super().__init__(spec, Loaded(program, facts.frontend, facts.speakers, device))


def build_compile(spec: BackendSpec, inputs: InputSpec) -> str:
    """Fill the compiler's cache, so that workers find the kernels ready; they still trace."""
    backend = CompileBackend(spec)
    for cell in (EXAMPLE, Cell(1, 96), Cell(3, 160)):
        made = make_inputs(inputs, cell, spec.input_kind)
        backend.run(made.arrays[0], made.lengths)
    return f"torch.compile, dynamic shapes, mode {backend.mode}; the size is that of the compiler's cache"


class CompileBackend(TorchBackend):
    """torch.compile with dynamic shapes; with CUDA graphs in mode "reduce-overhead"."""

    captures = False

    def __init__(self, spec: BackendSpec) -> None:
        os.makedirs(spec.built, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = spec.built
        loaded = load_network(spec)
        self.mode = spec.mode or ("reduce-overhead" if spec.graphs else "default")
        program = torch.compile(network_of(loaded), dynamic=True, mode=self.mode)
        super().__init__(spec, dataclasses.replace(loaded, network=program))


def build_aoti(spec: BackendSpec, inputs: InputSpec) -> str:
    """torch.export, then AOTInductor."""
    loaded = load_network(spec)
    source = example(inputs, spec, loaded.device)
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network_of(loaded), (source,), dynamic_shapes=(axes,), prefer_deferred_runtime_asserts_over_guards=True
        )
        torch._inductor.aoti_compile_and_package(program, package_path=spec.built)
    write_facts(spec, loaded.frontend, loaded.speakers)
    return "torch.export, AOTInductor"


class AotiBackend(TorchBackend):
    """A compiled package."""

    takes_lengths = False

    def __init__(self, spec: BackendSpec) -> None:
        device = prepare_torch(spec)
        package = torch._inductor.aoti_load_package(spec.built)
        facts = read_facts(spec)
        super().__init__(spec, Loaded(lambda source: _first(package(source)), facts.frontend, facts.speakers, device))


def _first(answer: Any) -> Tensor:
    scores: Tensor = answer[0] if isinstance(answer, (list, tuple)) else answer
    return scores


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
