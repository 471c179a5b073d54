"""Streams and timelines under chunks of hostile sizes, types and shapes. The model is arithmetic in NumPy."""

import contextlib
import struct
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fuzz.arrays import DTYPES, array_of
from voxport.runtime import (
    Answer,
    Contract,
    Decision,
    SpeakerIdentifier,
    Stream,
    StreamOptions,
    Timeline,
    TimelineOptions,
    VoxportError,
)
from voxport.runtime.audio.samples import check_samples

MAX_CHUNKS = 8
HEAD, CHUNK = struct.Struct("<iBBBB"), struct.Struct("<BBbBH")
RATES = (16000, 8000, 44100, 4000, 192000, 11025, 0, -1)


class Arithmetic:
    """A model with features in, whose scores are sums of bands: as fast as a fuzzer wants it."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Masked means over time: the padding does not count."""
        batch, counts = np.asarray(inputs, np.float32), np.asarray(lengths, np.int64)
        mask = np.arange(batch.shape[1]) < counts[:, None]
        mean = np.where(mask[:, :, None], batch, 0).sum(axis=1) / counts[:, None]
        vector = mean[:, : self.contract.embedding_size] - mean.mean(axis=1, keepdims=True) + 1e-3
        vector = vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-6)
        scores = vector[:, : len(self.contract.labels)] * self.contract.score_scale
        return Answer(scores.astype(np.float32), vector.astype(np.float32))


@cache
def identifier() -> SpeakerIdentifier:
    """One for all inputs; it keeps nothing between calls."""
    from fuzz.seeds import a_contract

    return SpeakerIdentifier(Arithmetic(a_contract()))


def stream(data: bytes) -> None:
    """Push chunks; a bad one is refused and the stream goes on. What was taken, in one piece, decides the same."""
    rate, chunks, made = _read(data, StreamOptions)
    try:
        live = Stream(identifier(), rate, made())
    except VoxportError:
        return
    decisions: list[Decision] = []
    taken = [np.zeros(0, np.float32)]
    for chunk in chunks:
        with contextlib.suppress(VoxportError):
            decisions += live.push(chunk)
            taken += [check_samples(chunk)] if chunk.size else []
    seconds = sum(map(len, taken)) / rate
    assert abs(live.seconds - seconds) < 1e-6
    decisions += live.close()
    _check_times([(each.start_s, each.end_s) for each in decisions], seconds)
    assert all(0 <= candidate.probability <= 1 for each in decisions for candidate in each.ranked)
    live.reset()
    assert [*live.push(np.concatenate(taken)), *live.close()] == decisions


def timeline(data: bytes) -> None:
    """Blocks in a row: segments in order that do not overlap, or an error of ours."""
    rate, chunks, made = _read(data, TimelineOptions)
    total = 0.0
    with contextlib.suppress(VoxportError):
        engine = Timeline(identifier(), made())

        def counted() -> Iterator[npt.NDArray[Any]]:
            nonlocal total
            for chunk in chunks:
                total += len(chunk) / rate if chunk.ndim else 0
                yield chunk

        segments = engine.segments(counted(), rate)
        spans = [(segment.start_s, segment.end_s) for segment in segments]
        _check_times(spans, total)
        assert all(before[1] <= after[0] + 1e-9 for before, after in pairwise(spans))
        assert all(0 <= segment.probability <= 1 + 1e-9 for segment in segments)


def _check_times(spans: list[tuple[float, float]], seconds: float) -> None:
    """In order, not empty, and within the sound; a frame of the gate (20 ms) may reach over its end."""
    assert all(0 <= start < end <= seconds + 0.0201 for start, end in spans)
    assert spans == sorted(spans)


def _read(data: bytes, kind: Callable[..., Any]) -> tuple[int, list[npt.NDArray[Any]], Callable[[], Any]]:
    """The rate, the chunks, and what makes the options, which may refuse to be made."""
    number, rate, window, hop, speech = HEAD.unpack(data[: HEAD.size].ljust(HEAD.size, b"\0"))
    chosen = RATES[rate] if rate < len(RATES) else number

    def options() -> Any:
        return kind(
            window_s=None if window == 0 else window / 100,
            hop_s=None if hop == 0 else hop / 50,
            min_speech=speech / 200,
        )

    return chosen, list(chunks_of(data[HEAD.size :])), options


def chunks_of(data: bytes) -> Iterator[npt.NDArray[Any]]:
    """Each is a head and 32 bytes, which are repeated to as many numbers as the head asks for."""
    size = CHUNK.size + 32
    for start in range(0, min(len(data), MAX_CHUNKS * size), size):
        kind, columns, step, order, count = CHUNK.unpack(data[start : start + CHUNK.size].ljust(CHUNK.size, b"\0"))
        count //= 2  # 2 s at 16 kHz: some windows, and not seconds of work
        body = data[start + CHUNK.size : start + size] or b"\0"
        width = np.dtype(DTYPES[kind % len(DTYPES)]).itemsize if kind % len(DTYPES) != DTYPES.index("|O") else 1
        head = struct.pack("<BBbBi", kind, columns, step, order, 0)
        array, _ = array_of(head + (body * (count * width // len(body) + 1))[: count * width])
        yield np.asarray(array)
