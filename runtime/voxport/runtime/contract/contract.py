"""The contract: everything about a model that its user must know, carried by the model itself.

The runtime owns these definitions; training, export and benchmarks import them from here. They are
frozen, convert to and from JSON, and carry a version.
"""

import dataclasses
import itertools
import json
from dataclasses import dataclass

from voxport.runtime.contract.as_norm import AsNorm
from voxport.runtime.contract.parts import (
    MOST,
    OUTPUTS,
    ConditionLine,
    Golden,
    InputKind,
    LengthTemperature,
    Output,
    Parity,
    Precision,
    Rejection,
    Rounding,
    Windowing,
    check_range,
    temperature_at,
)
from voxport.runtime.errors import ContractError
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.speech import USUAL_RULE, SpeechRule
from voxport.runtime.storage.serialization import decode, encode

CONTRACT_VERSION = 1
METADATA_KEY = "voxport.contract"  # the key of the contract in ONNX metadata and TorchScript extra files


_AS_BEFORE = Windowing()  # the rule of files that state none


@dataclass(frozen=True)
class Contract:
    """What a voxport model is, as its own file tells it.

    Probabilities are the softmax of scores / `temperature`, which is fitted on clean and on changed sounds.
    With points `temperature_by_length`, rising in length, it is `temperature_for` a sound's length instead.
    `conditions` say how the model fares on either. `outputs` are those that its graph has. `speech` says
    which sounds are answered with a name; files from before it have the usual rule, and None answers every sound.
    `as_norm` says that voices are compared by normalised scores, and by which speakers; None: by cosines.
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
    windowing: Windowing = _AS_BEFORE
    speech: SpeechRule | None = USUAL_RULE
    temperature: float = 1.0
    conditions: tuple[ConditionLine, ...] = ()
    temperature_by_length: tuple[LengthTemperature, ...] = ()
    as_norm: AsNorm | None = None
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
        check_range("temperature", self.temperature, 1e-3, MOST)
        seconds = [point.seconds for point in self.temperature_by_length]
        if any(later <= earlier for earlier, later in itertools.pairwise(seconds)):
            raise ValueError(f"temperature_by_length must rise in seconds, found {seconds}")
        if not self.outputs or self.outputs != tuple(name for name in OUTPUTS if name in self.outputs):
            raise ValueError(f"outputs must be some of {', '.join(OUTPUTS)}, in this order, found {self.outputs}")
        if "scores" not in self.outputs and self.golden.embedding is None:
            raise ValueError("a model without scores needs a golden embedding")
        if self.as_norm is not None:
            if "embedding" not in self.outputs:
                raise ValueError("as_norm is about comparing voices, and a model without embeddings compares none")
            if self.as_norm.shape != (len(self.labels), self.embedding_size):
                expected = f"{len(self.labels)} speakers × {self.embedding_size} numbers"
                raise ValueError(f"as_norm must hold {expected}, found {self.as_norm.shape}")

    @property
    def window_frames(self) -> int:
        """The length of the windows in which longer input is heard, in frames."""
        return self.max_frames if self.windowing.max_frames is None else self.windowing.max_frames

    @property
    def title(self) -> str:
        """What the graph is made for that its answers do not show; its name, so that no contract can claim another."""
        return f"{self.frontend.title}, scores times {self.score_scale:.9g}"

    def temperature_for(self, seconds: float) -> float:
        """What scores of a sound of `seconds` are divided by before the softmax."""
        return temperature_at(self.temperature_by_length, seconds) if self.temperature_by_length else self.temperature

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
        if self.windowing == _AS_BEFORE:
            del data["windowing"]
        else:
            data["windowing"] = {name: value for name, value in data["windowing"].items() if value is not None}
        if self.rejection is not None:
            data["rejection"] = {name: value for name, value in data["rejection"].items() if value is not None}
        if self.speech == USUAL_RULE:
            del data["speech"]
        if self.temperature == 1:
            del data["temperature"]
        if not self.temperature_by_length:
            del data["temperature_by_length"]
        if not self.conditions:
            del data["conditions"]
        if self.as_norm is None:
            del data["as_norm"]
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
