"""The thread behind a Batcher: it lets requests in, runs the batches that are due, and ends."""

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from voxport.runtime.audio.preprocess import Prepared
from voxport.runtime.backends.base import Answer, Backend
from voxport.runtime.backends.batching import pad
from voxport.runtime.errors import BatcherClosedError, QueueFullError
from voxport.runtime.serving.queue import BatcherOptions, BatchQueue, Finish, Request


class BatchWorker:
    """One daemon thread, and the places of the requests that wait for it.

    A request first takes a place (`reserve` or `reserve_or_wait`), so that not even decoding goes beyond
    `max_queue`. It leaves the place when it runs or is cancelled, or by `release`. Everything here may
    be called from any thread.
    """

    def __init__(self, backend: Backend, options: BatcherOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._backend = backend
        self._options = options
        self._clock = clock
        self._queue = BatchQueue(options)
        # Re-entrant: the garbage collector may call `close` in a thread that holds it.
        self._changed = threading.Condition(threading.RLock())
        self._places = options.max_queue
        self._waiters: deque[Future[None]] = deque()
        self._offered: set[Future[None]] = set()  # each holds a place, but has not woken up to use it
        self._closed = False
        self._dropping = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._loop, name="voxport-batcher", daemon=True)
        self._thread.start()
        _workers.add(self)

    # --- places -----------------------------------------------------------------------------------

    @property
    def taken(self) -> int:
        """Places in use: requests that wait or are being prepared."""
        return self._options.max_queue - self._places

    def reserve(self) -> None:
        """Take a place now.

        Raises:
            QueueFullError: there is none.
            BatcherClosedError: no more requests are taken.
        """
        self._check_process()
        with self._changed:
            self._check_open()
            if self._places == 0:
                limit = self._options.max_queue
                raise QueueFullError(f"{limit} requests wait already; try again later, or raise max_queue")
            self._places -= 1

    def reserve_or_wait(self) -> "Future[None] | None":
        """Take a place now (None), or return a future that is done when one is offered; first come, first served.

        An offer must be taken with `accept`, or turned down with `abandon`, which also stops waiting.
        Raises BatcherClosedError; the future fails with it where the batcher is closed meanwhile.
        """
        self._check_process()
        with self._changed:
            self._check_open()
            if self._places:  # nobody waits: places go to those who do at once
                self._places -= 1
                return None
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            return waiter

    def accept(self, waiter: "Future[None]") -> None:
        """Take the place that was offered. Raises BatcherClosedError where it is gone with the batcher."""
        with self._changed:
            if waiter not in self._offered:
                raise _dropped()
            self._offered.remove(waiter)

    def abandon(self, waiter: "Future[None]") -> None:
        """Stop waiting; a place that was offered in the same moment goes to the next."""
        with self._changed:
            if not waiter.cancel() and waiter in self._offered:
                self._offered.remove(waiter)
                self.release()

    def release(self) -> None:
        """Give back a place for which no request was added."""
        with self._changed:
            self._leave(1)
            self._changed.notify_all()

    def _leave(self, places: int) -> None:
        """Free places. The lock is held."""
        self._places += places
        self._admit()

    def _admit(self) -> None:
        """Offer free places to those who wait for one. The lock is held."""
        while self._places and self._waiters:
            waiter = self._waiters.popleft()
            if waiter.set_running_or_notify_cancel():
                self._places -= 1
                self._offered.add(waiter)
                waiter.set_result(None)

    def _check_open(self) -> None:
        if self._closed:
            raise BatcherClosedError("this Batcher is closed; make a new one")

    def _check_process(self) -> None:
        """Without the lock: a thread that held it at the fork holds it for ever."""
        if os.getpid() != self._process:
            raise BatcherClosedError("this Batcher was made before the process forked; make one in each process")

    # --- requests ---------------------------------------------------------------------------------

    def add(self, prepared: Prepared, finish: Finish, future: "Future[Any]", *, keeps_place: bool = False) -> None:
        """Let a prepared sound wait for its batch, in the place that its sender has reserved.

        With `keeps_place` the place stays the sender's, who gives it back with `release`.
        """
        with self._changed:
            dropped = self._dropping
            if not dropped:
                self._queue.add(Request(prepared, finish, future, self._clock(), keeps_place))
                self._changed.notify_all()
            elif not keeps_place:
                self.release()
        if dropped:
            fail(future, _dropped())
        # The callback knows the future, not the request: no cycle keeps the sound in memory.
        future.add_done_callback(self._forget)

    def _forget(self, future: "Future[Any]") -> None:
        """A cancelled request leaves at once."""
        with self._changed:
            request = self._queue.remove(future)
            if request is not None and not request.keeps_place:
                self.release()

    def _loop(self) -> None:
        while self._step():  # a call each, whose locals end: an idle thread must hold no sound
            pass

    def _step(self) -> bool:
        batch = self._next_batch()
        if batch:
            self._run(batch)
        return bool(batch)

    def _next_batch(self) -> list[Request]:
        """Wait for the batch that is due; empty once the worker is closed and all is done."""
        with self._changed:
            while True:
                # With every place's request here, nobody can come to fill a batch.
                hurry = self._closed or len(self._queue) == self._options.max_queue
                due = self._queue.take(self._clock(), hurry=hurry)
                batch = [request for request in due if request.future.set_running_or_notify_cancel()]
                self._leave(sum(not request.keeps_place for request in due))
                if batch:
                    return batch
                if not due:
                    if self._closed and self.taken == 0:
                        return []
                    self._changed.wait(self._queue.patience(self._clock()))

    def _run(self, batch: Sequence[Request]) -> None:
        try:
            answer = self._backend.run(*pad([request.prepared.values for request in batch]))
        except BaseException as problem:  # whatever it is, somebody waits for it
            if len(batch) == 1:
                batch[0].future.set_exception(problem)
            else:  # one by one, so that each gets its own answer or its own error
                for request in batch:
                    self._run([request])
            return
        for row, request in enumerate(batch):
            _answer(request, answer.take(row))

    # --- the end ----------------------------------------------------------------------------------

    def close(self, *, drain: bool = True) -> None:
        """Take no more requests and let the thread end; what waits is answered first, or fails."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._closed = True
            self._dropping = self._dropping or not drain
            cleared = self._queue.clear() if self._dropping else []
            dropped = [request.future for request in cleared]
            # An offer ends here: who waits for `join` may block the very loop that would wake up to take it.
            self._places += sum(not request.keeps_place for request in cleared) + len(self._offered)
            self._offered.clear()
            waiters, self._waiters = self._waiters, deque()
            self._changed.notify_all()
        for future in (*waiters, *dropped):
            fail(future, _dropped())

    def join(self) -> None:
        """Wait until the thread has ended. In the thread itself (a future's callback): do not."""
        if threading.current_thread() is not self._thread:
            self._thread.join()


def fail(future: "Future[Any]", problem: BaseException) -> None:
    """Set an exception, unless the future was cancelled."""
    if future.set_running_or_notify_cancel():
        future.set_exception(problem)


def _answer(request: Request, answer: Answer) -> None:
    try:
        result = request.finish(answer, request.prepared)
    except BaseException as problem:
        request.future.set_exception(problem)
    else:
        request.future.set_result(result)


def _dropped() -> BatcherClosedError:
    return BatcherClosedError("the Batcher was closed before this request ran")


_workers: "weakref.WeakSet[BatchWorker]" = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """A daemon thread inside onnxruntime while the interpreter dies would abort the process."""
    for worker in list(_workers):
        worker.close(drain=False)
        if worker._process == os.getpid():
            worker.join()
