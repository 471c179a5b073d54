"""Does the benchmark itself deserve trust, here? Its cost per call, its clocks, and its intervals' coverage."""

import math
import time
from dataclasses import dataclass

import numpy as np

from voxport.benchmarks.core.timing import BlockRule, Clock, harness_cost_ns, time_calls
from voxport.benchmarks.stats.intervals import MARGIN, decide, min_samples, queries_needed, speed_up

CALL_MS = 5.0  # of a typical call, against which the cost is held
ALLOWED = 0.01
CALLS = 200
TRIALS = 400
QUANTILES = (0.5, 0.9, 0.99, 0.999)


@dataclass(frozen=True)
class Needed:
    """Fewest samples that say anything about a quantile, which are also the fewest queries that prove a bound.

    `one_late` and `two_late`: the same proof, where so many of the queries came too late.
    """

    quantile: float
    samples: int
    one_late: int
    two_late: int


@dataclass(frozen=True)
class SelfTest:
    """`harness_us` is what the loop reports for a call that does nothing, so what it adds to every time.

    `around_us` is what a call costs beyond its own time: reading the clocks, keeping the sample.
    `coverage` is the share of simulated comparisons whose 95 % interval holds the true ratio;
    `false_verdicts` of comparisons of equals that came out faster or slower.
    """

    harness_us: float
    harness_share: float
    around_us: float
    around_share: float
    clock_step_ns: int
    rounds: int
    trials: int
    coverage: float
    false_verdicts: float
    needed: tuple[Needed, ...]

    @property
    def passed(self) -> bool:
        """Under 1 % of a 5 ms call, and intervals that cover about as often as they say."""
        slack = 4 * math.sqrt(0.95 * 0.05 / self.trials)  # four standard errors of the simulation
        return max(self.harness_share, self.around_share) < ALLOWED and self.coverage > 0.95 - slack


def self_test(seed: int = 1, rounds: int = 5, trials: int = TRIALS) -> SelfTest:
    """Measure and simulate; about two seconds on a quiet core."""
    clock = Clock()
    harness = harness_cost_ns(_nothing, clock) / 1e3
    around = _around_us(clock)
    coverage, wrong = _simulate(seed, rounds, trials)
    needed = tuple(Needed(q, min_samples(q), queries_needed(1, q), queries_needed(2, q)) for q in QUANTILES)
    per_call = CALL_MS * 1e3
    return SelfTest(
        harness, harness / per_call, around, around / per_call, _step(clock), rounds, trials, coverage, wrong, needed
    )


def _nothing(_: int) -> None:
    return None


def _around_us(clock: Clock) -> float:
    """Microseconds between the end of one timed call and the start of the next: the least over blocks."""
    rule = BlockRule(seconds=60.0, min_calls=CALLS, max_calls=CALLS)
    spans = []
    for _ in range(20):
        start = clock.wall()
        walls, _ = time_calls(_nothing, rule, clock)
        spans.append((clock.wall() - start - sum(walls)) / CALLS / 1e3)
    return min(spans)


def _step(clock: Clock) -> int:
    """The smallest difference that two readings of the wall clock showed, in nanoseconds."""
    readings = [clock.wall() for _ in range(2000)]
    steps = np.diff(readings)
    return int(steps[steps > 0].min(initial=time.get_clock_info("perf_counter").resolution * 1e9 + 1))


def _simulate(seed: int, rounds: int, trials: int) -> tuple[float, float]:
    """Coverage of the interval at a true ratio of 1.25, and verdicts "faster" or "slower" among equals.

    Skewed times whose level moves by 3 % from round to round, as processes do.
    """
    rng = np.random.default_rng(seed)

    def times(shift: float) -> list[np.ndarray[tuple[int], np.dtype[np.float64]]]:
        levels = np.exp(shift + 0.03 * rng.standard_normal(rounds))
        return [level * (1 + 0.05 * rng.standard_exponential(40)) for level in levels]

    hits = wrong = 0
    for trial in range(trials):
        interval = speed_up(times(math.log(1.25)), times(0.0), seed=trial, resamples=400)
        hits += interval is not None and interval.low <= 1.25 <= interval.high
        equal = decide(speed_up(times(0.0), times(0.0), seed=trial, resamples=400), MARGIN)
        wrong += equal in ("faster", "slower")
    return hits / trials, wrong / trials
