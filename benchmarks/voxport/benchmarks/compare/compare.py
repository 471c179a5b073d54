"""Two benchmark documents of one kind, cell by cell: what became faster, and what slower?

Documents of different machines, settings or boundaries are not compared: see `comparability`.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voxport.benchmarks.compare.comparability import RefusalError, check_context
from voxport.benchmarks.documents import Document, read_document, read_table
from voxport.benchmarks.latency.report import UNRANKED, Block, Broken, LatencyReport, Row
from voxport.benchmarks.stats.intervals import Interval, decide
from voxport.benchmarks.stats.unpaired import Rounds, compare_runs
from voxport.benchmarks.training.report import TrainReport
from voxport.runtime.errors import VoxportError

Clock = Literal["wall", "cpu"]
Change = Literal["faster", "slower", "equivalent", "undecided", "gone", "new"] | Broken
REGRESSIONS: tuple[Change, ...] = ("slower", "gone", *UNRANKED)
COMPARED = ("voxport.latency", "voxport.train")
OURS = ("onnx", "onnx_graphs", "openvino", "artefact")  # kinds that run a model; PyTorch makes the others


@dataclass(frozen=True)
class CompareOptions:
    """`threshold` is the practical margin in percent: a smaller change is none. `clock` chooses the times.

    `relative` compares speed-ups against each document's own baseline: what slows a whole machine down cancels.
    """

    threshold: float = 3.0
    clock: Clock = "wall"
    relative: bool = False
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 100:
            raise ValueError(f"threshold must be between 0 and 100 percent, found {self.threshold}")


@dataclass(frozen=True)
class Difference:
    """One back end at one cell.

    Times are medians of all calls in milliseconds; for training, of a step; for a server, the time between two
    queries at the highest rate that was held.
    `ratio` is before over after: above 1, it became faster. `gate` says that a regression here fails the gate:
    eager PyTorch and what PyTorch makes of the checkpoint are not ours to keep fast, and a further back end that
    was not asked for this time is not missed.
    """

    backend: str
    cell: str
    before_ms: float | None
    after_ms: float | None
    ratio: Interval | None
    change: Change
    gate: bool


@dataclass(frozen=True)
class Comparison:
    """What two documents say together."""

    kind: str
    before: str
    after: str
    created: tuple[str, ...]
    options: CompareOptions
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Difference, ...]:
        """Those that fail the gate."""
        return tuple(each for each in self.differences if each.gate and each.change in REGRESSIONS)


def compare_files(before: Path, after: Path, options: CompareOptions | None = None) -> Comparison:
    """Compare two documents that `voxport bench latency` or `voxport bench train` wrote.

    Raises:
        RefusalError: they are of different kinds, versions, machines, settings or boundaries, or hold no samples.
        ReportError: a file cannot be read.
        VoxportError: an option cannot be used with these documents.
    """
    options = options or CompareOptions()
    tables = [read_table(path) for path in (before, after)]
    for key in ("kind", "version"):
        found = [table.get(key) for table in tables]
        if found[0] != found[1]:
            raise RefusalError([f"{key}: {found[0]!r:.40} before, {found[1]!r:.40} after"])
    if tables[0]["kind"] not in COMPARED:
        raise RefusalError([f"{tables[0]['kind']} documents are not compared; those of latency and train are"])
    first, second = read_document(before), read_document(after)
    notes = check_context(first, second)
    differences = _differences(first, second, options)
    return Comparison(
        kind=first.kind,
        before=str(before),
        after=str(after),
        created=(first.created, second.created),
        options=options,
        differences=differences,
        notes=(*notes, *_drift(differences, options, first), *_renamed(differences)),
    )


def _differences(first: Document, second: Document, options: CompareOptions) -> tuple[Difference, ...]:
    if isinstance(first, LatencyReport) and isinstance(second, LatencyReport):
        return _latency(first, second, options)
    assert isinstance(first, TrainReport)
    assert isinstance(second, TrainReport)
    if options.relative or options.clock != "wall":
        raise VoxportError("training has wall times and no baseline: leave --relative and --clock out")
    steps = [[[1e3 * each.seconds / each.steps] for each in report.rounds] for report in (first, second)]
    ratio = compare_runs(steps[0], steps[1], options.seed)
    medians = [float(np.median(rounds)) for rounds in steps]
    cell = f"{first.settings.batch_size} × {first.settings.frames}"
    change = decide(ratio, options.threshold / 100)
    return (Difference(f"training, {first.settings.recipe}", cell, medians[0], medians[1], ratio, change, gate=True),)


def _latency(first: LatencyReport, second: LatencyReport, options: CompareOptions) -> tuple[Difference, ...]:
    if first.settings.scenario == "server" and options.clock != "wall":
        raise VoxportError("a server is compared by the rates that it held, which are of wall time: leave --clock out")
    before, after = ({(row.backend, row.cell): row for row in report.rows} for report in (first, second))
    specs = {item.spec.name: item.spec for report in (second, first) for item in report.backends}
    asked = {item.spec.name for item in second.backends}
    baselines = {
        item.spec.name: base.spec.name
        for item in first.backends
        for base in first.backends
        if base.spec.role == "baseline" and base.spec.input_kind == item.spec.input_kind
    }
    found = []
    for name, cell in dict.fromkeys((*before, *after)):
        old, new = before.get((name, cell)), after.get((name, cell))
        spec = specs[name]
        gate = spec.role == "candidate" and spec.kind in OURS and (name in asked or not spec.optional)
        ratio: Interval | None = None
        change: Change
        if old is None or new is None:
            change = "gone" if new is None else "new"
        else:
            rounds = [_rounds(report, name, cell, baselines.get(name), options) for report in (first, second)]
            key = zlib.crc32(f"{name} {cell}".encode())
            # One that held no rate in some round has no time between queries, so no ratio.
            if 0.0 not in (old.queries_per_second, new.queries_per_second):
                ratio = compare_runs(rounds[0], rounds[1], options.seed ^ key)
            change = _change(old, new, ratio, options)
        found.append(Difference(name, str(cell), _middle_ms(old), _middle_ms(new), ratio, change, gate))
    return tuple(found)


def _change(old: Row, new: Row, ratio: Interval | None, options: CompareOptions) -> Change:
    for broken in UNRANKED:
        if new.verdict == broken and old.verdict != broken:
            return broken
    if new.queries_per_second == 0.0 and old.queries_per_second:
        return "slower"  # it holds no rate at all any more
    return decide(ratio, options.threshold / 100)


def _middle_ms(row: Row | None) -> float | None:
    if row is None or row.queries_per_second == 0.0:
        return None
    return 1e3 / row.queries_per_second if row.queries_per_second else row.p50_ms or row.max_ms


def _rounds(report: LatencyReport, name: str, cell: object, baseline: str | None, options: CompareOptions) -> Rounds:
    """The times of each round; with `relative`, each over the median of the baseline's in the same round."""
    times_of: Callable[[Block], Sequence[float]] = lambda block: _times(block, options.clock)  # noqa: E731
    own = {block.round: block for block in report.blocks if (block.backend, block.cell) == (name, cell)}
    if not options.relative:
        return [times_of(block) for block in own.values()]
    base = {block.round: block for block in report.blocks if (block.backend, block.cell) == (baseline, cell)}
    return [
        np.asarray(times_of(block)) / np.median(times_of(base[number]))
        for number, block in own.items()
        if number in base and len(times_of(base[number]))
    ]


