"""The network as one compiled function, for `--compile`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from voxport.train.module import TrainingError


def compiled_scores(network: nn.Module, device: str, backend: str = "inductor") -> Callable[[Tensor], Tensor]:
    """`network` compiled for training on `device` (cpu or cuda): features (B, T, F) → scores (B, S).

    On a GPU the compiled step is also captured as a CUDA graph: a step of a small network launches hundreds
    of kernels, and launching them one by one takes longer than they do. Compilation happens at the first
    call, once per shape of the features. `fullgraph`, since torch.compile else runs what it cannot
    compile, or too many shapes, uncompiled without a word.

    The function raises TrainingError where the network cannot be compiled here.
    """
    mode = "reduce-overhead" if device == "cuda" and backend == "inductor" else None
    compiled = torch.compile(network, backend=backend, mode=mode, fullgraph=True, dynamic=False)

    def scores(features: Tensor) -> Tensor:
        try:
            answer: Tensor = compiled(features)
        except torch._dynamo.exc.TorchDynamoException as problem:
            raise _explained(problem, device) from problem
        return answer

    return scores


def _explained(problem: Exception, device: str) -> TrainingError:
    reason = next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
    needs = "Triton, which PyTorch for CUDA brings" if device == "cuda" else "a C++ compiler (g++, clang++, or $CXX)"
    return TrainingError(
        f"--compile: torch.compile failed ({reason}). On this device it needs {needs}; without --compile the run "
        "learns the same, and --resume goes on from here"
    )
