"""Time many sizes of many ways of doing something, interleaved, so that a busy moment falls on all alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from voxport.benchmarks.scaling.report import Point, ScaleSettings, Series
from voxport.benchmarks.stats.power_law import fit_growth

Clock = Callable[[], float]  # seconds

_WARM_CALLS, _WARM_SECONDS = 3, 0.05
_MOST_CALLS = 10_000


@dataclass
class Work:
    """One size of one series: `call` does it once; `parts` is by how many its time is divided."""

    series: str
    size: int
    call: Callable[[], object]
    parts: int = 1
    rounds_ms: list[float] = field(default_factory=list)
    ended: str = ""


def measure_points(works: Sequence[Work], settings: ScaleSettings, clock: Clock = time.perf_counter) -> None:
    """Fill in `rounds_ms` of each of `works`. A call that takes too long ends its series there, and says so."""
    ended: dict[str, str] = {}
    ready = []
    for work in sorted(works, key=lambda each: each.size):
        if work.series in ended:
            continue
        seconds = _warm_up(work.call, clock)
        ready.append(work)
        if seconds > settings.patience:
            ended[work.series] = f"a call at {work.size:,} took {seconds:.0f} s"
            work.ended = ended[work.series]
    rng = np.random.default_rng(settings.seed)
    for _ in range(settings.rounds):
        for position in rng.permutation(len(ready)):
            work = ready[position]
            work.rounds_ms.append(1e3 * _median(work.call, settings.seconds / settings.rounds, clock) / work.parts)


def _warm_up(call: Callable[[], object], clock: Clock) -> float:
    """Seconds of the quickest call."""
    start, best, calls = clock(), float("inf"), 0
    while calls < _WARM_CALLS or clock() - start < _WARM_SECONDS:
        before = clock()
        call()
        best, calls = min(best, clock() - before), calls + 1
        if best > 1.0:  # it is slow enough that no warm-up matters
            break
    return best


def _median(call: Callable[[], object], seconds: float, clock: Clock) -> float:
    times: list[float] = []
    start = clock()
    while not times or (clock() - start < seconds and len(times) < _MOST_CALLS):
        before = clock()
        call()
        times.append(clock() - before)
    return float(np.median(times))


def make_series(works: Sequence[Work]) -> tuple[Series, ...]:
    """The series of what was measured, in the order in which they first appear, with their exponents."""
    names = dict.fromkeys(work.series for work in works)
    return tuple(_series(name, [work for work in works if work.series == name]) for name in names)


def _series(name: str, works: Sequence[Work]) -> Series:
    done = sorted((work for work in works if work.rounds_ms), key=lambda each: each.size)
    points = tuple(Point(work.size, float(np.median(work.rounds_ms)), tuple(work.rounds_ms)) for work in done)
    return with_growth(Series(name, points, ended=next((work.ended for work in done if work.ended), "")))


def with_growth(series: Series) -> Series:
    """The series with the exponent of its tail."""
    points = [point for point in series.points if point.ms > 0]
    growth = fit_growth([point.size for point in points], [point.ms for point in points])
    return Series(series.name, series.points, growth, series.derived, series.ended)


def difference(name: str, whole: Series, part: Series) -> Series:
    """What is left of `whole` without `part`, round by round; sizes at which nothing is left are not there."""
    parts = {point.size: point.rounds_ms for point in part.points}
    points = []
    for point in whole.points:
        rest = [a - b for a, b in zip(point.rounds_ms, parts.get(point.size, ()), strict=False)]
        middle = float(np.median(rest)) if rest else 0.0
        if middle > 0:
            points.append(Point(point.size, middle, tuple(rest)))
    return with_growth(Series(name, tuple(points), derived=True))
