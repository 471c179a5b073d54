"""TorchScript and .pt2 files as zip archives: what kind they are, and the contract in them, read without torch.

Both formats are zip archives with one folder at the top. voxport writes them plain: nothing in them is
compressed, so that no small file unpacks to a large one, and the table of contents is all that has to be
read to know every size. A file may be truncated or hostile: the table is bounded before it is read, and
every member must lie within the file.
"""

import contextlib
import io
import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

from voxport.runtime.contract import METADATA_KEY, Contract, check_contract, printable
from voxport.runtime.errors import ContractError
from voxport.runtime.storage.seal import archive_comment

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

TorchKind = Literal["torchscript", "program", "package"]

CONTRACT_MEMBER = f"extra/{METADATA_KEY}"  # where torch puts "extra files", in both formats
BUILT_WITH_MEMBER = "extra/voxport.built_with"
FRONTEND_MEMBER = "extra/voxport.frontend"  # `Contract.title` of the graph, as an ONNX graph has it for its name
MAX_BYTES = 2_000_000_000  # what a zip of the plain kind, without its 64-bit extension, can hold
MAX_TEXT = 64 << 20  # of code and graphs
_MAX_CONTRACT = 8 << 20
_MAX_FACTS = 1 << 14
_MAX_TITLE = 1 << 8
_MAX_TABLE = 1 << 20  # bytes of the table of contents: 10,000 members, where a large model has 1,000
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_MAX_COMMENT = 64  # the digest of `seal`
_NAME = re.compile(r"[\w.+-]+(/[\w.+-]+)+")
_AGAIN = "export the model again"


@dataclass(frozen=True)
class TorchFile:
    """What the file says. `built_with` are facts about the machine that wrote it; see `voxport.built_with`.

    `made_for` is the contract's `title` for which the graph was made, beside the contract; older files have none.
    """

    kind: TorchKind
    contract: Contract
    built_with: tuple[tuple[str, str], ...]
    made_for: str = ""


def read_torch(path: str | os.PathLike[str]) -> TorchFile:
    """Read what `path` says about itself: a few kilobytes of it, and nothing is unpickled.

    Raises:
        ContractError: it is missing, damaged, larger than the limits above, or was not written by voxport.
    """
    with open_archive(path) as archive:
        return archive.describe()


class Archive:
    """The members of an open file by their names without the top folder. Every size in it has been checked."""

    def __init__(self, archive: "ZipFile", where: str, members: "dict[str, ZipInfo]", root: str, size: int) -> None:
        self._archive = archive
        self._members = members
        self._root = root
        self._size = size
        self.where = where

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member."""
        return self._members[name].file_size

    def read(self, name: str, limit: int) -> bytes:
        """A member's bytes, of which there may be `limit`."""
        if name not in self._members:
            raise self.error(f"it has no {name}")
        if self.size(name) > limit:
            raise self.error(f"its {name} has {self.size(name)} bytes, at most {limit} are read")
        return self._archive.read(self._members[name])

    def kind(self) -> TorchKind:
        """What the archive is, by its members."""
        names = self.names
        if "archive_format" in self._members:
            compiled = any(name.startswith("data/aotinductor/") for name in names)
            if compiled == ("models/model.json" in self._members):
                raise self.error("it holds not one model, but a program and a compiled package, or neither")
            return "package" if compiled else "program"
        if "constants.pkl" in self._members and any(name.startswith("code/") for name in names):
            return "torchscript"
        if "data.pkl" in self._members:
            raise ContractError(
                f"{self.where}: a PyTorch checkpoint, not a model file; "
                "write one with: voxport export onnx CHECKPOINT -o MODEL.onnx"
            )
        raise ContractError(f"{self.where}: a zip archive, but no TorchScript or .pt2 file; give a voxport model")

    def describe(self) -> TorchFile:
        """Kind, contract and facts."""
        kind = self.kind()
        if CONTRACT_MEMBER not in self._members:
            name, command = ("TorchScript", "torchscript") if kind == "torchscript" else (".pt2", "pt2")
            raise ContractError(
                f"{self.where}: this {name} file has no voxport contract; "
                f"write it with: voxport export {command} CHECKPOINT -o MODEL"
            )
        self._check_plain()
        try:
            text = self.read(CONTRACT_MEMBER, _MAX_CONTRACT).decode()
        except UnicodeDecodeError as problem:
            raise self.error("its contract is not UTF-8") from problem
        contract = check_contract(Contract.from_json(text, self.where), self.where)
        made_for = ""
        if FRONTEND_MEMBER in self._members:
            made_for = printable(self.read(FRONTEND_MEMBER, _MAX_TITLE).decode(errors="replace"))
        return TorchFile(kind, contract, self._facts(), made_for)

    def copy(self) -> bytes:
        """The archive written anew from the members that were checked, so that torch reads what was checked."""
        from zipfile import ZipFile, ZipInfo

        buffer = io.BytesIO()
        with ZipFile(buffer, "w", allowZip64=False) as archive:
            for name, info in self._members.items():
                archive.writestr(ZipInfo(f"archive/{name}"), self._archive.read(info))
        return buffer.getvalue()

    def error(self, what: str) -> ContractError:
        """The error that says what is wrong with this file."""
        return ContractError(f"{self.where}: not a whole TorchScript or .pt2 file ({what}); {_AGAIN}")

    def _check_plain(self) -> None:
        """What torch itself writes is partly compressed; what voxport writes is not."""
        for name, info in self._members.items():
            if info.compress_type or info.flag_bits & 1 or info.file_size != info.compress_size:
                raise self.error(f"its {name:.80} is compressed or encrypted, which voxport never writes")

    def _facts(self) -> tuple[tuple[str, str], ...]:
        if BUILT_WITH_MEMBER not in self._members:
            return ()
        try:
            facts = json.loads(self.read(BUILT_WITH_MEMBER, _MAX_FACTS))
        except (ValueError, RecursionError) as problem:
            raise self.error(f"its {BUILT_WITH_MEMBER} is no JSON") from problem
        if not isinstance(facts, dict):
            raise self.error(f"its {BUILT_WITH_MEMBER} is no JSON object")
        return tuple((printable(str(name), 80), printable(str(value), 2000)) for name, value in facts.items())


