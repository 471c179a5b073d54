"""Load a model file with the engine of its format, on the device that was requested."""

import os

from voxport.runtime.backends.formats import describe, format_of
from voxport.runtime.backends.options import BackendOptions, Loaded, LoadedBackend
from voxport.runtime.errors import BackendError


def load_backend(
    path: str | os.PathLike[str], options: BackendOptions | None = None, *, verify: bool = True
) -> LoadedBackend:
    """Load the model file `path`: ONNX, TorchScript, .pt2, a TensorRT plan or an RTX engine with its JSON file.

    `verify` replays the golden vector.

    Raises:
        ContractError: the file is missing, damaged, of a kind that is not supported, or no longer true.
        BackendError: the device, a package or the precision that was asked for is not there.
    """
    return load_explained(path, options, verify=verify).backend


def load_explained(
    path: str | os.PathLike[str], options: BackendOptions | None = None, *, verify: bool = True
) -> Loaded:
    """Like `load_backend`, with the reason for the device."""
    chosen, found = options or BackendOptions(), format_of(path)
    if chosen.device not in ("auto", *found.devices):
        runs = ", ".join(repr(device) for device in found.devices)
        raise BackendError(
            f"{os.fspath(path)}: {found.title} cannot run on device {chosen.device!r}; ask for {runs} or 'auto', "
            "or load the ONNX model"
        )
    return found.entry.load(path, chosen, verify)


def load_reference(path: str | os.PathLike[str]) -> LoadedBackend:
    """Load a model file where its proof holds for certain: on the CPU, unless it was compiled for another device.

    Its golden vector is not replayed. Raises as `load_backend` does.
    """
    return load_backend(path, BackendOptions("auto" if describe(path).one_device else "cpu"), verify=False)
