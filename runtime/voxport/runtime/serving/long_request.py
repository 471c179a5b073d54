"""A batcher's request of a sound that the model does not take whole: one window in the queue at a time."""

import dataclasses
import threading
from concurrent.futures import Future
from functools import partial
from typing import Any

from voxport.runtime.audio.preprocess import Prepared
from voxport.runtime.backends.base import Answer
from voxport.runtime.contract import Contract
from voxport.runtime.length_range import LengthRange
from voxport.runtime.notes import Described
from voxport.runtime.results import Identification, Voice
from voxport.runtime.serving.queue import Finish
from voxport.runtime.serving.worker import BatchWorker, fail
from voxport.runtime.windowing.long_input import LongInput, Pool


class _Place:
    """The place in the queue that a request has: given back once, at once where the request is cancelled."""

    def __init__(self, worker: BatchWorker, future: "Future[Any]") -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._left = False
        self._window: Future[Answer] | None = None
        future.add_done_callback(self._stop)

    def window(self) -> "Future[Answer] | None":
        """A future for the next window, None where the request was cancelled."""
        with self._lock:
            self._window = None if self._left else Future()
            return self._window

    def leave(self) -> bool:
        """Whether the place was still held; it is the caller's from now on."""
        with self._lock:
            held, self._left = not self._left, True
            return held

    def _stop(self, future: "Future[Any]") -> None:
        if future.cancelled() and self.leave():
            self._worker.release()
            if self._window is not None:  # which leaves the queue, unless it runs already
                self._window.cancel()


def answer_long(
    worker: BatchWorker, contract: Contract, source: LongInput, finish: Finish, future: "Future[Any]"
) -> None:
    """Answer `future` in the place that its sender has reserved; stops where it is cancelled.

    Windows of different sounds run together, those of one sound one after the other: others get their turn. The last
    window is a request like any other, which answers `future` and leaves the place.
    """
    place, pool, last = _Place(worker, future), Pool(contract), None
    longest = LengthRange.of_windows(contract)
    seconds = longest.seconds(longest.longest)
    try:
        for piece in source.pieces():
            if last is not None:
                window = place.window()
                if window is None:
                    return
                worker.add(Prepared(last.values, seconds), _as_it_is, window, keeps_place=True)
                pool.add(window.result(), last.weight)
            last = piece
        assert last is not None, "a long input has at least one window"
    except BaseException as problem:  # whatever it is, somebody waits for it
        if place.leave():
            worker.release()
            fail(future, problem)
        return
    if place.leave():
        worker.add(Prepared(last.values, seconds), partial(_pooled, pool, last.weight, source, finish), future)


def _pooled(pool: Pool, weight: int, source: LongInput, finish: Finish, answer: Answer, _: Described) -> Any:
    pool.add(answer, weight)
    result = finish(pool.answer(), source)
    return dataclasses.replace(result, windows=pool.windows) if isinstance(result, (Identification, Voice)) else result


def _as_it_is(answer: Answer, _: Described) -> Answer:
    return answer
