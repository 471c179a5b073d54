"""Files that are written whole or not at all: a finished one takes its place, and never that of a device."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

PathName = str | os.PathLike[str]


@contextlib.contextmanager
def writing(path: PathName, suffix: str = "") -> Iterator[Path]:
    """A `with` block that writes the file `path`: it gets the name of a hidden part beside it, which takes its place.

    Where the block raises, an older file stays and the part goes. `suffix` ends the part's name, for libraries that
    go by it.

    Raises:
        OSError: as `replace_file`, and whatever the block raises.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part{suffix}")
    try:
        yield part
        replace_file(part, target)
    finally:
        with contextlib.suppress(OSError):  # its folder may be a file, or gone
            part.unlink(missing_ok=True)


def write_text(path: PathName, text: str) -> None:
    """Write a text file, in UTF-8, whole or not at all. Raises OSError."""
    with writing(path) as part:
        part.write_text(text, encoding="utf-8")


def replace_file(part: PathName, path: PathName) -> None:
    """Rename `part` to `path`, whose older file it replaces in one step.

    Raises:
        OSError: the system refuses, or `path` is there and no regular file. For root a plain rename would
            take `/dev/null` away from the whole machine.
    """
    check_replaceable(path)
    os.replace(part, path)


def check_replaceable(path: PathName) -> None:
    """Raise OSError where `path` is a folder, a device or a pipe. Links count as what they lead to."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # nothing is there, or a link that leads nowhere
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", os.fspath(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is a device or a pipe; name a file", os.fspath(path))


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, read in small pieces."""
    import hashlib  # costs milliseconds, and loading a model does not need it

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
