"""What the table of formats gets from PyTorch's engine; see `options.Entry`."""

from voxport.runtime.backends.base import expected_tensors
from voxport.runtime.backends.options import BackendOptions, Loaded, ModelFile, Path, own_precision
from voxport.runtime.backends.pytorch.file import read_torch
from voxport.runtime.contract import Contract
from voxport.runtime.storage.seal import check_seal

_TITLES = {"torchscript": "TorchScript", "program": ".pt2 program", "package": ".pt2 package, native code"}


def contract(path: Path) -> Contract:
    """The contract in the archive."""
    return read_torch(path).contract


def describe(path: Path) -> ModelFile:
    """Kind, contract, and what the file was built with. Its graph is not read."""
    file = read_torch(path)
    return ModelFile(
        file.kind,
        _TITLES[file.kind],
        file.contract,
        *expected_tensors(file.contract),
        {"built_with": dict(file.built_with)},
        tuple(("built with", f"{name} {value}") for name, value in file.built_with),
        one_device=file.kind == "package",
    )


def check_digest(path: Path) -> bool:
    """Whether the archive's comment is its digest."""
    return check_seal(path)


def load(path: Path, options: BackendOptions, verify: bool) -> Loaded:
    """With PyTorch, which says itself why it runs where it does."""
    from voxport.runtime.backends.pytorch.model import TorchModel
    from voxport.runtime.backends.pytorch.session import TorchOptions

    assert options.device != "tensorrt"  # none of the format's devices
    assert options.device != "rtx"
    model = TorchModel.load(path, TorchOptions(options.device, options.threads, own_precision(options)), verify=verify)
    return Loaded(model, model.explain().why)
