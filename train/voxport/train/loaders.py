"""What Lightning draws from: training batches by step, and the two validation parts."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from voxport.runtime.frontend import pad_value
from voxport.train.batches import LONGEST, FixedCrops, WholeUtterances
from voxport.train.data import Corpus
from voxport.train.module import TrainingError
from voxport.train.recipe import TrainOptions


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

    def check(self, batch_size: int) -> None:
        """Refuse a batch that does not divide into equal parts of at least two utterances.

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
