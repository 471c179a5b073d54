"""Plain `.npz` files: written whole or not at all, and read from strangers without risk.

Anybody may have written the file that is read. Nothing in it is run or unpickled; compression is
refused; every array must be as large as it says before it is read, so that memory stays within twice
the file's size; a checksum (the zip's own CRC-32) covers every array.
"""

import contextlib
import math
import os
import re
import stat
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import GalleryError
from voxport.runtime.storage.atomic import replace_file

if TYPE_CHECKING:
    from zipfile import ZipFile

Array = npt.NDArray[Any]

MAX_BYTES = 2_000_000_000  # what a zip of the plain kind, without its 64-bit extension, can hold
_MAX_DIRECTORY = 1 << 12  # bytes of the zip's table of contents; ours take a few hundred
_NPY = re.compile(rb"\{'descr': '([^']{2,8})', 'fortran_order': False, 'shape': \(([0-9, ]{0,40})\), \} *\n")
_LEFTOVER_S = 3600  # no file takes so long to be written, so whoever wrote it is gone
_DATE = (1980, 1, 1, 0, 0, 0)  # equal arrays give equal bytes
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write `path`; a reader sees the old file or the new one, never a part.

    Raises:
        GalleryError: it cannot be written (full disk, no permission), or is too large; an older one stays.
    """
    if sum(array.nbytes for array in arrays.values()) > MAX_BYTES - (1 << 16):
        raise GalleryError(f"{path}: the file would be larger than {MAX_BYTES:,} bytes; split it")
    _replace(path, lambda file: _write_arrays(file, arrays))


def _write_arrays(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    import zipfile  # slow to import, and not needed to identify

    with zipfile.ZipFile(file, "w", allowZip64=False) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _DATE)
            info.file_size = array.nbytes + 256  # a hint, put right on closing
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


def _replace(path: Path, write: "Callable[[IO[bytes]], None]") -> None:
    """Let `write` fill a file beside `path`, then put it in its place, through a link if it is one."""
    check_file_name(path)
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        try:
            with open(part, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                os.chmod(part, stat.S_IMODE(target.stat().st_mode))
            replace_file(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as problem:
        raise GalleryError(f"{path}: cannot be written ({problem.strerror or problem})") from problem
    _remove_leftovers(target)


def _remove_leftovers(target: Path) -> None:
    """Delete what processes that were killed in the middle of writing `target` left: voices are personal data."""
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            ours = entry.name.startswith(f".{target.name}.") and entry.name.endswith(".part")
            if ours and time.time() - entry.stat(follow_symlinks=False).st_mtime > _LEFTOVER_S:
                os.unlink(entry)


def check_file_name(path: Path) -> None:
    """Raise GalleryError for a name that no file can have, which the system's calls would raise ValueError for."""
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half a character
        possible = False
    if not possible or not path.name:  # Path("") is the folder one is in
        raise GalleryError(f"{str(path)!r}: cannot be the name of a file; give another")


@contextlib.contextmanager
def open_npz(path: Path, kind: str, names: Collection[str], optional: Collection[str] = ()) -> "Iterator[NpzReader]":
    """Open a file that must hold the arrays `names` and may hold the `optional`, no others. `kind` is for messages.

    Raises:
        GalleryError: the file is missing or no such file; or, while it is read, damaged.
    """
    check_file_name(path)
    try:
        # A pipe would wait for ever and a device has no end, so the kind is asked before the file is opened.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise GalleryError(f"{path}: not a file; give a {kind}")
        where = f"{path}: no {kind}, or a damaged one (restore it, or make it again)"
        with open(path, "rb") as file, _archive(file, where, names, optional) as reader:
            yield reader
    except FileNotFoundError as problem:
        raise GalleryError(f"{path}: there is no such file; give a {kind}, or make one") from problem
    except OSError as problem:
        raise GalleryError(f"{path}: cannot be read ({problem.strerror or problem})") from problem


@contextlib.contextmanager
def _archive(file: IO[bytes], where: str, names: Collection[str], optional: Collection[str]) -> "Iterator[NpzReader]":
    import zipfile

    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - 42))
    tail = file.read(42)
    # Python's reader builds an object for every entry that the table of contents claims. So the end
    # of the file must be that of a plain zip with a table as small as ours.
    if size > MAX_BYTES or tail[-22:-18] != _END or tail[:4] == _END_64:
        raise GalleryError(f"{where}: it does not end as one")
    if int.from_bytes(tail[-10:-6], "little") > _MAX_DIRECTORY:
        raise GalleryError(f"{where}: its table of contents is too long")
    try:
        with zipfile.ZipFile(file) as archive:
            found = sorted(info.filename for info in archive.infolist())
            allowed = {f"{name}.npy" for name in (*names, *optional)}
            if not {f"{name}.npy" for name in names} <= set(found) <= allowed or len(set(found)) != len(found):
                raise GalleryError(f"{where}: it does not hold the arrays {', '.join(names)}")
            if any(info.compress_type or info.flag_bits & ~0x800 for info in archive.infolist()):
                raise GalleryError(f"{where}: it is compressed or encrypted; voxport writes plain ones")
            yield NpzReader(archive, where, size)
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error) as problem:
        raise GalleryError(f"{where}: {problem!s:.120}") from problem


class NpzReader:
    """Reads the arrays of one open file."""

    def __init__(self, archive: "ZipFile", where: str, size: int) -> None:
        self._archive = archive
        self._where = where
        self._size = size

    def __contains__(self, name: object) -> bool:
        return f"{name}.npy" in self._archive.namelist()

    def texts(self, name: str, count: int) -> list[str]:
        """An array (count,) of text. Raises as `array` does."""
        with self._archive.open(f"{name}.npy") as member:
            start = member.read(10)
            match = _NPY.fullmatch(member.read(int.from_bytes(start[8:], "little")))
        descr = "" if match is None else match[1].decode("latin-1")
        if not re.fullmatch(r"<U[0-9]{1,5}", descr) or descr == "<U0":
            raise self.error(f"the array {name} is not of text")
        try:
            return [str(text) for text in self.array(name, descr, (count,))]
        except (UnicodeDecodeError, ValueError) as problem:  # a code point that there is not
            raise self.error(f"the array {name} is not of text") from problem

    def array(self, name: str, descr: str, shape: tuple[int, ...], most: int = MAX_BYTES) -> Array:
        """One array of type `descr`, of at most `most` items; a first dimension of -1 may have any length.

        Raises:
            GalleryError: another type or shape, or a size that its bytes do not have.
        """
        info = self._archive.getinfo(f"{name}.npy")
        dtype = np.dtype(descr)
        if info.file_size > self._size:
            raise self.error(f"the array {name} is longer than the file")
        with self._archive.open(info) as member:
            start = member.read(10)
            length = int.from_bytes(start[8:], "little")
            match = _NPY.fullmatch(member.read(length)) if start[:8] == b"\x93NUMPY\x01\x00" else None
            if match is None or match[1].decode("latin-1") != descr:
                raise self.error(f"the array {name} is not of type {descr}")
            found = tuple(int(part) for part in match[2].decode().split(",") if part.strip())
            size = info.file_size - 10 - length
            if shape[:1] == (-1,):
                shape = (size // (dtype.itemsize * math.prod(shape[1:])), *shape[1:])
            count = math.prod(shape)
            if found != shape or count * dtype.itemsize != size or count > most:
                raise self.error(f"the array {name} has shape {found}, not {shape}")
            return np.frombuffer(member.read(), dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)

    def error(self, what: str) -> GalleryError:
        """The error that says what is wrong with this file."""
        return GalleryError(f"{self._where}: {what}")
