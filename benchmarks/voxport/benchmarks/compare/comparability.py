"""May two documents be compared? Only where everything but the thing under test was the same."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from voxport.benchmarks.conditions.report import ConditionsReport
from voxport.benchmarks.documents import Document
from voxport.benchmarks.latency.report import LatencyReport
from voxport.benchmarks.system.machine import Machine
from voxport.benchmarks.training.report import TrainReport
from voxport.runtime.errors import VoxportError

_MACHINE = ("os", "cpu", "cores", "cores_allowed", "cpu_quota", "governor", "turbo", "memory_limit")
_GPU = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm")
# More rounds are only more certain, and what is measured beside speed does not change it.
_FREE_SETTINGS = ("rounds", "timeout", "control", "truth", "accuracy", "also", "frames", "batches", "trace", "data")
_MEMORY_SLACK = 0.02  # kernels of one machine keep a little more or less for themselves


class RefusalError(VoxportError):
    """The documents are not comparable; `differences` name each reason."""

    def __init__(self, differences: Sequence[str]) -> None:
        super().__init__("these documents cannot be compared: " + "; ".join(differences))
        self.differences = tuple(differences)


def check_context(first: Document, second: Document) -> list[str]:
    """What differs and does not forbid a comparison.

    Raises:
        RefusalError: machines, settings, cells, inputs or boundaries differ, or there are no samples.
    """
    if isinstance(first, ConditionsReport) or isinstance(second, ConditionsReport):
        raise RefusalError(["answers under conditions have no speeds"])
    found = [f"machine, {each}" for each in machine_differences(first.machine, second.machine)]
    found += [f"settings, {each}" for each in _settings_differences(first.settings, second.settings)]
    notes: list[str] = []
    if isinstance(first, LatencyReport) and isinstance(second, LatencyReport):
        found += _latency_differences(first, second)
        notes += _latency_notes(first, second)
    if isinstance(first, TrainReport) and isinstance(second, TrainReport):
        if first.settings.data != second.settings.data:
            found.append(f"settings, data: {first.settings.data!r} before, {second.settings.data!r} after")
        notes += _said("package", _versions(first.versions), _versions(second.versions))
    if found:
        raise RefusalError(found)
    return notes


def machine_differences(first: Machine, second: Machine) -> Iterator[str]:
    """Facts of the two machines that decide speed and differ."""
    for name in _MACHINE:
        yield from _different(name, getattr(first, name), getattr(second, name))
    sizes = [machine.memory or 0 for machine in (first, second)]
    if abs(sizes[0] - sizes[1]) > _MEMORY_SLACK * max(sizes):
        yield from _different("memory", *sizes)
    gpus = [[{fact.name: fact.value for fact in gpu.facts} for gpu in machine.gpus] for machine in (first, second)]
    if len(gpus[0]) != len(gpus[1]):
        yield from _different("GPUs", len(gpus[0]), len(gpus[1]))
        return
    for one, other in zip(*gpus, strict=True):
        for name in _GPU:
            yield from _different(f"gpu {name}", one.get(name), other.get(name))


def _settings_differences(first: Any, second: Any) -> Iterator[str]:
    for field in dataclasses.fields(first):
        if field.name not in _FREE_SETTINGS:
            yield from _different(field.name, getattr(first, field.name), getattr(second, field.name))


def _latency_differences(first: LatencyReport, second: LatencyReport) -> Iterator[str]:
    yield from _different("scenario", first.scenario, second.scenario)
    yield from _different(
        "timed boundary", [each.text for each in first.boundaries], [each.text for each in second.boundaries]
    )
    yield from _different("cells", ", ".join(map(str, first.cells)), ", ".join(map(str, second.cells)))
    yield from _different("trace of lengths", first.trace, second.trace)
    for which, report in (("before", first), ("after", second)):
        if not report.blocks:
            yield f"the document {which} holds no samples: measure with -o FILE.json, --json leaves them out"
    inputs = [{(block.backend, block.cell): block.inputs_digest for block in each.blocks} for each in (first, second)]
    shared = [key for key in inputs[0] if key in inputs[1] and inputs[0][key] != inputs[1][key]]
    if shared:
        yield f"inputs: {shared[0][0]} at {shared[0][1]} was timed on other values"


def _latency_notes(first: LatencyReport, second: LatencyReport) -> list[str]:
    notes = []
    files = [{item.spec.name: item for item in report.backends} for report in (first, second)]
    for name in files[0].keys() & files[1].keys():
        one, other = files[0][name], files[1][name]
        if one.opened is not None and other.opened is not None:
            notes += _said(f"{name}: package", _versions(one.opened.versions), _versions(other.opened.versions))
        if one.sha256 != other.sha256:
            notes.append(f"{name}: another file ({one.sha256[:12]} before, {other.sha256[:12]} after)")
    if first.machine.python != second.machine.python:
        notes.append(f"Python: {first.machine.python} before, {second.machine.python} after")
    if first.settings.scenario == "server":
        notes.append("ms are the time between two queries at the highest rate that was held")
    if first.settings.rounds != second.settings.rounds:
        notes.append(f"rounds: {first.settings.rounds} before, {second.settings.rounds} after")
    return sorted(set(notes))


def _versions(facts: Sequence[Any]) -> dict[str, str]:
    return {fact.name: fact.value for fact in facts}


def _said(what: str, before: dict[str, str], after: dict[str, str]) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [
        f"{what} {name}: {before.get(name, 'none')} before, {after.get(name, 'none')} after"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _different(name: str, before: object, after: object) -> Iterator[str]:
    if before != after:
        yield f"{name}: {before!s:.200} before, {after!s:.200} after"
