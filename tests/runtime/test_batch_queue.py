"""The batcher's rules under a clock of our own: who runs next, with whom, and when."""

from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxport.runtime import BatcherOptions, VoxportError
from voxport.runtime.audio.preprocess import Prepared
from voxport.runtime.backends.batching import MAX_SECONDS
from voxport.runtime.serving.queue import BatchQueue, Request

OPTIONS = BatcherOptions(max_batch=3, max_wait_ms=10, max_queue=100, buckets=(1, 2, 4))
NOTHING = np.zeros(1, np.float32)


def request(arrived: float, seconds: float = 0.5) -> Request:
    return Request(Prepared(NOTHING, seconds), lambda *_: None, Future(), arrived)


def queue_of(*requests: Request, options: BatcherOptions = OPTIONS) -> BatchQueue:
    queue = BatchQueue(options)
    for each in requests:
        queue.add(each)
    return queue


def test_an_empty_queue_has_nothing_to_run_and_nothing_to_wait_for() -> None:
    queue = BatchQueue(OPTIONS)
    assert queue.take(0.0) == queue.take(1e9, hurry=True) == []
    assert queue.patience(5.0) is None
    assert len(queue) == 0


def test_one_request_runs_when_its_budget_is_spent_and_not_before() -> None:
    one = request(1.0)
    queue = queue_of(one)
    assert queue.take(1.009) == []
    assert queue.patience(1.004) == pytest.approx(0.006)
    assert queue.patience(2.0) == 0
    assert queue.take(1.01) == [one]
    assert len(queue) == 0


def test_a_full_batch_runs_at_once_and_the_rest_waits() -> None:
    waiting = [request(1.0 + i / 1000) for i in range(4)]
    queue = queue_of(*waiting)
    assert queue.take(1.003) == waiting[:3]
    assert queue.take(1.003) == []
    assert queue.take(1.013) == waiting[3:]


def test_lengths_do_not_mix_and_a_limit_belongs_to_the_bucket_below_it() -> None:
    short, exact, longer, endless = request(1.0, 0.2), request(1.001, 1.0), request(1.002, 1.001), request(1.003, 900)
    queue = queue_of(short, exact, longer, endless)
    assert [queue.take(2.0) for _ in range(3)] == [[short, exact], [longer], [endless]]


def test_the_oldest_that_is_due_goes_before_a_full_batch() -> None:
    old = request(1.0, 3.0)
    full = [request(1.001) for _ in range(3)]
    queue = queue_of(*full, old)
    assert queue.take(1.02) == [old]
    assert queue.take(1.02) == full


def test_a_full_batch_need_not_wait_for_an_older_one_that_is_not_due() -> None:
    old = request(1.0, 3.0)
    full = [request(1.001) for _ in range(3)]
    queue = queue_of(old, *full)
    assert queue.take(1.002) == full
    assert queue.take(1.002) == []


def test_among_full_batches_the_older_goes_first() -> None:
    later, earlier = [request(1.002, 1.5) for _ in range(3)], [request(1.001) for _ in range(3)]
    queue = queue_of(*later, *earlier)
    assert queue.take(1.003) == earlier


def test_hurry_waits_for_nobody() -> None:
    one = request(1.0)
    assert queue_of(one).take(1.0, hurry=True) == [one]


def test_a_cancelled_request_leaves() -> None:
    first, second = request(1.0), request(1.0)
    queue = queue_of(first, second)
    assert queue.remove(first.future) is first
    assert queue.remove(first.future) is None
    assert queue.take(2.0) == [second]


def test_a_batch_is_bounded_in_padded_sound_and_one_long_sound_is_a_batch() -> None:
    """The bound is that of the batch calls: attention over it must fit into memory."""
    options = BatcherOptions(max_batch=16, max_wait_ms=10, buckets=())
    waiting = [request(1.0, seconds) for seconds in (20.0, 25.0, 29.0, 70.0, 70.0)]
    queue = queue_of(*waiting, options=options)
    assert queue.take(1.0) == waiting[:2]  # three rows of 29 s are 87 s
    assert queue.take(1.0) == [waiting[2]]
    assert queue.take(1.0) == [waiting[3]]
    assert queue.take(1.0) == []  # company could still come


arrivals = st.lists(st.tuples(st.integers(0, 30), st.floats(0.01, 50)), min_size=1, max_size=40)


@given(arrivals, st.integers(1, 5), st.integers(0, 20), st.integers(1, 9))
def test_nobody_starves_is_lost_or_runs_twice(
    arrivals: list[tuple[int, float]], max_batch: int, max_wait_ms: int, run_ms: int
) -> None:
    """A model that takes `run_ms` for each batch, in simulated milliseconds."""
    options = BatcherOptions(max_batch, max_wait_ms, max_queue=100)
    coming = sorted((request(at / 1000, seconds) for at, seconds in arrivals), key=lambda each: each.arrived)
    queue, done, now = BatchQueue(options), list[Request](), 0.0
    todo = list(coming)
    while len(done) < len(coming):
        while todo and todo[0].arrived <= now:
            queue.add(todo.pop(0))
        waiting = [each for bucket in queue._buckets for each in bucket.values()]
        batch = queue.take(now)
        if not batch:
            patience = queue.patience(now)
            assert patience is None or patience > 0
            events = [each.arrived for each in todo[:1]] + ([now + patience] if patience is not None else [])
            now = max(now, min(events)) + 1e-9
            continue
        due = [each for each in waiting if each.arrived + max_wait_ms / 1000 <= now]
        if due:
            assert min(due, key=lambda each: each.arrived).arrived == batch[0].arrived
        assert len(batch) <= max_batch
        longest = max(each.prepared.seconds for each in batch)
        assert len(batch) == 1 or len(batch) * longest <= MAX_SECONDS
        done += batch
        now += run_ms / 1000
    assert len(queue) == 0
    assert set(done) == set(coming)
    for low, high in zip((0.0, *options.buckets), (*options.buckets, float("inf")), strict=True):
        ours = [each.arrived for each in done if low < each.prepared.seconds <= high]
        assert ours == sorted(ours)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_batch": 0}, "max_batch"),
        ({"max_wait_ms": -1}, "max_wait_ms"),
        ({"max_wait_ms": float("nan")}, "max_wait_ms"),
        ({"max_wait_ms": float("inf")}, "max_wait_ms"),
        ({"max_queue": 15}, "max_queue"),
        ({"buckets": (1, 1)}, "buckets"),
        ({"buckets": (2, 1)}, "buckets"),
        ({"buckets": (0,)}, "buckets"),
        ({"buckets": (float("nan"), 2)}, "buckets"),
        ({"buckets": (2, float("nan"))}, "buckets"),
    ],
)
def test_impossible_options_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(VoxportError, match=message):
        BatcherOptions(**change)
