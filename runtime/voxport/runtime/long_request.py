"""A batcher's request of a sound that the model does not take whole: one window in the queue at a time."""

import dataclasses
from concurrent.futures import Future
from functools import partial
from typing import Any

from voxport.runtime.backend import Answer
from voxport.runtime.batch_queue import Finish
from voxport.runtime.batch_worker import BatchWorker, fail
from voxport.runtime.contract import Contract
from voxport.runtime.lengths import LengthRange
from voxport.runtime.long_input import LongInput, Pool
from voxport.runtime.prepare import Prepared
from voxport.runtime.results import Identification


def answer_long(
    worker: BatchWorker, contract: Contract, source: LongInput, finish: Finish, future: "Future[Any]"
) -> None:
    """Answer `future` in the place that its sender has reserved; stops where it is cancelled.

    Windows of different sounds run together, those of one sound one after the other: others get their turn. The last
    window is a request like any other, which answers `future` and leaves the place.
    """
    pool, last = Pool(contract), None
    longest = LengthRange.of_sound(contract)
    seconds = longest.seconds(longest.longest)
    try:
        for piece in source.pieces():
            if last is not None:
                if future.cancelled():
                    break
                answered: Future[Answer] = Future()
                worker.add(Prepared(last.values, seconds), _as_it_is, answered, keeps_place=True)
                pool.add(answered.result(), last.weight)
            last = piece
        assert last is not None, "a long input has at least one window"
    except BaseException as problem:  # whatever it is, somebody waits for it
        worker.release()
        fail(future, problem)
        return
    worker.add(Prepared(last.values, seconds), partial(_pooled, pool, last.weight, source, finish), future)


def _pooled(pool: Pool, weight: int, source: LongInput, finish: Finish, answer: Answer, _: float) -> Any:
    pool.add(answer, weight)
    result = finish(pool.answer(), source.seconds)
    return dataclasses.replace(result, windows=pool.windows) if isinstance(result, Identification) else result


def _as_it_is(answer: Answer, _: float) -> Answer:
    return answer
