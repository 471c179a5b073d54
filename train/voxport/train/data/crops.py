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
_COPIES, _PAIRS = 4, 6  # 2, 3 and 5 are those of the split, of the crops' lengths and of crops heard alone
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


class Pairs(NamedTuple):
    """Who else is of the same speaker: utterances (n,) by speaker, and of each utterance its place there.

    `places` gives an utterance's place in `order`; its speaker's begin at `begins` (n,) and are `counts` (n,).
    """

    order: npt.NDArray[np.int64]
    places: dict[int, int]
    begins: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, indices: npt.NDArray[np.int64], speakers: npt.NDArray[np.int64]) -> "Pairs":
        """Of the utterances `indices` (n,); `speakers` are those of all utterances."""
        order = indices[np.argsort(speakers[indices], kind="stable")]
        _, first, inverse, counts = np.unique(
            speakers[order], return_index=True, return_inverse=True, return_counts=True
        )
        places = {int(index): place for place, index in enumerate(order)}
        return cls(order, places, first[inverse], counts[inverse])

    def others(self, chosen: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """For each of `chosen` (m,) another utterance of its speaker, each as likely; itself where there is none."""
        places = np.array([self.places[int(index)] for index in chosen])
        begins, counts = self.begins[places], self.counts[places]
        steps = 1 + generator.integers(0, np.maximum(counts - 1, 1))
        return np.asarray(self.order[begins + (places - begins + steps) % counts])


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
        pairs: bool = False,
    ) -> None:
        """Batches over the utterances `indices` (n,) of `corpus`, or over `copies` of them.

        With `pairs` rows 2k and 2k + 1 of a batch are two utterances of one speaker, where it has two: the even rows
        make the epochs, the other is drawn for each. An utterance shorter than a crop is followed by the frontend's
        pad value, or repeats, from a random frame of it on.

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
        self._drawn = batch_size // 2 if pairs else batch_size  # of an epoch's utterances for a batch
        self._seed = seed
        self._pairs = Pairs.of(self._indices, corpus.speakers if copies is None else copies.speakers) if pairs else None
        self._permutation: tuple[int, npt.NDArray[np.int64]] | None = None  # of the last epoch asked for

    @property
    def batches_per_epoch(self) -> int:
        return len(self._indices) // self._drawn

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
        start = position * self._drawn
        chosen = self._permutation[1][start : start + self._drawn]
        if self._pairs is not None:
            others = self._pairs.others(chosen, np.random.default_rng([self._seed, _PAIRS, step]))
            chosen = np.stack([chosen, others], axis=1).reshape(-1)
        return chosen if self._copies is None else self._copied(chosen, step, self._copies)

    def _copied(self, chosen: npt.NDArray[np.int64], step: int, copies: Copies) -> npt.NDArray[np.int64]:
        """Which array of each of the utterances `chosen` is cropped at `step`."""
        generator = np.random.default_rng([self._seed, _COPIES, step])
        changed = generator.random(len(chosen)) >= copies.clean
        if copies.each == 1:
            return chosen
        return chosen * copies.each + np.where(changed, generator.integers(1, copies.each, len(chosen)), 0)
