"""The Lightning module: one optimiser step and one validation batch of a speaker network."""

import math
from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.log_mel import STD_OFFSET, VARIANCE_FLOOR
from voxport.train.data.collation import Batch
from voxport.train.models.pair_loss import agreement_loss, pair_loss
from voxport.train.models.speaker_net import SpeakerNet
from voxport.train.recipe import TrainOptions
from voxport.train.training.optimizers import build_optimizer

LOG_EVERY = 10  # optimiser steps
_LENGTHS, _ALONE = 3, 5  # streams of random numbers of the seed's; the others are those of batches and of the split


class TrainingError(VoxportError):
    """Training cannot start, or cannot go on."""


def learning_rate_factor(step: int, options: TrainOptions) -> float:
    """Share of the peak learning rate at `step` (from 0): linear warm-up, then a half cosine to zero.

    The official schedule gives its first update a rate of zero; here step 0 already counts.
    """
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def seed_generators(seed: int, device: torch.device) -> None:
    """`torch.manual_seed` for the CPU and `device` alone.

    Called every step, torch's own remembers each call for every kind of device that is not in use, with
    a traceback: a tenth of a small step's time, and memory that grows through the run.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def normalised_anew(features: Tensor, normalize: Literal["mean", "mean_std"]) -> Tensor:
    """Features (B, T, F) with a frontend's normalisation over all T frames done once more."""
    centred = features - features.mean(dim=1, keepdim=True)
    if normalize == "mean":
        return centred
    variance = centred.square().mean(dim=1, keepdim=True)
    return centred / (variance.clamp_min(VARIANCE_FLOOR).sqrt() + STD_OFFSET)


class SpeakerModule(pl.LightningModule):
    """Trains `network` and scores it on two validation loaders: whole utterances, then crops.

    Every step seeds torch from (seed, step), so that a step depends on weights, optimiser state and
    its own number alone: a run resumed from a checkpoint repeats what the killed one did. Processes
    that share a batch, and the pieces of an accumulated one, draw different random numbers.

    `train_scores` is the network as training calls it, features (B, T, F) → scores (B, S), where that is
    not the network itself; being no module of its own, it leaves the weights' names alone. `normalize` is the
    frontend's.
    """

    def __init__(
        self,
        network: SpeakerNet,
        options: TrainOptions,
        valid_labels: Tensor,
        train_scores: Callable[[Tensor], Tensor] | None = None,
        normalize: Literal["none", "mean", "mean_std"] = "none",
    ) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.train_scores = train_scores or network.__call__
        self.normalize = normalize
        self._part, self._parts = 0, 1  # of the batch, that a step sees
        self.register_buffer("valid_labels", valid_labels, persistent=False)
        self.accuracies = torch.nn.ModuleDict(
            {name: MulticlassAccuracy(network.speakers, average="micro") for name in ("whole", "crop")}
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        pieces = self.trainer.accumulate_grad_batches
        stream = self.global_rank * pieces + batch_idx % pieces
        self._parts = self.trainer.world_size * pieces
        self._part = batch_idx % pieces * self.trainer.world_size + self.global_rank
        seed_generators(self.options.seed * 1_000_003 + self.global_step + (stream << 40), self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        features, labels = batch
        if self.options.second_crop:
            piece = self._piece(features, self.global_step)
            embeddings = self.network.embed_views([self._alone(features, 0), self._alone(piece, 1)])
            scores, others = torch.chunk(self.network.scores(embeddings), 2)
            loss = self.network.head.loss(scores, labels)
            loss = loss + self.options.second_crop_weight * self.network.head.loss(others, labels)
            long, short = torch.chunk(embeddings, 2)
            if self.options.agreement_weight:
                loss = loss + self.options.agreement_weight * agreement_loss(long, short)
            if self.options.pair_weight:
                loss = loss + self.options.pair_weight * pair_loss(long, short, labels)
        else:
            scores = self.train_scores(self._alone(self._cut(features, self.global_step), 0))
            loss = self.network.head.loss(scores, labels)
        if self.global_step % LOG_EVERY == 0:
            self._stop_if_lost(loss)
        if (self.global_step + 1) % LOG_EVERY == 0:  # when Lightning's loggers write
            correct = (scores.argmax(dim=1) == labels).float().mean()
            self.log_dict({"train/loss": loss, "train/accuracy": correct}, batch_size=len(labels), sync_dist=True)
            self.log("train/learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def _cut(self, features: Tensor, step: int) -> Tensor:
        """Crops start anywhere, so the first frames of one are a shorter crop.

        The step alone decides the length: processes and pieces that share a batch cut it alike.
        """
        shortest, longest = self.options.shortest_crop, features.shape[1]
        if shortest is None:
            return features
        generator = np.random.default_rng([self.options.seed, _LENGTHS, step])
        return features[:, : int(generator.integers(shortest, longest + 1))]

    def _piece(self, features: Tensor, step: int) -> Tensor:
        """The second crop of `step`: a piece of every crop, decided as `_cut` decides."""
        shortest, longest = self.options.second_crop
        generator = np.random.default_rng([self.options.seed, _LENGTHS, step])
        length = int(generator.integers(shortest, longest + 1))
        start = int(generator.integers(features.shape[1] - length + 1))
        return features[:, start : start + length]

    def _alone(self, crops: Tensor, view: int) -> Tensor:
        """`crops` (B, T, F) of which the recipe's share is normalised over itself, drawn for each crop and view."""
        if not self.options.alone or self.normalize == "none":
            return crops
        generator = np.random.default_rng([self.options.seed, _ALONE, self.global_step, view])
        drawn = generator.random(self._parts * len(crops))[self._part * len(crops) :][: len(crops)]
        chosen = torch.from_numpy(drawn < self.options.alone).to(crops.device)
        return torch.where(chosen[:, None, None], normalised_anew(crops, self.normalize), crops)

    def _stop_if_lost(self, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} at step {self.global_step}; the last checkpoint is intact. "
                'Lower train.learning_rate, lengthen train.warmup_steps, or use train.precision = "fp32"'
            )

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int) -> None:
        batch = Batch(*batch)
        name = ("whole", "crop")[dataloader_idx]
        scores = self.network(batch.features, batch.lengths if name == "whole" else None)
        accuracy = cast(MulticlassAccuracy, self.accuracies[name])
        accuracy.update(scores, cast(Tensor, self.valid_labels)[batch.positions])
        self.log(f"valid/accuracy_{name}", accuracy, add_dataloader_idx=False, on_epoch=True, batch_size=len(scores))

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.network, self.options, self.device.type == "cuda")
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, self.options))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
