"""One question to a process of its own, so that a crash of the library is a sentence and no end of ours."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

from voxport.export.errors import ExportError

_GIB = 1 << 30
_OUT_OF_MEMORY = ("bad_alloc", "MemoryError", "Cannot allocate memory")
_WORKER = (sys.executable, "-m", "voxport.export.targets.rtx.worker")


def ask(
    path: str, capability: str | None, profiles: list[dict[str, Any]], timeout: float, memory: int
) -> dict[str, Any]:
    """What `worker.examine` answers; `timeout` in seconds, `memory` in bytes besides its own (not on Windows).

    Raises:
        ExportError: the process crashed, failed or took too long.
    """
    asked = {"path": path, "capability": capability, "profiles": profiles, "memory": memory}
    request = json.dumps(asked).encode()
    # PYTHONSAFEPATH: a tensorrt_rtx.py in the working directory must not become a module
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONIOENCODING": "utf-8"}
    try:
        ended = subprocess.run(_WORKER, input=request, capture_output=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired as problem:
        raise ExportError(
            f"{path}: TensorRT was not done after {timeout:g} s and was ended; give it longer with --timeout, more "
            "memory with --memory (where that ends it may wait for ever), or leave the build out with --no-build"
        ) from problem
    said = ended.stderr.decode(errors="replace")
    _check_memory(path, memory, said)  # the builder catches it, and says then only that it built nothing
    if ended.returncode:
        raise ExportError(
            f"{path}: TensorRT's process ended {_how(ended.returncode, said)}; nothing is known of the file"
        )
    try:
        answer: dict[str, Any] = json.loads(ended.stdout)
    except ValueError as problem:
        raise ExportError(f"{path}: TensorRT's process gave no answer; nothing is known of the file") from problem
    told = [text for kind in ("parser_messages", "builder_messages") for _, text in answer.get(kind, ())]
    _check_memory(path, memory, "\n".join(told))  # or the library says it in its log alone
    return answer


def _check_memory(path: str, memory: int, said: str) -> None:
    if any(text in said for text in _OUT_OF_MEMORY):
        raise ExportError(
            f"{path}: TensorRT wanted more than the {memory / _GIB:.2g} GiB that it may take, and nothing is known of "
            "the file; give it more with --memory"
        )


def _how(code: int, said: str) -> str:
    """The signal that ended the process, or what it said last."""
    if code < 0:
        try:
            return f"with {signal.Signals(-code).name}: the file makes it crash"
        except ValueError:
            return f"with signal {-code}: the file makes it crash"
    last = said.strip().splitlines()
    return f"with code {code}" + (f" ({last[-1][:200]})" if last else "")
