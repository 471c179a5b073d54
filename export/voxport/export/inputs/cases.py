"""What the parity gate feeds to a model: utterances of chosen lengths, alone and in padded batches.

Synthetic utterances are voice-like sounds run through the checkpoint's own frontend, so that feature
input sees values of the size that it was trained for, and waveform input sees sound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxport.export.errors import ExportError
from voxport.runtime.contract import InputKind
from voxport.runtime.frontend.log_mel import compute_features, min_samples, num_frames
from voxport.runtime.frontend.spec import Frontend

Float32 = npt.NDArray[np.float32]
Garbage = Literal["none", "zeros", "large", "NaN", "infinity"]

BATCHES = (2, 7, 32)
LONGEST = 10_000  # frames: 100 s, of which attention over 4 heads takes 1.6 GB
# Short ones, powers of two and their neighbours (kernels change there), odd numbers and primes.
_LADDER = (1, 2, 3, 7, 16, 31, 64, 97, 128, 211, 257, 400, 499, 1000, 1999)
_EQUAL_FRAMES = 61  # of the batches whose rows are equally long
_MIXED_FRAMES = 173  # longest row of the batches that mix lengths
_EXTRA = 29  # padding beyond the longest row, in frames or as many hops
_LARGE = 1e4


@dataclass(frozen=True)
class LengthLimits:
    """The lengths that a model promises to take, in frames, both included.

    Raises ExportError where there are none, or where the longest is too long to be run and so to be proven.
    """

    min_frames: int
    max_frames: int

    def __post_init__(self) -> None:
        if not 1 <= self.min_frames <= self.max_frames <= LONGEST:
            raise ExportError(
                f"min_frames {self.min_frames} and max_frames {self.max_frames}: "
                f"1 ≤ min_frames ≤ max_frames ≤ {LONGEST} must hold (attention's memory grows with the square of it)"
            )

    def clip(self, frames: int) -> int:
        return min(max(frames, self.min_frames), self.max_frames)


@dataclass(frozen=True, eq=False)
class Utterance:
    """One input: features (frames, n_mels) or samples (n,), float32. `name` says where it comes from."""

    name: str
    real: bool
    input: Float32
    frames: int


@dataclass(frozen=True)
class Case:
    """One run of the model: `rows` are positions in a list of utterances.

    `padded` is the length of the input array, in frames or samples, and `garbage` what lies beyond the rows.
    """

    kind: Literal["alone", "equal lengths", "mixed lengths", "shortest with longest"]
    rows: tuple[int, ...]
    padded: int
    garbage: Garbage


def synthetic_utterances(frontend: Frontend, kind: InputKind, limits: LengthLimits, seed: int = 0) -> list[Utterance]:
    """The utterances of the grid: a ladder of lengths, then rows for batches of equal and of mixed lengths."""
    rng = np.random.default_rng(seed)
    frames = _ladder(limits)
    frames += [limits.clip(_EQUAL_FRAMES)] * BATCHES[-1]
    frames += rng.integers(limits.min_frames, limits.clip(_MIXED_FRAMES), BATCHES[-1], endpoint=True).tolist()
    return [_synthetic(f"synthetic {i}", frontend, kind, count, rng) for i, count in enumerate(frames)]


def grid_cases(utterances: Sequence[Utterance], hop: int) -> list[Case]:
    """Every utterance alone, and batches of 2, 7 and 32 of the synthetic and the real ones.

    `hop` is the length of a frame's step in units of the input: 1 for features, else in samples.
    """
    extra = _EXTRA * hop
    lengths = [len(each.input) for each in utterances]
    real = [i for i, each in enumerate(utterances) if each.real]
    made = [i for i, each in enumerate(utterances) if not each.real]
    equal, mixed, ladder = made[-2 * BATCHES[-1] : -BATCHES[-1]], made[-BATCHES[-1] :], made[: -2 * BATCHES[-1]]
    cases = [Case("alone", (i,), lengths[i], "none") for i in (*ladder, *real)]
    cases += [Case("alone", (i,), lengths[i] + extra, "NaN") for i in ladder[:-1:2]]
    for size in BATCHES:
        rows = tuple(equal[:size])
        sizes = {lengths[i] for i in rows}  # equal in frames, which leaves samples some room
        cases.append(Case("equal lengths", rows, max(sizes), "none" if len(sizes) == 1 else "zeros"))
        rows = tuple(mixed[:size])
        longest = max(lengths[i] for i in rows)
        garbages: tuple[Garbage, ...] = ("zeros", "large", "NaN", "infinity")
        cases += [Case("mixed lengths", rows, longest + extra * (g != "zeros"), g) for g in garbages]
    shortest, longest_row = min(ladder, key=lambda i: lengths[i]), max(ladder, key=lambda i: lengths[i])
    cases.append(Case("shortest with longest", (shortest, longest_row), lengths[longest_row], "NaN"))
    for start in range(0, len(real), 7):
        rows = tuple(real[start : start + 7])
        garbage: Garbage = "large" if start % 2 else "NaN"
        if len(rows) > 1:  # one alone was compared above
            cases.append(Case("mixed lengths", rows, max(lengths[i] for i in rows), garbage))
    return cases


def build_batch(case: Case, utterances: Sequence[Utterance], seed: int) -> tuple[Float32, npt.NDArray[np.int64]]:
    """The padded array and the lengths of `case`."""
    inputs = [utterances[i].input for i in case.rows]
    shape = (len(inputs), case.padded, *inputs[0].shape[1:])
    batch = _garbage(case.garbage, shape, np.random.default_rng(seed))
    for row, values in zip(batch, inputs, strict=True):
        row[: len(values)] = values
    return batch, np.array([len(values) for values in inputs], dtype=np.int64)


def _ladder(limits: LengthLimits) -> list[int]:
    low, high = limits.min_frames, limits.max_frames
    wanted = {low, low + 1, (low + high) // 2 | 1 if high < _LADDER[-1] else low, high, *_LADDER}
    return sorted(frames for frames in wanted if low <= frames <= high)


def _synthetic(name: str, frontend: Frontend, kind: InputKind, frames: int, rng: np.random.Generator) -> Utterance:
    shortest, longest = min_samples(frontend, frames), min_samples(frontend, frames + 1) - 1
    # Any of the sample counts that give so many frames: ends must not always fall on whole hops.
    samples = voice_like(int(rng.integers(shortest, max(shortest, longest), endpoint=True)), frontend.sample_rate, rng)
    features = compute_features(samples, frontend)
    values: Any = features if kind == "features" else samples
    return Utterance(f"{name}, {len(features)} frames", False, values, num_frames(frontend, len(samples)))


def voice_like(samples: int, sample_rate: int, rng: np.random.Generator) -> Float32:
    """Sound like a voice: a gliding pitch with harmonics, syllables, and noise. Float32 (samples,) in [-1, 1]."""
    seconds = np.arange(samples) / sample_rate
    pitch = rng.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * seconds))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    harmonics = np.arange(1, 16)
    sizes = rng.uniform(0.2, 1.0, len(harmonics)) / harmonics
    voice = sum(size * np.sin(k * phase + rng.uniform(0, 6)) for k, size in zip(harmonics, sizes, strict=True))
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(2, 5) * seconds + rng.uniform(0, 6))
    sound = 0.2 * voice * syllables + rng.normal(scale=10 ** rng.uniform(-4, -2), size=samples)
    clipped: Float32 = np.clip(sound, -1, 1).astype(np.float32)
    return clipped


def _garbage(kind: Garbage, shape: tuple[int, ...], rng: np.random.Generator) -> Float32:
    if kind == "large":
        return rng.uniform(-_LARGE, _LARGE, shape).astype(np.float32)
    if kind == "infinity":
        return rng.choice(np.array([-math.inf, math.inf], np.float32), shape)
    return np.full(shape, math.nan if kind == "NaN" else 0.0, np.float32)
