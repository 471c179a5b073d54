"""Read a contract from the model file that carries it, without loading the model."""

import hashlib
import os
import re

from voxport.runtime.contract import METADATA_KEY, Contract
from voxport.runtime.errors import ContractError
from voxport.runtime.onnx_file import OnnxFile, read_onnx

# Sizes that no speaker model has. They keep a hostile file from asking for gigabytes of frontend tables.
_LIMITS = {"n_fft": 1 << 14, "n_mels": 1 << 9, "sample_rate": 1 << 20, "hop_length": 1 << 20}
_MAX_FRAMES = 1 << 24  # 46 hours at a hop of 10 ms
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, lone surrogates


def read_contract(path: str | os.PathLike[str]) -> Contract:
    """Read the contract of the ONNX model `path`. Needs NumPy alone and reads only the contract's bytes.

    Raises:
        ContractError: the file is missing, damaged or no ONNX; it has no contract, or one of another
            version, malformed, or with impossible sizes.
    """
    return contract_of(read_onnx(path, METADATA_KEY), path)


def contract_of(file: OnnxFile, path: str | os.PathLike[str]) -> Contract:
    """The contract in `file`, which was read from `path`. Raises as `read_contract` does."""
    where = os.fspath(path)
    if file.contract is None:
        raise ContractError(
            f"{where}: this ONNX file has no voxport contract; "
            "write it with: voxport export onnx CHECKPOINT -o MODEL.onnx"
        )
    contract = Contract.from_json(file.contract, where)
    _check_sizes(contract, where)
    _check_names(contract, where)
    return contract


def file_sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, read in small pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_sizes(contract: Contract, where: str) -> None:
    for name, limit in _LIMITS.items():
        value = getattr(contract.frontend, name)
        if value > limit:
            raise ContractError(f"{where}: frontend {name} is {value}, at most {limit} is possible; export it again")
    if contract.max_frames > _MAX_FRAMES:
        raise ContractError(f"{where}: max_frames is {contract.max_frames}, at most {_MAX_FRAMES} is possible")


def _check_names(contract: Contract, where: str) -> None:
    for text in (contract.recipe, contract.checkpoint_sha256, contract.frontend.name, *contract.labels):
        if _UNPRINTABLE.search(text):  # names are printed: they must not steer a terminal
            raise ContractError(
                f"{where}: the name {text!r:.60} has unprintable characters; rename it and export again"
            )
