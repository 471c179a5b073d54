"""The engine without Ray: processes of this machine, each with a model of its own."""

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from voxport.scale.errors import ScaleError
from voxport.scale.scoring.events import Event, Work
from voxport.scale.scoring.plan import Part
from voxport.scale.scoring.worker import serve_parts

_TRIES = 40  # of one part: two for each utterance that ends the process; a part has few such


@dataclass
class _Worker:
    process: BaseProcess
    talk: Connection
    part: Part | None = None
    ready: bool = False


def spread_over_processes(work: Work, parts: Sequence[Part], workers: int) -> Iterator[Event]:
    """Have `workers` processes score `parts`. One that dies is replaced, and its part is tried again.

    Raises:
        ScaleError: a process does not come up, or dies over one part again and again.
        VoxportError: the model cannot be loaded.
    """
    waiting, tries = deque(parts), dict.fromkeys((part.number for part in parts), 0)
    team: list[_Worker] = []
    try:
        team += [_start(work) for _ in range(min(workers, len(parts)))]
        while waiting or any(each.part is not None for each in team):
            for each in team:
                if each.ready and each.part is None and waiting:
                    part = waiting.popleft()
                    tries[part.number] += 1
                    if tries[part.number] > _TRIES:
                        raise ScaleError(f"{work.out}: processes die over {part.name} again and again; see memory")
                    _give(each, part)
            ready = wait([each.talk for each in team])
            for place, each in enumerate(team):
                if each.talk not in ready:
                    continue
                try:
                    event = _heard(each)
                except EOFError:  # it died
                    each.process.join()
                    if not each.ready:
                        raise ScaleError(
                            f"a process that loads the model died (exit code {each.process.exitcode}); is there memory "
                            "enough? --workers 1 takes the least"
                        ) from None
                    if each.part is not None:
                        waiting.appendleft(each.part)
                    team[place] = _start(work)
                    continue
                if event is not None:
                    yield event
    finally:
        _end(team)


def _start(work: Work) -> _Worker:
    # spawn: a fork copies locks that threads of this process hold. The variables are read when NumPy is imported.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with _one_thread_each():
        process = context.Process(target=serve_parts, args=(theirs, work, os.getpid()), daemon=True)
        process.start()
    theirs.close()  # so that the process's end ends the conversation
    return _Worker(process, ours)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children of this block compute with one thread, unless the user has said otherwise."""
    names = [name for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ]
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)


def _give(worker: _Worker, part: Part) -> None:
    worker.part = part
    with contextlib.suppress(OSError):  # it died: told by the other direction
        worker.talk.send(part)


def _heard(worker: _Worker) -> Event | None:
    """The next message; EOFError where the process died."""
    try:
        message: Any = worker.talk.recv()
    except (EOFError, ConnectionError) as problem:
        raise EOFError from problem
    if isinstance(message, Exception):
        raise message
    if message is None:
        worker.ready = True
        return None
    assert isinstance(message, Event)
    if message.figures is not None:
        worker.part = None
    return message


def _end(team: Sequence[_Worker]) -> None:
    for each in team:
        each.talk.close()
        each.process.terminate()
    for each in team:
        each.process.join(5)
        if each.process.is_alive():
            each.process.kill()
