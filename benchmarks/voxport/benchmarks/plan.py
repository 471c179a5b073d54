"""What is to be measured, and in which order."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from voxport.benchmarks.timing import BlockRule
from voxport.runtime.contract import InputKind
from voxport.runtime.frontend_spec import Frontend

Device = Literal["cpu", "cuda"]
Role = Literal["baseline", "control", "candidate"]

DEFAULT_FRAMES = (128, 400, 1000)


@dataclass(frozen=True)
class Cell:
    """One point of the grid: utterances in a call, and the length of each in frames."""

    batch: int
    frames: int

    def __str__(self) -> str:
        return f"{self.batch} × {self.frames}"


@dataclass(frozen=True)
class BackendSpec:
    """One row of the comparison. `kind` chooses the code that opens `path` (see backends.py).

    The control is the baseline's twin under another name: the difference between the two is noise.
    """

    name: str
    kind: str
    path: str
    role: Role
    input_kind: InputKind
    device: Device
    threads: int


@dataclass(frozen=True)
class InputSpec:
    """What every worker needs to make the same inputs in the same order: see inputs.py."""

    frontend: Frontend
    seed: int
    pool: int = 8  # distinct inputs of a cell, used in turn


@dataclass(frozen=True)
class LatencySettings:
    """How to measure. `frames` None: 128, 400 and 1000, as far as the models allow them.

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

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or (self.frames is not None and not self.frames):
            raise ValueError("batches and frames need at least one value, and every batch is at least 1")
        if self.frames is not None and min(self.frames) < 1:
            raise ValueError("frames must be positive")
        if min(self.rounds, self.threads) < 1 or self.timeout <= 0:
            raise ValueError("rounds, threads and timeout must be positive")


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
