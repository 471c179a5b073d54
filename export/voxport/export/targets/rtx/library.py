"""What TensorRT for RTX is here: whether it is installed, and which GPUs it builds for.

The package `tensorrt_rtx` (1.7) parses ONNX and builds engines without a GPU or a driver, for the compute
capabilities that it names. Only `worker.py`, in a process of its own, gives it a file.
"""

import importlib.util
import re

from voxport.runtime.errors import BackendError

INSTALL = 'pip install "voxport[rtx]"'
USUAL_CAPABILITY = "8.9"  # Ada Lovelace, the middle one of those that it names


def need_library() -> None:
    """Raise BackendError unless `tensorrt_rtx` is installed. It is not loaded: that takes a while."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise BackendError(
            "this needs NVIDIA's parser, the package tensorrt-rtx-cu13, which is not installed (there is one for "
            f"64-bit Linux and Windows): {INSTALL}"
        )


def library_version() -> str:
    """The version of `tensorrt_rtx`. Raises BackendError where it is missing or does not load."""
    need_library()
    try:
        import tensorrt_rtx as trt
    except Exception as problem:
        raise BackendError(f"tensorrt_rtx does not load ({problem}); install it again: {INSTALL}") from problem
    return str(trt.__version__)


def capability_names() -> dict[str, str]:
    """The compute capabilities that engines can be built for, "8.9" and the like, and the library's name of each."""
    library_version()
    import tensorrt_rtx as trt

    return {
        f"{int(digits) // 10}.{int(digits) % 10}": name
        for name in trt.ComputeCapability.__members__
        for digits in re.findall(r"^SM(\d+)$", name)
    }
