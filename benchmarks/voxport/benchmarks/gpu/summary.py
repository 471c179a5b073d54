"""From the raw blocks of a GPU document to its rows and notes. A pure function of the document."""

import zlib
from collections.abc import Sequence

import numpy as np

from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.gpu.report import GpuBlock, GpuReport, GpuRow, Verdict
from voxport.benchmarks.gpu.variants import BASELINE
from voxport.benchmarks.stats.intervals import MIN_ROUNDS, Interval, decide, percentile, speed_up


def make_rows(report: GpuReport) -> tuple[GpuRow, ...]:
    """One row for each back end and cell that has a block, cell by cell."""
    found: dict[tuple[str, Cell], list[GpuBlock]] = {}
    for block in report.blocks:
        found.setdefault((block.backend, block.cell), []).append(block)
    wrong = {(check.backend, check.cell) for check in report.parity if not check.same}
    names = dict.fromkeys(block.backend for block in report.blocks)
    return tuple(
        _row(found[name, cell], found.get((BASELINE, cell), []), (name, cell) in wrong, report.settings.seed)
        for cell in report.settings.cells
        for name in names
        if (name, cell) in found
    )


def _row(own: Sequence[GpuBlock], baseline: Sequence[GpuBlock], wrong: bool, seed: int) -> GpuRow:
    first = own[0]
    wall = np.concatenate([np.asarray(block.wall_ns, np.float64) for block in own]) / 1e6
    device = [value / 1e6 for block in own for value in block.device_ns]
    base = {block.round: block.wall_ns for block in baseline}
    pairs = [(base[block.round], block.wall_ns) for block in own if block.round in base]
    is_base = first.backend == BASELINE
    key = zlib.crc32(f"{first.backend} {first.cell}".encode())
    interval = None if is_base else speed_up([b for b, _ in pairs], [c for _, c in pairs], seed=seed ^ key)
    ratio = 1.0 if is_base else _ratio(pairs)
    return GpuRow(
        backend=first.backend,
        cell=first.cell,
        rounds=len(own),
        calls=int(wall.size),
        p50_ms=float(np.median(wall)),
        p99_ms=percentile(wall, 0.99),
        device_p50_ms=float(np.median(device)) if device else None,
        utterances_per_second=float(1e3 * first.cell.batch * wall.size / wall.sum()),
        ratio=ratio,
        speed_up=interval,
        verdict=_verdict(is_base, wrong, interval),
    )


def _ratio(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> float | None:
    if not pairs:
        return None
    return float(np.exp(np.mean([np.log(np.median(base) / np.median(own)) for base, own in pairs])))


def _verdict(is_base: bool, wrong: bool, interval: Interval | None) -> Verdict:
    if is_base:
        return "baseline"
    return "answers differ" if wrong else decide(interval)


def _why_few(report: GpuReport) -> str:
    asked = report.settings.rounds
    return "which the budget did not allow" if asked >= MIN_ROUNDS else f"since {asked} were asked for"


def make_notes(report: GpuReport) -> tuple[str, ...]:
    """What a reader must know before believing the table."""
    notes = []
    if report.settings.device == "cpu":
        notes.append("a rehearsal on the CPU: nothing here was measured on a GPU")
    rounds = [row.rounds for row in report.rows if row.verdict != "baseline"]
    if rounds and min(rounds) < MIN_ROUNDS:
        few = sum(number < MIN_ROUNDS for number in rounds)
        notes.append(
            f"{few} of {len(rounds)} rows have fewer than {MIN_ROUNDS} rounds, {_why_few(report)}: "
            "their ratios are shown without a verdict"
        )
    if "freshly initialised" in report.network:
        notes.append("the network's weights are random: times are those of a trained one, answers are not anybody's")
    unsteady = sum(not block.warmup.stable for block in report.blocks)
    if unsteady:
        notes.append(f"warm-up did not settle in {unsteady} of {len(report.blocks)} blocks")
    for row in report.rows:
        if row.backend.endswith("(control)") and row.verdict in ("faster", "slower"):
            notes.append(f"the control at {row.cell} came out {row.verdict} than itself: the machine was too unsteady")
    notes += [f"{each.name}: {each.reason:.240}" for each in report.backends if each.status == "ok" and each.reason]
    notes += [f"{step.name}: {step.status}, {step.reason:.240}" for step in report.steps if step.status != "ok"]
    return tuple(notes)
