"""Where voxport can write on this machine: containers often lack a home, a name for their user, or /dev/shm."""

import tempfile
from dataclasses import dataclass

from voxport.runtime.errors import BackendError
from voxport.runtime.storage.cache_root import VARIABLE, cache_root


@dataclass(frozen=True)
class Place:
    """Something that is written to. It is there where `problem` is empty; `mend` is what to do about it."""

    name: str
    where: str
    problem: str = ""
    mend: str = ""


def find_places() -> tuple[Place, ...]:
    """All of them; each is tried by writing there, and left as it was but for the cache's own folder."""
    return (_cache(), _temporary(), _shared())


def _cache() -> Place:
    mend = f"set {VARIABLE} to a folder that can be written; training, and TensorRT engines, need it"
    try:
        root = cache_root()
    except BackendError as problem:
        return Place("cache", "none", str(problem).partition(";")[0], mend)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            return Place("cache", str(root))
    except OSError as problem:
        return Place("cache", str(root), f"cannot be written ({problem.strerror or problem})", mend)


def _temporary() -> Place:
    name = "temporary files"
    try:
        with tempfile.TemporaryFile():
            return Place(name, tempfile.gettempdir())
    except OSError as problem:
        return Place(name, "none", problem.strerror or str(problem), "set TMPDIR to a folder that can be written")


def _shared() -> Place:
    """Locks between processes lie in it, on Linux in /dev/shm."""
    import multiprocessing

    name = "locks between processes"
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as problem:
        return Place(
            name,
            "/dev/shm",
            f"cannot be written ({problem.strerror or problem}): features are computed by one process, and --devices "
            "does not work on this machine",
            "give the container a /dev/shm: --shm-size=1g, --tmpfs /dev/shm, or an emptyDir of medium Memory",
        )
    return Place(name, "/dev/shm")
