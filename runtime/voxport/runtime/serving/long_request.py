"""A batcher's request of a sound that the model does not take whole: one window in the queue at a time."""

import dataclasses
from concurrent.futures import Future
from typing import Any

from voxport.runtime.audio.preprocess import Prepared
from voxport.runtime.backends.base import Answer
from voxport.runtime.contract import Contract
from voxport.runtime.length_range import LengthRange
from voxport.runtime.results import Identification
from voxport.runtime.serving.queue import Finish
from voxport.runtime.serving.worker import BatchWorker, fail
from voxport.runtime.windowing.long_input import LongInput, Pool


def answer_long(
    worker: BatchWorker, contract: Contract, source: LongInput, finish: Finish, future: "Future[Any]"
) -> None:
    """Answer `future` in the place that its sender has reserved, and give the place back; stops where it is cancelled.

    Windows of different sounds run together, those of one sound one after the other: others get their turn.
    """
    pool = Pool(contract)
    seconds = LengthRange.of_sound(contract).seconds(LengthRange.of_sound(contract).longest)
    try:
        for piece in source.pieces():
            if future.cancelled():
                break
            answered: Future[Answer] = Future()
            worker.add(Prepared(piece.values, seconds), _as_it_is, answered, keeps_place=True)
            pool.add(answered.result(), piece.weight)
        else:
            result = finish(pool.answer(), source.seconds)
            if isinstance(result, Identification):
                result = dataclasses.replace(result, windows=pool.windows)
            if future.set_running_or_notify_cancel():
                future.set_result(result)
    except BaseException as problem:  # whatever it is, somebody waits for it
        fail(future, problem)
    finally:
        worker.release()


def _as_it_is(answer: Answer, _: float) -> Answer:
    return answer
