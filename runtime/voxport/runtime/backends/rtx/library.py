"""TensorRT for RTX: the package, and the GPUs that it builds and runs engines for.

`tensorrt_rtx` (1.7) builds engines without a GPU or a driver, and runs them on GeForce and RTX GPUs. Source: its
docstrings, and the page "CPU-Only AOT and TensorRT-RTX Engines" of its documentation.
"""

import importlib.util
import re

from voxport.runtime.backends.trt.library import Library
from voxport.runtime.errors import BackendError

RTX = Library("tensorrt_rtx", "TensorRT for RTX", "an RTX engine needs it", 'pip install "voxport[rtx]"')
PORTABLE = "8.0 and newer"  # what an engine is for that names no compute capability: Ampere and all that came later
_FIRST_OF_ALL_LATER = 12  # from Blackwell on, the documentation promises every later GPU


def need_library() -> None:
    """Raise BackendError unless `tensorrt_rtx` is installed. It is not loaded: that takes a while."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        raise BackendError(
            "this needs NVIDIA's TensorRT for RTX, the package tensorrt-rtx-cu13, which is not installed (there is one "
            f"for 64-bit Linux and Windows): {RTX.install}"
        )


def capability_names() -> dict[str, str]:
    """The compute capabilities that engines can be built for, "8.9" and the like, and the library's name of each.

    Raises:
        BackendError: the library is missing or does not load.
    """
    need_library()
    return {
        f"{int(digits) // 10}.{int(digits) % 10}": name
        for name in RTX.load().ComputeCapability.__members__
        for digits in re.findall(r"^SM(\d+)$", name)
    }


def takes(capability: tuple[int, int]) -> bool:
    """Whether TensorRT for RTX runs on a GPU of this compute capability; not on 9.0, that of H100 and H200."""
    return capability[0] >= _FIRST_OF_ALL_LATER or "{}.{}".format(*capability) in capability_names()


def fits(capability: tuple[int, int], built_for: str) -> bool:
    """Whether an engine built for `built_for`, `PORTABLE` or a list such as "8.6, 8.9", runs on this GPU."""
    if built_for == PORTABLE:
        return capability >= (8, 0)
    return "{}.{}".format(*capability) in built_for.split(", ")
