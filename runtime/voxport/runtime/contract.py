"""The contract: everything about a model that its user must know, carried by the model itself.

The runtime owns these definitions; training, export and benchmarks import them from here. They are
frozen, convert to and from JSON, and carry a version.
"""

import base64
import binascii
import dataclasses
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import ContractError
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.speech import USUAL_RULE, SpeechRule
from voxport.runtime.storage.serialization import decode, encode

CONTRACT_VERSION = 1
METADATA_KEY = "voxport.contract"  # the key of the contract in ONNX metadata and TorchScript extra files

InputKind = Literal["features", "waveform"]
Precision = Literal["fp32", "fp16", "int8"]
Rounding = Literal["bf16", "fp16"]  # what an engine may compute a file's float32 in
Output = Literal["scores", "embedding"]

OUTPUTS: tuple[Output, ...] = ("scores", "embedding")  # of most models, in this order
_MOST = 1e6  # of anything that is measured in scores
_WINDOW_SECONDS = 10.0  # of long sounds, in new files


def _check_range(name: str, value: float, least: float, most: float) -> None:
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
                _check_range(f"golden {name}", value, 0, _MOST)


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
        _check_range("parity cases", self.cases, 1, _MOST**2)
        _check_range("parity tolerance", self.tolerance, 0, _MOST)
        if not 0 <= self.max_abs_score <= self.tolerance:  # no file with a larger one gets its name
            most = f"the parity tolerance {self.tolerance:g}"
            raise ValueError(f"parity max_abs_score must be between 0 and {most}, found {self.max_abs_score:g}")
        if self.min_cosine is not None:
            _check_range("parity min_cosine", self.min_cosine, -1, 1)
        _check_range("parity top1_agreement", self.top1_agreement, 0, 1)


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
        _check_range("rejection threshold", self.threshold, -1, 1)
        _check_range("rejection false_accept_rate", self.false_accept_rate, 0, 1)
        if self.false_reject_rate is not None:
            _check_range("rejection false_reject_rate", self.false_reject_rate, 0, 1)


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
                _check_range(f"conditions {name}", share, 0, 1)
        _check_range("conditions sounds", self.sounds, 0, _MOST**2)


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


@dataclass(frozen=True)
class Contract:
    """What a voxport model is, as its own file tells it.

    Probabilities are the softmax of scores / `temperature`, which is fitted on clean and on changed sounds.
    `conditions` say how the model fares on either. `outputs` are those that its graph has. `speech` says
    which sounds are answered with a name; files from before it have the usual rule, and None answers every sound.
    """

    labels: tuple[str, ...]
    frontend: Frontend
    input_kind: InputKind
    min_frames: int
    max_frames: int
    precision: Precision
    embedding_size: int
    score_scale: float  # scores = score_scale × cosine; softmax over scores gives probabilities
    recipe: str
    checkpoint_sha256: str
    golden: Golden
    parity: Parity | None = None
    rejection: Rejection | None = None
    outputs: tuple[Output, ...] = OUTPUTS
    windowing: Windowing = Windowing()
    speech: SpeechRule | None = USUAL_RULE
    temperature: float = 1.0
    conditions: tuple[ConditionLine, ...] = ()
    version: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be non-empty and unique")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(f"length range {self.min_frames}…{self.max_frames} frames is impossible")
        if not self.min_frames <= self.window_frames <= self.max_frames:
            lengths = f"{self.min_frames} to {self.max_frames} frames"
            raise ValueError(f"windowing max_frames must be one of the model's {lengths}, found {self.window_frames}")
        if self.embedding_size < 1:
            raise ValueError(f"embedding_size must be positive, found {self.embedding_size}")
        if self.score_scale <= 0:
            raise ValueError(f"score_scale must be positive, found {self.score_scale}")
        _check_range("temperature", self.temperature, 1e-3, _MOST)
        if not self.outputs or self.outputs != tuple(name for name in OUTPUTS if name in self.outputs):
            raise ValueError(f"outputs must be some of {', '.join(OUTPUTS)}, in this order, found {self.outputs}")
        if "scores" not in self.outputs and self.golden.embedding is None:
            raise ValueError("a model without scores needs a golden embedding")

    @property
    def window_frames(self) -> int:
        """The length of the windows in which longer input is heard, in frames."""
        return self.max_frames if self.windowing.max_frames is None else self.windowing.max_frames

    def golden_tolerance(self, computed: Rounding | None = None) -> float:
        """How far the golden vector may be off where what the file holds in float32 is computed in `computed`.

        An int8 model is off by its own rounding, and by that of what is not int8.
        """
        golden = self.golden
        rounding = {"bf16": golden.tolerance_bf16, "fp16": golden.tolerance_fp16, None: None}[computed]
        if rounding is None:
            return golden.tolerance
        return rounding + golden.tolerance if self.precision == "int8" else rounding

    def to_json(self) -> str:
        """One JSON document, with sorted keys, so that equal contracts give equal bytes.

        What says only the usual, outputs for example, is left out: readers that do not know it stay able to read.
        """
        data = encode(self)
        if self.outputs == OUTPUTS:
            del data["outputs"]
        if self.windowing == Windowing():
            del data["windowing"]
        else:
            data["windowing"] = {name: value for name, value in data["windowing"].items() if value is not None}
        if self.rejection is not None:
            data["rejection"] = {name: value for name, value in data["rejection"].items() if value is not None}
        if self.speech == USUAL_RULE:
            del data["speech"]
        if self.temperature == 1:
            del data["temperature"]
        if not self.conditions:
            del data["conditions"]
        data["golden"] = {name: value for name, value in data["golden"].items() if value is not None}
        return json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> "Contract":
        """Read a contract; `where` names the file in messages.

        Raises:
            ContractError: not JSON, another version, or a key unknown, missing or mistyped.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as problem:  # ValueError also for a number of too many digits
            raise ContractError(f"{where}: the contract is not JSON ({problem}); export the model again") from problem
        version = data.get("version") if isinstance(data, dict) else None
        if version != CONTRACT_VERSION:
            raise ContractError(
                f"{where}: contract version {version!r:.60}, this voxport reads version {CONTRACT_VERSION}; "
                "export the model again with this voxport, or install the voxport that wrote it"
            )
        return decode(cls, data, where, ContractError)

    def replace(self, **changes: object) -> "Contract":
        """A copy with `changes`."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


