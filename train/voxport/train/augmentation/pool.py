"""Work in processes that share one large setting, in order."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from voxport.train.data import CorpusError
from voxport.train.data.features import can_lock, cpus, start_worker

Setting = TypeVar("Setting")
Item = TypeVar("Item")
Result = TypeVar("Result")

_POOL_PAYS = 12  # items; below, starting processes takes longer than the work

_setting: Any = None  # of a worker process
_work: Any = None


def map_in_processes(
    work: Callable[[Setting, Item], Result], setting: Setting, items: Sequence[Item], jobs: int | None
) -> Iterator[Result]:
    """Yield `work(setting, item)` in the order of `items`; `setting` is sent to each of `jobs` processes once.

    Raises:
        CorpusError: a process died.
    """
    jobs = min(jobs or cpus(), len(items))
    if jobs <= 1 or len(items) < _POOL_PAYS or not can_lock():
        for item in items:
            yield work(setting, item)
        return
    # spawn: forking a process in which torch or a progress bar has threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(work, setting))
    try:
        yield from pool.map(_one, items, chunksize=2)
    except BrokenProcessPool as problem:
        raise CorpusError("a process that changes sounds died; if memory is short use fewer jobs") from problem
    finally:
        pool.shutdown(cancel_futures=True)


def _start(work: Any, setting: Any) -> None:
    global _work, _setting
    start_worker()
    _work, _setting = work, setting


def _one(item: Any) -> Any:
    return _work(_setting, item)
