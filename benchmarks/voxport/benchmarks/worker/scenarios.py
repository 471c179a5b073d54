"""What one timed call is in each scenario.

Single stream: one batch, and the next when it is answered. Offline: the whole set, batch after batch.
Server: queries that come at random, each of one utterance, batched as they wait.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from voxport.benchmarks.backends.registry import Array, Backend, Lengths
from voxport.benchmarks.core.inputs import Inputs, join, make_inputs
from voxport.benchmarks.core.records import Probe, Served
from voxport.benchmarks.core.settings import Cell, InputSpec, Load
from voxport.benchmarks.core.timing import BlockRule, Call, Clock, time_calls
from voxport.benchmarks.worker.queries import Trial, predict, search
from voxport.benchmarks.worker.queries import serve as serve_queries
from voxport.runtime.contract import InputKind

Run = Callable[[Array, Lengths], object]


def load_inputs(spec: InputSpec, cell: Cell, input_kind: InputKind, load: Load) -> Inputs:
    """The calls of `cell`; for a server, whose queries come one by one, of one utterance each."""
    if load.scenario == "server":
        cell = dataclasses.replace(cell, batch=1)
    return make_inputs(spec, cell, input_kind, load)


def caller(run: Run, inputs: Inputs, load: Load) -> Call:
    """What the timing loop calls with a running number."""
    arrays, rows, count = inputs.arrays, inputs.rows, len(inputs.arrays)
    if load.scenario != "offline":
        return lambda number: run(arrays[number % count], rows[number % count])

    def whole_set(_: int) -> None:
        for values, lengths in zip(arrays, rows, strict=True):
            run(values, lengths)

    return whole_set


def answer_all(backend: Backend, inputs: Inputs, cell: Cell, load: Load) -> Array:
    """Scores (utterances, speakers) of all calls in turn; for a server in the batches that it may form."""
    if load.scenario != "server":
        calls = list(zip(inputs.arrays, inputs.rows, strict=True))
    else:
        starts = range(0, len(inputs.arrays), cell.batch)
        calls = [join(inputs.arrays[i : i + cell.batch], inputs.rows[i : i + cell.batch]) for i in starts]
    return np.concatenate([backend.run(values, lengths) for values, lengths in calls])


def time_server(
    backend: Backend, inputs: Inputs, cell: Cell, load: Load, rule: BlockRule, clock: Clock
) -> tuple[list[int], list[int], Served]:
    """Latencies and processor times at the highest rate that kept the bound, and all rates that were tried."""
    count = len(inputs.arrays)

    def answer(numbers: Sequence[int]) -> None:
        chosen = [number % count for number in numbers]
        backend.run(*join([inputs.arrays[i] for i in chosen], [inputs.rows[i] for i in chosen]))

    service = _services(answer, cell.batch, rule, clock)
    trials: dict[float, Trial] = {}

    def attempt(rate: float) -> Probe:
        probe, trials[rate] = serve_queries(answer, rate, cell.batch, load.server, clock, load.seed)
        return probe

    single, ceiling = service[1], max(size / (float(np.mean(times)) / 1e9) for size, times in service.items())
    guess = predict(single, load.server, load.seed)
    if guess <= 0.0:  # one query alone takes longer than the bound
        return list(single), [0] * len(single), Served(0.0, load.server.bound_ms, ())
    if load.guess:  # a little less than the resolution, so that rounding asks for no third trial
        served = search(attempt, load.guess, ceiling, load.server, 1 + 0.99 * load.server.resolution)
    else:
        served = search(attempt, guess, ceiling, load.server)
    best = trials[served.rate] if served.rate else trials[served.probes[-1].rate]
    return best.latencies, best.cpus, served


def _services(
    answer: Callable[[Sequence[int]], None], batch: int, rule: BlockRule, clock: Clock
) -> dict[int, list[int]]:
    """Times of one call with one query and, where queries may be batched, with as many as may be."""
    short = dataclasses.replace(rule, seconds=min(rule.seconds, 0.5), min_calls=20)
    found = {}
    for size in dict.fromkeys((1, batch)):
        found[size], _ = time_calls(partial(_numbered, answer, size), short, clock)
    return found


def _numbered(answer: Callable[[Sequence[int]], None], size: int, number: int) -> None:
    answer(range(number * size, (number + 1) * size))
