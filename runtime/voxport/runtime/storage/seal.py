"""The SHA-256 at the end of a model file, over every byte before it: graph, weights, contract and all.

The golden vector finds what changes its own answer; a flipped bit in a weight often changes others. In an
ONNX file the digest is the value of the last metadata entry, in a TorchScript or .pt2 file the zip
archive's comment, so that other readers of both formats take it for what it is. Files of before have none, and load.

A network of 12 MB loads in 30 ms, and its SHA-256 takes 8. So the entry before the last of an ONNX file is a checksum
that takes 2: the SHA-256 of sums of the 64-bit words of all bytes before it. They stand in rows of 4,099, of which each
block of eight is moved on by one word; each column is summed. A flipped bit changes one sum, and a lost page or one in
another's place many: the length of a row is prime, so that no two pages of a block lie below each other. Who loads a
model asks for this; who inspects or checks one, for the digest.
"""

import os
from collections.abc import Iterator
from io import BufferedReader

import numpy as np

from voxport.runtime.errors import ContractError

SEAL_KEY, SUMS_KEY = "voxport.sha256", "voxport.sums"  # of the metadata entries in an ONNX file

_DIGITS = 64
_MODEL_METADATA, _KEY, _VALUE = 14 << 3 | 2, 1 << 3 | 2, 2 << 3 | 2  # tags of onnx.proto
_ROW = 4099  # words of 8 bytes
_BLOCK = 8 * _ROW * 8  # what a processor's second cache holds


def _entry_start(key: str) -> bytes:
    """A metadata entry up to its value of `_DIGITS`: key and value each have a tag and a length."""
    size = 2 + len(key) + 2 + _DIGITS
    return bytes((_MODEL_METADATA, size, _KEY, len(key))) + key.encode() + bytes((_VALUE, _DIGITS))


_ONNX_START, _SUMS_START = _entry_start(SEAL_KEY), _entry_start(SUMS_KEY)
_BEHIND_SUMS = len(_ONNX_START) + _DIGITS
_ZIP_END = b"PK\x05\x06"
_ZIP_START = 22  # bytes of the record that ends a zip archive, whose last two are the length of the comment
# Bits: what is so near to a seal's beginning is one, and damaged. Other records of a zip archive are 3 away.
_MOST_WRONG_ONNX, _MOST_WRONG_ZIP = 8, 2


def seal_onnx(content: bytes) -> bytes:
    """A serialized ModelProto with its checksum and its digest as the last metadata entries."""
    sums = _sums((content[at : at + _BLOCK] for at in range(0, len(content), _BLOCK)), len(content))
    return _with_digest(content + _SUMS_START + sums + _ONNX_START)


def seal_archive(content: bytes) -> bytes:
    """A zip archive that has no comment, with its digest as one. Raises ValueError where there is a comment."""
    if content[-_ZIP_START:][:4] != _ZIP_END or content[-2:] != b"\0\0":
        raise ValueError("the archive has a comment already, or is none")
    return _with_digest(content[:-2] + _DIGITS.to_bytes(2, "little"))


def _with_digest(content: bytes) -> bytes:
    import hashlib  # costs milliseconds; a file without a seal needs none

    return content + hashlib.sha256(content).hexdigest().encode()


