"""The JSON document of `voxport bench conditions`."""

from dataclasses import dataclass

CONDITIONS_KIND = "voxport.conditions"


@dataclass(frozen=True)
class ConditionsSettings:
    """What is judged. `limit` is the most files, spread evenly over DATA; None: all of them."""

    model: str
    data: str
    seed: int = 1
    limit: int | None = None
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 2:
            raise ValueError("limit must be at least 2")


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] under one condition, and its difference from clean with a 95 % interval.

    The intervals are from a paired bootstrap over files: each resample takes the same files under both conditions.
    """

    value: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ConditionRow:
    """One condition. What a model or a corpus cannot tell is None.

    `accuracy` counts files of speakers whom the model knows; a file that it refuses, counted in `refused`, is
    wrong. `eer` compares every clean file with every changed one of another recording. `false_accepts` is the
    share of files that the contract's rejection threshold lets through under a wrong name. `wrong_probability`
    is the median probability of wrong answers: that of an honest model is low.
    """

    name: str
    kind: str
    files: int
    refused: int
    accuracy: Share | None
    eer: Share | None
    false_accepts: Share | None
    wrong_probability: float | None


@dataclass(frozen=True)
class KindRow:
    """Means over the conditions of one kind."""

    kind: str
    conditions: int
    accuracy: float | None
    eer: float | None


@dataclass(frozen=True)
class ConditionsReport:
    """One run. `known` counts the files whose speakers the model knows; `threshold` is the contract's, a cosine."""

    created: str
    settings: ConditionsSettings
    model: str
    recipe: str
    frontend: str
    files: int
    speakers: int
    known: int
    threshold: float | None
    rows: tuple[ConditionRow, ...]
    kinds: tuple[KindRow, ...]
    notes: tuple[str, ...]
    kind: str = CONDITIONS_KIND
    version: int = 1
