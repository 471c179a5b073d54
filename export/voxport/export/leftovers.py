"""Hidden folders of exports that were killed: whose they were, and when they may be taken away.

A process that is killed cannot tidy up. So each hidden folder says who works in it, and the next export beside it
removes those whose process is certain to have ended: one of this user, on this machine, in this set of process
numbers, since when no process has that number, or one that started at another time. Of a folder on a shared disk
nobody here can know that, so that it goes once nothing in it has changed for a week. Anything without our record in
it is somebody else's, whatever it is called, and stays.
"""

import contextlib
import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = ".voxport-owner.json"

_NAME = re.compile(r"\..+\.\d+\.part")
_WEEK = 7 * 86400.0  # seconds; no export takes days
_MAX_RECORD = 4096  # bytes


@dataclass(frozen=True)
class Owner:
    """A process: its number, when it started, and the machine and set of process numbers in which that means it.

    `started` is in clock ticks since the machine's start; "" where the system does not say.
    """

    pid: int
    started: str
    machine: str


def mark(folder: Path) -> None:
    """Write into `folder` that this process works in it.

    Raises:
        OSError: it cannot be written.
    """
    (folder / RECORD).write_text(json.dumps(asdict(_this_process())), encoding="utf-8")


def sweep(folder: Path) -> list[Path]:
    """Remove the hidden folders in `folder` that killed exports left; what is in doubt, or cannot be removed, stays.

    Returns:
        Those that were removed.
    """
    removed = []
    with contextlib.suppress(OSError):
        for item in sorted(os.scandir(folder), key=lambda each: each.name):
            path = Path(item.path)
            if _NAME.fullmatch(item.name) and item.is_dir(follow_symlinks=False) and _is_left(path):
                shutil.rmtree(path, ignore_errors=True)
                removed += [] if path.exists() else [path]
    return removed


def _is_left(folder: Path) -> bool:
    try:
        owner = _owner(folder)
        if owner is None or os.lstat(folder).st_uid != _user():
            return False
        here = _this_process()
        if owner == here:
            return False
        if owner.machine and owner.machine == here.machine:
            return not _runs(owner)
        return time.time() - _last_change(folder) > _WEEK
    except OSError:  # it has just gone, or may not be looked at
        return False


def _owner(folder: Path) -> Owner | None:
    """Who the record in `folder` names; None where there is none of ours."""
    path = folder / RECORD
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_RECORD:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        pid, started, machine = found["pid"], found["started"], found["machine"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    fits = type(pid) is int and isinstance(started, str) and isinstance(machine, str)
    return Owner(pid, started, machine) if fits and folder.name.endswith(f".{pid}.part") else None


def _runs(owner: Owner) -> bool:
    """Whether the process may still be there: its number is taken, and not for certain by a later one."""
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's: the number was given again, or it changed its user
        return True
    started = _started(owner.pid)
    return not started or not owner.started or started == owner.started


def _this_process() -> Owner:
    return Owner(os.getpid(), _started(os.getpid()), _machine())


def _user() -> int:
    return os.getuid() if os.name == "posix" else 0  # as stat has it on Windows


def _started(pid: int) -> str:
    """When the process `pid` started, as Linux counts it; "" where that is not told."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # a program's name may hold spaces and brackets
    return fields[19] if len(fields) > 19 else ""


def _machine() -> str:
    """This start of this machine, and the set of process numbers in it; "" where that is not told: nothing is swept.

    Containers may have one name and one disk: what tells them apart is their namespace of process numbers.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except (OSError, ValueError):
        # Not on Windows, where os.kill ends a process whatever the signal is.
        return f"{os.uname().nodename} {os.uname().sysname}" if os.name == "posix" else ""


def _last_change(folder: Path) -> float:
    """The latest time at which anything in `folder` was written, in seconds since 1970."""
    times = [os.lstat(folder).st_mtime]
    for base, _, files in os.walk(folder):
        times += [os.lstat(os.path.join(base, name)).st_mtime for name in files]
    return max(times)
