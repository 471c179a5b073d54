"""What is to be measured, and in which order."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from voxport.benchmarks.core.timing import BlockRule
from voxport.runtime.contract import InputKind
from voxport.runtime.frontend.spec import Frontend

Device = Literal["cpu", "cuda"]
# Where a back end runs. "tensorrt" and "rtx" are providers of ONNX Runtime, or a plan and an RTX engine.
Engine = Literal["cpu", "cuda", "tensorrt", "rtx"]
Scenario = Literal["single-stream", "offline", "server"]
Role = Literal["baseline", "control", "candidate"]
BackendPrecision = Literal["fp32", "tf32", "bf16", "fp16", "int8"]

DEFAULT_FRAMES = (128, 400, 1000)


@dataclass(frozen=True)
class Cell:
    """One point of the grid: utterances in a call, and the length of each in frames.

    With `trace` the lengths are those of InputSpec.trace, which change from call to call; `frames` is then
    the longest.
    """

    batch: int
    frames: int
    trace: bool = False

    def __str__(self) -> str:
        return f"{self.batch} × " + (f"trace to {self.frames}" if self.trace else str(self.frames))


@dataclass(frozen=True)
class BackendSpec:
    """One row of the comparison. `kind` chooses the code that opens `path` (see backends/registry.py).

    The control is the baseline's twin under another name: the difference between the two is noise.
    `graphs` asks for CUDA graphs. A network in PyTorch computes in `precision` (TF32, or autocast), as does OpenVINO
    what a file holds in float32; `mode` is torch.compile's.
    `binding` keeps ONNX Runtime's inputs and outputs on the device; `grid` are the cells over which
    its TensorRT provider builds one profile. `built` is what was made of `path` for this run, in a folder that is gone
    when the run ends; a report leaves it empty.
    """

    name: str
    kind: str
    path: str
    role: Role
    input_kind: InputKind
    device: Engine
    threads: int
    graphs: bool = False
    built: str = ""
    optional: bool = False  # one that `also` names: where it cannot be measured, the others go on
    precision: BackendPrecision = "fp32"
    mode: str = ""
    binding: bool = False
    grid: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class InputSpec:
    """What every worker needs to make the same inputs in the same order: see inputs.py.

    `trace` is the sequence of lengths in frames that trace cells follow.
    """

    frontend: Frontend
    seed: int
    pool: int = 8  # distinct inputs of a cell, used in turn
    trace: tuple[int, ...] = ()


@dataclass(frozen=True)
class ServerRule:
    """The Server scenario: queries come at random (Poisson), and 99 % must be answered within `bound_ms`.

    A rate is tried with as many queries as the claim needs, at most `max_queries`. The search ends once
    the lowest rate that failed is within `resolution` of the highest that held.
    """

    bound_ms: float = 100.0
    max_queries: int = 1400
    resolution: float = 0.03

    def __post_init__(self) -> None:
        if self.bound_ms <= 0 or self.max_queries < 459 or not 0 < self.resolution < 1:
            raise ValueError("bound_ms must be positive, max_queries at least 459, resolution between 0 and 1")


@dataclass(frozen=True)
class Load:
    """How calls follow one another. `queries` is the Offline set; `server` the Server rule, `seed` its arrivals'.

    `guess` is the rate at which the Server's search begins, where an earlier round found one; 0: it is predicted.
    """

    scenario: Scenario = "single-stream"
    queries: int = 64
    server: ServerRule = field(default_factory=ServerRule)
    seed: int = 0
    guess: float = 0.0


@dataclass(frozen=True)
class TruthSettings:
    """What is measured beside speed: labelled utterances, cold starts, the distance to the limit, a profile.

    `max_drop` is in points of accuracy. `cold_starts` are fresh processes for each back end, 0 or at least 10.
    """

    accuracy_data: str = ""
    accuracy_limit: int | None = None
    max_drop: float = 0.2
    cold_starts: int = 0
    limits: bool = True
    profile: bool = False

    def __post_init__(self) -> None:
        if 0 < self.cold_starts < 10 or self.cold_starts < 0:
            raise ValueError("cold starts need at least 10 fresh processes: fewer say little")
        if self.max_drop < 0 or (self.accuracy_limit is not None and self.accuracy_limit < 1):
            raise ValueError("max_drop must not be negative, and accuracy_limit must be positive")


@dataclass(frozen=True)
class LatencySettings:
    """How to measure. `frames` None: 128, 400 and 1000, as far as the models allow them, or only the trace.

    `trace` is a corpus, or a text file of lengths in frames, from which a realistic sequence of lengths is drawn.
    `queries` is the set of the Offline scenario. `also` names more back ends, see variants.py;
    those whose name in the table is in `leave_out` are not measured.
    With `thread_counts` each candidate is measured with each of these numbers of threads, which its name then tells;
    the baseline has `threads`.
    `timeout` is how many seconds a worker may stay silent beyond its rule's own times.
    """

    batches: tuple[int, ...] = (1,)
    frames: tuple[int, ...] | None = None
    rounds: int = 5
    device: Device = "cpu"
    threads: int = 1
    control: bool = True
    seed: int = 1
    timeout: float = 300.0
    rule: BlockRule = field(default_factory=BlockRule)
    scenario: Scenario = "single-stream"
    queries: int = 64
    server: ServerRule = field(default_factory=ServerRule)
    trace: str = ""
    also: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    thread_counts: tuple[int, ...] = ()
    truth: TruthSettings = field(default_factory=TruthSettings)

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or (self.frames is not None and not self.frames):
            raise ValueError("batches and frames need at least one value, and every batch is at least 1")
        if self.frames is not None and min(self.frames) < 1:
            raise ValueError("frames must be positive")
        if min(self.rounds, self.threads, self.queries, *self.thread_counts) < 1 or self.timeout <= 0:
            raise ValueError("rounds, threads, queries and timeout must be positive")

    @property
    def threads_told(self) -> str:
        """The number of threads in words; the baseline's where candidates have several."""
        own = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        return f"threads as named, eager PyTorch with {own}" if self.thread_counts else own


@dataclass(frozen=True)
class Turn:
    """One worker process: a backend's blocks of one round, in this order of cells."""

    round: int
    backend: str
    cells: tuple[Cell, ...]


def schedule(backends: tuple[str, ...], cells: tuple[Cell, ...], rounds: int, seed: int) -> tuple[Turn, ...]:
    """Every backend once in each round, in an order drawn anew for each round.

    Drift of the machine (heat, neighbours) then falls on each backend alike. The cells' order is drawn
    per round too, and is the same for all backends of that round.
    """
    rng = np.random.default_rng(seed)
    turns: list[Turn] = []
    for number in range(rounds):
        order = tuple(cells[i] for i in rng.permutation(len(cells)))
        turns.extend(Turn(number, backends[i], order) for i in rng.permutation(len(backends)))
    return tuple(turns)
