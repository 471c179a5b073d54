"""The JSON document of `voxport bench gpu`. It is written again after every step, so a lost machine loses one step."""

from dataclasses import dataclass
from typing import Literal

from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.core.timing import Warmup
from voxport.benchmarks.stats.intervals import Interval
from voxport.benchmarks.system.gpu_state import GpuState
from voxport.benchmarks.system.machine import Fact, Machine
from voxport.benchmarks.training.report import Phases

GPU_KIND = "voxport.gpu"

Status = Literal["ok", "failed", "skipped"]
Verdict = Literal["baseline", "faster", "slower", "equivalent", "undecided", "answers differ"]


@dataclass(frozen=True)
class GpuSettings:
    """What to measure. `checkpoint` empty: `recipe` freshly initialised. `onnx` and `plans` come from that checkpoint.

    `seconds` are timed at each cell, after at least `warmup`. `budget_s` bounds everything together, `step_s` a step.
    `only` names the back ends; empty: all.
    """

    device: Literal["cpu", "cuda"] = "cuda"
    checkpoint: str = ""
    onnx: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    recipe: str = "sap_am_bn_3layers"
    batches: tuple[int, ...] = (1, 8, 64)
    frames: tuple[int, ...] = (128, 400, 1000)
    seconds: float = 0.3
    warmup: float = 0.1
    train_seconds: float = 4.0
    budget_s: float = 480.0
    step_s: float = 150.0
    rounds: int = 5
    threads: int = 4
    seed: int = 1
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.batches or not self.frames or min(*self.batches, *self.frames, self.threads, self.rounds) < 1:
            raise ValueError("batches, frames, threads and rounds must be positive")
        if min(self.seconds, self.train_seconds, self.budget_s, self.step_s) <= 0 or self.warmup < 0:
            raise ValueError("seconds, train_seconds, budget_s and step_s must be positive, warmup not negative")

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The grid, small first: what is lost to a crash or to the budget is then the least."""
        return tuple(
            Cell(batch, frames)
            for batch, frames in sorted(((b, f) for b in self.batches for f in self.frames), key=lambda x: x[0] * x[1])
        )


@dataclass(frozen=True)
class Step:
    """One step and how it went; a failed or skipped one says why."""

    name: str
    status: Status
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class GpuBackend:
    """A back end: how it computes, and what opening it cost. Bytes are the device's, above an idle process.

    `reason` says why it failed or was skipped; of one that is "ok", which cells it does not take.
    """

    name: str
    precision: str
    how: str
    status: Status
    reason: str = ""
    build_seconds: float | None = None
    device_bytes: int | None = None
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class GpuParity:
    """Scores of one cell against float64: max |Δscore|, ‖Δ‖ / ‖reference‖, and the share of equal best speakers."""

    backend: str
    cell: Cell
    max_abs: float | None  # None: not finite, or of another shape
    relative: float | None
    top1: float
    allowed: float
    same: bool


@dataclass(frozen=True)
class GpuBlock:
    """The calls of one back end at one cell in one process, in nanoseconds.

    `wall_ns`: host arrays in, host scores out, the device waited for. `device_ns`: between CUDA events, with the
    input on the device already, of other calls.
    """

    round: int
    backend: str
    cell: Cell
    warmup: Warmup
    wall_ns: tuple[int, ...]
    device_ns: tuple[int, ...]
    gpus: tuple[GpuState, ...] = ()
    cpu_ns: tuple[int, ...] = ()  # processor time of the same calls; documents of before have none


@dataclass(frozen=True)
class GpuRow:
    """One back end at one cell over its rounds. `speed_up` is against eager fp32, None for fewer than two rounds."""

    backend: str
    cell: Cell
    rounds: int
    calls: int
    p50_ms: float
    p99_ms: float | None
    device_p50_ms: float | None
    utterances_per_second: float
    ratio: float | None
    speed_up: Interval | None
    verdict: Verdict


@dataclass(frozen=True)
class GpuTraining:
    """One training rate; see train_report. `share` is of the ceiling in the same precision."""

    name: str
    status: Status
    reason: str = ""
    steps_per_second: float | None = None
    gflop: float | None = None
    ceiling: float | None = None
    share: float | None = None
    phases: Phases | None = None
    device_bytes: int | None = None


@dataclass(frozen=True)
class Ceilings:
    """What the device can do at most, measured here: matrix products in GFLOP/s, a copy, an empty kernel."""

    products: tuple[Fact, ...]  # precision → GFLOP/s
    copy_gb_s: float
    launch_us: float | None
    network_gflop: tuple[Fact, ...]  # cell → operations of a call, in 10⁹


@dataclass(frozen=True)
class GpuReport:
    """One run of `voxport bench gpu`. `network` says whose weights were used; `finished` is False while it runs."""

    created: str
    settings: GpuSettings
    machine: Machine
    network: str = ""
    parameters: int = 0
    environment: tuple[Fact, ...] = ()
    ceilings: Ceilings | None = None
    backends: tuple[GpuBackend, ...] = ()
    parity: tuple[GpuParity, ...] = ()
    blocks: tuple[GpuBlock, ...] = ()
    rows: tuple[GpuRow, ...] = ()
    training: tuple[GpuTraining, ...] = ()
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    finished: bool = False
    kind: str = GPU_KIND
    version: int = 1
