"""The contract: everything about a model that its user must know, carried by the model itself.

The runtime owns these definitions; training, export and benchmarks import them from here. They are
frozen, convert to and from JSON, and carry a version.
"""

import base64
import binascii
import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import ContractError
from voxport.runtime.frontend_spec import Frontend
from voxport.runtime.schema import decode, encode
from voxport.runtime.speech import USUAL_RULE, SpeechRule

CONTRACT_VERSION = 1
METADATA_KEY = "voxport.contract"  # the key of the contract in ONNX metadata and TorchScript extra files

InputKind = Literal["features", "waveform"]
Precision = Literal["fp32", "fp16", "int8"]
Output = Literal["scores", "embedding"]

OUTPUTS: tuple[Output, ...] = ("scores", "embedding")  # of most models, in this order


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
    """

    input: Array
    scores: Array
    tolerance: float
    embedding: Array | None = None


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


@dataclass(frozen=True)
class Contract:
    """What a voxport model is, as its own file tells it.

    `outputs` are those that its graph has. `speech` says which sounds are answered with a name; files from before it
    have the usual rule, and None answers every sound.
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
    speech: SpeechRule | None = USUAL_RULE
    version: int = CONTRACT_VERSION

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be non-empty and unique")
        if not 1 <= self.min_frames <= self.max_frames:
            raise ValueError(f"length range {self.min_frames}…{self.max_frames} frames is impossible")
        if self.embedding_size < 1:
            raise ValueError(f"embedding_size must be positive, found {self.embedding_size}")
        if self.score_scale <= 0:
            raise ValueError(f"score_scale must be positive, found {self.score_scale}")
        if not self.outputs or self.outputs != tuple(name for name in OUTPUTS if name in self.outputs):
            raise ValueError(f"outputs must be some of {', '.join(OUTPUTS)}, in this order, found {self.outputs}")
        if "scores" not in self.outputs and self.golden.embedding is None:
            raise ValueError("a model without scores needs a golden embedding")

    def to_json(self) -> str:
        """One JSON document, with sorted keys, so that equal contracts give equal bytes.

        What says only the usual, outputs for example, is left out: readers that do not know it stay able to read.
        """
        data = encode(self)
        if self.outputs == OUTPUTS:
            del data["outputs"]
        if self.rejection is not None:
            data["rejection"] = {name: value for name, value in data["rejection"].items() if value is not None}
        if self.speech == USUAL_RULE:
            del data["speech"]
        if self.golden.embedding is None:
            del data["golden"]["embedding"]
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
