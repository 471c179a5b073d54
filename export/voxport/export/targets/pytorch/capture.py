"""A deployable module → TorchScript or a torch.export program, with batch and time free."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from voxport.export.errors import ExportError
from voxport.export.targets.pytorch.archive import Members, plain_program, plain_script


@dataclass(frozen=True)
class Subject:
    """What is captured: a module in eval mode of inputs and lengths, and example inputs of at least two rows.

    `shortest` and `longest` bound the second dimension of the inputs, in frames or samples.
    """

    module: nn.Module
    inputs: Tensor
    shortest: int
    longest: int

    @property
    def lengths(self) -> Tensor:
        """int64 lengths for the example: all of it."""
        return torch.full((self.inputs.shape[0],), self.inputs.shape[1])


def to_torchscript(subject: Subject) -> Members:
    """Trace the module and freeze it into one function; the same module gives the same members.

    Raises:
        ExportError: torch cannot trace it.
    """
    buffer = io.BytesIO()
    # cuDNN's TF32 is a constant of every traced convolution.
    with quiet(), torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        try:
            trace: Any = torch.jit.trace
            traced = trace(subject.module, (subject.inputs, subject.lengths), check_trace=False)
            frozen = torch.jit.freeze(traced, optimize_numerics=False)
        except RuntimeError as problem:
            raise ExportError(f"torch.jit cannot trace the network: {first_line(problem)}") from problem
        _follow_inputs(frozen)
        torch.jit.save(frozen, buffer)
    return plain_script(buffer.getvalue())


def _follow_inputs(module: Any) -> None:
    """Have new tensors made on the device of the lengths; the trace recorded the device of the example."""
    graph = module.graph
    lengths = list(graph.inputs())[2]  # after the module itself and its inputs
    for constant in graph.findAllNodes("prim::Constant"):
        if str(constant.output().type()) == "Device":
            device = graph.create("prim::device", [lengths])
            device.output().setType(constant.output().type())
            device.insertBefore(constant)
            constant.output().replaceAllUsesWith(device.output())
    torch._C._jit_pass_dce(graph)


def to_program(subject: Subject) -> ExportedProgram:
    """Capture the module with torch.export: any batch, and any time from the shortest to the longest.

    Raises:
        ExportError: the capture fixed a size, or cannot hold the whole range.
    """
    batch = Dim("batch", min=1)
    # A range of one size would be a fixed size; the contract still says that there is one.
    time = Dim("time", min=subject.shortest, max=max(subject.longest, subject.shortest + 1))
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(
                subject.module,
                (subject.inputs, subject.lengths),
                dynamic_shapes=({0: batch, 1: time}, {0: batch}),
                # Without this, reshapes raise guards on lengths that no length violates.
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except (RuntimeError, ValueError, torch._dynamo.exc.UserError) as problem:
        raise ExportError(f"torch.export cannot capture the network: {first_line(problem)}") from problem
    return _without_size_assertions(program)


def _without_size_assertions(program: ExportedProgram) -> ExportedProgram:
    """Drop what the capture asserts of sizes it saw, such as "more rows than one".

    Two rows were captured, and torch takes a size of 1 for a special case that it then forbids. The operators
    are the same for one row, the declared ranges are still checked, and the gate runs single rows.
    """
    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.aten._assert_scalar.default:
            graph.erase_node(node)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def program_members(program: ExportedProgram) -> Members:
    """The members of the program's .pt2 file."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer)
    return plain_program(buffer.getvalue())


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's notes on deprecation and internals that no user can act on."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch._export", "torch._inductor", "torch.utils")]
    trace = logging.getLogger("torch.__trace")
    levels, propagates = [each.level for each in loggers], trace.propagate
    for each in loggers:
        each.setLevel(logging.ERROR)
    trace.propagate = False  # thousands of debug records, which a root logger's handler would format
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        trace.propagate = propagates


def first_line(problem: BaseException) -> str:
    """The first line of an error's text; torch's go on with their own source lines."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:300]
