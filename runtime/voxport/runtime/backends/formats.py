"""Which kind of file a model is, and the contract that it carries, without loading the model."""

import os
import stat

from voxport.runtime.backends.onnxrt.file import contract_of, read_onnx
from voxport.runtime.contract import METADATA_KEY, Contract
from voxport.runtime.storage.seal import SEAL_KEY, check_seal, rewritten


def read_contract(path: str | os.PathLike[str]) -> Contract:
    """Read the contract of the model file `path`: ONNX, TorchScript, .pt2, or a TensorRT plan.

    Needs NumPy alone, and reads only the contract's bytes: from the file itself, or from `<plan>.json`
    beside a plan.

    Raises:
        ContractError: the file is missing, damaged or no model; it has no contract, or one of another
            version, malformed, or with impossible sizes.
    """
    if is_plan(path):
        from voxport.runtime.backends.trt.file import read_sidecar

        return read_sidecar(path).contract
    if is_torch_file(path):
        from voxport.runtime.backends.pytorch.file import read_torch

        return read_torch(path).contract
    return contract_of(read_onnx(path, METADATA_KEY), path)


def check_digest(path: str | os.PathLike[str]) -> bool:
    """Whether the model file `path` has a digest, which is then the one of its bytes, as loading it checks.

    Raises:
        ContractError: the bytes are not those that were written, another program has rewritten the file since, or it
            cannot be read.
    """
    if is_plan(path):
        from voxport.runtime.backends.trt.file import read_plan, read_sidecar

        read_plan(path, read_sidecar(path))
        return True
    if check_seal(path):
        return True
    if not is_torch_file(path) and read_onnx(path, SEAL_KEY).contract is not None:
        raise rewritten(os.fspath(path))
    return False


PLAN_SUFFIXES = (".plan", ".engine")
TORCH_SUFFIXES = (".torchscript", ".ts", ".pt", ".pth", ".pt2")
_PLAN = (b"ptrt", b"ftrt")  # the first bytes of TensorRT plans, older and newer
_ZIP, _ONNX = b"PK\x03\x04", b"\x08"


def is_plan(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a TensorRT plan, by its suffix or else its first bytes. A missing file is none."""
    return _suffix(path) in PLAN_SUFFIXES or first_bytes(path) in _PLAN


def is_torch_file(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a TorchScript or .pt2 file, by its content; by its name where the content says nothing."""
    start = first_bytes(path)
    return start == _ZIP or (_suffix(path) in TORCH_SUFFIXES and start[:1] != _ONNX)


def is_gallery(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a gallery of enrolled speakers, by its table of contents. A missing file is none."""
    if first_bytes(path) != _ZIP:
        return False
    import zipfile  # slow to import, and seldom needed

    try:
        with zipfile.ZipFile(path) as archive:
            return {"header.npy", "names.npy", "sums.npy"} <= set(archive.namelist())
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile):  # whatever a damaged directory makes zipfile raise
        return False


def first_bytes(path: str | os.PathLike[str]) -> bytes:
    """The first four bytes of the file `path`; none where it is missing, or is a pipe that would wait for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb") as file:
            return file.read(4)
    except (OSError, ValueError):  # ValueError: a NUL or half a character, which no file's name can hold
        return b""


def _suffix(path: str | os.PathLike[str]) -> str:
    """In small letters; none for a name that no file can have, which is left to the reader of ONNX to refuse."""
    try:
        if b"\0" in os.fsencode(path):
            return ""
    except UnicodeEncodeError:  # half a character
        return ""
    return os.path.splitext(os.fspath(path))[1].lower()
