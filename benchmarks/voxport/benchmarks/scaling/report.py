"""The JSON document of `voxport bench scale`."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from voxport.benchmarks.stats.power_law import Growth
from voxport.benchmarks.system.machine import Fact, Machine

SCALE_KIND = "voxport.scale"

CurveName = Literal["length", "batch", "speakers", "gallery", "chunks"]
CURVES: tuple[CurveName, ...] = get_args(CurveName)

DEFAULT_SIZES: dict[CurveName, tuple[int, ...]] = {
    "length": (128, 256, 512, 1024, 2048, 3000),
    "batch": (1, 2, 4, 8, 16, 32),
    "speakers": (600, 2_000, 6_000, 20_000, 60_000, 100_000),
    "gallery": (10, 100, 1_000, 10_000, 100_000, 1_000_000),
    "chunks": (5, 10, 20, 30, 60, 90),
}


@dataclass(frozen=True)
class Sizes:
    """Where a curve is measured: frames, utterances, speakers, voices, or seconds of sound."""

    curve: CurveName
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.values or min(self.values) < 1 or list(self.values) != sorted(set(self.values)):
            raise ValueError(f"the sizes of {self.curve} must be positive, and grow")


def default_sizes() -> tuple[Sizes, ...]:
    """Those of every curve."""
    return tuple(Sizes(name, values) for name, values in DEFAULT_SIZES.items())


@dataclass(frozen=True)
class ScaleSettings:
    """What to measure. `model` is an artefact, a checkpoint, or empty: `recipe` freshly initialised.

    Every point is timed in `rounds` rounds, in an order drawn for each, for `seconds` / `rounds` and at least once.
    What takes longer than `patience` seconds for one call ends its series. `embedding` is the width of
    heads and gallery.
    """

    model: str = ""
    recipe: str = "sap_am_bn_3layers"
    curves: tuple[CurveName, ...] = CURVES
    sizes: tuple[Sizes, ...] = field(default_factory=default_sizes)
    batch_frames: int = 128
    questions: int = 64
    embedding: int = 256
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    rounds: int = 5
    seconds: float = 1.0
    patience: float = 20.0
    seed: int = 1
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if min(self.batch_frames, self.questions, self.embedding, self.threads, self.rounds) < 1 or not self.curves:
            raise ValueError("batch_frames, questions, embedding, threads, rounds and curves must be positive")
        if min(self.seconds, self.patience, self.timeout) <= 0:
            raise ValueError("seconds, patience and timeout must be positive")

    def of(self, curve: CurveName) -> tuple[int, ...]:
        """Where `curve` is measured."""
        return next((each.values for each in self.sizes if each.curve == curve), DEFAULT_SIZES[curve])


@dataclass(frozen=True)
class Point:
    """One size: the median over rounds of a round's median, and the rounds' own, in milliseconds."""

    size: int
    ms: float
    rounds_ms: tuple[float, ...]


@dataclass(frozen=True)
class Series:
    """One way of doing it. `growth` is of its tail; `derived` says that it is a difference of two others.

    `ended` says why larger sizes are missing.
    """

    name: str
    points: tuple[Point, ...]
    growth: Growth | None = None
    derived: bool = False
    ended: str = ""


@dataclass(frozen=True)
class Curve:
    """Cost against one size, done in several ways; where it could not be measured, `failure` says why."""

    name: CurveName
    title: str
    size: str  # what `Point.size` counts
    cost: str  # what `Point.ms` is the time of
    series: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()
    failure: str = ""


@dataclass(frozen=True)
class ScaleReport:
    """One run of `voxport bench scale`."""

    created: str
    settings: ScaleSettings
    machine: Machine
    load_average_end: float | None
    model: str
    curves: tuple[Curve, ...]
    notes: tuple[str, ...]
    versions: tuple[Fact, ...] = ()
    kind: str = SCALE_KIND
    version: int = 1
