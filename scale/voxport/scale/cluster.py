"""Ray, started on this machine for one run, or joined where it runs already. Nothing is reported to its maker."""

import contextlib
import importlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil

from voxport.runtime.privacy import keep_private
from voxport.scale.errors import ScaleError

MEBIBYTE = 1 << 20
_LONGEST = 40  # characters of Ray's folder: its sockets lie 60 deeper, and a socket's path has 107 at most


@dataclass(frozen=True)
class ClusterOptions:
    """Where Ray runs. `address` joins a cluster ("auto": the one of this machine); None starts one of `cpus` slots.

    `store_mib` bounds the shared memory of the one that is started.
    """

    address: str | None = None
    cpus: int = 2
    store_mib: int = 128


def import_ray(options: ClusterOptions) -> Any:
    """The module `ray`, imported after everything was set that it reads then.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if "ray" not in sys.modules:
        keep_private()
        # Ray Data puts what an actor is made of into its store, and Ray's core then warns of that at every start.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        if options.address is None:
            # Ray gives its workers a niceness of 15: whatever else runs on the machine would go first.
            os.environ.setdefault("RAY_worker_niceness", "0")
            # It listens on all of the machine's addresses and runs what it is sent by who has its token, which it
            # would keep in the user's home, for all to read.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return importlib.import_module("ray")


@contextlib.contextmanager
def ray_cluster(options: ClusterOptions) -> Iterator[Any]:
    """The module `ray`, connected; at the end it is disconnected, and what was started here is ended and removed.

    Raises:
        ScaleError: the cluster at `address` does not answer, or Ray does not start.
    """
    ray = import_ray(options)

    if ray.is_initialized():  # by whom we are embedded in; it is theirs to end
        yield ray
        return
    folder = _short_folder() if options.address is None else None
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if folder is not None:
        settings |= {
            "num_cpus": options.cpus,
            "include_dashboard": False,
            "object_store_memory": options.store_mib * MEBIBYTE,
            "_temp_dir": folder,
        }
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where Ray's remarks would stand among results
            try:
                try:
                    ray.init(address=options.address or "local", **settings)
                except Exception as problem:  # a node that is not up in time is a bare Exception
                    where = options.address or "this machine"
                    raise ScaleError(f"Ray does not start on {where} ({_first_line(problem)})") from problem
                yield ray
            finally:
                started = _processes_of(folder) if folder is not None else []
                ray.shutdown()
                _await_end(started)
    finally:
        if folder is not None:
            _remove(folder)


def _processes_of(folder: str) -> list[psutil.Process]:
    """Ray's processes that work in `folder`: those started from here that name it, and theirs."""
    found: list[psutil.Process] = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if any(folder in word for word in child.cmdline()):
                found += [child, *child.children(recursive=True)]
    return found


def _await_end(processes: list[psutil.Process]) -> None:
    """Returns when none of `processes` runs: Ray only waits for its own children, and one at work may still log.

    What takes more than ten seconds is killed.
    """
    until = time.monotonic() + 10
    while left := [process for process in processes if _runs(process)]:
        if time.monotonic() > until:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            return
        time.sleep(0.02)


def _runs(process: psutil.Process) -> bool:
    """Whether it has not ended; one whose end nobody has asked about, as of an orphan in a container, has."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _remove(folder: str) -> None:
    """Removes `folder`, again for up to ten seconds: what was started last, while Ray ended, is nobody's child."""
    until = time.monotonic() + 10
    while os.path.lexists(folder) and time.monotonic() < until:
        shutil.rmtree(folder, ignore_errors=True)
        if os.path.lexists(folder):
            time.sleep(0.05)


def _short_folder() -> str:
    """A new folder for Ray's sockets and logs, in the temporary folder unless its name is too long for a socket."""
    parent = tempfile.gettempdir()
    if len(parent) > _LONGEST - len("/voxport-12345678") and os.name == "posix":
        parent = "/tmp"
    return tempfile.mkdtemp(prefix="voxport-", dir=parent)


def _first_line(problem: Exception) -> str:
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
