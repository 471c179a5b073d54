"""The Server scenario under a clock that the test drives, against queueing theory and a slow simulation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from voxport.benchmarks.core.records import Probe
from voxport.benchmarks.core.settings import ServerRule
from voxport.benchmarks.core.timing import Clock
from voxport.benchmarks.stats.intervals import queries_needed
from voxport.benchmarks.worker.queries import judge, most_queries, predict, search, serve, waiting

stats = pytest.importorskip("scipy.stats")

MS = 1_000_000


class FakeServer:
    """Time moves while a call runs, by `service_ms`, and while the server sleeps."""

    def __init__(self, service_ms: float) -> None:
        self.now, self.service, self.calls = 0, int(service_ms * MS), list[tuple[int, ...]]()
        self.clock = Clock(wall=lambda: self.now, cpu=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)

    def answer(self, numbers: Sequence[int]) -> None:
        self.calls.append(tuple(numbers))
        self.now += self.service


@pytest.mark.parametrize("late", [0, 1, 2, 7])
def test_queries_needed_is_the_binomial_bound(late: int) -> None:
    needed = queries_needed(late)
    assert stats.binom.cdf(late, needed, 0.01) <= 0.01 < stats.binom.cdf(late, needed - 1, 0.01)
    assert [queries_needed(n) for n in (0, 1, 2)] == [459, 662, 838]


def test_latencies_are_those_of_a_queue() -> None:
    """Against Lindley's recursion, written out one query after another."""
    server, rate = FakeServer(10.0), 70.0
    probe, trial = serve(server.answer, rate, 1, ServerRule(bound_ms=1000.0), server.clock, seed=5)
    gaps = np.random.default_rng((5, 1)).exponential(1e9 / rate, most_queries(rate, ServerRule(bound_ms=1000.0)))
    due, free, expected = 0.0, 0.0, []
    for gap in gaps[: probe.queries]:
        due += gap
        free = max(due, free) + 10 * MS
        expected.append(free - due)
    np.testing.assert_allclose(trial.latencies, expected, atol=2000)  # whole nanoseconds, summed up
    assert probe.held
    assert probe.p99_ms == pytest.approx(np.percentile(expected, 99) / MS)
    assert [numbers for call in server.calls for numbers in call] == list(range(probe.queries))


def test_mean_wait_is_pollaczek_khinchines() -> None:
    """M/D/1 at half load: the mean wait is half a service time, ρ S / 2 (1 - ρ)."""
    rng = np.random.default_rng(3)
    service = np.full(200_000, 0.01)
    waits = waiting(rng.exponential(0.02, 200_000), service)
    assert waits.mean() == pytest.approx(0.5 * 0.01, rel=0.03)


def test_what_waits_is_answered_together_and_no_more_than_the_batch() -> None:
    server = FakeServer(10.0)
    probe, _ = serve(server.answer, 250.0, 4, ServerRule(bound_ms=200.0), server.clock, seed=1)
    sizes = [len(call) for call in server.calls]
    assert max(sizes) == 4
    assert probe.held  # 250 per second are two and a half times what single answers could do
    alone, _ = serve(server.answer, 250.0, 1, ServerRule(bound_ms=200.0), server.clock, seed=1)
    assert alone.held is False


def test_a_probe_ends_as_soon_as_it_is_clear() -> None:
    rule = ServerRule(bound_ms=5.0)
    server = FakeServer(10.0)  # no query can be in time
    probe, trial = serve(server.answer, 10.0, 1, rule, server.clock, seed=1)
    assert probe.held is False
    assert probe.queries == trial.late < 20
    assert judge(459, 0, 10.0, rule) is True
    assert judge(458, 0, 10.0, rule) is None
    assert judge(459, 1, 10.0, rule) is None


def test_a_probe_lasts_long_enough_for_its_queue_to_fill() -> None:
    rule = ServerRule(bound_ms=1000.0)
    assert judge(459, 0, 500.0, rule) is None  # under a second of it
    assert most_queries(500.0, rule) == 20 * 500


@pytest.mark.parametrize("threshold", [3.0, 50.0, 400.0])
@pytest.mark.parametrize("guess", [40.0, 60.0])
def test_the_search_ends_within_its_resolution(threshold: float, guess: float) -> None:
    tried: list[float] = []

    def attempt(rate: float) -> Probe:
        tried.append(rate)
        return Probe(rate, 500, 0, 1.0, held=rate <= threshold)

    served = search(attempt, guess, 1000.0, ServerRule())
    assert served.rate <= threshold <= served.rate * 1.0301
    assert len(tried) <= 20


@pytest.mark.parametrize(("threshold", "most"), [(50.0, 2), (51.0, 2), (48.6, 2), (53.0, 5), (40.0, 9), (200.0, 12)])
def test_a_search_from_an_earlier_rounds_rate_is_short(threshold: float, most: int) -> None:
    tried: list[float] = []

    def attempt(rate: float) -> Probe:
        tried.append(rate)
        return Probe(rate, 500, 0, 1.0, held=rate <= threshold)

    served = search(attempt, 50.0, 1000.0, ServerRule(), 1 + 0.99 * ServerRule().resolution)
    assert served.rate <= threshold <= served.rate * 1.0301
    assert len(tried) <= most


def test_the_search_stops_at_the_ceiling_and_at_nothing() -> None:
    def always(held: bool) -> Any:
        return lambda rate: Probe(rate, 500, 0, 1.0, held=held)

    assert search(always(True), 90.0, 100.0, ServerRule()).rate == 100.0
    nothing = search(always(False), 90.0, 100.0, ServerRule())
    assert nothing.rate == 0.0
    assert len(nothing.probes) < 12


def test_prediction_and_search_agree_on_a_known_queue() -> None:
    """Constant service of 10 ms, p99 within 50 ms: both must find the rate that a long simulation gives."""
    rule = ServerRule(bound_ms=50.0)
    rng = np.random.default_rng(11)
    draws = rng.standard_exponential(400_000)
    service = np.full(draws.size, 0.01)
    rates = np.linspace(50, 80, 61)
    late = [np.quantile(waiting(draws / rate, service) + service, 0.99) > 0.05 for rate in rates]
    truth = rates[int(np.argmax(late)) - 1]
    guess = predict([10 * MS], rule, seed=1, queries=100_000)
    assert guess == pytest.approx(truth, rel=0.05)
    assert predict([60 * MS], rule, seed=1) == pytest.approx(0.0, abs=1e-3)

    def attempt(rate: float) -> Probe:
        server = FakeServer(10.0)
        return serve(server.answer, rate, 1, rule, server.clock, seed=2)[0]

    found = search(attempt, guess, 100.0, rule).rate
    # A probe of 459 queries proves p99 at 99 % confidence, so it stays below the truth, not above.
    assert 0.75 * truth < found < 1.1 * truth


@pytest.mark.parametrize("change", [{"bound_ms": 0.0}, {"max_queries": 458}, {"resolution": 0.0}])
def test_impossible_rules(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be positive"):
        ServerRule(**change)  # type: ignore[arg-type]
