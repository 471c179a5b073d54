"""The measuring side of a worker: start it, ask it, and say why it did not answer."""

import contextlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
from types import TracebackType
from typing import IO, TypeVar

from voxport.benchmarks.core.protocol import Failed, Message, ProtocolError, from_line, to_line
from voxport.benchmarks.worker.job import environment, exit_reason
from voxport.runtime.errors import VoxportError

Reply = TypeVar("Reply")

WORKER = (sys.executable, "-m", "voxport.benchmarks.worker")


class WorkerError(VoxportError):
    """A worker crashed, stayed silent for too long, or failed at what it was asked.

    `mistake` tells a user's mistake, which the message names, from a crash. `alive` is True where the worker
    reported the failure itself and can be asked again.
    """

    def __init__(self, message: str, mistake: bool = False, alive: bool = False) -> None:
        super().__init__(message)
        self.mistake, self.alive = mistake, alive


class WorkerProcess:
    """A running worker; a context manager, so that none outlives the measurement."""

    def __init__(self, threads: int, command: tuple[str, ...] = WORKER) -> None:
        self.started = time.monotonic_ns()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment(threads),
            encoding="utf-8",
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # A thread blocked in a read sleeps; a pipe has no portable way to wait with a deadline.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # the pipe is closed

    def ask(self, request: Message, answer: type[Reply], timeout: float) -> Reply:
        """Send `request` and wait up to `timeout` seconds for its `answer`.

        Raises:
            WorkerError: a failure that the worker reports, its end, or its silence.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(to_line(request))
            self._process.stdin.flush()
            line = self._lines.get(timeout=timeout)
        except BrokenPipeError:
            line = ""
        except queue.Empty as problem:
            raise WorkerError(f"gave no answer within {timeout:.0f} s") from problem
        if not line:
            raise WorkerError(self._exit_reason())
        try:
            reply = from_line(line)
        except ProtocolError as problem:
            raise WorkerError(str(problem)) from problem
        if isinstance(reply, Failed):
            raise WorkerError(reply.message, reply.mistake, alive=True)
        if not isinstance(reply, answer):
            raise WorkerError(f"answered {type(reply).__name__} where {answer.__name__} was asked for")
        return reply

    def _exit_reason(self) -> str:
        """How the worker ended, with the last lines that it wrote to stderr."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its pipe without ending"
        return exit_reason(code, self._stderr)

    def close(self) -> None:
        """End the worker: it leaves when its input ends, and is killed if it does not."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        process.stdout.close()
        self._stderr.close()

    def kill(self) -> None:
        """End the worker at once."""
        self._process.kill()
        self.close()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        # After an error the worker may be in the middle of something long.
        if kind is None:
            self.close()
        else:
            self.kill()
