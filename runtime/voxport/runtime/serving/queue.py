"""Which waiting requests run next, and together: the batcher's rules, without threads and without a clock."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from voxport.runtime.audio.preprocess import Prepared
from voxport.runtime.backends.base import Answer
from voxport.runtime.backends.batching import MAX_SECONDS
from voxport.runtime.errors import VoxportError
from voxport.runtime.notes import Described
from voxport.runtime.windowing.long_input import MAX_SECONDS as LONGEST

Finish = Callable[[Answer, Described], Any]  # the answer's one row, what it was asked about → the result

_MAX_WAIT_MS = 60_000.0


@dataclass(frozen=True)
class BatcherOptions:
    """How a Batcher groups requests.

    `max_batch` is the most requests that run together (and a padded batch holds at most 60 s of sound,
    unless one sound alone is longer). `max_wait_ms` is the latency budget: the longest time in
    milliseconds that a request waits for company while the model is idle; 0 runs what is there.
    `max_queue` is the most requests that wait, those still being decoded included. `buckets` are rising
    lengths in seconds: only sounds between the same two limits share a batch, so that little padding is
    computed. `max_seconds` is the longest sound that is answered: what the model does not take whole runs in
    windows, and nobody should keep a server busy with a day of sound. Raises VoxportError for impossible values.
    """

    max_batch: int = 16
    max_wait_ms: float = 5.0
    max_queue: int = 256
    buckets: tuple[float, ...] = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    max_seconds: float = 3600.0

    def __post_init__(self) -> None:
        if self.max_batch < 1:
            raise VoxportError(f"max_batch must be at least 1, found {self.max_batch}")
        if not 0 <= self.max_wait_ms <= _MAX_WAIT_MS:
            raise VoxportError(f"max_wait_ms must be between 0 and {_MAX_WAIT_MS:g}, found {self.max_wait_ms}")
        if self.max_queue < self.max_batch:
            raise VoxportError(f"max_queue is {self.max_queue}, but must hold one batch of {self.max_batch}")
        if not all(low < high for low, high in zip((0.0, *self.buckets), self.buckets, strict=False)):
            raise VoxportError(f"buckets must be rising lengths in seconds above 0, found {self.buckets}")
        if not 0 < self.max_seconds <= LONGEST:
            raise VoxportError(f"max_seconds must be above 0, at most {LONGEST:g}, found {self.max_seconds}")


@dataclass(frozen=True, eq=False)
class Request:
    """One prepared sound, when it came (in seconds of the batcher's clock), and whom to tell.

    A window of a longer sound keeps its place in the queue: the sound's next window will need it.
    """

    prepared: Prepared
    finish: Finish
    future: "Future[Any]"
    arrived: float
    keeps_place: bool = False


_Bucket = OrderedDict["Future[Any]", Request]  # not a list: a cancelled request leaves from the middle


class BatchQueue:
    """Requests that wait, in buckets by length. Not locked: its owner sees to that.

    The oldest request decides which bucket runs next, once it has waited `max_wait_ms`. Before that a
    bucket that is full may run: the model is idle and nobody is overdue. Nobody starves: a request that
    is due waits only for those that came before it, and within a bucket the order is that of arrival.
    """

    def __init__(self, options: BatcherOptions) -> None:
        self._options = options
        self._max_wait = options.max_wait_ms / 1000
        self._buckets: list[_Bucket] = [OrderedDict() for _ in range(len(options.buckets) + 1)]

    def __len__(self) -> int:
        return sum(map(len, self._buckets))

    def add(self, request: Request) -> None:
        """Let a request wait."""
        index = bisect_left(self._options.buckets, request.prepared.seconds)
        self._buckets[index][request.future] = request

    def remove(self, future: "Future[Any]") -> Request | None:
        """Take the request of `future` out. None where it does not wait."""
        found = (bucket.pop(future, None) for bucket in self._buckets)
        return next((request for request in found if request is not None), None)

    def clear(self) -> list[Request]:
        """Take all requests out."""
        everything = [request for bucket in self._buckets for request in bucket.values()]
        for bucket in self._buckets:
            bucket.clear()
        return everything

    def take(self, now: float, *, hurry: bool = False) -> list[Request]:
        """The batch that must run now, oldest first, taken out; empty where none must.

        `hurry` says that no more company can come, so that waiting for it is in vain.
        """
        bucket = self._next(now, hurry)
        if bucket is None:
            return []
        batch = _fitting(bucket, self._options.max_batch)
        for request in batch:
            del bucket[request.future]
        return batch

    def patience(self, now: float) -> float | None:
        """Seconds until the oldest request must run, None where nobody waits."""
        heads = self._heads()
        return max(0.0, heads[0][0] + self._max_wait - now) if heads else None

    def _next(self, now: float, hurry: bool) -> _Bucket | None:
        heads = self._heads()
        if heads and (hurry or heads[0][0] + self._max_wait <= now):
            return self._buckets[heads[0][1]]
        full = (self._buckets[i] for _, i in heads if self._is_full(self._buckets[i]))
        return next(full, None)

    def _heads(self) -> list[tuple[float, int]]:
        """When the first of each bucket came, with the bucket's index; the oldest first."""
        return sorted((next(iter(bucket.values())).arrived, i) for i, bucket in enumerate(self._buckets) if bucket)

    def _is_full(self, bucket: _Bucket) -> bool:
        most = self._options.max_batch
        return len(bucket) >= most or len(_fitting(bucket, most)) < len(bucket)


def _fitting(bucket: _Bucket, max_batch: int) -> list[Request]:
    """The first requests of a bucket that may run together, at least one."""
    batch: list[Request] = []
    longest = 0.0
    for request in bucket.values():
        longest = max(longest, request.prepared.seconds)
        if batch and (len(batch) == max_batch or (len(batch) + 1) * longest > MAX_SECONDS):
            break
        batch.append(request)
    return batch
