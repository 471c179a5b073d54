"""What is measured beside speed, each in workers of its own and apart from all timing of calls."""

import dataclasses
from collections.abc import Sequence
from functools import partial

from voxport.benchmarks.core.protocol import (
    Cold,
    Colded,
    Count,
    Counted,
    Judge,
    Judged,
    Limit,
    Limited,
    ProfileAsk,
    Profiled,
)
from voxport.benchmarks.core.records import Accuracy, ColdSample, ColdStart, Limits, Profile, Work
from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.latency.candidates import Subject, length_range
from voxport.benchmarks.latency.report import Row
from voxport.benchmarks.latency.session import Session
from voxport.benchmarks.stats.intervals import Estimate, median_interval
from voxport.benchmarks.worker.client import WorkerError
from voxport.train.evaluation.paired import chance_of_loss, verdict_on

JUDGE_PATIENCE = 12.0  # a corpus is many utterances


def accuracies(session: Session) -> tuple[Accuracy, ...]:
    """Right answers of every back end on the labelled set, and how far each is below its baseline."""
    truth = session.settings.truth
    if not truth.accuracy_data:
        return ()
    low, high = length_range(list(session.subjects.values()))
    found: dict[str, Accuracy] = {}
    for subject in session.measured:
        spec = subject.spec
        session.steps.next(f"{spec.name}: accuracy")
        request = Judge(spec, truth.accuracy_data, str(session.checkpoint), truth.accuracy_limit, low, high)
        try:
            seen = session.ask_once(request, Judged, JUDGE_PATIENCE).accuracy
        except WorkerError as problem:
            session.fail(spec, "accuracy", problem)
            seen = Accuracy(spec.name, 0, 0, None, None, truth.max_drop, None, str(problem))
        baseline = next((found[one.spec.name] for one in _baselines(session, subject) if one.spec.name in found), seen)
        found[spec.name] = judged(seen, baseline, truth.max_drop)
    return tuple(found.values())


def judged(seen: Accuracy, baseline: Accuracy, max_drop: float) -> Accuracy:
    """`seen` with its drop in points and the verdict on it; neither where one of the two is unknown."""
    if seen.accuracy is None or baseline.accuracy is None:
        return dataclasses.replace(seen, allowed_drop=max_drop)
    drop = 100 * (baseline.accuracy - seen.accuracy)
    lost, gained = len({*seen.wrong} - {*baseline.wrong}), len({*baseline.wrong} - {*seen.wrong})
    verdict = verdict_on(drop, max_drop, chance_of_loss(lost, gained))
    return dataclasses.replace(
        seen,
        drop=drop,
        allowed_drop=max_drop,
        passed=verdict != "failed",
        lost=lost,
        gained=gained,
        verdict=verdict,
    )


def _baselines(session: Session, subject: Subject) -> list[Subject]:
    kind = subject.spec.input_kind
    return [one for one in session.subjects.values() if (one.spec.role, one.spec.input_kind) == ("baseline", kind)]


def limits(session: Session) -> Limits | None:
    """Ceilings of this machine and the floor of each ONNX model at each cell; None where none was asked for."""
    if not session.settings.truth.limits:
        return None
    session.steps.next("the machine's ceilings")
    cells = tuple(cell for cell in session.cells if not cell.trace)  # a trace has no single shape
    works: list[Work] = []
    models = [subject for subject in session.measured if subject.spec.kind == "onnx" and not subject.spec.optional]
    for subject in models:
        try:
            works += session.ask_once(Count(subject.spec, session.inputs, cells), Counted).works
        except WorkerError as problem:
            session.fail(subject.spec, "limits", problem)
    if not works:
        if not (models and cells):
            lacking = "every length comes from the trace" if models else "none of the models is an ONNX file"
            session.notes.append(f"no distance to the limit: {lacking}")
        return None
    settings = session.settings
    try:
        return session.ask_once(Limit(tuple(works), settings.device, settings.threads), Limited).limits
    except WorkerError as problem:
        session.fail(models[0].spec, "limits", problem)
        return None


def cold_starts(session: Session) -> tuple[ColdStart, ...]:
    """Fresh processes, one back end after another in each round, so that a busy minute falls on all alike."""
    count = session.settings.truth.cold_starts
    seen: dict[str, list[ColdSample]] = {}
    first = session.cells[0]
    new = next((cell for cell in session.cells if cell.frames != first.frames), None) or _shorter(session, first)
    for number in range(count):
        for subject in session.measured:
            session.steps.next(f"cold start {number + 1} of {count}: {subject.spec.name}")
            if len(seen.get(subject.spec.name, ())) == number:
                _start_cold(session, subject, first, new, seen)
    return tuple(_cold_start(name, first, new, samples) for name, samples in seen.items())


def _shorter(session: Session, cell: Cell) -> Cell | None:
    low, _ = length_range(list(session.subjects.values()))
    return dataclasses.replace(cell, frames=cell.frames - 1) if cell.frames > low and not cell.trace else None


def _start_cold(
    session: Session, subject: Subject, cell: Cell, new: Cell | None, seen: dict[str, list[ColdSample]]
) -> None:
    try:
        with session.start(subject.spec.threads) as worker:
            request = Cold(subject.spec, session.inputs, cell, new)
            cold = worker.ask(request, Colded, session.settings.timeout)
            sample = dataclasses.replace(cold.sample, process=cold.ready - worker.started)
    except WorkerError as problem:
        session.fail(subject.spec, "cold", problem)
        return
    seen.setdefault(subject.spec.name, []).append(sample)


def _cold_start(name: str, cell: Cell, new: Cell | None, samples: Sequence[ColdSample]) -> ColdStart:
    total = [one.process + one.imports + one.load + one.first for one in samples]
    again = [one.new_shape for one in samples if one.new_shape is not None]
    of = partial(_estimate, samples)
    return ColdStart(
        name,
        cell,
        new,
        of("process"),
        of("imports"),
        of("load"),
        of("first"),
        _milliseconds(again) if again else None,
        _milliseconds(total),
        tuple(samples),
    )


def _estimate(samples: Sequence[ColdSample], step: str) -> Estimate:
    return _milliseconds([getattr(sample, step) for sample in samples])


def _milliseconds(times: Sequence[int]) -> Estimate:
    return median_interval([time / 1e6 for time in times])


def profiles(session: Session, rows: Sequence[Row]) -> tuple[Profile, ...]:
    """Profiles at the cell at which one of the models is furthest from its floor: of that model and of eager."""
    if not session.settings.truth.profile:
        return ()
    known = [row for row in rows if row.share is not None and row.backend in session.subjects]
    specs = {name: subject.spec for name, subject in session.subjects.items()}
    models = [row for row in known if specs[row.backend].role == "candidate" and not specs[row.backend].optional]
    if not models:
        session.notes.append("no profile: no model's distance to its floor is known, so none is the furthest from it")
        return ()
    worst = min(models, key=lambda row: row.share or 0.0)
    subject = session.subjects[worst.backend]
    found = []
    for one in [subject, *_baselines(session, subject)]:
        session.steps.next(f"{one.spec.name}: profile")
        try:
            request = ProfileAsk(one.spec, session.inputs, worst.cell)
            found.append(session.ask_once(request, Profiled).profile)
        except WorkerError as problem:
            session.fail(one.spec, "profile", problem)
    return tuple(found)
