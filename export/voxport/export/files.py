"""Files that are whole or not there."""

import contextlib
import os
import tempfile
from pathlib import Path

from voxport.export.errors import ExportError
from voxport.runtime.storage.atomic import replace_file


def part_of(path: Path) -> Path:
    """A name beside `path` for the file while it is being written."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_atomic(path: Path, content: bytes) -> None:
    """Write `path`, making its folder, so that a reader sees the old file or the new one.

    Raises:
        ExportError: the folder cannot be written, or the disk is full; an older file stays.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        replace_file(part, path)
    except OSError as problem:
        raise cannot_write(path, problem) from problem
    finally:
        with contextlib.suppress(OSError):  # its folder may be a file
            part.unlink(missing_ok=True)


def check_folder(folder: Path, option: str) -> None:
    """Raise ExportError where no file can be written in `folder`, or it cannot be made; `option` names another."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as problem:
        raise ExportError(
            f"{folder}: cannot be written ({problem.strerror or problem}); choose another place with {option}"
        ) from problem


def cannot_write(path: Path, problem: OSError) -> ExportError:
    """The error for a file that the system would not take."""
    return ExportError(f"{path}: cannot be written ({problem.strerror or problem}); choose another place with -o")