def _times(block: Block, clock: Clock) -> Sequence[float]:
    """Milliseconds of each call; as a server, the time between queries at the highest rate that was held."""
    if block.served is not None:
        return (1e3 / block.served.rate,) if block.served.rate > 0 else ()
    times = [value / 1e6 for value in (block.wall_ns if clock == "wall" else block.cpu_ns)]
    if min(times, default=0.0) <= 0:
        raise VoxportError(f"{block.backend} at {block.cell}: calls without {clock} time; compare another --clock")
    return times


def _renamed(differences: Sequence[Difference]) -> list[str]:
    gone, new = (sorted({each.backend for each in differences if each.change == what}) for what in ("gone", "new"))
    if not gone or not new:
        return []
    return [
        f"models are paired by the names of their files: only before {', '.join(gone)}; only after {', '.join(new)}"
    ]


def _drift(differences: Sequence[Difference], options: CompareOptions, first: Document) -> list[str]:
    """Did what nobody changed become faster or slower? Then the machine is not as it was."""
    backends = first.backends if isinstance(first, LatencyReport) else ()
    eager = {item.spec.name for item in backends if item.spec.role != "candidate"}
    moved = [
        f"{each.backend} at {each.cell} {each.ratio.ratio:.2f}×"
        for each in differences
        if each.backend in eager and each.ratio is not None and each.change in ("faster", "slower")
    ]
    if not moved or options.relative:
        return []
    return [
        f"the baseline itself changed ({'; '.join(moved)}): PyTorch or the machine is not as it was; "
        "--relative compares speed-ups against it"
    ]
