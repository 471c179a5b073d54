"""Batches of whole utterances and of fixed crops, as validation, evaluation and prediction need them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Features = npt.NDArray[np.float32]  # (frames, n_mels)

LONGEST = 3000  # frames heard at once, as exports take by default: attention's memory grows with the square


class FeatureSource(Protocol):
    """Where the features of the utterance with an index come from: a corpus, or its unlabelled test part."""

    def __call__(self, index: int, /) -> Features: ...


class Batch(NamedTuple):
    """Features (B, T, n_mels), float32; lengths (B,) in frames; positions (B,) in the list asked for."""

    features: Tensor
    lengths: Tensor
    positions: Tensor


@dataclass(frozen=True)
class WholeUtterances:
    """Whole utterances, padded with zeros to the longest of each batch; lengths say what counts.

    Batches go from short to long and hold at most `frames_per_batch` frames, so that hardly anything
    is padding and memory stays bounded. One utterance alone may exceed that; of more than `max_frames`, where
    that is not None, the first so many are taken.
    """

    source: FeatureSource
    indices: Sequence[int]
    frames: Sequence[int]  # of each of `indices`
    frames_per_batch: int = 16_384
    max_frames: int | None = None

    def groups(self) -> list[list[int]]:
        """Positions in `indices`, batch by batch."""
        groups: list[list[int]] = [[]]
        taken = [frames if self.max_frames is None else min(frames, self.max_frames) for frames in self.frames]
        for position in sorted(range(len(self.indices)), key=lambda i: taken[i]):
            if groups[-1] and (len(groups[-1]) + 1) * taken[position] > self.frames_per_batch:
                groups.append([])
            groups[-1].append(position)
        return [group for group in groups if group]

    def __len__(self) -> int:
        return len(self.groups())

    def __iter__(self) -> Iterator[Batch]:
        for group in self.groups():
            parts = [torch.from_numpy(np.array(self.source(self.indices[i])[: self.max_frames])) for i in group]
            lengths = torch.tensor([len(part) for part in parts])
            yield Batch(torch.nn.utils.rnn.pad_sequence(parts, batch_first=True), lengths, torch.tensor(group))


@dataclass(frozen=True)
class FixedCrops:
    """One crop of `crop_frames` per utterance at a place drawn once from `seed`; short ones are filled up.

    Unlike the reference's validation on fresh random crops, two runs see the same crops.
    """

    source: FeatureSource
    indices: Sequence[int]
    crop_frames: int
    pad_value: float
    seed: int
    fill: Literal["pad", "repeat"] = "pad"
    batch_size: int = 128

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.indices), self.batch_size):
            positions = range(start, min(start + self.batch_size, len(self.indices)))
            crops = np.stack([self._crop(self.indices[i]) for i in positions])
            lengths = torch.full((len(crops),), self.crop_frames)
            yield Batch(torch.from_numpy(crops), lengths, torch.tensor(list(positions)))

    def _crop(self, index: int) -> Features:
        features = self.source(index)
        spare = len(features) - self.crop_frames
        if spare < 0 and self.fill == "repeat":
            return features[np.arange(self.crop_frames) % len(features)]
        if spare < 0:
            padding = ((0, -spare), (0, 0))
            return np.pad(features, padding, constant_values=np.float32(self.pad_value))
        offset = int(np.random.default_rng([self.seed, index]).integers(spare + 1))
        return features[offset : offset + self.crop_frames]
