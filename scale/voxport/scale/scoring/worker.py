"""A worker process of the engine without Ray: parts come in by a pipe, figures go out."""

import contextlib
import os
import signal
from multiprocessing.connection import Connection

from voxport.runtime.errors import VoxportError
from voxport.scale.scoring.events import Event, Work
from voxport.scale.scoring.listening import Listener
from voxport.scale.scoring.parts import PartWriter


def serve_parts(talk: Connection, work: Work, parent: int) -> None:
    """Load the model, say so with None, and score parts until the pipe closes. An error is sent, and is the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends us
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has gone
        try:
            writer = PartWriter(work.out, work.corpus, Listener(work.job), work.run)
            talk.send(None)
            while True:
                part = talk.recv()

                def done(rows: int, seconds: float) -> None:
                    if os.getppid() != parent:  # killed: another run may begin at once
                        os._exit(1)
                    talk.send(Event(rows, seconds))

                figures = writer.write(part, done)
                talk.send(Event(0, 0.0, figures))
        except VoxportError as problem:
            talk.send(WorkerError(str(problem)))


class WorkerError(VoxportError):
    """An error of a worker, in a form that travels: its own class may want more than a message."""
