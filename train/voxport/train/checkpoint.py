"""One file that holds a trained network and everything needed to use it: `RUN/model.pt`.

It is a dictionary of tensors and plain values, read with `weights_only=True`, so that opening a
checkpoint runs none of its author's code.
"""

import hashlib
import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxport.corpora.layouts.base import AS_FOUND, LayoutOptions
from voxport.runtime.contract import ConditionLine, LengthTemperature, Rejection
from voxport.runtime.contract.parts import temperature_at
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.storage.atomic import writing
from voxport.runtime.storage.serialization import decode, encode
from voxport.train.data.split import Split
from voxport.train.models.speaker_net import SpeakerNet, build_network
from voxport.train.recipe import Recipe

CHECKPOINT_VERSION = 1


class CheckpointError(VoxportError):
    """A checkpoint cannot be read, is of another version, or contradicts itself."""


@dataclass(frozen=True)
class _Facts:
    """The part of a checkpoint that is plain values."""

    recipe: Recipe
    frontend: Frontend
    labels: tuple[str, ...]
    split: Split
    step: int
    data: str | None = None
    rejection: Rejection | None = None
    layout: LayoutOptions = AS_FOUND
    temperature: float = 1.0
    conditions: tuple[ConditionLine, ...] = ()
    temperature_by_length: tuple[LengthTemperature, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """A trained network: its weights, how it was made, and whom it knows.

    `data` is the corpus that it was trained on, as an absolute path, read as `layout` says; `split` names that corpus's
    training and validation utterances; `step` counts optimiser steps; `metrics` are accuracies in
    [0, 1] on the validation utterances at that step. `rejection`, `temperature`, `conditions` and
    `temperature_by_length` are the contract's.
    """

    recipe: Recipe
    frontend: Frontend
    labels: tuple[str, ...]
    state: Mapping[str, Tensor]
    split: Split
    step: int
    metrics: Mapping[str, float]
    data: str | None = None
    rejection: Rejection | None = None
    layout: LayoutOptions = AS_FOUND
    temperature: float = 1.0
    conditions: tuple[ConditionLine, ...] = ()
    temperature_by_length: tuple[LengthTemperature, ...] = ()

    def temperature_for(self, seconds: float) -> float:
        """As the contract's."""
        return temperature_at(self.temperature_by_length, seconds) if self.temperature_by_length else self.temperature

    def layout_for(self, data: str | os.PathLike[str]) -> LayoutOptions:
        """How the corpus at `data` is read: as in training where it is that one, else as it is found."""
        return self.layout if self.data is not None and os.path.abspath(data) == self.data else AS_FOUND

    def network(self) -> SpeakerNet:
        """The network in eval mode, float32, on the CPU.

        Raises:
            CheckpointError: the weights do not fit the recipe's network.
        """
        network = build_network(self.recipe.model, self.frontend.n_mels, len(self.labels))
        try:
            network.load_state_dict(dict(self.state))
        except RuntimeError as problem:
            raise CheckpointError(f"the weights do not fit recipe {self.recipe.name}: {problem}") from problem
        return network.eval()


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write `checkpoint` to `path`; a reader sees the old file or the new one, never a part.

    Raises:
        CheckpointError: the file cannot be written (full disk, no permission); an older one stays.
    """
    path = Path(path)
    content: dict[str, Any] = {field.name: encode(getattr(checkpoint, field.name)) for field in fields(_Facts)}
    content["metrics"] = {name: float(value) for name, value in checkpoint.metrics.items()}
    content["state"] = {name: value.detach().cpu() for name, value in checkpoint.state.items()}
    content["voxport_checkpoint"] = CHECKPOINT_VERSION
    try:
        with writing(path) as part, open(part, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as problem:  # torch's zip writer reports a full disk as RuntimeError
        raise CheckpointError(f"{path}: cannot write the checkpoint ({problem})") from problem


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint that `save_checkpoint` wrote.

    Raises:
        CheckpointError: missing, damaged, not a voxport checkpoint, or of another version.
    """
    path = Path(path)
    if path.is_dir() and (path / "model.pt").is_file():
        path = path / "model.pt"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; `voxport train fit` writes one as RUN/model.pt")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other pickle protocols: such a file is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # foreign bytes make an unpickler raise anything, IndexError included
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        if isinstance(problem, pickle.UnpicklingError):  # torch's own words advise to run what is in the file
            reason = "no PyTorch file, a damaged one, or one that holds code"
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({reason}); `voxport train fit` writes one as RUN/model.pt"
        ) from problem
    if not isinstance(content, dict) or "voxport_checkpoint" not in content:
        raise CheckpointError(f"{path}: a PyTorch file, but not a voxport checkpoint; give RUN/model.pt")
    version = content.pop("voxport_checkpoint")
    if version != CHECKPOINT_VERSION:
        raise CheckpointError(f"{path}: checkpoint version {version!r}, this voxport reads {CHECKPOINT_VERSION}")
    state, metrics = content.pop("state", None), content.pop("metrics", None)
    if not _is_table(state, Tensor) or not _is_table(metrics, float):
        raise CheckpointError(f"{path}: weights or metrics are missing; the file is damaged")
    facts = decode(_Facts, content, str(path), CheckpointError)
    return Checkpoint(
        **{field.name: getattr(facts, field.name) for field in fields(_Facts)}, state=state, metrics=metrics
    )


def checkpoint_sha256(path: str | os.PathLike[str]) -> str:
    """Hex SHA-256 of the checkpoint file, the name under which artefacts refer to it."""
    path = Path(path)
    if path.is_dir():
        path = path / "model.pt"
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _is_table(value: object, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())
