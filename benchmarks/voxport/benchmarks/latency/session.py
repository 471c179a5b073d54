"""A measurement under way: who takes part, what was seen, and how workers are started and asked."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from voxport.benchmarks.core.protocol import Message, Open, Opened
from voxport.benchmarks.core.records import Build
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec, LatencySettings, Load
from voxport.benchmarks.latency.candidates import Subject
from voxport.benchmarks.latency.report import Failure, Stage
from voxport.benchmarks.worker.client import WorkerError, WorkerProcess

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what comes next
Reply = TypeVar("Reply")


@dataclass
class Steps:
    """Counts what is done and announces what comes."""

    tell: Progress
    done: int = 0
    total: int = 0

    def expect(self, count: int) -> None:
        """So many steps are still to come."""
        self.total = self.done + count

    def next(self, what: str) -> None:
        self.total = max(self.total, self.done)
        self.tell(self.done, self.total, what)
        self.done += 1


@dataclass
class Session:
    """`subjects` by name; `out` are those not tried any more, `skipped` what one cannot answer."""

    subjects: dict[str, Subject]
    cells: tuple[Cell, ...]
    inputs: InputSpec
    settings: LatencySettings
    steps: Steps
    command: tuple[str, ...]
    opened: dict[str, Opened] = field(default_factory=dict)
    builds: dict[str, Build] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    out: set[str] = field(default_factory=set)
    skipped: set[tuple[str, Cell]] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)
    notes: list[str] = field(default_factory=list)  # for the reader, before those that the figures give

    @property
    def taking_part(self) -> list[Subject]:
        """Those that are not out."""
        return [subject for name, subject in self.subjects.items() if name not in self.out]

    @property
    def measured(self) -> list[Subject]:
        """The same without the controls, of whom nothing but time is of interest."""
        return [subject for subject in self.taking_part if subject.spec.role != "control"]

    @property
    def checkpoint(self) -> Path:
        """The baseline's file."""
        return Path(next(one.spec.path for one in self.subjects.values() if one.spec.role == "baseline"))

    def start(self, threads: int | None = None) -> WorkerProcess:
        """A fresh worker with this number of threads, else the run's own."""
        return WorkerProcess(threads or self.settings.threads, self.command)

    def open(self, worker: WorkerProcess, subject: Subject) -> Opened:
        """Have `worker` load the subject's model."""
        opened = worker.ask(Open(subject.spec, self.inputs), Opened, self.settings.timeout)
        self.opened.setdefault(subject.spec.name, opened)
        return opened

    def ask_once(self, request: Message, answer: type[Reply], patience: float = 1.0) -> Reply:
        """The answer of a fresh worker that is asked nothing else. `patience` multiplies the timeout."""
        with self.start() as worker:
            return worker.ask(request, answer, self.settings.timeout * patience)

    def load(self, round_: int = 0, guess: float = 0.0) -> Load:
        """How calls follow one another in this round."""
        settings = self.settings
        return Load(settings.scenario, settings.queries, settings.server, settings.seed + round_, guess)

    def fail(
        self, spec: BackendSpec, stage: Stage, problem: WorkerError, cell: Cell | None = None, round_: int | None = None
    ) -> None:
        """Keep the reason why something could not be done."""
        self.failures.append(Failure(spec.name, stage, round_, cell, str(problem)))
