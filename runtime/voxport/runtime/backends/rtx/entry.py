"""What the table of formats gets from the engine of TensorRT for RTX; see `options.Entry`."""

import os

from voxport.runtime.backends.base import expected_tensors
from voxport.runtime.backends.options import BackendOptions, Loaded, ModelFile, Path
from voxport.runtime.backends.trt.entry import check_digest, contract
from voxport.runtime.backends.trt.file import read_sidecar
from voxport.runtime.errors import BackendError

# The file beside an RTX engine is that of a plan.
__all__ = ["check_digest", "contract", "describe", "load"]

_PROVEN = {"engine": "the engine, on a GPU", "source": "the ONNX graph that it was built from; the engine was not run"}


def describe(path: Path) -> ModelFile:
    """What the file beside the engine says. Nothing but TensorRT for RTX can read the engine itself."""
    file = read_sidecar(path)
    return ModelFile(
        "rtx",
        "RTX engine",
        file.contract,
        *expected_tensors(file.contract),
        {"built_with": dict(file.built_with), "parity_passed_by": file.proof},
        (
            *(("built with", f"{name} {value}") for name, value in file.built_with),
            ("parity passed by", _PROVEN[file.proof]),
        ),
        one_device=True,
        two_files=True,
    )


def load(path: Path, options: BackendOptions, verify: bool) -> Loaded:
    """On TensorRT for RTX, in the precision that the engine was built in."""
    from voxport.runtime.backends.rtx.model import RtxModel, RtxOptions

    own = RtxOptions(graphs=options.graphs > 0, kernels=options.kernels, cache=options.cache)
    model = RtxModel.load(path, own, verify=verify)
    if options.precision not in (None, model.contract.precision):
        model.close()
        raise BackendError(
            f"{os.fspath(path)}: precision {options.precision} was asked for, the engine is {model.contract.precision}"
        )
    asked = options.device == "rtx"
    return Loaded(
        model, "device 'rtx' was asked for" if asked else "auto: an RTX engine runs on TensorRT for RTX alone"
    )
