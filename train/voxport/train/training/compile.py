"""The network as one compiled function, for `--compile`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from voxport.train.recipe import TrainOptions
from voxport.train.training.lightning_module import TrainingError


def check_compilable(options: TrainOptions) -> None:
    """Refuse crops of many lengths: each would be compiled for itself, and torch.compile stops at the ninth.

    Raises:
        TrainingError: the recipe has `shortest_crop` or `second_crop`.
    """
    if options.second_crop:
        raise TrainingError(
            "--compile: train.second_crop gives batches many lengths, and each would be compiled for itself; leave out "
            "one of the two"
        )
    if options.shortest_crop not in (None, options.crop_frames):
        raise TrainingError(
            f"--compile: train.shortest_crop = {options.shortest_crop} gives batches many lengths, and each would be "
            "compiled for itself; leave out one of the two"
        )


def compiled_scores(
    network: nn.Module, device: str, pieces: int = 1, backend: str = "inductor"
) -> Callable[[Tensor], Tensor]:
    """`network` compiled for training on `device` (cpu or cuda): features (B, T, F) → scores (B, S).

    On a GPU the compiled passes are also captured as CUDA graphs: a step of a small network launches hundreds
    of kernels, and launching them one by one takes longer than they do. Not so where a batch goes through
    in several `pieces`: a graph writes its gradients where those of the piece before still are.

    Compilation happens at the first call, once per shape of the features. `fullgraph`, since torch.compile
    else runs what it cannot compile, or too many shapes, uncompiled without a word.

    The function raises TrainingError where the network cannot be compiled here.
    """
    graphs = device == "cuda" and pieces == 1 and backend == "inductor"
    compiled = torch.compile(
        network, backend=backend, mode="reduce-overhead" if graphs else None, fullgraph=True, dynamic=False
    )

    def scores(features: Tensor) -> Tensor:
        try:
            answer: Tensor = compiled(features)
        except torch._dynamo.exc.TorchDynamoException as problem:
            raise _explained(problem, device) from problem
        return answer

    return scores


def _explained(problem: Exception, device: str) -> TrainingError:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()] or [type(problem).__name__]
    reason = lines[1] if lines[0].endswith("raised:") and len(lines) > 1 else lines[0]
    needs = (
        "Triton, which PyTorch for CUDA brings"
        if device == "cuda"
        else "a C++ compiler (g++, clang++, or $CXX) and Python's headers (Debian: g++ and python3-dev)"
    )
    return TrainingError(
        f"--compile: torch.compile failed ({reason}). On this device it needs {needs}; without --compile the run "
        "learns the same, and --resume goes on from here"
    )
