"""Who is fastest, by the times of `bench latency`; what chance explains is not ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from voxport.benchmarks.latency.report import Block

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True)
class Place:
    """Where a candidate stands. Ratios are of times: above 1 the candidate, or the winner, is the faster one.

    `milliseconds` are medians by the clock that ranks and `processor` those of the processor's time, which adds up over
    threads, cell by cell. `against` is by eager PyTorch, `behind` by the winner: how many times the winner's time it
    takes, with its interval.
    `verdict` is "chosen"; "as fast" where chance may explain the difference; or "slower".
    """

    name: str
    verdict: Literal["chosen", "as fast", "slower"]
    milliseconds: tuple[float, ...]
    processor: tuple[float, ...]
    against: tuple[float, float, float]
    behind: tuple[float, float, float] | None


def rank(
    blocks: Sequence["Block"], names: Sequence[str], baseline: str, clock: Clock = "wall", seed: int = 1
) -> tuple[Place, ...]:
    """Place the candidates `names`, the most precise first in that order, by all cells alike.

    A candidate's time in a round is the geometric mean over cells of its median. Pairs are judged by `speed_up` and
    `decide` of `bench latency`. The fastest, and all that are not slower by their verdict, share the first place; of
    these the first of `names` is chosen.

    Raises:
        ValueError: no candidate was timed in at least two rounds.
    """
    from voxport.benchmarks.stats.intervals import decide, speed_up

    times = {name: _rounds(blocks, name, clock) for name in (*names, baseline)}
    timed = [name for name in names if len(times[name]) > 1]
    if not timed or len(times[baseline]) < 2:
        raise ValueError("nothing was timed in at least two rounds")

    def ratio(slow: str, fast: str) -> tuple[tuple[float, float, float], str]:
        shared = sorted(set(times[slow]) & set(times[fast]))
        found = speed_up([[times[slow][r]] for r in shared], [[times[fast][r]] for r in shared], seed=seed)
        assert found is not None, "two rounds were asked for"
        return (found.ratio, found.low, found.high), decide(found)

    against = {name: ratio(baseline, name)[0] for name in timed}
    fastest = max(timed, key=lambda name: against[name][0])
    # Of a pair that is "undecided" or "equivalent" nobody is the faster one.
    alike = [name for name in timed if name == fastest or ratio(name, fastest)[1] != "faster"]
    chosen = alike[0]
    places = []
    for name in timed:
        verdict: Literal["chosen", "as fast", "slower"] = "slower"
        if name in alike:
            verdict = "chosen" if name == chosen else "as fast"
        behind = None if name == chosen else ratio(name, chosen)[0]
        spent = (_cells(blocks, name, clock), _cells(blocks, name, "cpu"))
        places.append(Place(name, verdict, *spent, against[name], behind))
    order = {"chosen": 0, "as fast": 1, "slower": 2}
    return tuple(sorted(places, key=lambda place: (order[place.verdict], -place.against[0])))


def _rounds(blocks: Sequence["Block"], name: str, clock: Clock) -> Mapping[int, float]:
    """Nanoseconds by round, where the candidate was timed at every cell."""
    import numpy as np

    cells = {str(block.cell) for block in blocks}
    found: dict[int, dict[str, float]] = {}
    for block in blocks:
        if block.backend == name:
            found.setdefault(block.round, {})[str(block.cell)] = float(np.median(getattr(block, f"{clock}_ns")))
    return {
        number: float(np.exp(np.mean(np.log(list(medians.values())))))
        for number, medians in found.items()
        if set(medians) == cells and min(medians.values()) > 0
    }


def _cells(blocks: Sequence["Block"], name: str, clock: Clock) -> tuple[float, ...]:
    """Median milliseconds over the rounds' medians, cell by cell as they first appear."""
    import numpy as np

    cells = list(dict.fromkeys(str(block.cell) for block in sorted(blocks, key=lambda one: (one.cell.frames,))))
    return tuple(
        float(
            np.median(
                [
                    np.median(getattr(block, f"{clock}_ns")) / 1e6
                    for block in blocks
                    if block.backend == name and str(block.cell) == cell
                ]
            )
        )
        for cell in cells
    )


def finding_of(places: Sequence[Place], clock: Clock, threads: int) -> str:
    """The choice as a sentence. `threads` are eager PyTorch's."""
    best, time = places[0], "wall-clock time" if clock == "wall" else "processor time"
    own = "1 thread" if threads == 1 else f"{threads} threads"
    ratio = "{:.2f}× [{:.2f}, {:.2f}]".format(*best.against) + f" eager PyTorch's speed with {own}, in {time}"
    alike = [place.name for place in places if place.verdict == "as fast"]
    if alike:
        return (
            f"{best.name}: {ratio}; {'; '.join(alike)} cannot be told from it by these times, and it keeps more of the "
            "network's precision or asks for less"
        )
    return f"{best.name}, is the fastest, {ratio}"