Dim = int | str | None


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output. A dim is a number, a name where it varies, or None where it is not given."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} ({', '.join('?' if dim is None else str(dim) for dim in self.shape)})"


# Sizes that no speaker model has. They keep a hostile file from asking for gigabytes of frontend tables.
_MOST_OF_FRONTEND = {"n_fft": 1 << 14, "n_mels": 1 << 9, "sample_rate": 1 << 20, "hop_length": 1 << 20}
# Least and most of the frontend's other numbers; all of them are beyond what anybody uses.
_FRONTEND_RANGES = {
    "sample_rate": (1000, 1 << 20),
    "floor": (1e-30, 1e6),
    "sample_scale": (1e-6, 1e9),
    "preemphasis": (0, 1),
    "power": (0.1, 4),
    "spectrum_scale": (1e-12, 1e12),
    "level": (1e-12, 1e15),
    "quietest": (1e-30, 1e15),
}
_MODEL_RANGES = {"max_frames": (1, 1 << 24), "embedding_size": (1, 1 << 16), "score_scale": (1e-3, 1e4)}  # frames: 46 h
_MOST_OF_NAME = 1000  # characters
_MOST_LINES = 100  # of conditions
_MOST_DISTANCE = 0.5  # that a tolerance may allow, between cosines and between unit vectors
# Names are printed, one to a line: controls, line separators, direction overrides and lone surrogates
# must not steer a terminal. Joiners stay: Persian, Hindi and emoji are written with them.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def check_contract(contract: Contract, where: str) -> Contract:
    """Return `contract`, or raise ContractError where it is out of bounds. `where` names the file."""
    for name, limit in _MOST_OF_FRONTEND.items():
        value = getattr(contract.frontend, name)
        if value > limit:
            raise ContractError(f"{where}: frontend {name} is {value}, at most {limit} is possible; export it again")
    for part, holder, ranges in (("frontend ", contract.frontend, _FRONTEND_RANGES), ("", contract, _MODEL_RANGES)):
        for name, (least, most) in ranges.items():
            value = getattr(holder, name)
            if value is not None and not least <= value <= most:
                raise ContractError(
                    f"{where}: {part}{name} is {value!s:.20}, only {least:g} to {most:g} is possible; export it again"
                )
    _check_tolerances(contract, where)
    lines = [text for line in contract.conditions for text in (line.kind, line.measured_on)]
    if len(lines) > 2 * _MOST_LINES:
        raise ContractError(
            f"{where}: {len(lines) // 2} conditions, at most {_MOST_LINES} are possible; export it again"
        )
    for text in (contract.recipe, contract.checkpoint_sha256, contract.frontend.name, *contract.labels, *lines):
        if len(text) > _MOST_OF_NAME:
            raise ContractError(f"{where}: the name {text!r:.60} has more than {_MOST_OF_NAME} characters; rename it")
        if UNPRINTABLE.search(text):
            raise ContractError(
                f"{where}: the name {text!r:.60} has unprintable characters; rename it and export again"
            )
    for label in contract.labels:
        if not label.strip():
            raise ContractError(f"{where}: a label is empty; name that speaker and export it again")
    return contract


def _check_tolerances(contract: Contract, where: str) -> None:
    """A golden vector or a proof that allows any answer proves nothing."""
    most_of_score = _MOST_DISTANCE * contract.score_scale
    golden = most_of_score if "scores" in contract.outputs else _MOST_DISTANCE
    own = (contract.golden.tolerance, contract.golden.tolerance_bf16, contract.golden.tolerance_fp16)
    found = [("golden", tolerance, golden) for tolerance in own if tolerance is not None]
    if contract.parity is not None:
        found.append(("parity", contract.parity.tolerance, most_of_score))
    for part, tolerance, most in found:
        if tolerance > most:
            raise ContractError(
                f"{where}: the {part} tolerance is {tolerance:g}, above {most:g} it proves nothing; export it again"
            )


def printable(text: str, limit: int = 200) -> str:
    """`text` without what could steer a terminal, cut to `limit` characters."""
    return UNPRINTABLE.sub("", text[:limit])
