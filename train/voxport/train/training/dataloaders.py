"""What Lightning draws from: training batches by step, and the two validation parts.

Training crops can be gathered where the network is, from a corpus in the device's memory. The reference networks
are small: on a large GPU a step is shorter than it takes to gather a batch on the host and copy it. With the
features on the device, all that a step takes from the host is its number.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from voxport.runtime.frontend.log_mel import pad_value
from voxport.train.data import Corpus, CropBatches
from voxport.train.data.collation import LONGEST, FixedCrops, WholeUtterances
from voxport.train.recipe import TrainOptions
from voxport.train.training.lightning_module import TrainingError


class BatchSource(Protocol):
    """Features (rows, frames, n_mels) and speakers (rows,) of a part of the batch of a step."""

    def batch(self, step: int, rows: slice, /) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class Share:
    """What one of `world` processes takes of every batch, in `pieces` whose gradients are added up.

    All processes together see exactly the batch that one process would see.
    """

    rank: int = 0
    world: int = 1
    pieces: int = 1

    def check(self, batch_size: int, pairs: bool = False) -> None:
        """Refuse a batch that does not divide into equal parts of at least two utterances, or of whole pairs.

        Raises:
            TrainingError: it does not; two are the fewest that batch normalisation takes.
        """
        parts = self.world * self.pieces
        if batch_size % parts or batch_size // parts < 2:
            raise TrainingError(
                f"batch_size {batch_size} does not divide into {parts} equal parts of at least 2 utterances "
                f"({self.world} devices × {self.pieces} accumulated pieces); change train.batch_size, --devices or "
                "--accumulate"
            )
        if pairs and batch_size // parts % 2:
            raise TrainingError(
                f"batch_size {batch_size} in {parts} parts leaves {batch_size // parts} utterances each, which are no "
                "whole pairs of a speaker's; change train.batch_size, --devices or --accumulate"
            )

    def rows(self, batch_size: int, piece: int) -> slice:
        """The rows of the batch that are this process's `piece`."""
        size = batch_size // (self.world * self.pieces)
        start = (piece * self.world + self.rank) * size
        return slice(start, start + size)


class TrainingSteps(IterableDataset[tuple[Tensor, Tensor]]):
    """Training batches from step `start` on; the batch of a step depends on its number alone."""

    def __init__(self, source: BatchSource, options: TrainOptions, start: int, share: Share) -> None:
        self.source, self.start, self.steps, self.share = source, start, options.steps, share
        self.rows = [share.rows(options.batch_size, piece) for piece in range(share.pieces)]

    def __len__(self) -> int:
        return self.steps * self.share.pieces  # of the whole run: Lightning counts on from the resumed step

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in itertools.count(self.start):
            for rows in self.rows:
                features, labels = self.source.batch(step, rows)
                yield torch.as_tensor(features), torch.as_tensor(labels)


def training_loader(steps: TrainingSteps, pinned: bool) -> DataLoader[Any]:
    """One batch per item. `pinned` puts them where a copy to a GPU does not hold up the host."""
    return DataLoader(steps, batch_size=None, pin_memory=pinned)


def validation_loaders(corpus: Corpus, indices: list[int], options: TrainOptions) -> list[DataLoader[Any]]:
    """Whole utterances (of very long ones the first LONGEST frames), then one fixed crop of each."""
    frames = [corpus.utterances[i].frames for i in indices]
    pad = pad_value(corpus.frontend)
    crops = FixedCrops(corpus.features, indices, options.crop_frames, pad, options.seed, options.fill)
    return [_loader(WholeUtterances(corpus.features, indices, frames, max_frames=LONGEST)), _loader(crops)]


class _Batches(IterableDataset[Any]):
    """A list of ready batches, as a data set that Lightning can count."""

    def __init__(self, batches: WholeUtterances | FixedCrops) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def _loader(batches: WholeUtterances | FixedCrops) -> DataLoader[Any]:
    return DataLoader(_Batches(batches), batch_size=None)


PLANNED_STEPS = 1024  # crops of so many steps are chosen at once and copied in one piece
SHARE_OF_FREE_MEMORY = 0.5  # what a corpus may take; the rest is the network's
_COPY_ROWS = 1 << 18  # rows copied at a time, so that the host never holds the corpus twice


class ResidentCrops:
    """The batches of a `CropBatches`, number for number, as tensors on `device`."""

    def __init__(self, batches: CropBatches, device: torch.device) -> None:
        self._batches, self._device = batches, device
        self._features = _copy(batches.pack.rows[: batches.last_row], device)
        self._window = torch.arange(batches.crop_frames, device=device)
        self._pad = None if batches.repeats else float(batches.pad)
        self._block = -1  # number of the block of steps that `_plans` holds
        self._plans = torch.empty(0)

    def batch(self, step: int, rows: slice) -> tuple[Tensor, Tensor]:
        """Features (rows, crop_frames, n_mels) float32 and speakers (rows,) int64 of `step`, both on the device."""
        starts, offsets, frames, speakers = self._plan(step)[:, rows]
        features = self._features[starts.unsqueeze(1) + (offsets.unsqueeze(1) + self._window) % frames.unsqueeze(1)]
        if self._pad is not None:
            features.masked_fill_((self._window >= frames.unsqueeze(1)).unsqueeze(2), self._pad)
        return features, speakers

    def _plan(self, step: int) -> Tensor:
        """(4, batch): starts, offsets, frames and speakers of `step`."""
        block, position = divmod(step, PLANNED_STEPS)
        if block != self._block:
            first = block * PLANNED_STEPS
            plans = np.stack([np.stack(self._batches.plan(i)) for i in range(first, first + PLANNED_STEPS)])
            self._plans, self._block = torch.from_numpy(plans).to(self._device), block
        return self._plans[position]


def goes_on_device(batches: CropBatches, device: torch.device, wish: str) -> bool:
    """Whether the corpus is kept on `device`: `wish` is yes, no, or auto (on a GPU with room for it).

    Raises:
        TrainingError: it was asked for, and there is not enough memory.
    """
    if wish == "no" or (wish == "auto" and device.type != "cuda"):
        return False
    if device.type != "cuda":
        return True
    needed, free = batches.last_row * batches.pack.n_mels * 4, torch.cuda.mem_get_info(device)[0]
    if needed <= SHARE_OF_FREE_MEMORY * free:
        return True
    if wish == "auto":
        return False
    raise TrainingError(
        f"--resident yes: the features take {needed / 2**30:.1f} GiB, and {device} has {free / 2**30:.1f} GiB free, of "
        f"which they may take {SHARE_OF_FREE_MEMORY:.0%}; use --resident no"
    )


def _copy(rows: np.ndarray, device: torch.device) -> Tensor:
    """`rows` of a memory-mapped file, on the device."""
    copy = torch.empty(rows.shape, dtype=torch.float32, device=device)
    for start in range(0, len(rows), _COPY_ROWS):
        part = np.array(rows[start : start + _COPY_ROWS])  # a map is read-only, which torch does not take
        copy[start : start + _COPY_ROWS] = torch.from_numpy(part)
    return copy
