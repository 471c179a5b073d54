"""Warm-up and timing under a clock that the test drives."""

import itertools
from collections.abc import Callable, Iterable, Iterator

import pytest

from voxport.benchmarks.core.timing import BlockRule, Clock, harness_cost_ns, time_calls, warm_up

MS = 1_000_000


class FakeTime:
    """A clock that moves only while a call runs, by the next of `durations` (ms); CPU time is a quarter."""

    def __init__(self, durations: Iterable[float]) -> None:
        self.now, self.busy = 0, 0
        self.durations: Iterator[float] = iter(durations)
        self.numbers: list[int] = []
        self.clock = Clock(wall=lambda: self.now, cpu=lambda: self.busy)

    def call(self, number: int) -> None:
        self.numbers.append(number)
        spent = int(next(self.durations) * MS)
        self.now += spent
        self.busy += spent // 4


def forever(duration: Callable[[int], float]) -> Iterator[float]:
    number = 0
    while True:
        yield duration(number)
        number += 1


RULE = BlockRule(seconds=1.0, warmup_seconds=0.5, warmup_cap=4.0, window_seconds=0.1, window_calls=4)


def test_steady_times_end_the_warmup_at_its_least_duration() -> None:
    fake = FakeTime(forever(lambda _: 10.0))
    found = warm_up(fake.call, RULE, fake.clock)
    assert found.stable
    assert found.spread == 0
    assert found.seconds == pytest.approx(0.5)
    assert found.calls == 50 == len(fake.numbers)


def test_warmup_lasts_until_three_windows_agree() -> None:
    # 20 calls at 30 ms, 20 at 20 ms, then 10 ms: agreement within 10 % first comes in the third part.
    fake = FakeTime(forever(lambda n: 30.0 if n < 20 else 20.0 if n < 60 else 10.0))
    rule = BlockRule(warmup_seconds=0.0, warmup_cap=60.0, window_seconds=0.2, window_calls=20)
    found = warm_up(fake.call, rule, fake.clock)
    assert found.stable
    assert found.calls == 20 + 40 + 60  # windows of 20: medians 30, 20, 20, 10, 10, 10
    assert found.first_ns == 30 * MS


@pytest.mark.parametrize(("wobble", "stable"), [(0.09, True), (0.11, False)])
def test_ten_percent_is_the_limit(wobble: float, stable: bool) -> None:
    fake = FakeTime(forever(lambda n: 10.0 * (1 + wobble * (n // 10 % 2))))
    rule = BlockRule(warmup_seconds=0.0, warmup_cap=3.0, window_seconds=0.05, window_calls=10)
    found = warm_up(fake.call, rule, fake.clock)
    assert found.stable is stable
    assert found.spread == pytest.approx(wobble)


def test_what_never_settles_is_marked_and_capped() -> None:
    fake = FakeTime(forever(lambda n: 10.0 * 1.05**n))
    found = warm_up(fake.call, RULE, fake.clock)
    assert not found.stable
    assert found.seconds >= 4.0
    assert found.spread > 0.1


def test_a_single_slow_call_does_not_unsettle_a_window() -> None:
    fake = FakeTime(forever(lambda n: 500.0 if n == 37 else 10.0))
    assert warm_up(fake.call, RULE, fake.clock).stable


@pytest.mark.parametrize(("period", "stable"), [(6, True), (1, False)])
def test_lengths_that_change_are_not_unsteady_times(period: int, stable: bool) -> None:
    lengths = (10, 30, 90, 20, 60, 100)
    numbers: list[int] = []

    def call(number: int) -> None:
        numbers.append(number)
        fake.now += lengths[number % 6] * MS

    fake = FakeTime(())
    found = warm_up(call, RULE, fake.clock, period)
    assert found.stable is stable
    if stable:
        assert found.spread == 0
        assert numbers[:6] == [0, 1, 2, 3, 4, 5]  # each length once, since an engine may compile for it
        assert numbers[6:] == [0, 1, 2, 3] * (len(numbers[6:]) // 4)  # the first window's, again and again
        assert found.calls == len(numbers)


def test_a_first_pass_that_compiles_does_not_use_up_the_warmup() -> None:
    fake = FakeTime(forever(lambda n: 60_000.0 if n < 6 else 30.0 if n < 40 else 10.0))
    found = warm_up(fake.call, RULE, fake.clock, period=6)
    assert found.stable
    assert found.first_ns == 60_000 * MS


def test_a_first_call_that_compiles_does_not_use_up_the_warmup() -> None:
    fake = FakeTime(forever(lambda n: 60_000.0 if n == 0 else 30.0 if n < 20 else 10.0))
    found = warm_up(fake.call, RULE, fake.clock)
    assert found.stable
    assert found.first_ns == 60_000 * MS


def test_slow_calls_still_get_full_windows() -> None:
    fake = FakeTime(forever(lambda _: 900.0))
    found = warm_up(fake.call, RULE, fake.clock)
    assert found.calls == 12  # three windows of four, although the cap is passed in the second
    assert found.stable


def test_every_call_is_kept_in_order() -> None:
    durations = [10.0, 700.0, 20.0, 300.0]
    fake = FakeTime(durations)
    walls, cpus = time_calls(fake.call, BlockRule(seconds=1.0, min_calls=2), fake.clock)
    assert walls == [int(d * MS) for d in durations]  # 730 ms are too few, 1030 ms are enough
    assert cpus == [wall // 4 for wall in walls]
    assert fake.numbers == [0, 1, 2, 3]


def test_a_block_has_its_least_calls_and_its_most() -> None:
    slow = FakeTime(forever(lambda _: 2000.0))
    assert len(time_calls(slow.call, BlockRule(seconds=1.0, min_calls=5), slow.clock)[0]) == 5
    quick = FakeTime(forever(lambda _: 0.001))
    assert len(time_calls(quick.call, BlockRule(seconds=1.0, max_calls=300), quick.clock)[0]) == 300


def test_a_block_ends_with_a_whole_pass_through_its_inputs() -> None:
    for milliseconds, calls in ((2000.0, 7), (150.0, 7), (140.0, 14), (1.0, 1001)):
        fake = FakeTime(itertools.repeat(milliseconds))
        assert len(time_calls(fake.call, BlockRule(seconds=1.0), fake.clock, period=7)[0]) == calls
    quick = FakeTime(forever(lambda _: 0.001))
    assert len(time_calls(quick.call, BlockRule(seconds=1.0, max_calls=300), quick.clock, period=7)[0]) == 300


def test_harness_cost_is_what_the_loop_reports_for_nothing() -> None:
    fake = FakeTime(forever(lambda n: 0.001 * (n % 3)))
    assert harness_cost_ns(fake.call, fake.clock, calls=999) == 1000


@pytest.mark.parametrize(
    "change", [{"seconds": 0.0}, {"warmup_seconds": -1.0}, {"min_calls": 0}, {"min_calls": 9, "max_calls": 8}]
)
def test_impossible_rules(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"positive|at least"):
        BlockRule(**change)  # type: ignore[arg-type]


def test_rules_scale_with_their_times() -> None:
    rule = BlockRule.lasting(0.5, 0.09)
    assert (rule.seconds, rule.warmup_seconds, rule.warmup_cap) == (0.5, 0.09, 2.0)
    assert rule.window_seconds == pytest.approx(0.03)
    assert BlockRule.lasting(2.0, 1.0).window_seconds == pytest.approx(0.1)
