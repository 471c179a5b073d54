"""A gallery's file: a `.npz` of plain arrays, without pickle and without compression.

Anybody may have written the file that is read. Nothing in it is run or unpickled; every array must be
as large as the header says before it is read, so that memory stays within twice the file's size; a
checksum (the zip's own CRC-32) covers every array.
"""

import contextlib
import json
import math
import os
import re
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery_state import (
    KEPT,
    MAX_EMBEDDING_SIZE,
    MAX_NAME,
    MAX_SPEAKERS,
    State,
    Thresholds,
    check_name,
    voices_of,
)
from voxport.runtime.schema import decode, encode

if TYPE_CHECKING:
    from zipfile import ZipFile

FORMAT, VERSION = "voxport gallery", 1
MAX_BYTES = 2_000_000_000  # what a zip of the plain kind, without its 64-bit extension, can hold
_MAX_HEADER = 1 << 16
_MAX_DIRECTORY = 1 << 12  # bytes of the zip's table of contents; ours takes a few hundred
_MEMBERS = {"header": "|u1", "names": "|u1", "counts": "<i8", "sums": "<f8", "kept": "<f4", "owners": "<i8"}
_NPY = re.compile(rb"\{'descr': '([^']{3})', 'fortran_order': False, 'shape': \(([0-9, ]{0,40})\), \} *\n")
_DATE = (1980, 1, 1, 0, 0, 0)  # equal galleries give equal bytes
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Header:
    """What a gallery says about itself: the model that it belongs to and its sizes."""

    format: str
    version: int
    checkpoint_sha256: str
    embedding_size: int
    speakers: int
    kept: int
    thresholds: Thresholds

    def __post_init__(self) -> None:
        for name, least, most in (
            ("embedding_size", 1, MAX_EMBEDDING_SIZE),
            ("speakers", 0, MAX_SPEAKERS),
            ("kept", 0, KEPT),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be between {least} and {most}, found {getattr(self, name)}")


def write_gallery(path: Path, state: State, checkpoint_sha256: str) -> None:
    """Write `path`; a reader sees the old file or the new one, never a part.

    Raises:
        GalleryError: it cannot be written (full disk, no permission), or is too large; an older one stays.
    """
    header = Header(
        FORMAT, VERSION, checkpoint_sha256, state.sums.shape[1], len(state.names), len(state.kept), state.thresholds
    )
    arrays: dict[str, Array] = {
        "header": np.frombuffer(json.dumps(encode(header), sort_keys=True).encode(), np.uint8),
        "names": np.frombuffer("\n".join(state.names).encode(), np.uint8),
        "counts": state.counts,
        "sums": state.sums,
        "kept": state.kept,
        "owners": state.owners,
    }
    if arrays["header"].size > _MAX_HEADER or sum(array.nbytes for array in arrays.values()) > MAX_BYTES - (1 << 16):
        raise GalleryError(f"{path}: the gallery would be larger than {MAX_BYTES:,} bytes; split it")
    replace_file(path, lambda file: _write_arrays(file, arrays))


def _write_arrays(file: IO[bytes], arrays: dict[str, Array]) -> None:
    import zipfile  # slow to import, and not needed to identify

    with zipfile.ZipFile(file, "w", allowZip64=False) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", _DATE)
            info.file_size = array.nbytes + 256  # a hint, put right on closing
            with archive.open(info, "w") as member:
                np.lib.format.write_array(
                    member, np.ascontiguousarray(array, _MEMBERS[name]), version=(1, 0), allow_pickle=False
                )


def replace_file(path: Path, write: "Callable[[IO[bytes]], None]") -> None:
    """Let `write` fill a file beside `path`, then put it in its place, through a link if it is one.

    Raises:
        GalleryError: the folder or the disk does not take it.
    """
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
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as problem:
        raise GalleryError(f"{path}: cannot be written ({problem.strerror or problem})") from problem


def read_gallery(path: Path) -> tuple[Header, State]:
    """Read what `write_gallery` wrote.

    Raises:
        GalleryError: the file is missing, no gallery, of another version, or damaged.
    """
    try:
        # A pipe would wait for ever and a device has no end, so the kind is asked before the file is opened.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise GalleryError(f"{path}: not a file; give a voxport gallery")
        with open(path, "rb") as file:
            return _Reader(file, str(path)).gallery()
    except OSError as problem:
        raise GalleryError(f"{path}: cannot be read ({problem.strerror or problem})") from problem


class _Reader:
    """Reads one open file, whose `name` is for messages."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file = file
        self._name = name

    def gallery(self) -> tuple[Header, State]:
        with self._archive() as archive:
            header = self._header(archive)
            speakers, kept, size = header.speakers, header.kept, header.embedding_size
            names = self._names(self._member(archive, "names", None), speakers)
            counts = self._member(archive, "counts", (speakers,))
            sums = self._member(archive, "sums", (speakers, size))
            rows = self._member(archive, "kept", (kept, size))
            owners = self._member(archive, "owners", (kept,))
        self._check(counts, sums, rows, owners)
        try:
            voices = voices_of(sums, counts, names)
        except GalleryError as problem:
            raise self._error(str(problem)) from problem
        return header, State(names, counts, sums, voices, rows, owners, header.thresholds)

    def _header(self, archive: "ZipFile") -> Header:
        text = bytes(self._member(archive, "header", None, _MAX_HEADER))
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as problem:
            raise self._error(f"its header is not JSON ({problem!s:.80})") from problem
        given = values if isinstance(values, dict) else {}
        if given.get("format") != FORMAT:
            raise self._error("it has no voxport header")
        if given.get("version") != VERSION:
            raise GalleryError(
                f"{self._name}: gallery version {given.get('version')!r:.20}, this voxport reads version {VERSION}; "
                "install the voxport that wrote it, or enroll the speakers again"
            )
        return decode(Header, values, self._name, GalleryError)

    def _names(self, raw: Array, speakers: int) -> tuple[str, ...]:
        if raw.size > speakers * (4 * MAX_NAME + 1) or int((raw == 10).sum()) != max(0, speakers - 1):
            raise self._error(f"its names are not {speakers}")
        try:
            names = tuple(bytes(raw).decode().split("\n")) if speakers else ()
            sound = len(set(names)) == len(names) and all(check_name(name) == name for name in names)
        except (UnicodeDecodeError, GalleryError) as problem:
            raise self._error(f"a name is none ({problem!s:.120})") from problem
        if not sound:
            raise self._error("a name is there twice, or not in composed form")
        return names

    def _check(self, counts: Array, sums: Array, kept: Array, owners: Array) -> None:
        """Numbers that enrolling cannot give would turn into answers that look right."""
        lengths = np.linalg.norm(kept.astype(np.float64), axis=1)
        fine = (
            bool(((counts >= 1) & (counts < 1 << 53)).all())
            and bool((np.abs(sums) <= counts[:, None] * 1.001).all())  # false for NaN as well
            and bool((np.abs(lengths - 1) < 1e-3).all())
            and bool(((owners >= 0) & (owners < max(1, len(counts)))).all())
            and (len(counts) > 0 or len(owners) == 0)
        )
        if not fine:
            raise self._error("its numbers are not those of enrolled voices")

    @contextlib.contextmanager
    def _archive(self) -> "Iterator[ZipFile]":
        import zipfile

        size = os.fstat(self._file.fileno()).st_size
        self._file.seek(max(0, size - 42))
        tail = self._file.read(42)
        # Python's reader builds an object for every entry that the table of contents claims. So the end
        # of the file must be that of a plain zip with a table as small as ours.
        if size > MAX_BYTES or tail[-22:-18] != _END or tail[:4] == _END_64:
            raise self._error("it does not end as one")
        if int.from_bytes(tail[-10:-6], "little") > _MAX_DIRECTORY:
            raise self._error("its table of contents is too long")
        try:
            with zipfile.ZipFile(self._file) as archive:
                if sorted(info.filename for info in archive.infolist()) != sorted(f"{name}.npy" for name in _MEMBERS):
                    raise self._error("it does not hold a gallery's arrays")
                if any(info.compress_type or info.flag_bits & ~0x800 for info in archive.infolist()):
                    raise self._error("it is compressed or encrypted; voxport writes plain ones")
                yield archive
        except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error) as problem:
            raise self._error(f"{problem!s:.120}") from problem

    def _member(
        self, archive: "ZipFile", name: str, shape: tuple[int, ...] | None, most: int = MAX_BYTES
    ) -> npt.NDArray[Any]:
        """One array. Its size in the file must be that of `shape` (None: any length) before it is read."""
        info = archive.getinfo(f"{name}.npy")
        dtype = np.dtype(_MEMBERS[name])
        if info.file_size > os.fstat(self._file.fileno()).st_size:
            raise self._error(f"the array {name} is longer than the file")
        with archive.open(info) as member:
            start = member.read(10)
            length = int.from_bytes(start[8:], "little")
            match = _NPY.fullmatch(member.read(length)) if start[:8] == b"\x93NUMPY\x01\x00" else None
            if match is None or match[1].decode("latin-1") != dtype.str:
                raise self._error(f"the array {name} is not of type {dtype.str}")
            found = tuple(int(part) for part in match[2].decode().split(",") if part.strip())
            wanted = (info.file_size - 10 - length,) if shape is None else shape
            count = math.prod(wanted)
            if found != wanted or count * dtype.itemsize != info.file_size - 10 - length or count > most:
                raise self._error(f"the array {name} has shape {found}, not {wanted}")
            return np.frombuffer(member.read(), dtype).astype(dtype.newbyteorder("="), copy=False).reshape(wanted)

    def _error(self, what: str) -> GalleryError:
        return GalleryError(
            f"{self._name}: this is no voxport gallery, or a damaged one: {what}; restore or rebuild it"
        )
