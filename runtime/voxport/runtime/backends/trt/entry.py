"""What the table of formats gets from TensorRT's engine; see `options.Entry`."""

import os

from voxport.runtime.backends.base import expected_tensors
from voxport.runtime.backends.options import BackendOptions, Loaded, ModelFile, Path
from voxport.runtime.backends.trt.file import read_plan, read_sidecar
from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError


def contract(path: Path) -> Contract:
    """The contract in the file beside the plan."""
    return read_sidecar(path).contract


def describe(path: Path) -> ModelFile:
    """What the file beside the plan says. Nothing but TensorRT can read the plan itself."""
    file = read_sidecar(path)
    return ModelFile(
        "plan",
        "TensorRT plan",
        file.contract,
        *expected_tensors(file.contract),
        {"built_with": dict(file.built_with)},
        tuple(("built with", f"{name} {value}") for name, value in file.built_with),
        one_device=True,
        two_files=True,
    )


def check_digest(path: Path) -> bool:
    """Whether the plan is the one that the file beside it describes, which always has its digest."""
    read_plan(path, read_sidecar(path))
    return True


def load(path: Path, options: BackendOptions, verify: bool) -> Loaded:
    """On TensorRT, in the precision that the plan was built in."""
    from voxport.runtime.backends.trt.model import PlanModel, PlanOptions

    model = PlanModel.load(path, PlanOptions(graphs=options.graphs, host_code=options.host_code), verify=verify)
    if options.precision not in (None, model.contract.precision):
        model.close()
        raise BackendError(
            f"{os.fspath(path)}: precision {options.precision} was asked for, the plan is {model.contract.precision}"
        )
    asked = options.device == "tensorrt"
    return Loaded(model, "device 'tensorrt' was asked for" if asked else "auto: a plan runs on TensorRT alone")
