"""Inputs that every worker can make by itself, identical to the last bit.

Voice-like sound, so that features have the range and the movement of real ones: constant or
denormal numbers can make kernels faster or slower than speech does.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, islice

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.core.settings import Cell, InputSpec, Load
from voxport.runtime.contract import InputKind
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.frontend.spec import Frontend

Array = npt.NDArray[np.float32]
Lengths = npt.NDArray[np.int64]
Rows = tuple[int, ...]  # frames of each utterance of a call

BANK = 12  # voices of a cell; batches are drawn from them


@dataclass(frozen=True)
class Inputs:
    """The calls of one cell: each (batch, frames, n_mels) or (batch, samples), zero beyond a row's length.

    `rows[i]` are the lengths of call i, (batch,), in frames or samples.
    """

    arrays: tuple[Array, ...]
    rows: tuple[Lengths, ...]
    audio_seconds: float  # of sound in one call, all utterances together; the mean over calls

    @property
    def lengths(self) -> Lengths:
        """Lengths of the first call; of every call, where there is no trace."""
        return self.rows[0]

    @property
    def utterances(self) -> int:
        """In all calls together."""
        return sum(len(row) for row in self.rows)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 over all values and lengths, by which workers prove that they timed the same inputs."""
        total = hashlib.sha256()
        for array, row in zip(self.arrays, self.rows, strict=True):
            total.update(array.tobytes())
            total.update(row.tobytes())
        return total.hexdigest()


def call_rows(spec: InputSpec, cell: Cell, load: Load) -> tuple[Rows, ...]:
    """Which lengths meet in which call.

    Single stream and server: as they come. Offline the whole set is known beforehand, so the longest
    utterances meet each other, as anybody would batch them.
    """
    if load.scenario == "offline":
        lengths = list(islice(cycle(spec.trace if cell.trace else (cell.frames,)), load.queries))
        return _chunks(sorted(lengths, reverse=True), cell.batch)
    if not cell.trace:
        return ((cell.frames,) * cell.batch,) * spec.pool
    calls = max(1, len(spec.trace) // cell.batch)
    return _chunks(list(islice(cycle(spec.trace), calls * cell.batch)), cell.batch)


def _chunks(lengths: Sequence[int], size: int) -> tuple[Rows, ...]:
    return tuple(tuple(lengths[i : i + size]) for i in range(0, len(lengths), size))


def make_inputs(spec: InputSpec, cell: Cell, input_kind: InputKind, load: Load | None = None) -> Inputs:
    """The inputs of `cell`: features through the runtime's own frontend, or the sound itself."""
    frontend = spec.frontend
    rows = call_rows(spec, cell, load or Load())
    rng = np.random.default_rng((spec.seed, cell.batch, cell.frames))
    samples = min_samples(frontend, cell.frames)
    bank = [voice(samples, frontend.sample_rate, rng) for _ in range(BANK)]
    if input_kind == "features":
        bank = [compute_features(item, frontend)[: cell.frames] for item in bank]
    arrays, counts = [], []
    for call in rows:
        lengths = np.array([_length(frontend, frames, input_kind) for frames in call], dtype=np.int64)
        arrays.append(_padded([bank[i] for i in rng.integers(BANK, size=len(call))], lengths))
        counts.append(lengths)
    frames = sum(sum(call) for call in rows) / len(rows)
    return Inputs(tuple(arrays), tuple(counts), frames * frontend.hop_length / frontend.sample_rate)


def _length(frontend: Frontend, frames: int, input_kind: InputKind) -> int:
    return frames if input_kind == "features" else min_samples(frontend, frames)


def _padded(items: Sequence[Array], lengths: Lengths) -> Array:
    """`items`, cut to `lengths`, in one array with zeros behind the shorter ones."""
    batch = np.zeros((len(items), int(lengths.max()), *items[0].shape[1:]), dtype=np.float32)
    for row, (item, length) in enumerate(zip(items, lengths, strict=True)):
        batch[row, :length] = item[:length]
    return batch


def join(arrays: Sequence[Array], rows: Sequence[Lengths]) -> tuple[Array, Lengths]:
    """Several calls as one, padded to the longest: what a server does with the queries that wait."""
    if len(arrays) == 1:
        return arrays[0], rows[0]
    lengths = np.concatenate(rows)
    return _padded([array[0] for array in arrays], lengths), lengths


def voice(samples: int, sample_rate: int, rng: np.random.Generator) -> Array:
    """Something like a voice: harmonics of a gliding pitch under two formants, in syllables, plus noise.

    Returns float32 (samples,) in [-1, 1].
    """
    time = np.arange(samples) / sample_rate
    pitch = rng.uniform(90, 230) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.2, 0.6) * time + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    formants, widths = rng.uniform((300, 900), (800, 2300)), np.array((120.0, 250.0))
    sound = np.zeros(samples)
    for harmonic in range(1, 21):
        frequency = harmonic * float(pitch.mean())
        weight = np.exp(-(((frequency - formants) / widths) ** 2) / 2).sum() + 0.05 / harmonic
        sound += weight * np.sin(harmonic * phase + rng.uniform(0, 6))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 4) * time + rng.uniform(0, 6)) + 0.4, 0.02, None)
    sound = sound * syllables + 0.02 * rng.standard_normal(samples)
    peak = rng.uniform(0.2, 0.9)
    return np.asarray(sound * (peak / np.abs(sound).max()), dtype=np.float32)