def _sums(blocks: Iterator[bytes | memoryview], size: int) -> bytes:
    """The checksum of `size` bytes that come in blocks of `_BLOCK`, the last of them as long as it is."""
    import hashlib

    sums, rest = np.zeros(_ROW + size // _BLOCK, "<u8"), b""
    for number, block in enumerate(blocks):
        count = len(block) // (8 * _ROW)
        rows = np.frombuffer(block, "<u8", count * _ROW).reshape(count, _ROW)
        sums[number : number + _ROW] += np.add.reduce(rows, axis=0)
        rest = bytes(block[rows.nbytes :])
    return hashlib.sha256(sums.tobytes() + rest).hexdigest().encode()


def archive_comment(tail: bytes) -> int:
    """Bytes of the comment of a zip archive that ends in `tail`: those of a seal, or none."""
    return _DIGITS if _is_archive_seal(tail) else 0


def check_seal(path: str | os.PathLike[str], *, fast: bool = False) -> bool:
    """Whether the file `path` has a digest, which is then the one of its bytes. Reads the whole file.

    With `fast` the checksum is compared in its place, where the file has one; whether the digest's own digits are
    right, on which no answer depends, is then left open.

    Raises:
        ContractError: the bytes are not those that were written, or the file cannot be read.
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _DIGITS - len(_SUMS_START) - _BEHIND_SUMS))
            tail = file.read()
            if not _is_onnx_seal(tail) and not _is_archive_seal(tail):
                return False
            file.seek(0)
            before_sums = tail[:-_BEHIND_SUMS]
            has_sums = _is_near(before_sums[:-_DIGITS][-len(_SUMS_START) :], _SUMS_START, _MOST_WRONG_ONNX)
            whole = (_has_sums if fast and has_sums else _has_digest)(file, size, tail)
    except OSError as problem:
        raise ContractError(f"{where}: cannot be read ({problem.strerror or problem}); give a model file") from problem
    if not whole:
        raise ContractError(
            f"{where}: is damaged or was changed: its bytes are not those that voxport wrote (their digest at its "
            "end differs); copy it again from where it came, or export the model again"
        )
    return True


def _has_digest(file: BufferedReader, size: int, tail: bytes) -> bool:
    import hashlib

    digest, read = hashlib.sha256(), 0
    for block in _blocks(file, size - _DIGITS, 1 << 18):
        digest.update(block)
        read += len(block)
    return read == size - _DIGITS and digest.hexdigest().encode() == tail[-_DIGITS:]


def _has_sums(file: BufferedReader, size: int, tail: bytes) -> bool:
    """Whether checksum and bytes agree; of the digest, whether it could be one."""
    before, sums = tail[-_BEHIND_SUMS - _DIGITS - len(_SUMS_START) :], tail[-_BEHIND_SUMS - _DIGITS : -_BEHIND_SUMS]
    form = before.startswith(_SUMS_START) and tail[-_BEHIND_SUMS:].startswith(_ONNX_START)
    form = form and not tail[-_DIGITS:].strip(b"0123456789abcdef")
    size -= len(before)
    return form and _sums(_blocks(file, size, _BLOCK), size) == sums


def _blocks(file: BufferedReader, left: int, most: int) -> Iterator[memoryview]:
    """The next `left` bytes, in blocks of `most`; fewer where the file ends. A block is overwritten by the next."""
    room = memoryview(bytearray(most))
    while left > 0:
        filled = 0
        while filled < min(left, most) and (count := file.readinto(room[filled : min(left, most)])):
            filled += count
        if not filled:
            return
        yield room[:filled]
        left -= filled


def rewritten(where: str) -> ContractError:
    """What is said of an ONNX file that has the entry of a digest, but no longer at its end."""
    return ContractError(
        f"{where}: was rewritten by another program after voxport wrote it: its digest no longer stands at its "
        "end; export the model again, or leave this check out with verify=False"
    )


def _is_onnx_seal(tail: bytes) -> bool:
    return _is_near(tail[:-_DIGITS][-len(_ONNX_START) :], _ONNX_START, _MOST_WRONG_ONNX)


def _is_archive_seal(tail: bytes) -> bool:
    start = tail[:-_DIGITS][-_ZIP_START:]
    return _is_near(start[:4] + start[-2:], _ZIP_END + _DIGITS.to_bytes(2, "little"), _MOST_WRONG_ZIP)


def _is_near(found: bytes, wanted: bytes, most_wrong: int) -> bool:
    wrong = int.from_bytes(found, "big") ^ int.from_bytes(wanted, "big")
    return len(found) == len(wanted) and bin(wrong).count("1") <= most_wrong
