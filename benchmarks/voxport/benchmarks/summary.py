"""From raw blocks to the rows of the table. A pure function of the document, so anybody can redo it."""

import dataclasses
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.plan import BackendSpec, Cell
from voxport.benchmarks.report import AnswerCheck, Block, LatencyReport, Row
from voxport.benchmarks.statistics import Interval, decide, percentile, relative_spread, speed_up

NOISY = 0.10  # interquartile range over median, as torch.utils.benchmark warns


def make_rows(
    specs: Sequence[BackendSpec],
    cells: Sequence[Cell],
    blocks: Sequence[Block],
    answers: Sequence[AnswerCheck],
    seed: int,
    margin: float,
) -> tuple[Row, ...]:
    """One row for each backend and cell that has any block, cell by cell."""
    baselines = {spec.input_kind: spec.name for spec in specs if spec.role == "baseline"}
    found: dict[tuple[str, Cell], list[Block]] = {}
    for block in blocks:
        found.setdefault((block.backend, block.cell), []).append(block)
    checks = {(check.backend, check.cell): check for check in answers}
    rows = []
    for cell in cells:
        for spec in specs:
            own = found.get((spec.name, cell))
            if own:
                reference = found.get((baselines[spec.input_kind], cell), [])
                rows.append(_row(spec, own, reference, checks.get((spec.name, cell)), seed, margin))
    return tuple(rows)


def _row(
    spec: BackendSpec,
    own: Sequence[Block],
    baseline: Sequence[Block],
    check: AnswerCheck | None,
    seed: int,
    margin: float,
) -> Row:
    wall, cpu = _pooled(own, "wall_ns"), _pooled(own, "cpu_ns")
    cell = own[0].cell
    is_baseline = spec.role == "baseline"
    interval = None if is_baseline else _compare(baseline, own, "wall_ns", seed)
    row = Row(
        backend=spec.name,
        cell=cell,
        rounds=len(own),
        samples=int(wall.size),
        p50_ms=percentile(wall, 0.5),
        p90_ms=percentile(wall, 0.9),
        p99_ms=percentile(wall, 0.99),
        max_ms=float(wall.max()),
        cpu_p50_ms=percentile(cpu, 0.5),
        utterances_per_second=float(1e3 * cell.batch * wall.size / wall.sum()),
        real_time_factor=float(np.median(wall) / 1e3 / own[0].audio_seconds),
        speed_up=interval,
        cpu_speed_up=None if is_baseline else _compare(baseline, own, "cpu_ns", seed),
        verdict="baseline" if is_baseline else decide(interval, margin),
        answer=check,
        spread=relative_spread(wall),
        unstable_rounds=sum(not block.warmup.stable for block in own),
    )
    return row if check is None or check.same else _unranked(row)


def _unranked(row: Row) -> Row:
    """A model that answers otherwise does other work: its times are shown, and not compared."""
    return dataclasses.replace(row, verdict="answers differ")


def _pooled(blocks: Sequence[Block], clock: str) -> npt.NDArray[np.float64]:
    """Milliseconds of all calls."""
    return np.concatenate([np.asarray(getattr(block, clock), dtype=np.float64) for block in blocks]) / 1e6


def _compare(baseline: Sequence[Block], own: Sequence[Block], clock: str, seed: int) -> Interval | None:
    """The speed-up over the rounds that both have."""
    by_round = {block.round: getattr(block, clock) for block in baseline}
    pairs = [(by_round[block.round], getattr(block, clock)) for block in own if block.round in by_round]
    if any(min(min(b), min(c)) <= 0 for b, c in pairs):
        return None  # a processor clock too coarse for calls this short
    key = zlib.crc32(f"{own[0].backend} {own[0].cell} {clock}".encode())
    return speed_up([b for b, _ in pairs], [c for _, c in pairs], seed=seed ^ key)


def make_notes(report: LatencyReport) -> tuple[str, ...]:
    """What a reader must know before believing the table."""
    return (*_machine_notes(report), *_row_notes(report), *_failure_notes(report))


def _machine_notes(report: LatencyReport) -> list[str]:
    notes = []
    machine, threads = report.machine, report.settings.threads
    if machine.load_average is not None and machine.load_average > 0.5 * machine.usable_cores:
        notes.append(
            f"the load average was {machine.load_average:.1f} on {machine.usable_cores:g} cores at the start: "
            "other work may have slowed some rounds"
        )
    if threads > machine.usable_cores:
        notes.append(f"{threads} threads share {machine.usable_cores:g} usable cores")
    return notes


def _row_notes(report: LatencyReport) -> list[str]:
    rows, roles = report.rows, {item.spec.name: item.spec.role for item in report.backends}
    unstable = [f"{_name(row)} ({row.unstable_rounds} of {row.rounds})" for row in rows if row.unstable_rounds]
    noisy = [f"{_name(row)} ({row.spread:.0%})" for row in rows if row.spread > NOISY]
    notes = ["every warm-up settled: no row is unstable"]
    if unstable:
        notes = [f"unstable, warm-up did not settle in some rounds: {', '.join(unstable)}"]
    if noisy:
        notes.append(f"noisy, interquartile range above {NOISY:.0%} of the median: {', '.join(noisy)}")
        ratios = [f"{_name(row)} {_ratio(row.cpu_speed_up)}" for row in rows if row.cpu_speed_up]
        if ratios:
            notes.append(f"speed-up in processor time, which other work disturbs less: {'; '.join(ratios)}")
    for row in rows:
        if row.verdict == "answers differ" and row.answer is not None:
            notes.append(f"answers differ, so no verdict: {_name(row)}, {_distance(row.answer)}")
        if roles[row.backend] == "control" and row.verdict in ("faster", "slower"):
            notes.append(f"the control {_name(row)} came out {row.verdict} than itself: the machine was too unsteady")
    return notes


def _name(row: Row) -> str:
    return f"{row.backend} at {row.cell}"


def _ratio(interval: Interval) -> str:
    return f"{interval.ratio:.2f}× [{interval.low:.2f}, {interval.high:.2f}]"


def _distance(check: AnswerCheck) -> str:
    if check.max_abs is None:
        return "no finite scores of the right shape"
    return f"max |Δscore| {check.max_abs:.2g}, allowed {check.allowed:.2g}"


def _failure_notes(report: LatencyReport) -> list[str]:
    return [
        f"failed: {failure.backend} "
        + (f"at {failure.cell} " if failure.cell else "")
        + (f"in round {failure.round + 1} " if failure.round is not None else "")
        + failure.reason
        for failure in report.failures
    ]
