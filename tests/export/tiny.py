"""Tiny random networks whose every folded part shows: no norm is the identity, no bias is zero."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from voxport.runtime.backends.base import Answer, check_batch
from voxport.runtime.contract import Contract
from voxport.runtime.frontend.presets import profile
from voxport.runtime.length_range import LengthRange
from voxport.train.checkpoint import Checkpoint, save_checkpoint
from voxport.train.data import Split
from voxport.train.models.speaker_net import SpeakerNet, build_network
from voxport.train.recipe import ModelOptions, Recipe

OPTIONS = ModelOptions(num_layers=2, d_model=16, num_heads=2, ffn_dim=24, kernel_size=7)
LABELS = ("Anna", "Bora", "Chén", "Дмитрий", "에리", "Fatou", "Gül")


def random_network(options: ModelOptions, n_mels: int, speakers: int = len(LABELS), seed: int = 0) -> SpeakerNet:
    """A network in eval mode whose norms, statistics and biases are all random."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor | None, low: float, high: float) -> None:
        assert tensor is not None
        tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))

    torch.manual_seed(seed)
    network = build_network(options, n_mels, speakers)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.LayerNorm | nn.BatchNorm1d):
                uniform(module.weight, -1.5, 1.5)  # negative gains too: a maximum must not be moved over them
                uniform(module.bias, -0.5, 0.5)
            if isinstance(module, nn.BatchNorm1d):
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.3, 3.0)
            if isinstance(module, nn.MultiheadAttention):
                uniform(module.in_proj_bias, -0.5, 0.5)
                uniform(module.out_proj.bias, -0.5, 0.5)
    return network.eval()


def make_checkpoint(options: ModelOptions = OPTIONS, frontend: str = "homework_mel40", **changes: Any) -> Checkpoint:
    """A checkpoint of a random network; `changes` replace its fields."""
    definition = profile(frontend)
    network = random_network(options, definition.n_mels)
    checkpoint = Checkpoint(
        recipe=Recipe("tiny", "for tests", options, frontend=frontend),
        frontend=definition,
        labels=LABELS,
        state=network.state_dict(),
        split=Split((), ()),
        step=1,
        metrics={},
    )
    return dataclasses.replace(checkpoint, **changes)


def write_checkpoint(path: Path, checkpoint: Checkpoint | None = None) -> Path:
    save_checkpoint(checkpoint or make_checkpoint(), path)
    return path


class TorchBackend:
    """A module behind the interface of a loaded artefact: the gate's subject without the cost of a capture."""

    def __init__(self, module: nn.Module, contract: Contract) -> None:
        self.module = module
        self.contract = contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        batch, counts = check_batch(self.contract, LengthRange.of_input(self.contract), inputs, lengths)
        with torch.inference_mode():
            scores, embedding = self.module(torch.from_numpy(batch.copy()), torch.from_numpy(counts))
        return Answer(np.asarray(scores), np.asarray(embedding))
