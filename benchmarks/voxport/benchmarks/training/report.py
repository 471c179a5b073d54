"""The JSON document of `voxport bench train`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from voxport.benchmarks.stats.intervals import LEVEL, student_t
from voxport.benchmarks.system.machine import Fact, Machine

TRAIN_KIND = "voxport.train"

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True)
class TrainSettings:
    """What to train and how. `data` is a corpus; empty: features from a seed. `frames` is the crop's length.

    `seconds` and `warmup` are of each round; a round is a fresh process. `speakers` counts only without `data`.
    """

    recipe: str = "sap_am_bn_3layers"
    data: str = ""
    frontend: str = ""
    batch_size: int = 32
    frames: int = 128
    speakers: int = 600
    precision: Precision = "fp32"
    compile: bool = False
    device: Device = "cpu"
    threads: int = 1
    rounds: int = 5
    seconds: float = 5.0
    warmup: float = 2.0
    seed: int = 1
    timeout: float = 600.0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError("batch_size must be at least 2: batch normalisation needs two utterances")
        if min(self.frames, self.threads, self.rounds) < 1 or self.speakers < 2:
            raise ValueError("frames, threads and rounds must be positive, and there are at least two speakers")
        if self.seconds <= 0 or self.warmup < 0 or self.timeout <= 0:
            raise ValueError("seconds and timeout must be positive, and warmup must not be negative")


@dataclass(frozen=True)
class Phases:
    """Seconds of a step by what it does, medians over the steps that were taken apart.

    They are measured in steps of their own: taking a step apart makes a GPU wait, so their sum may exceed a step's.
    """

    data: float
    forward: float
    backward: float
    optimiser: float

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return self.data + self.forward + self.backward + self.optimiser


@dataclass(frozen=True)
class TrainRound:
    """One process: optimiser steps and their seconds, the phases, bytes, and what this machine can do at most.

    `gflop` are a step's matrix products and convolutions, counted as they ran, forward and backward; `ceiling`
    is the best matrix product's rate in GFLOP/s in the same precision, measured right after the steps.
    `resident` is the process's peak, `device_bytes` the peak that PyTorch held on the GPU.
    """

    steps: int
    seconds: float
    warmup_steps: int
    first_step: float
    phases: Phases
    gflop: float
    ceiling: float
    ceiling_note: str
    resident: int | None
    device_bytes: int | None
    loss: float
    facts: tuple[Fact, ...] = ()

    @property
    def rate(self) -> float:
        """Steps a second."""
        return self.steps / self.seconds


@dataclass(frozen=True)
class Rate:
    """Geometric mean over rounds and its interval; None where there are fewer than two rounds."""

    value: float
    low: float | None
    high: float | None
    level: float
    rounds: int


def rate_of(values: Sequence[float], level: float = LEVEL) -> Rate:
    """The interval is Student's on logarithms: rates of processes are alike in ratio, not in difference.

    Raises:
        ValueError: no value, or one that is not positive.
    """
    if not values or min(values) <= 0:
        raise ValueError("a rate needs at least one value, and values are positive")
    logs = np.log(np.asarray(values, dtype=np.float64))
    middle, rounds = float(logs.mean()), len(values)
    if rounds < 2:
        return Rate(math.exp(middle), None, None, level, rounds)
    half = student_t(1 - (1 - level) / 2, rounds - 1) * float(logs.std(ddof=1)) / math.sqrt(rounds)
    return Rate(math.exp(middle), math.exp(middle - half), math.exp(middle + half), level, rounds)


@dataclass(frozen=True)
class TrainReport:
    """One run of `voxport bench train`. `share` is steps a second × operations of a step, over the ceiling."""

    created: str
    settings: TrainSettings
    machine: Machine
    load_average_end: float | None
    parameters: int
    speakers: int
    versions: tuple[Fact, ...]
    rate: Rate | None
    share: Rate | None
    rounds: tuple[TrainRound, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    kind: str = TRAIN_KIND
    version: int = 1
