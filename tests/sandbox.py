"""Run a command where every connection to a network ends it, and where files written in strange places are noted.

    python tests/sandbox.py NOTES ALLOWED COMMAND…

On Linux the kernel itself (a seccomp filter, inherited by all processes that the command starts) ends whoever makes a
socket for IPv4 or IPv6, native code too. In Python's processes an audit hook appends to the file NOTES the path
of every file that is opened for writing outside the folder ALLOWED.
"""

import ctypes
import os
import platform
import sys
from pathlib import Path

_SOCKET = {"x86_64": 41, "aarch64": 198}  # the number of the system call
SUPPORTED = sys.platform == "linux" and platform.machine() in _SOCKET

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # of the packet filter's language
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_NUMBER, _FIRST_ARGUMENT = 0, 16  # offsets in struct seccomp_data
_AF_INET, _AF_INET6 = 2, 10

_HOOK = """
import os, sys
def note(event, arguments, notes={notes!r}, allowed=({allowed!r}, "/dev/", "/proc/"), writing=[False]):
    if event != "open" or writing[0]:
        return
    path, _, flags = arguments
    if isinstance(path, (str, bytes)) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        place = os.path.abspath(os.fsdecode(path))
        if not place.startswith(allowed):
            writing[0] = True
            with open(notes, "a") as file:
                file.write(place + "\\n")
            writing[0] = False
sys.addaudithook(note)
"""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def forbid_networks() -> None:
    """End this process, or one that it starts, when it makes a socket for IPv4 or IPv6. Cannot be taken back."""
    steps = (
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 3, _SOCKET[platform.machine()]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_EQUAL, 2, 0, _AF_INET),
        (_JUMP_IF_EQUAL, 1, 0, _AF_INET6),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
    )
    array = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), array)
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter = 38, 22
    for arguments in ((no_new_privileges, 1, 0, 0, 0), (set_filter, 2, ctypes.byref(program), 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "this system has no such filters")


def main() -> None:
    """Become the command."""
    notes, allowed, *command = sys.argv[1:]
    hook = Path(notes).with_name("hook")
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(_HOOK.format(notes=notes, allowed=allowed + os.sep))
    forbid_networks()
    environment = os.environ | {"PYTHONPATH": str(hook), "PYTHONDONTWRITEBYTECODE": "1"}
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
