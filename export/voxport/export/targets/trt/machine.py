"""The machine that a plan is built on, which is the one that it is for; and what is missing where there is none."""

from voxport.export.targets.trt.settings import Machine
from voxport.runtime.backends.cuda import Cuda, cuda_module, cuda_versions, gpu_name
from voxport.runtime.backends.trt.engine import tensorrt_major, tensorrt_version
from voxport.runtime.errors import BackendError

_KNOWN = (8, 10, 11)


def find_machine() -> tuple[Machine | None, tuple[str, ...]]:
    """This machine, or None and everything that it lacks, each with the way to get it."""
    missing = []
    version = ""
    try:
        version = tensorrt_version()
        if tensorrt_major() not in _KNOWN or version.startswith(("8.0", "8.2", "8.4", "8.5")):
            missing.append(f'TensorRT {version} is not known here, 8.6, 10 and 11 are: pip install "tensorrt>=10,<12"')
    except BackendError as problem:
        missing.append(str(problem))
    try:
        Cuda(cuda_module()).close()
    except BackendError as problem:
        missing.append(str(problem))
    if missing:
        return None, tuple(missing)
    return Machine(gpu_name(), version, ", ".join(f"{name} {value}" for name, value in cuda_versions())), ()


def require_machine() -> Machine:
    """This machine. Raises BackendError that names everything it lacks."""
    machine, missing = find_machine()
    if machine is None:
        raise BackendError(
            "a TensorRT plan is built on the GPU that it is for, and here something is missing: "
            f"{'; '.join(missing)}. --dry-run shows what would be built, and needs none of it"
        )
    return machine