@contextlib.contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """Open `path` after its table of contents was checked. Raises ContractError, also while it is read."""
    where = os.fspath(path)
    from zipfile import BadZipFile, ZipFile  # slow to import, and not needed for ONNX models

    try:
        # A pipe would wait for ever and a device has no end, so the kind is asked before the file is opened.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ContractError(f"{where}: not a file; give a voxport model")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            _check_table(file, size, where)
            with ZipFile(file) as archive:
                _refuse_arrays(archive.namelist(), where)
                members, root = _members(archive, size, where)
                yield Archive(archive, where, members, root, size)
    except OSError as problem:
        raise ContractError(
            f"{where}: cannot be read ({problem.strerror or problem}); give a voxport model"
        ) from problem
    except (BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error) as problem:
        raise _broken(where, f"{problem!s:.120}") from problem


def _refuse_arrays(names: list[str], where: str) -> None:
    """A gallery is a zip archive too, and is easily given in the model's place; so are saved embeddings."""
    if not names or not all(name.endswith(".npy") for name in names):
        return
    if {"header.npy", "names.npy", "sums.npy"} <= set(names):
        raise ContractError(
            f"{where}: a gallery of enrolled speakers, not a model; give the model that it was enrolled with, and look "
            f"at the gallery with: voxport gallery list {where}"
        )
    raise ContractError(f"{where}: arrays of NumPy (.npz), not a model; give a voxport model")


def _check_table(file: IO[bytes], size: int, where: str) -> None:
    """Refuse a table of contents that is too long: Python's reader builds an object for every entry that it claims."""
    if size > MAX_BYTES:
        raise _broken(where, f"it is larger than {MAX_BYTES:,} bytes")
    file.seek(max(0, size - 42 - _MAX_COMMENT))
    tail = file.read(42 + _MAX_COMMENT)
    if comment := archive_comment(tail):
        tail = tail[:-comment]
    tail = tail[-42:]
    if tail[-22:-18] != _END:
        raise _broken(where, "it is cut short, or no zip archive")
    table = int.from_bytes(tail[-10:-6], "little")
    if tail[:4] == _LOCATOR_64:  # as in files that torch itself wrote
        file.seek(min(size, int.from_bytes(tail[8:16], "little")))
        record = file.read(56)
        if record[:4] != _END_64:
            raise _broken(where, "its table of contents is not where it says")
        table = int.from_bytes(record[40:48], "little")
    if table > min(size, _MAX_TABLE):
        raise _broken(where, f"its table of contents claims {table} bytes")


def _members(archive: "ZipFile", size: int, where: str) -> "tuple[dict[str, ZipInfo], str]":
    """The members by their names without the top folder, and that folder's name."""
    members: dict[str, ZipInfo] = {}
    root = ""
    total = 0
    for info in archive.infolist():
        if not _NAME.fullmatch(info.filename) or any(part in (".", "..") for part in info.filename.split("/")):
            raise _broken(where, f"a member is called {printable(info.filename, 80)!r}")
        top, _, name = info.filename.partition("/")
        root = root or top
        if top != root:
            raise _broken(where, f"it has two top folders, {root[:80]!r} and {top[:80]!r}")
        if name in members:
            raise _broken(where, f"it holds {name[:80]!r} twice")
        members[name] = info
        total += info.compress_size
    if total > size:
        raise _broken(where, "its members claim more bytes than it has")
    return members, root


def _broken(where: str, what: str) -> ContractError:
    return ContractError(f"{where}: not a whole TorchScript or .pt2 file ({what}); {_AGAIN}")
