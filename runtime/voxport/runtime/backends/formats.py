"""Read a contract from the model file that carries it, without loading the model."""

import os

from voxport.runtime.backends.file_kind import is_plan, is_torch_file
from voxport.runtime.backends.onnxrt.file import OnnxFile, read_onnx
from voxport.runtime.contract import METADATA_KEY, Contract
from voxport.runtime.contract_limits import check_contract
from voxport.runtime.errors import ContractError


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


def contract_of(file: OnnxFile, path: str | os.PathLike[str]) -> Contract:
    """The contract in `file`, which was read from `path`. Raises as `read_contract` does."""
    where = os.fspath(path)
    if file.contract is None:
        raise ContractError(
            f"{where}: this ONNX file has no voxport contract; "
            "write it with: voxport export onnx CHECKPOINT -o MODEL.onnx"
        )
    return check_contract(Contract.from_json(file.contract, where), where)


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, read in small pieces."""
    import hashlib  # costs milliseconds, and loading a model does not need it

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
