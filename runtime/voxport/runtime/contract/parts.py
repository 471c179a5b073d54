"""The parts of a contract: the golden vector, proof, threshold, conditions, windows, tensors."""

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import ContractError
from voxport.runtime.frontend.spec import Frontend

InputKind = Literal["features", "waveform"]
Precision = Literal["fp32", "fp16", "int8"]
Rounding = Literal["bf16", "fp16"]  # what an engine may compute a file's float32 in
Output = Literal["scores", "embedding"]

OUTPUTS: tuple[Output, ...] = ("scores", "embedding")  # of most models, in this order
MOST = 1e6  # of anything that is measured in scores
_WINDOW_SECONDS = 10.0  # of long sounds, in new files


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Raise ValueError unless `least` <= `value` <= `most`; NaN is outside."""
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least:g} and {most:g}, found {value!s:.20}")


@dataclass(frozen=True)
class Array:
    """A small float32 array as JSON: its shape, and little-endian bytes in base64."""

    shape: tuple[int, ...]
    base64: str

    @classmethod
    def of(cls, values: npt.ArrayLike) -> "Array":
        array = np.ascontiguousarray(values, dtype="<f4")
        return cls(array.shape, base64.b64encode(array.tobytes()).decode("ascii"))

    @cached_property
    def values(self) -> npt.NDArray[np.float32]:
        """The array, read-only. Raises ContractError where bytes and shape disagree."""
        try:
            raw = base64.b64decode(self.base64, validate=True)
            return np.frombuffer(raw, dtype="<f4").reshape(self.shape).astype(np.float32, copy=False)
        except (binascii.Error, ValueError) as problem:
            raise ContractError(f"golden vector: {problem}; the file is damaged, export it again") from problem


@dataclass(frozen=True)
class Golden:
    """One short input and the original network's answer to it, replayed when a model is loaded.

    `input` has shape (frames, n_mels) or (samples,), as the contract's input kind says; `scores` has
    shape (speakers,) and comes from eager PyTorch, not from the exported file. `tolerance` bounds
    max |Δscore| and is the export's parity tolerance. For a model without scores, `embedding`
    (embedding_size,) is recorded too, and `tolerance` bounds ‖Δembedding‖.

    `tolerance_bf16` and `tolerance_fp16` bound the same where an engine computes in these what the file holds in
    float32; None in files that do not know.
    """

    input: Array
    scores: Array
    tolerance: float
    embedding: Array | None = None
    tolerance_bf16: float | None = None
    tolerance_fp16: float | None = None

    def __post_init__(self) -> None:
        for name in ("tolerance", "tolerance_bf16", "tolerance_fp16"):
            value = getattr(self, name)
            if value is not None:
                check_range(f"golden {name}", value, 0, MOST)


@dataclass(frozen=True)
class Parity:
    """What the parity gate measured when the file was written, in short.

    Scores of a model without scores are those that the network's own head gives to its embeddings.
    `min_cosine` is between embeddings; None for a model without them.
    """

    cases: int
    max_abs_score: float
    min_cosine: float | None
    top1_agreement: float
    tolerance: float

    def __post_init__(self) -> None:
        check_range("parity cases", self.cases, 1, MOST**2)
        check_range("parity tolerance", self.tolerance, 0, MOST)
        if not 0 <= self.max_abs_score <= self.tolerance:  # no file with a larger one gets its name
            most = f"the parity tolerance {self.tolerance:g}"
            raise ValueError(f"parity max_abs_score must be between 0 and {most}, found {self.max_abs_score:g}")
        if self.min_cosine is not None:
            check_range("parity min_cosine", self.min_cosine, -1, 1)
        check_range("parity top1_agreement", self.top1_agreement, 0, 1)


@dataclass(frozen=True)
class LengthTemperature:
    """What scores of sounds of `seconds` are divided by before the softmax."""

    seconds: float
    temperature: float

    def __post_init__(self) -> None:
        check_range("temperature_by_length seconds", self.seconds, 1e-3, MOST)
        check_range("temperature_by_length temperature", self.temperature, 1e-3, MOST)


def temperature_at(points: Sequence[LengthTemperature], seconds: float) -> float:
    """The temperature of sounds of `seconds`: straight between `points` over the logarithm of the length.

    Both are logarithms, as a doubling of either counts alike; the first and the last point hold beyond them.
    """
    lengths = [math.log(point.seconds) for point in points]
    temperatures = [math.log(point.temperature) for point in points]
    return float(np.exp(np.interp(math.log(max(seconds, 1e-3)), lengths, temperatures)))


@dataclass(frozen=True)
class Rejection:
    """Reject as unknown below `threshold` (a cosine in [-1, 1]), calibrated for `false_accept_rate`.

    `calibrated_on` says in words which voices that rate was seen on, and `false_reject_rate` is the share of the
    model's own speakers' held-out utterances that fall below; both None where nobody recorded them.
    """

    threshold: float
    false_accept_rate: float
    calibrated_on: str | None = None
    false_reject_rate: float | None = None

    def __post_init__(self) -> None:
        check_range("rejection threshold", self.threshold, -1, 1)
        check_range("rejection false_accept_rate", self.false_accept_rate, 0, 1)
        if self.false_reject_rate is not None:
            check_range("rejection false_reject_rate", self.false_reject_rate, 0, 1)


@dataclass(frozen=True)
class ConditionLine:
    """How the model fares where sound is changed in one way: `clean`, `codec`, `noise` and so on.

    Of `sounds` changed sounds `accuracy` is the share that is named rightly, `equal_error_rate` that of clean
    against changed sounds, `wrong_known` the share that the rejection threshold lets through under a wrong name, and
    `wrong_probability` the median probability of wrong answers; each None where it could not be measured.
    `measured_on` says in words on which sounds.
    """

    kind: str
    sounds: int
    accuracy: float | None
    equal_error_rate: float | None
    wrong_known: float | None
    wrong_probability: float | None
    measured_on: str

    def __post_init__(self) -> None:
        for name in ("accuracy", "equal_error_rate", "wrong_known", "wrong_probability"):
            share = getattr(self, name)
            if share is not None:
                check_range(f"conditions {name}", share, 0, 1)
        check_range("conditions sounds", self.sounds, 0, MOST**2)


@dataclass(frozen=True)
class Windowing:
    """How an input is answered that is longer than `max_frames`: see `voxport.runtime.windowing.long_input`.

    Windows of one length follow each other by the share `hop` of it. Frames of 20 ms count as speech
    where they are no quieter than `floor_db` (dB relative to full scale) and no more than `range_db` below the
    recording's running level (see `voxport.runtime.audio.vad`); so does what lies within `margin_s` seconds of one.
    With `speech_only` a window of sound counts only where it holds speech by the contract's `speech`. `max_frames` is
    the length of a window; None: as long as the model's longest input.

    The defaults are the rule of files that state none, so they may not change; `for_export` is that of new files.
    """

    hop: float = 0.5
    floor_db: float = -60.0
    range_db: float = 30.0
    margin_s: float = 0.1
    speech_only: bool = False
    max_frames: int | None = None

    @classmethod
    def for_export(cls, frontend: Frontend, min_frames: int, max_frames: int) -> "Windowing":
        """The rule of new files: windows of at most 10 s, of which those that hold speech count.

        The memory of attention grows with the square of a window's length, and 10 s show a voice well.
        """
        longest = max(min_frames, round(_WINDOW_SECONDS * frontend.sample_rate / frontend.hop_length))
        return cls(speech_only=True, max_frames=None if longest >= max_frames else longest)

    def __post_init__(self) -> None:
        for name, low, high in (
            ("hop", 0.05, 1.0),
            ("floor_db", -120.0, 0.0),
            ("range_db", 1.0, 120.0),
            ("margin_s", 0.0, 10.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"windowing {name} must be from {low:g} to {high:g}, found {getattr(self, name)}")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"windowing max_frames must be at least 1, found {self.max_frames}")


Dim = int | str | None


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output. A dim is a number, a name where it varies, or None where it is not given."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} ({', '.join('?' if dim is None else str(dim) for dim in self.shape)})"
