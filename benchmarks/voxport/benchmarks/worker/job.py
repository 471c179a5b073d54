"""One piece of work in a process of its own, with a deadline: it may crash, hang or run out of memory alone.

    run_job("voxport.benchmarks.training.round:train_round", {...}, timeout=60, threads=1)

The function named takes one dictionary of plain values and returns a dataclass or plain values. The child is
`python -m voxport.benchmarks.worker.job MODULE:FUNCTION ANSWER`, with the request on its stdin.
"""

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from voxport.runtime.errors import VoxportError
from voxport.runtime.imports import explain_import
from voxport.runtime.storage.atomic import write_text
from voxport.runtime.storage.serialization import encode

_WARNING = re.compile(r"[WI]\d{4} \d\d:\d\d:\d\d")  # how PyTorch's log begins what is no error
_HOME = "voxport.benchmarks."  # the only package whose functions a child runs

# Libraries read these when they are loaded, so they must be there before the process starts.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class JobError(VoxportError):
    """The work could not be done. `mistake`: a user can mend it, as the message says; else it crashed or hung."""

    def __init__(self, message: str, mistake: bool = False) -> None:
        super().__init__(message)
        self.mistake = mistake


def run_job(where: str, request: Mapping[str, Any], timeout: float, threads: int | None = None) -> Any:
    """The answer of the function `where` to `request`, as plain values.

    Args:
        where: `voxport.benchmarks.MODULE:FUNCTION`.
        request: what JSON can hold.
        timeout: seconds, the start of the process included.
        threads: for the libraries that read their number from the environment; None leaves it to them.

    Raises:
        JobError: the function failed, the process died, or the time was up; everything that it started is ended.
    """
    with tempfile.TemporaryDirectory(prefix="voxport-job-") as folder, tempfile.TemporaryFile() as log:
        answer = Path(folder, "answer.json")
        command = [sys.executable, "-m", "voxport.benchmarks.worker.job", where, str(answer)]
        code = run_command(command, log, timeout, json.dumps(encode(request)), environment(threads))
        try:
            reply = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise JobError(exit_reason(code, log)) from None
    if "error" in reply:
        raise JobError(reply["error"], reply["mistake"])
    return reply["answer"]


def environment(threads: int | None) -> dict[str, str]:
    """This process's environment, with `threads` for numerical libraries."""
    # With a safe path a random.py in the working directory does not become a module.
    changed = dict(os.environ, PYTHONSAFEPATH="1", PYTHONIOENCODING="utf-8")
    if threads is not None:
        changed.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
        changed.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow down whatever else runs
    return changed


def run_command(
    command: list[str], log: IO[bytes], timeout: float, text: str = "", env: Mapping[str, str] | None = None
) -> int:
    """Run `command` with `text` on its stdin and its output in `log`; returns its exit code.

    Raises:
        JobError: the time was up. The process and all that it started are then ended.
    """
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
    ) as process:
        try:
            process.communicate(text.encode(), timeout=timeout)
        except subprocess.TimeoutExpired:
            raise JobError(f"gave no answer within {timeout:.0f} s{last_lines(log)}") from None
        finally:
            _end(process)  # also after Ctrl-C; compilers that it started must not go on
    return process.returncode


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing of ours is in it
        else:
            process.kill()


def exit_reason(code: int, log: IO[bytes]) -> str:
    """How a process ended that left no answer, with the last lines that it wrote."""
    how = f"ended with exit code {code}"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal
            name = str(-code)
        how = f"was ended by {name}" + (" (out of memory, perhaps)" if name == "SIGKILL" else "")
    return how + last_lines(log)


def last_lines(log: IO[bytes], most: int = 400) -> str:
    """The end of what was written, to append to a message."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    lines = [line for line in lines if not _WARNING.match(line)]
    text = " / ".join(lines[-3:])
    return f": {text[-most:]}" if text else ""


def _work(where: str, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to `request`: the answer, or what went wrong."""
    module, _, name = where.partition(":")
    try:
        if not module.startswith(_HOME):
            raise JobError(f"{where}: a job is a function below {_HOME}")
        return {"answer": encode(getattr(importlib.import_module(module), name)(request))}
    except VoxportError as problem:
        return {"error": str(problem), "mistake": True}
    except Exception as problem:
        if (failure := explain_import(problem)) is not None:
            return {"error": str(failure), "mistake": True}
        traceback.print_exc()
        line = (str(problem).strip().splitlines() or [""])[0]
        return {"error": f"{type(problem).__name__}: {line}"[:400], "mistake": False}


def main() -> None:
    """Answer the request on stdin in the file that the second argument names. What libraries print goes to stderr."""
    where, answer = sys.argv[1], Path(sys.argv[2])
    request = json.loads(sys.stdin.read())
    os.dup2(2, 1)
    write_text(answer, json.dumps(_work(where, request)))


if __name__ == "__main__":
    main()
