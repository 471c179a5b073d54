"""Time backends against eager PyTorch, so that the numbers can be trusted.

One worker process per backend and round, never two at once, in an order drawn anew for each round.
All get the same inputs. Answers are compared before anything is timed.
"""

import dataclasses
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from voxport.benchmarks.backends.registry import kind_of
from voxport.benchmarks.core.protocol import Answered, Ask, BuildAsk, Built, Draw, Drawn, Opened, Time, Timed
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec, LatencySettings, Turn, schedule
from voxport.benchmarks.latency.candidates import Subject, choose_cells, gather, length_range
from voxport.benchmarks.latency.extra_metrics import accuracies, cold_starts, limits, profiles
from voxport.benchmarks.latency.report import (
    SCENARIOS,
    AnswerCheck,
    BackendReport,
    Block,
    Boundary,
    LatencyReport,
    Scores,
    boundary_text,
    check_answers,
)
from voxport.benchmarks.latency.session import Progress, Session, Steps
from voxport.benchmarks.latency.summary import Beside, make_notes, make_rows
from voxport.benchmarks.stats.intervals import MARGIN
from voxport.benchmarks.system.gpu_state import gpu_memory_used, gpu_states
from voxport.benchmarks.system.machine import describe_machine, load_average
from voxport.benchmarks.system.resources import Memory
from voxport.benchmarks.worker.client import WORKER, WorkerError, WorkerProcess
from voxport.runtime.contract import Rounding
from voxport.runtime.errors import VoxportError

MAX_FAILED_TURNS = 2  # a backend that failed so often is not tried again
TRACE_LENGTHS = 64
SERVER_PATIENCE = 12.0  # every rate that is tried takes hundreds of queries
BUILD_PATIENCE = 4.0  # a compiler may take longer than any answer


def measure_latency(
    models: Sequence[str | os.PathLike[str]],
    checkpoint: str | os.PathLike[str],
    settings: LatencySettings | None = None,
    progress: Progress | None = None,
    command: tuple[str, ...] = WORKER,
) -> LatencyReport:
    """Time each of `models` (files that the runtime loads) against eager PyTorch with `checkpoint`.

    A model that crashes or stays silent becomes a failure in the report; see
    LatencyReport.not_compared. `progress` is told how many steps of how many are done, and what comes next;
    `command` starts a worker.

    Raises:
        VoxportError: a file, a length, the device or a package is unusable, or eager PyTorch itself fails.
    """
    settings = settings or LatencySettings()
    subjects = gather([Path(model) for model in models], Path(checkpoint), settings)
    with tempfile.TemporaryDirectory(prefix="voxport-bench-") as folder:
        subjects = _with_places(subjects, Path(folder))
        return _Run(_session(subjects, settings, Steps(progress or _silent), command)).report()


def _silent(done: int, total: int, what: str) -> None:
    return None


def _with_places(subjects: tuple[Subject, ...], folder: Path) -> tuple[Subject, ...]:
    """Each subject that is made of the checkpoint gets a place for what is made."""
    placed = []
    for number, subject in enumerate(subjects):
        kind = kind_of(subject.spec)
        built = str(folder / f"{number}{kind.suffix}") if kind.builder else ""
        placed.append(dataclasses.replace(subject, spec=dataclasses.replace(subject.spec, built=built)))
    return tuple(placed)


def _session(
    subjects: tuple[Subject, ...], settings: LatencySettings, steps: Steps, command: tuple[str, ...]
) -> Session:
    contract = next(subject.contract for subject in subjects if subject.contract is not None)
    inputs = InputSpec(contract.frontend, settings.seed)
    session = Session({one.spec.name: one for one in subjects}, (), inputs, settings, steps, command)
    if settings.trace:
        low, high = length_range(subjects)
        request = Draw(settings.trace, inputs, TRACE_LENGTHS, low, high)
        drawn = session.ask_once(request, Drawn, BUILD_PATIENCE)  # its failure is the user's: a wrong file
        session.inputs = dataclasses.replace(inputs, trace=drawn.lengths)
        session.notes.append(drawn.note)
    session.cells = choose_cells(settings, subjects, session.inputs.trace)
    return session


