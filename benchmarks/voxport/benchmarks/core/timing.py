"""The hot loop: warm up until the times agree with each other, then time every single call.

Wall time comes from perf_counter_ns around one synchronous call; the process's CPU time is read
outside that span, so that reading it does not count. Nothing is dropped or clipped.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Call = Callable[[int], object]  # called with a running number, which chooses the input


@dataclass(frozen=True)
class Clock:
    """Two clocks in nanoseconds, and a sleep in seconds. Tests bring their own."""

    wall: Callable[[], int] = time.perf_counter_ns
    cpu: Callable[[], int] = time.process_time_ns
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class BlockRule:
    """When warm-up and timing end. Seconds; `tolerance` is relative.

    Warm-up runs in windows of at least `window_seconds` and `window_calls`, at least three of them. It ends
    once it took `warmup_seconds` and the medians of the last three windows differ by at most `tolerance`,
    or, marked unstable, after `warmup_cap`, which does not count the very first call: a compiler or the capture
    of a graph may take a minute there. Timing lasts `seconds` and at least `min_calls`, but at most `max_calls`.
    """

    seconds: float = 2.0
    warmup_seconds: float = 1.0
    warmup_cap: float = 8.0
    window_seconds: float = 0.1
    window_calls: int = 3
    tolerance: float = 0.10
    min_calls: int = 5
    max_calls: int = 20_000

    def __post_init__(self) -> None:
        if min(self.seconds, self.warmup_cap, self.window_seconds, self.tolerance) <= 0 or self.warmup_seconds < 0:
            raise ValueError("times and tolerance must be positive")
        if not 1 <= self.min_calls <= self.max_calls or self.window_calls < 1:
            raise ValueError("window_calls and min_calls must be at least 1, max_calls at least min_calls")

    @classmethod
    def lasting(cls, seconds: float, warmup_seconds: float) -> "BlockRule":
        """A rule with these times; the warm-up's cap and windows follow from them."""
        return cls(
            seconds=seconds,
            warmup_seconds=warmup_seconds,
            warmup_cap=max(2.0, 8 * warmup_seconds),
            window_seconds=min(0.1, max(warmup_seconds, 0.03) / 3),
        )


@dataclass(frozen=True)
class Warmup:
    """How warm-up went. `spread` is (largest - smallest) / smallest of the last three windows' medians."""

    stable: bool
    calls: int
    seconds: float
    spread: float
    first_ns: int  # the first call at this shape, cold


def warm_up(call: Call, rule: BlockRule, clock: Clock, period: int = 1) -> Warmup:
    """Call until times are steady; see BlockRule.

    Where inputs differ from call to call and repeat after `period`, each is seen once before, since an engine may
    compile or tune for each; then every window has those of the first one: else longer inputs would look like
    unsteady times.
    """
    medians: list[float] = []
    first = calls = same = 0
    if period > 1:
        before = clock.wall()
        call(0)
        first, calls = clock.wall() - before, period
        for number in range(1, period):
            call(number)
    start = clock.wall() - first  # what a first pass takes does not use up the warm-up
    while True:
        times: list[int] = []
        opened = now = clock.wall()
        while len(times) < (same or rule.window_calls) or (not same and now - opened < rule.window_seconds * 1e9):
            before = clock.wall()
            call(len(times) if period > 1 else calls)
            now = clock.wall()
            times.append(now - before)
            calls += 1
        same = len(times) if period > 1 else 0
        first = first or times[0]
        medians.append(float(np.median(times)))
        if len(medians) < 3:
            continue
        elapsed = (now - start) / 1e9
        spread = _spread(medians[-3:])
        stable = spread <= rule.tolerance
        if (stable and elapsed >= rule.warmup_seconds) or elapsed - first / 1e9 >= rule.warmup_cap:
            return Warmup(stable, calls, elapsed, spread, first)


def _spread(medians: list[float]) -> float:
    smallest = min(medians)
    return (max(medians) - smallest) / smallest if smallest > 0 else 0.0


def time_calls(call: Call, rule: BlockRule, clock: Clock, period: int = 1) -> tuple[list[int], list[int]]:
    """Wall and CPU nanoseconds of each call of one block.

    Calls whose inputs repeat after `period` are timed in whole periods, however long one takes: of half a one
    a slow back end would be judged by other inputs than a fast one.
    """
    wall, cpu = clock.wall, clock.cpu
    walls: list[int] = []
    cpus: list[int] = []
    limit = int(rule.seconds * 1e9)
    start = wall()
    for number in range(rule.max_calls):
        cpu_before = cpu()
        before = wall()
        call(number)
        after = wall()
        cpu_after = cpu()
        walls.append(after - before)
        cpus.append(cpu_after - cpu_before)
        done = number + 1
        if after - start >= limit and done >= rule.min_calls and done % period == 0:
            break
    return walls, cpus


def harness_cost_ns(empty: Call, clock: Clock, calls: int = 2000) -> int:
    """Median nanoseconds that the loop reports for `empty`, a call that does nothing: its share of every time."""
    walls, _ = time_calls(empty, BlockRule(seconds=60.0, min_calls=calls, max_calls=calls), clock)
    return int(np.median(walls))
