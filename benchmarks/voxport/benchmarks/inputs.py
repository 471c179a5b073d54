"""Inputs that every worker can make by itself, identical to the last bit.

Voice-like sound, so that features have the range and the movement of real ones: constant or
denormal numbers can make kernels faster or slower than speech does.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.plan import Cell, InputSpec
from voxport.runtime.contract import InputKind
from voxport.runtime.frontend import compute_features, min_samples

Array = npt.NDArray[np.float32]
Lengths = npt.NDArray[np.int64]

BANK = 12  # voices of a cell; batches are drawn from them


@dataclass(frozen=True)
class Inputs:
    """Inputs of one cell: each (batch, frames, n_mels) or (batch, samples), with full lengths (batch,)."""

    arrays: tuple[Array, ...]
    lengths: Lengths
    audio_seconds: float  # of sound in one call, all utterances together

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 over all values, by which workers prove that they timed the same inputs."""
        total = hashlib.sha256()
        for array in self.arrays:
            total.update(array.tobytes())
        return total.hexdigest()


def make_inputs(spec: InputSpec, cell: Cell, input_kind: InputKind) -> Inputs:
    """The inputs of `cell`: features through the runtime's own frontend, or the sound itself."""
    frontend = spec.frontend
    samples = min_samples(frontend, cell.frames)
    rng = np.random.default_rng((spec.seed, cell.batch, cell.frames))
    voices = [voice(samples, frontend.sample_rate, rng) for _ in range(BANK)]
    if input_kind == "features":
        bank = np.stack([compute_features(item, frontend)[: cell.frames] for item in voices])
        length = cell.frames
    else:
        bank = np.stack(voices)
        length = samples
    arrays = tuple(np.ascontiguousarray(bank[rng.integers(BANK, size=cell.batch)]) for _ in range(spec.pool))
    seconds = cell.batch * cell.frames * frontend.hop_length / frontend.sample_rate
    return Inputs(arrays, np.full(cell.batch, length, dtype=np.int64), seconds)


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
