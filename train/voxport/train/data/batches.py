"""Training batches: random crops, made so that any step's batch can be made again."""

import numpy as np
import numpy.typing as npt

from voxport.runtime.frontend import pad_value
from voxport.train.data.corpus import Corpus
from voxport.train.data.problems import CorpusError

# Streams of random numbers that one seed gives; a step and an epoch of the same number must differ.
_EPOCHS, _STEPS = 0, 1


class CropBatches:
    """Batches of random crops, indexed by the training step.

    `batch(step)` depends on the seed and the step alone, never on what was asked before, so that a
    resumed run sees exactly the batches that it would have seen. Each epoch is a fresh permutation of
    the utterances; the last, incomplete batch of an epoch is dropped.
    """

    def __init__(self, corpus: Corpus, indices: npt.ArrayLike, batch_size: int, crop_frames: int, seed: int) -> None:
        """Batches over the utterances `indices` (n,) of `corpus`.

        Raises:
            CorpusError: fewer utterances than one batch needs.
        """
        self._indices = np.asarray(indices, dtype=np.int64)
        if batch_size < 1 or crop_frames < 1:
            raise CorpusError(f"batch size and crop length must be at least 1, found {batch_size} and {crop_frames}")
        if len(self._indices) < batch_size:
            raise CorpusError(
                f"{corpus.path}: {len(self._indices)} training utterances do not fill one batch of {batch_size}; "
                f"use a batch size of at most {len(self._indices)}, or more utterances"
            )
        self._pack = corpus.pack
        self._speakers = corpus.speakers
        self._pad = np.float32(pad_value(corpus.frontend))
        self._window = np.arange(crop_frames)
        self._batch_size = batch_size
        self._seed = seed
        self._permutation: tuple[int, npt.NDArray[np.int64]] | None = None  # of the last epoch asked for

    @property
    def batches_per_epoch(self) -> int:
        return len(self._indices) // self._batch_size

    def batch(self, step: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Features (batch, crop_frames, n_mels) float32 and speaker indices (batch,) int64 of `step`.

        Steps count from 0. An utterance shorter than the crop is followed by the frontend's pad value.
        """
        chosen = self._chosen(step)
        frames = self._pack.frames[chosen]
        generator = np.random.default_rng([self._seed, _STEPS, step])
        room = np.maximum(frames - len(self._window), 0)
        starts = self._pack.offsets[chosen] + generator.integers(0, room + 1)
        inside = self._window < frames[:, None]
        # Frames past an utterance's end read its first frame, and are overwritten by the pad value.
        features = self._pack.rows[starts[:, None] + np.where(inside, self._window, 0)]
        features[~inside] = self._pad
        return features, self._speakers[chosen]

    def _chosen(self, step: int) -> npt.NDArray[np.int64]:
        """Positions in the corpus of the utterances of `step`."""
        epoch, position = divmod(step, self.batches_per_epoch)
        if self._permutation is None or self._permutation[0] != epoch:
            generator = np.random.default_rng([self._seed, _EPOCHS, epoch])
            self._permutation = epoch, generator.permutation(self._indices)
        start = position * self._batch_size
        return self._permutation[1][start : start + self._batch_size]
