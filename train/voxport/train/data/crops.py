"""Training batches: random crops, made so that any step's batch can be made again."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from voxport.corpora.errors import CorpusError
from voxport.runtime.frontend.log_mel import pad_value
from voxport.train.data.corpus import Corpus
from voxport.train.data.feature_store import Pack

# Streams of random numbers that one seed gives; a step and an epoch of the same number must differ.
_EPOCHS, _STEPS = 0, 1
_COPIES = 4  # 2 and 3 are those of the split and of the crops' lengths
_ALL = slice(None)


def too_few(path: Path, training: int, batch_size: int) -> CorpusError:
    """The error for a corpus whose training part does not fill a batch."""
    return CorpusError(
        f"{path}: {training} training utterances do not fill one batch of {batch_size}; "
        f"use a batch size of at most {training}, or more utterances"
    )


class Copies(NamedTuple):
    """Changed copies of n utterances: `pack` holds each utterance and its copies, one utterance after the other.

    `speakers` (n,) are their speakers. A crop is of the utterance itself with probability `clean`, else of one of
    its copies, each as likely.
    """

    pack: Pack
    speakers: npt.NDArray[np.int64]
    clean: float

    @property
    def each(self) -> int:
        """How many arrays an utterance has: itself and its copies."""
        return len(self.pack.frames) // len(self.speakers)


class CropPlan(NamedTuple):
    """Where one batch's crops lie in the pack; each field (batch,) int64.

    Frame t of a crop is row `starts + (offsets + t) % frames`: in the pack from `starts` on, `frames` belong
    to the utterance. Where a crop is to be padded, the padding begins at t = `frames` (offsets are 0 there).
    """

    starts: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    frames: npt.NDArray[np.int64]
    speakers: npt.NDArray[np.int64]


class CropBatches:
    """Batches of random crops, indexed by the training step.

    `batch(step)` depends on the seed and the step alone, never on what was asked before, so that a
    resumed run sees exactly the batches that it would have seen. Each epoch is a fresh permutation of
    the utterances; the last, incomplete batch of an epoch is dropped. `pad` is the frontend's pad value.
    """

    def __init__(
        self,
        corpus: Corpus,
        indices: npt.ArrayLike,
        batch_size: int,
        crop_frames: int,
        seed: int,
        fill: Literal["pad", "repeat"] = "pad",
        copies: Copies | None = None,
    ) -> None:
        """Batches over the utterances `indices` (n,) of `corpus`, or over `copies` of them.

        An utterance shorter than a crop is followed by the frontend's pad value, or repeats, from a
        random frame of it on.

        Raises:
            CorpusError: fewer utterances than one batch needs.
        """
        self._copies = copies
        self._indices = np.asarray(indices if copies is None else np.arange(len(copies.speakers)), dtype=np.int64)
        if batch_size < 1 or crop_frames < 1:
            raise CorpusError(f"batch size and crop length must be at least 1, found {batch_size} and {crop_frames}")
        if len(self._indices) < batch_size:
            raise too_few(corpus.path, len(self._indices), batch_size)
        self.pack = corpus.pack if copies is None else copies.pack
        self.crop_frames = crop_frames
        self._speakers = corpus.speakers if copies is None else np.repeat(copies.speakers, copies.each)
        self.pad = np.float32(pad_value(corpus.frontend))
        self.repeats = fill == "repeat"
        self._window = np.arange(crop_frames)
        self._batch_size = batch_size
        self._seed = seed
        self._permutation: tuple[int, npt.NDArray[np.int64]] | None = None  # of the last epoch asked for

    @property
    def batches_per_epoch(self) -> int:
        return len(self._indices) // self._batch_size

    @property
    def last_row(self) -> int:
        """One past the last row of the pack that a crop may hold."""
        used = self._indices if self._copies is None else slice(None)
        return int((self.pack.offsets[used] + self.pack.frames[used]).max())

    def plan(self, step: int) -> CropPlan:
        """Which frames make the batch of `step`. Steps count from 0."""
        chosen = self._chosen(step)
        frames = self.pack.frames[chosen]
        generator = np.random.default_rng([self._seed, _STEPS, step])
        room = np.maximum(frames - self.crop_frames, 0)
        if self.repeats:
            room = np.where(frames < self.crop_frames, frames - 1, room)
        offsets = generator.integers(0, room + 1)
        return CropPlan(self.pack.offsets[chosen], offsets, frames, self._speakers[chosen])

    def batch(self, step: int, rows: slice = _ALL) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Features (batch, crop_frames, n_mels) float32 and speaker indices (batch,) int64 of `step`.

        `rows` takes a part of the batch: the same crops that the whole batch has there.
        """
        starts, offsets, frames, speakers = (values[rows] for values in self.plan(step))
        features = self.pack.rows[starts[:, None] + (offsets[:, None] + self._window) % frames[:, None]]
        if not self.repeats:
            features[self._window >= frames[:, None]] = self.pad
        return features, speakers

    def _chosen(self, step: int) -> npt.NDArray[np.int64]:
        """Positions in the pack of the utterances of `step`, or of their copies."""
        epoch, position = divmod(step, self.batches_per_epoch)
        if self._permutation is None or self._permutation[0] != epoch:
            generator = np.random.default_rng([self._seed, _EPOCHS, epoch])
            self._permutation = epoch, generator.permutation(self._indices)
        start = position * self._batch_size
        chosen = self._permutation[1][start : start + self._batch_size]
        return chosen if self._copies is None else self._copied(chosen, step, self._copies)

    def _copied(self, chosen: npt.NDArray[np.int64], step: int, copies: Copies) -> npt.NDArray[np.int64]:
        """Which array of each of the utterances `chosen` is cropped at `step`."""
        generator = np.random.default_rng([self._seed, _COPIES, step])
        changed = generator.random(len(chosen)) >= copies.clean
        if copies.each == 1:
            return chosen
        return chosen * copies.each + np.where(changed, generator.integers(1, copies.each, len(chosen)), 0)
