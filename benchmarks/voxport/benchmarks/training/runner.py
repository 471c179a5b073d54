"""How many optimiser steps a second: fresh processes, and the distance to what the machine can do at most."""

import dataclasses
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from voxport.benchmarks.system.machine import Fact, Machine, describe_machine, load_average
from voxport.benchmarks.training.report import TrainReport, TrainRound, TrainSettings, rate_of
from voxport.benchmarks.worker.job import JobError, run_job
from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import decode, encode

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what comes next

_ROUND = "voxport.benchmarks.training.round:train_round"
_DATA_SHARE = 0.1  # of a step: more than that is worth a reader's attention
_APART = 0.15  # by how much phases may differ from whole steps before a note says so


def measure_training(settings: TrainSettings, progress: Progress | None = None) -> TrainReport:
    """Train for a few seconds in each of `settings.rounds` processes, one after another.

    Raises:
        VoxportError: the recipe, the corpus, the device or a package is not usable, or no round succeeded.
    """
    created, machine = datetime.now(timezone.utc).isoformat(timespec="seconds"), describe_machine()
    rounds: list[TrainRound] = []
    failures: list[str] = []
    told: dict[str, Any] = {}
    for number in range(settings.rounds):
        if progress is not None:
            progress(number, settings.rounds, f"round {number + 1} of {settings.rounds}")
        try:
            told = run_job(_ROUND, {"settings": encode(settings), "round": number}, settings.timeout, settings.threads)
        except JobError as problem:
            if problem.mistake:
                raise VoxportError(str(problem)) from problem
            failures.append(f"round {number + 1}: {problem}")
            continue
        rounds.append(decode(TrainRound, told["round"], "a training round"))
    if progress is not None:
        progress(settings.rounds, settings.rounds, "")
    if not rounds:
        raise VoxportError(f"no round of training succeeded; {failures[0]}")
    report = TrainReport(
        created=created,
        settings=settings,
        machine=machine,
        load_average_end=load_average(),
        parameters=told["parameters"],
        speakers=told["speakers"],
        versions=tuple(Fact(name, value) for name, value in told["versions"].items()),
        rate=rate_of([each.rate for each in rounds]),
        share=rate_of([each.rate * each.gflop / each.ceiling for each in rounds]),
        rounds=tuple(rounds),
        failures=tuple(failures),
        notes=(),
    )
    return dataclasses.replace(report, notes=_notes(report, machine))


def _notes(report: TrainReport, machine: Machine) -> tuple[str, ...]:
    """What a reader must know before believing the rate."""
    notes = [f"a round failed: {failure}" for failure in report.failures]
    if not report.settings.data:
        notes.append("features come from a seed and lie ready in memory; --data measures the reading of a corpus too")
    for label, load in (("start", machine.load_average), ("end", report.load_average_end)):
        if load is not None and report.settings.device == "cpu" and load > machine.usable_cores:
            notes.append(f"the load average was {load:.1f} on {machine.usable_cores:g} cores at the {label}")
    middle = report.rounds[len(report.rounds) // 2]
    phases = middle.phases
    if phases.total > 0 and phases.data / phases.total > _DATA_SHARE:
        notes.append(f"data takes {phases.data / phases.total:.0%} of a step: reading and copying hold training up")
    step = middle.seconds / middle.steps
    if abs(phases.total / step - 1) > _APART:
        notes.append(
            f"steps taken apart last {phases.total / step:.0%} of whole ones: phases show shares, not the step's time"
        )
    notes.append(f"ceiling: {middle.ceiling_note}")
    return tuple(notes)
