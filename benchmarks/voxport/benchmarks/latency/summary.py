"""From raw blocks to the rows of the table. A pure function of the document, so anybody can redo it."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.core.records import Accuracy, Limits
from voxport.benchmarks.core.settings import BackendSpec, Cell
from voxport.benchmarks.latency.report import AnswerCheck, Block, LatencyReport, Row
from voxport.benchmarks.stats.intervals import Interval, decide, percentile, relative_spread, speed_up

RANKED = ("baseline", "faster", "slower", "equivalent", "undecided")
NOISY = 0.10  # interquartile range over median, as torch.utils.benchmark warns


@dataclass(frozen=True)
class Beside:
    """What else belongs into a row: accuracy, limits, and the bytes of each back end's file.

    `trace` is the number of lengths that trace cells follow, so that calls of equal lengths can be found.
    """

    accuracy: tuple[Accuracy, ...] = ()
    limits: Limits | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    trace: int = 0


def make_rows(
    specs: Sequence[BackendSpec],
    cells: Sequence[Cell],
    blocks: Sequence[Block],
    answers: Sequence[AnswerCheck],
    seed: int,
    margin: float,
    beside: Beside | None = None,
) -> tuple[Row, ...]:
    """One row for each backend and cell that has any block, cell by cell."""
    baselines = {spec.input_kind: spec.name for spec in specs if spec.role == "baseline"}
    found: dict[tuple[str, Cell], list[Block]] = {}
    for block in blocks:
        found.setdefault((block.backend, block.cell), []).append(block)
    checks = {(check.backend, check.cell): check for check in answers}
    beside = beside or Beside()
    rows = []
    for cell in cells:
        of_cell = []
        for spec in specs:
            own = found.get((spec.name, cell))
            if own:
                reference = found.get((baselines[spec.input_kind], cell), [])
                row = _row(spec, own, reference, checks.get((spec.name, cell)), seed, margin, beside.trace)
                of_cell.append(_with_beside(row, spec, own, beside))
        rows += _ranked(of_cell, {spec.name for spec in specs if spec.role == "control"})
    return tuple(rows)


def _row(
    spec: BackendSpec,
    own: Sequence[Block],
    baseline: Sequence[Block],
    check: AnswerCheck | None,
    seed: int,
    margin: float,
    trace: int,
) -> Row:
    wall, cpu = _pooled(own, "wall_ns"), _pooled(own, "cpu_ns")
    cell = own[0].cell
    is_baseline = spec.role == "baseline"
    rate = _rate(own)
    interval = None if is_baseline else _compare(baseline, own, "wall_ns", seed)
    utterances = own[0].utterances or cell.batch
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
        utterances_per_second=rate if rate is not None else float(1e3 * utterances * wall.size / wall.sum()),
        real_time_factor=float(np.median(wall) / 1e3 / own[0].audio_seconds),
        speed_up=interval,
        cpu_speed_up=None if is_baseline else _compare(baseline, own, "cpu_ns", seed),
        verdict="baseline" if is_baseline else decide(interval, margin),
        answer=check,
        spread=_spread(own, trace),
        unstable_rounds=sum(not block.warmup.stable for block in own),
        queries_per_second=rate,
    )
    return row if check is None or check.same else _unranked(row)


def _unranked(row: Row) -> Row:
    """A model that answers otherwise does other work: its times are shown, and not compared."""
    return dataclasses.replace(row, verdict="answers differ")


def _rate(blocks: Sequence[Block]) -> float | None:
    """As a server: geometric mean over rounds of the highest rate that was held; 0 where a round held none."""
    rates = [block.served.rate for block in blocks if block.served is not None]
    if not rates:
        return None
    return float(np.exp(np.mean(np.log(rates)))) if min(rates) > 0 else 0.0


def _spread(blocks: Sequence[Block], trace: int) -> float:
    """Interquartile range over median of what should be alike: calls; calls of one length; as a server, rates."""
    rates = [block.served.rate for block in blocks if block.served is not None]
    if rates:
        return relative_spread(rates) if min(rates) > 0 else 0.0
    cell, times = blocks[0].cell, [np.asarray(block.wall_ns, dtype=np.float64) for block in blocks]
    period = max(1, trace // cell.batch)
    whole = all(block.utterances in (None, cell.batch) and len(block.wall_ns) % period == 0 for block in blocks)
    if not cell.trace or period == 1 or not whole:
        return relative_spread(np.concatenate(times))
    # Calls follow the trace, pass after pass: each is held against the median of the calls at its place.
    passes = np.concatenate([own.reshape(-1, period) for own in times])
    return relative_spread(passes / np.median(passes, axis=0))


def _with_beside(row: Row, spec: BackendSpec, own: Sequence[Block], beside: Beside) -> Row:
    judged = next((item for item in beside.accuracy if item.backend == spec.name), None)
    worse = judged is not None and judged.passed is False and row.verdict != "answers differ"
    device = [ns / 1e6 for block in own for ns in block.device_ns]
    memory = [block.memory for block in own if block.memory is not None]
    energy = [
        block.energy.joules / _answered(block)
        for block in own
        if block.energy is not None and block.energy.joules is not None
    ]
    return dataclasses.replace(
        row,
        verdict="less accurate" if worse else row.verdict,
        accuracy=judged.accuracy if judged else None,
        size_bytes=beside.sizes.get(spec.name),
        resident_bytes=_middle([one.resident for one in memory]),
        proportional_bytes=_middle([one.proportional for one in memory]),
        device_bytes=_middle([one.device for one in memory]),
        device_p50_ms=percentile(device, 0.5),
        joules_per_utterance=float(np.median(energy)) if energy else None,
        share=_share(row, spec, beside.limits, single=own[0].utterances in (None, row.cell.batch)),
    )


def _answered(block: Block) -> int:
    """Utterances answered during the block, warm-up apart; as a server, at all rates that were tried."""
    if block.served is not None:
        return max(1, sum(probe.queries for probe in block.served.probes))
    return len(block.wall_ns) * (block.utterances or block.cell.batch)


def _middle(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return int(np.median(known)) if known else None


def _share(row: Row, spec: BackendSpec, limits: Limits | None, single: bool) -> float | None:
    """The floor over the median time. A model has its own floor; others are held against the least of fp32 models.

    Only in a single stream is a time the time of one call, and only where the ceilings were measured.
    """
    if limits is None or row.p50_ms is None or row.queries_per_second is not None or not single:
        return None
    if (limits.device == "cpu") != (spec.device == "cpu"):
        return None
    fitting = [floor for floor in limits.floors if floor.cell == row.cell]
    integer = {work.model for work in limits.works if any("int8" in product.dtype for product in work.products)}
    own = [floor for floor in fitting if floor.model == spec.name]
    floors = own or [floor for floor in fitting if floor.model not in integer]
    return min(floor.floor_ms for floor in floors) / row.p50_ms if floors else None


def _ranked(rows: Sequence[Row], controls: set[str]) -> list[Row]:
    """Number those whose answers and accuracy pass, the best first: by rate as a server, else by median time."""

    def order(row: Row) -> float:
        if row.queries_per_second is not None:
            return -row.queries_per_second
        return row.max_ms if row.p50_ms is None else row.p50_ms

    able = [row for row in rows if row.queries_per_second != 0.0]  # one that holds no rate has no place
    fair = [row for row in able if row.verdict in RANKED and row.backend not in controls]
    places = {row.backend: place for place, row in enumerate(sorted(fair, key=order), 1)}
    return [dataclasses.replace(row, rank=places.get(row.backend)) for row in rows]


def _pooled(blocks: Sequence[Block], clock: str) -> npt.NDArray[np.float64]:
    """Milliseconds of all calls."""
    return np.concatenate([np.asarray(getattr(block, clock), dtype=np.float64) for block in blocks]) / 1e6


def _compare(baseline: Sequence[Block], own: Sequence[Block], clock: str, seed: int) -> Interval | None:
    """The speed-up over the rounds that both have; as a server, the ratio of rates."""
    if clock == "wall_ns" and any(block.served is not None for block in own):
        return _compare_rates(baseline, own, seed)
    by_round = {block.round: getattr(block, clock) for block in baseline}
    pairs = [(by_round[block.round], getattr(block, clock)) for block in own if block.round in by_round]
    if any(min(min(b), min(c)) <= 0 for b, c in pairs):
        return None  # a processor clock too coarse for calls this short
    key = zlib.crc32(f"{own[0].backend} {own[0].cell} {clock}".encode())
    return speed_up([b for b, _ in pairs], [c for _, c in pairs], seed=seed ^ key)


def _compare_rates(baseline: Sequence[Block], own: Sequence[Block], seed: int) -> Interval | None:
    rates = {block.round: block.served.rate for block in baseline if block.served is not None}
    pairs = [(rates[one.round], one.served.rate) for one in own if one.served is not None and one.round in rates]
    if any(min(pair) <= 0 for pair in pairs):
        return None  # one that holds no rate at all has no ratio
    return speed_up([[1 / base] for base, _ in pairs], [[1 / rate] for _, rate in pairs], seed=seed)


def make_notes(report: LatencyReport) -> tuple[str, ...]:
    """What a reader must know before believing the table."""
    return (*_machine_notes(report), *_file_notes(report), *_row_notes(report), *_failure_notes(report))


def _machine_notes(report: LatencyReport) -> list[str]:
    notes = []
    machine = report.machine
    threads = max(report.settings.threads, *report.settings.thread_counts, 1)
    if machine.load_average is not None and machine.load_average > 0.5 * machine.usable_cores:
        notes.append(
            f"the load average was {machine.load_average:.1f} on {machine.usable_cores:g} cores at the start: "
            "other work may have slowed some rounds"
        )
    if threads > machine.usable_cores:
        notes.append(f"{threads} threads share {machine.usable_cores:g} usable cores")
    return notes


def _file_notes(report: LatencyReport) -> list[str]:
    """A model of another checkpoint answers otherwise, and the reader should know why."""
    own = next((item.sha256 for item in report.backends if item.spec.role == "baseline"), "")
    return [
        f"{item.spec.name} was not exported from this checkpoint as it is now (SHA-256 {own[:12]}), but from "
        f"{item.checkpoint_sha256[:12]}"
        for item in report.backends
        if not item.spec.optional and item.checkpoint_sha256 != own
    ]


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
    missing = {name for name, _ in report.missing}  # listed apart, with their reasons
    return [
        f"failed: {failure.backend} "
        + (f"at {failure.cell} " if failure.cell else "")
        + (f"in round {failure.round + 1} " if failure.round is not None else "")
        + failure.reason
        for failure in report.failures
        if failure.backend not in missing
    ]
