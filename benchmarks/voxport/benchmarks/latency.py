"""Time backends against eager PyTorch, so that the numbers can be trusted.

One worker process per backend and round, never two at once, in an order drawn anew for each round.
All get the same inputs. Answers are compared before anything is timed.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from voxport.benchmarks.answers import Scores, check_answers
from voxport.benchmarks.machine import Machine, describe_machine, load_average
from voxport.benchmarks.plan import Cell, InputSpec, LatencySettings, Turn, schedule
from voxport.benchmarks.process import WORKER, WorkerError, WorkerProcess
from voxport.benchmarks.protocol import Answered, Ask, Open, Opened, Time, Timed
from voxport.benchmarks.report import AnswerCheck, BackendReport, Block, Boundary, Failure, LatencyReport
from voxport.benchmarks.statistics import MARGIN
from voxport.benchmarks.subjects import Subject, choose_cells, gather
from voxport.benchmarks.summary import make_notes, make_rows
from voxport.runtime.errors import VoxportError

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what comes next

SCENARIO = "single stream: one caller, who sends the next call when the last is answered"
BOUNDARIES = {
    "features": "features in, scores out; float32 arrays in host memory; no file decoding, no frontend",
    "waveform": "waveform in, scores out; float32 arrays in host memory; frontend included; no file decoding",
}
MAX_FAILED_TURNS = 2  # a backend that failed so often is not tried again


def measure(
    models: Sequence[Path],
    checkpoint: Path,
    settings: LatencySettings | None = None,
    progress: Progress | None = None,
    command: tuple[str, ...] = WORKER,
) -> LatencyReport:
    """Time each of `models` (ONNX files) against eager PyTorch with `checkpoint`, on the same device.

    A model that crashes or stays silent becomes a failure in the report; see
    LatencyReport.not_compared. `command` starts a worker.

    Raises:
        VoxportError: a file, a length, the device or a package is unusable, or eager PyTorch itself fails.
    """
    settings = settings or LatencySettings()
    subjects = gather(models, checkpoint, settings)
    run = _Run(subjects, choose_cells(settings, subjects), settings, progress or _silent, command)
    return run.report(describe_machine())


def _silent(done: int, total: int, what: str) -> None:
    return None


class _Run:
    """One measurement under way."""

    def __init__(
        self,
        subjects: tuple[Subject, ...],
        cells: tuple[Cell, ...],
        settings: LatencySettings,
        progress: Progress,
        command: tuple[str, ...],
    ) -> None:
        self.subjects = {subject.spec.name: subject for subject in subjects}
        self.cells, self.settings, self.command = cells, settings, command
        contract = next(subject.contract for subject in subjects if subject.contract is not None)
        self.inputs = InputSpec(contract.frontend, settings.seed)
        self.opened: dict[str, Opened] = {}
        self.references: dict[str, dict[Cell, Answered]] = {}  # by input kind
        self.answers: list[AnswerCheck] = []
        self.blocks: list[Block] = []
        self.failures: list[Failure] = []
        self.out: set[str] = set()  # backends that are not tried again
        self.began = time.monotonic()
        self.done, self.progress = 0, progress
        checked = sum(subject.spec.role != "control" for subject in subjects)
        self.total = checked + len(subjects) * settings.rounds

    def report(self, machine: Machine) -> LatencyReport:
        """Compare answers, time, and conclude."""
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        for subject in self.subjects.values():
            if subject.spec.role != "control":
                self._step(f"{subject.spec.name}: comparing answers")
                self._compare(subject)
        self._time_all()
        self._step("")
        return self._conclude(created, machine)

    def _step(self, what: str) -> None:
        self.progress(self.done, self.total, what)
        self.done += 1

    def _start(self) -> WorkerProcess:
        return WorkerProcess(self.settings.threads, self.command)

    def _open(self, worker: WorkerProcess, subject: Subject) -> Opened:
        opened = worker.ask(Open(subject.spec, self.inputs), Opened, self.settings.timeout)
        self.opened.setdefault(subject.spec.name, opened)
        return opened

    def _compare(self, subject: Subject) -> None:
        """Compare answers; of the baseline, keep them. What a user can mend ends the run here."""
        spec = subject.spec
        cell: Cell | None = None
        scores: dict[Cell, Answered] = {}
        try:
            with self._start() as worker:
                opened = self._open(worker, subject)
                for cell in self.cells:
                    scores[cell] = worker.ask(Ask(cell), Answered, self.settings.timeout)
        except WorkerError as problem:
            if problem.mistake or spec.role == "baseline":
                raise VoxportError(f"{spec.name}: {problem}") from problem
            self.out.add(spec.name)
            self.failures.append(Failure(spec.name, "answer" if cell else "open", None, cell, str(problem)))
            return
        if opened.frontend_digest != self.inputs.frontend.digest:
            raise VoxportError(
                f"{spec.path}: its frontend is not that of the models; give the checkpoint that they come from"
            )
        if spec.role == "baseline":
            self.references[spec.input_kind] = scores
            return
        assert subject.contract is not None
        for cell, answered in scores.items():
            reference = self.references[spec.input_kind][cell]
            _same_inputs(spec.name, answered.inputs_digest, reference.inputs_digest)
            self.answers.append(
                check_answers(spec.name, cell, _values(answered), _values(reference), subject.contract.golden.tolerance)
            )

    def _time_all(self) -> None:
        failed: Counter[str] = Counter()
        backends = tuple(name for name in self.subjects if name not in self.out)
        turns = schedule(backends, self.cells, self.settings.rounds, self.settings.seed)
        self.total = self.done + len(turns)
        for turn in turns:
            self._step(f"round {turn.round + 1} of {self.settings.rounds}: {turn.backend}")
            if turn.backend in self.out:
                continue
            if not self._take_turn(turn):
                failed[turn.backend] += 1
                if failed[turn.backend] >= MAX_FAILED_TURNS:
                    self.out.add(turn.backend)

    def _take_turn(self, turn: Turn) -> bool:
        """Time one backend's cells in a fresh process. Blocks before a failure are kept."""
        subject = self.subjects[turn.backend]
        rule = self.settings.rule
        cell: Cell | None = None
        try:
            with self._start() as worker:
                opened = self._open(worker, subject)
                for cell in turn.cells:
                    started = time.monotonic() - self.began
                    patience = self.settings.timeout + rule.warmup_cap + rule.seconds
                    timed = worker.ask(Time(cell, rule), Timed, patience)
                    reference = self.references[subject.spec.input_kind][cell]
                    _same_inputs(turn.backend, timed.inputs_digest, reference.inputs_digest)
                    self.blocks.append(_block(turn, cell, started, opened, timed))
        except WorkerError as problem:
            self.failures.append(Failure(turn.backend, "time" if cell else "open", turn.round, cell, str(problem)))
            return False
        return True

    def _conclude(self, created: str, machine: Machine) -> LatencyReport:
        specs = [subject.spec for subject in self.subjects.values()]
        kinds = dict.fromkeys(spec.input_kind for spec in specs)
        settings = self.settings
        report = LatencyReport(
            created=created,
            scenario=SCENARIO,
            boundaries=tuple(Boundary(kind, BOUNDARIES[kind]) for kind in kinds),
            settings=settings,
            cells=self.cells,
            margin=MARGIN,
            machine=machine,
            load_average_end=load_average(),
            backends=tuple(self._describe(subject) for subject in self.subjects.values()),
            answers=tuple(self.answers),
            rows=make_rows(specs, self.cells, self.blocks, self.answers, settings.seed, MARGIN),
            failures=tuple(self.failures),
            notes=(),
            blocks=tuple(self.blocks),
        )
        return dataclasses.replace(report, notes=make_notes(report))

    def _describe(self, subject: Subject) -> BackendReport:
        contract = subject.contract
        return BackendReport(
            spec=subject.spec,
            sha256=subject.sha256,
            size_bytes=subject.size_bytes,
            precision=contract.precision if contract else "fp32",
            checkpoint_sha256=contract.checkpoint_sha256 if contract else subject.sha256,
            opened=self.opened.get(subject.spec.name),
        )


def _values(answered: Answered) -> Scores:
    return answered.scores.values


def _same_inputs(backend: str, digest: str, expected: str) -> None:
    if digest != expected:
        raise WorkerError(f"{backend} made other inputs than eager PyTorch did, from the same seed")


def _block(turn: Turn, cell: Cell, started: float, opened: Opened, timed: Timed) -> Block:
    return Block(
        round=turn.round,
        backend=turn.backend,
        cell=cell,
        started=started,
        load_seconds=opened.load_seconds,
        load_average=load_average(),
        peak_memory=timed.peak_memory,
        audio_seconds=timed.audio_seconds,
        inputs_digest=timed.inputs_digest,
        warmup=timed.warmup,
        wall_ns=timed.wall_ns,
        cpu_ns=timed.cpu_ns,
    )
