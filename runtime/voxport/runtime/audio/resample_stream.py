"""Chunks of samples as they come → checked mono samples at the model's rate, whatever the chunks' sizes."""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel, check_channel
from voxport.runtime.audio.samples import audio_package, check_rate, check_samples
from voxport.runtime.errors import AudioError

_PIECE = 1 << 15  # samples that are converted at a time, so that a huge chunk costs no second copy
_BLOCKS_PER_SECOND = 25  # the resampler is fed in blocks of 40 ms

Samples = npt.NDArray[np.float32]


class Intake:
    """Checks chunks and resamples them; what it gives depends on the samples alone, not on the chunks.

    The resampler is always fed blocks of one size, so that this holds by construction, and so that
    chunks of few samples cost little. The last 40 ms therefore come with later chunks, or at the end.
    """

    def __init__(self, from_rate: int, to_rate: int, channel: Channel = "mix") -> None:
        """`channel` is the one to hear of chunks (n, channels), from 1, or "mix" for their average.

        Raises AudioError for rates other than 4 to 192 kHz, BackendError where soxr is needed but missing.
        """
        check_channel(channel)
        if isinstance(from_rate, bool) or not isinstance(from_rate, (int, np.integer)):
            raise AudioError(f"sample_rate must be a whole number of Hz, found {from_rate!r:.60}")
        check_rate(from_rate, "sample_rate")
        self._resampler: Any = None
        self._channel = channel
        self._seconds_of_one = 1 / from_rate
        self._taken = 0
        if from_rate != to_rate:
            soxr = audio_package("soxr")
            self._resampler = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")
            self._block = np.empty(max(1, from_rate // _BLOCKS_PER_SECOND), np.float32)
            self._filled = 0

    @property
    def seconds(self) -> float:
        """How much sound has come in."""
        return self._taken * self._seconds_of_one

    def push(self, chunk: npt.ArrayLike) -> Iterator[Samples]:
        """The chunk's samples (n,) at the model's rate, in pieces of bounded size.

        Takes what `check_samples` takes, and chunks without samples. The whole chunk is checked before
        anything of it is used.

        Raises:
            AudioError: the chunk cannot be used; the intake is as it was before.
        """
        name = f"the chunk at {self.seconds:.3f} s"
        array = _array(chunk, name)
        if array.ndim > 0 and 0 < len(array) <= _PIECE:
            pieces: Iterable[Samples] = [check_samples(array, name, self._channel)]
        else:
            _check_whole(array, name, self._channel)
            pieces = (check_samples(piece, name, self._channel) for piece in _pieces(array))
        self._taken += len(array)
        return itertools.chain.from_iterable(map(self._resampled, pieces))

    def finish(self) -> Samples:
        """The samples (n,) that the resampler still holds. Call it once, at the end."""
        if self._resampler is None:
            return np.zeros(0, np.float32)
        return np.asarray(self._resampler.resample_chunk(self._block[: self._filled], last=True), np.float32)

    def _resampled(self, mono: Samples) -> Iterator[Samples]:
        if self._resampler is None:
            yield mono
            return
        while len(mono):
            count = min(len(mono), len(self._block) - self._filled)
            self._block[self._filled : self._filled + count] = mono[:count]
            self._filled += count
            mono = mono[count:]
            if self._filled == len(self._block):
                self._filled = 0
                yield self._resampler.resample_chunk(self._block)


def _array(chunk: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(chunk)
    except (ValueError, TypeError) as problem:  # ragged lists, objects that refuse
        raise AudioError(f"{name}: expected an array of samples ({problem})") from problem


def _check_whole(array: npt.NDArray[Any], name: str, channel: Channel) -> None:
    """What `check_samples` checks, without a copy of it all; no samples are no mistake."""
    if array.ndim == 0:
        check_samples(array, name)  # refuses it
    elif len(array) == 0:  # its type and channels are judged like any other's
        check_samples(np.zeros((1, *array.shape[1:]), array.dtype), name, channel)
    for piece in _pieces(array):
        check_samples(piece, name, channel)


def _pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    return (array[start : start + _PIECE] for start in range(0, len(array), _PIECE))