class _Run:
    """One measurement."""

    def __init__(self, session: Session) -> None:
        self.session, self.settings = session, session.settings
        self.references: dict[str, dict[Cell, Answered]] = {}  # by input kind
        self.answers: list[AnswerCheck] = []
        self.blocks: list[Block] = []

    def report(self) -> LatencyReport:
        """Build, compare answers, time, measure what is beside speed, and conclude."""
        session, machine = self.session, describe_machine()
        self.on_gpu = bool(machine.gpus) and any(s.spec.device != "cpu" for s in session.subjects.values())
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._expect()
        for subject in session.measured:
            if subject.spec.built:
                session.steps.next(f"{subject.spec.name}: making it of the checkpoint")
                self._build(subject)
        for subject in session.measured:
            session.steps.next(f"{subject.spec.name}: comparing answers")
            self._compare(subject)
        found = accuracies(session)
        limited = limits(session)
        self._time_all()
        beside = Beside(found, limited, self._sizes(), len(session.inputs.trace))
        rows = make_rows(self._specs(), session.cells, self.blocks, self.answers, self.settings.seed, MARGIN, beside)
        cold, profiled = cold_starts(session), profiles(session, rows)
        session.steps.next("")
        report = LatencyReport(
            created=created,
            scenario=SCENARIOS[self.settings.scenario],
            boundaries=self._boundaries(),
            settings=self.settings,
            cells=session.cells,
            margin=MARGIN,
            machine=machine,
            load_average_end=load_average(),
            backends=tuple(self._describe(subject) for subject in session.subjects.values()),
            answers=tuple(self.answers),
            rows=rows,
            failures=tuple(session.failures),
            notes=(),
            blocks=tuple(self.blocks),
            trace=session.inputs.trace,
            cold_starts=cold,
            accuracy=found,
            limits=limited,
            profiles=profiled,
        )
        return dataclasses.replace(report, notes=(*session.notes, *make_notes(report)))

    def _expect(self) -> None:
        subjects = self.session.measured
        builds = sum(bool(subject.spec.built) for subject in subjects)
        truth, rounds = self.settings.truth, len(self.session.subjects) * self.settings.rounds
        extra = len(subjects) * bool(truth.accuracy_data) + truth.limits + truth.cold_starts * len(subjects)
        self.session.steps.expect(builds + len(subjects) + rounds + extra)

    def _build(self, subject: Subject) -> None:
        session = self.session
        try:
            request = BuildAsk(subject.spec, session.inputs)
            session.builds[subject.spec.name] = session.ask_once(request, Built, BUILD_PATIENCE).build
        except WorkerError as problem:
            session.out.add(subject.spec.name)
            session.fail(subject.spec, "build", problem)

    def _compare(self, subject: Subject) -> None:
        """Compare answers; of the baseline, keep them. What a user can mend ends the run here."""
        session, spec = self.session, subject.spec
        scores: dict[Cell, Answered] = {}
        try:
            with session.start(subject.spec.threads) as worker:
                opened = session.open(worker, subject)
                for cell in session.cells:
                    self._ask(worker, subject, cell, scores)
        except WorkerError as problem:
            if not spec.optional and (problem.mistake or spec.role == "baseline"):
                raise VoxportError(f"{spec.name}: {problem}") from problem
            session.out.add(spec.name)
            if not any(failure.backend == spec.name for failure in session.failures):
                session.fail(spec, "open", problem)
            return
        if opened.frontend_digest != session.inputs.frontend.digest:
            raise VoxportError(
                f"{spec.path}: its frontend is not that of the models; give the checkpoint that they come from"
            )
        if spec.role == "baseline":
            self.references[spec.input_kind] = scores
            return
        for cell, answered in scores.items():
            reference = self.references[spec.input_kind][cell]
            _same_inputs(spec.name, answered.inputs_digest, reference.inputs_digest)
            allowed = self._tolerance(subject)
            self.answers.append(check_answers(spec.name, cell, _values(answered), _values(reference), allowed))

    def _ask(self, worker: WorkerProcess, subject: Subject, cell: Cell, scores: dict[Cell, Answered]) -> None:
        """An optional back end may fail at one cell and go on with the others."""
        spec = subject.spec
        try:
            scores[cell] = worker.ask(Ask(cell, self.session.load()), Answered, self.settings.timeout)
        except WorkerError as problem:
            if problem.mistake and not spec.optional:
                raise
            self.session.fail(spec, "answer", problem, cell)
            if not (spec.optional and problem.alive):
                raise
            self.session.skipped.add((spec.name, cell))

    def _tolerance(self, subject: Subject) -> float:
        """The contract's; where there is none, the largest that any fp32 model of this kind of input has."""
        if subject.contract is not None:
            return subject.contract.golden_tolerance(_rounding(subject.spec))
        kind, subjects = subject.spec.input_kind, self.session.subjects.values()
        contracts = [one.contract for one in subjects if one.contract and one.spec.input_kind == kind]
        exact = [one.golden.tolerance for one in contracts if one.precision == "fp32"]
        return max(exact, default=min(one.golden.tolerance for one in contracts))

    def _time_all(self) -> None:
        session, failed = self.session, Counter[str]()
        backends = tuple(subject.spec.name for subject in session.taking_part)
        turns = schedule(backends, session.cells, self.settings.rounds, self.settings.seed)
        session.steps.expect(len(turns) + self.settings.truth.cold_starts * len(session.measured))
        for turn in turns:
            session.steps.next(f"round {turn.round + 1} of {self.settings.rounds}: {turn.backend}")
            if turn.backend in session.out:
                continue
            if not self._take_turn(turn):
                failed[turn.backend] += 1
                if failed[turn.backend] >= MAX_FAILED_TURNS:
                    session.out.add(turn.backend)

    def _take_turn(self, turn: Turn) -> bool:
        """Time one backend's cells in a fresh process. Blocks before a failure are kept."""
        session, rule = self.session, self.settings.rule
        subject, cell = session.subjects[turn.backend], None
        in_use = gpu_memory_used() if self.on_gpu else None
        try:
            with session.start(subject.spec.threads) as worker:
                opened = session.open(worker, subject)
                for cell in turn.cells:
                    if (turn.backend, cell) in session.skipped:
                        continue
                    started = time.monotonic() - session.began
                    patience = self._patience()
                    load = session.load(turn.round, self._rate_before(turn.backend, cell))
                    timed = worker.ask(Time(cell, rule, load), Timed, patience)
                    reference = self.references[subject.spec.input_kind][cell]
                    _same_inputs(turn.backend, timed.inputs_digest, reference.inputs_digest)
                    block = _block(turn, cell, started, opened, timed)
                    self.blocks.append(_with_gpu(block, in_use) if self.on_gpu else block)
        except WorkerError as problem:
            session.fail(subject.spec, "time" if cell else "open", problem, cell, turn.round)
            return False
        return True

    def _rate_before(self, backend: str, cell: Cell) -> float:
        """The rate that a server held in the last round: it saves the next one most of its search."""
        own = [
            block.served.rate
            for block in self.blocks
            if (block.backend, block.cell) == (backend, cell) and block.served
        ]
        return own[-1] if own else 0.0

    def _patience(self) -> float:
        """Seconds that a worker may take for one block."""
        rule, timeout = self.settings.rule, self.settings.timeout
        return (
            timeout * (SERVER_PATIENCE if self.settings.scenario == "server" else 1.0) + rule.warmup_cap + rule.seconds
        )

    def _specs(self) -> list[BackendSpec]:
        return [subject.spec for subject in self.session.subjects.values()]

    def _sizes(self) -> dict[str, int]:
        builds = self.session.builds
        return {
            name: builds[name].size_bytes if name in builds else subject.size_bytes
            for name, subject in self.session.subjects.items()
        }

    def _boundaries(self) -> tuple[Boundary, ...]:
        kinds = dict.fromkeys(spec.input_kind for spec in self._specs())
        timed = {block.backend for block in self.blocks}
        devices = tuple(dict.fromkeys(spec.device for spec in self._specs() if spec.name in timed))
        return tuple(Boundary(kind, boundary_text(kind, devices, self.settings.scenario)) for kind in kinds)

    def _describe(self, subject: Subject) -> BackendReport:
        contract, name = subject.contract, subject.spec.name
        return BackendReport(
            spec=dataclasses.replace(subject.spec, built=""),
            sha256=subject.sha256,
            size_bytes=self._sizes()[name],
            precision=contract.precision if contract else "fp32",
            checkpoint_sha256=contract.checkpoint_sha256 if contract else subject.sha256,
            opened=self.session.opened.get(name),
            build=self.session.builds.get(name),
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
        utterances=timed.utterances,
        device_ns=timed.device_ns,
        served=timed.served,
        memory=timed.memory,
        energy=timed.energy,
    )


def _with_gpu(block: Block, in_use: int | None) -> Block:
    """Add the GPU's state while it is still warm, and what this process took of its memory."""
    now = gpu_memory_used()
    taken = max(0, now - in_use) if now is not None and in_use is not None else None
    memory = dataclasses.replace(block.memory or Memory(), device=taken)
    return dataclasses.replace(block, gpus=gpu_states(), memory=memory)


def _rounding(spec: BackendSpec) -> Rounding | None:
    """What OpenVINO computes in, where that is less than the file's own precision."""
    less: dict[str, Rounding] = {"bf16": "bf16", "fp16": "fp16"}
    return less.get(spec.precision) if spec.kind == "openvino" else None
