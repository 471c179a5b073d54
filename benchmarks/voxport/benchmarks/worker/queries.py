"""The Server scenario: queries come at random, wait in a queue, and 99 % must be answered in time.

Latency counts from the moment at which a query was due, not from when the server got to it: a server
that falls behind pays for its queue. Arrivals are Poisson, and equal for all back ends of a round.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.core.records import Probe, Served
from voxport.benchmarks.core.settings import ServerRule
from voxport.benchmarks.core.timing import Clock
from voxport.benchmarks.stats.intervals import percentile, queries_needed

Answer = Callable[[Sequence[int]], object]  # answers the queries of these numbers in one call
Try = Callable[[float], Probe]

QUANTILE = 0.99
FILLING = 20  # a probe lasts so many bounds at least: the queue starts empty and must have time to fill
STEP = 1.15
SLOWEST = 64.0  # where a 64th of the first guess is not held either, nothing is


@dataclass
class Trial:
    """One arrival rate under way: the latencies of its queries and the processor time of its calls, in ns."""

    latencies: list[int] = field(default_factory=list)
    cpus: list[int] = field(default_factory=list)
    late: int = 0


def most_queries(rate: float, rule: ServerRule) -> int:
    """How many queries a probe at `rate` per second may send at most."""
    return max(rule.max_queries, _fewest(rate, rule))


def _fewest(rate: float, rule: ServerRule) -> int:
    return int(np.ceil(FILLING * rate * rule.bound_ms / 1e3))


def judge(queries: int, late: int, rate: float, rule: ServerRule) -> bool | None:
    """Whether `rate` is held: True or False where that is clear, None where more queries are needed."""
    needed = max(queries_needed(late, QUANTILE), _fewest(rate, rule))
    if needed > most_queries(rate, rule):
        return False
    return True if queries >= needed else None


def serve(answer: Answer, rate: float, batch: int, rule: ServerRule, clock: Clock, seed: int) -> tuple[Probe, Trial]:
    """Send queries at `rate` per second until it is clear whether that is held.

    What waits is answered together, at most `batch` at once, first come first served.
    """
    most = most_queries(rate, rule)
    gaps = np.random.default_rng((seed, 1)).exponential(1e9 / rate, most)
    due = np.cumsum(gaps).astype(np.int64).tolist()
    trial, bound = Trial(), int(rule.bound_ms * 1e6)
    held: bool | None = None
    first, start = 0, clock.wall()
    while held is None and first < most:
        now = clock.wall() - start
        if now < due[first]:
            clock.sleep((due[first] - now) / 1e9)
            now = clock.wall() - start
        last = first + 1
        while last < min(first + batch, most) and due[last] <= now:
            last += 1
        before = clock.cpu()
        answer(range(first, last))
        done, cpu = clock.wall() - start, clock.cpu() - before
        waits = [done - moment for moment in due[first:last]]
        trial.latencies += waits
        trial.cpus.append(cpu)
        trial.late += sum(wait > bound for wait in waits)
        first = last
        held = judge(first, trial.late, rate, rule)
    p99 = percentile(np.asarray(trial.latencies) / 1e6, QUANTILE)
    return Probe(rate, first, trial.late, p99, held), trial


def search(attempt: Try, guess: float, ceiling: float, rule: ServerRule, step: float = STEP) -> Served:
    """The highest rate that `attempt` holds, found from `guess` on by steps and then by bisection of its logarithm.

    Steps grow from `step` on: a good guess needs a small one, and then two trials are enough. A rate above `ceiling`,
    at which the server would be busy all the time, is never tried.
    """
    probes: list[Probe] = []
    held, failed, rate = 0.0, 0.0, min(guess, ceiling)
    while True:
        probe = attempt(rate)
        probes.append(probe)
        if probe.held:
            held = rate
        else:
            failed = rate
        if held and failed:
            if failed / held <= 1 + rule.resolution:
                break
            rate = float(np.sqrt(held * failed))
        elif held:
            if held >= ceiling:
                break
            rate = min(ceiling, held * step)
            step *= step
        else:
            if failed * SLOWEST < guess:
                break
            rate = failed / step
            step = min(step * step, 4.0)
    return Served(held, rule.bound_ms, tuple(probes))


def predict(service_ns: npt.ArrayLike, rule: ServerRule, seed: int, queries: int = 4000) -> float:
    """The rate per second at which a simulated queue with these service times just keeps the bound; 0 for none.

    Where to begin the search: it saves the machine most of the probes.
    """
    rng = np.random.default_rng((seed, 2))
    service = rng.choice(np.asarray(service_ns, dtype=np.float64) / 1e9, queries)
    gaps = rng.standard_exponential(queries)
    low, high = 0.0, 1.0 / float(service.mean())
    for _ in range(20):
        rate = (low + high) / 2
        late = float(np.quantile(waiting(gaps / rate, service) + service, QUANTILE)) > rule.bound_ms / 1e3
        low, high = (low, rate) if late else (rate, high)
    return low


def waiting(gaps: npt.NDArray[np.float64], service: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Seconds that each query waits in a queue with one server (Lindley's recursion); `gaps` precede each query."""
    # W[i] = max(0, W[i-1] + S[i-1] - G[i]) is a random walk above its running minimum.
    walk = np.concatenate(([0.0], np.cumsum(service[:-1] - gaps[1:])))
    return np.asarray(walk - np.minimum.accumulate(walk))
