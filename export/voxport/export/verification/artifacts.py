"""Which side of a comparison is what, told by content, and artefacts of any kind opened for the gate."""

import os
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from voxport.runtime.backends.base import Backend
from voxport.runtime.backends.formats import first_bytes, is_plan, is_torch_file
from voxport.runtime.backends.load import BackendOptions, load_backend
from voxport.runtime.backends.pytorch.file import read_torch
from voxport.runtime.contract import METADATA_KEY

_ZIP = b"PK\x03\x04"
_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a PyTorch checkpoint or a run's folder, and no artefact; a missing file by its suffix."""
    path = Path(path)
    if path.is_dir():
        return True
    if first_bytes(path) != _ZIP:
        return path.suffix.lower() in _CHECKPOINT_SUFFIXES
    try:
        with ZipFile(path) as archive:
            members = {name.partition("/")[2] for name in archive.namelist()}
    except (OSError, ValueError, BadZipFile):  # damaged: the suffix says whose reader is to complain
        return path.suffix.lower() in _CHECKPOINT_SUFFIXES
    # TorchScript has constants.pkl beside data.pkl, and .pt2 has no data.pkl at its top.
    return "data.pkl" in members and not members & {"constants.pkl", f"extra/{METADATA_KEY}"}


def open_artefact(path: str | os.PathLike[str]) -> Backend:
    """Load an artefact of any kind where its proof holds for certain: on the CPU, unless it was built for a GPU.

    Its golden vector is not replayed, since the gate does that.

    Raises:
        ContractError: the file is missing, damaged, or without a contract.
        BackendError: what is needed to run it is not there.
    """
    on_its_device = is_plan(path) or (is_torch_file(path) and read_torch(path).kind == "package")
    return load_backend(path, BackendOptions("auto" if on_its_device else "cpu"), verify=False)
