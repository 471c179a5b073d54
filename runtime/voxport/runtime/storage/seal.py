"""The SHA-256 at the end of a model file, over every byte before it: graph, weights, contract and all.

The golden vector finds what changes its own answer; a flipped bit in a weight often changes others. In an
ONNX file the digest is the value of the last metadata entry, in a TorchScript or .pt2 file the zip
archive's comment, so that other readers of both formats take it for what it is. Files of before have none, and load.
"""

import os

from voxport.runtime.errors import ContractError

SEAL_KEY = "voxport.sha256"  # of the metadata entry in an ONNX file

_DIGITS = 64
_ENTRY = 2 + len(SEAL_KEY) + 2 + _DIGITS  # bytes of the entry: its key and its value, each with tag and length
_MODEL_METADATA, _KEY, _VALUE = 14 << 3 | 2, 1 << 3 | 2, 2 << 3 | 2  # tags of onnx.proto
_ONNX_START = bytes((_MODEL_METADATA, _ENTRY, _KEY, len(SEAL_KEY))) + SEAL_KEY.encode() + bytes((_VALUE, _DIGITS))
_ZIP_END = b"PK\x05\x06"
_ZIP_START = 22  # bytes of the record that ends a zip archive, whose last two are the length of the comment
# Bits: what is so near to a seal's beginning is one, and damaged. Other records of a zip archive are 3 away.
_MOST_WRONG_ONNX, _MOST_WRONG_ZIP = 8, 2


def seal_onnx(content: bytes) -> bytes:
    """A serialized ModelProto with its digest as the last metadata entry."""
    return _with_digest(content + _ONNX_START)


def seal_archive(content: bytes) -> bytes:
    """A zip archive that has no comment, with its digest as one. Raises ValueError where there is a comment."""
    if content[-_ZIP_START:][:4] != _ZIP_END or content[-2:] != b"\0\0":
        raise ValueError("the archive has a comment already, or is none")
    return _with_digest(content[:-2] + _DIGITS.to_bytes(2, "little"))


def _with_digest(content: bytes) -> bytes:
    import hashlib  # costs milliseconds; a file without a seal needs none

    return content + hashlib.sha256(content).hexdigest().encode()


def archive_comment(tail: bytes) -> int:
    """Bytes of the comment of a zip archive that ends in `tail`: those of a seal, or none."""
    return _DIGITS if _is_archive_seal(tail) else 0


def check_seal(path: str | os.PathLike[str]) -> bool:
    """Whether the file `path` has a digest, which is then the one of its bytes. Reads the whole file.

    Raises:
        ContractError: the bytes are not those that were written, or the file cannot be read.
    """
    where = os.fspath(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _DIGITS - max(len(_ONNX_START), _ZIP_START)))
            tail = file.read()
            if not _is_onnx_seal(tail) and not _is_archive_seal(tail):
                return False
            import hashlib

            digest, left, block = hashlib.sha256(), size - _DIGITS, memoryview(bytearray(1 << 18))
            file.seek(0)
            while left > 0 and (count := file.readinto(block[: min(left, len(block))])):
                digest.update(block[:count])
                left -= count
    except OSError as problem:
        raise ContractError(f"{where}: cannot be read ({problem.strerror or problem}); give a model file") from problem
    if left or digest.hexdigest().encode() != tail[-_DIGITS:]:
        raise ContractError(
            f"{where}: is damaged or was changed: its bytes are not those that voxport wrote (their SHA-256 at its "
            "end differs); copy it again from where it came, or export the model again"
        )
    return True


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
