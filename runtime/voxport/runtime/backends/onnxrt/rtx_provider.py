"""TensorRT for RTX in ONNX Runtime: NVIDIA's plugin provider, a package of its own beside the plain onnxruntime.

The package brings a library that ONNX Runtime loads while it runs; provider and devices are known only then. It has a
TensorRT for RTX of its own. Source: its README and option header (0.5.0), and ONNX Runtime's page on plugin providers;
the profile's shapes are separated as the library's own messages say, by commas.
"""

import importlib
import threading
from typing import Any

from voxport.runtime.backends.onnxrt.tensorrt_provider import profile_shapes
from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError
from voxport.runtime.imports import state_of

RTX = "NvTensorRTRTXExecutionProvider"
RTX_INSTALL = 'pip install "voxport[rtx-provider]" "onnxruntime>=1.24"'
_MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
_ELSEWHERE = "Ask for device 'cuda' or 'cpu', or build a plan (voxport export tensorrt)"
_DRIVER = ("libcuda.so", "nvcuda.dll")
_lock = threading.Lock()
_registered: set[str] = set()


def rtx_devices(runtime: Any) -> list[Any]:
    """The GPUs that NVIDIA's plugin takes, as ONNX Runtime lists them; at least one. Registers the plugin once.

    Raises:
        BackendError: ONNX Runtime is too old, the plugin is not installed or does not load, there is no driver, or
            no GPU that it takes.
    """
    if not hasattr(runtime, "register_execution_provider_library"):
        version = getattr(runtime, "__version__", "unknown")
        raise BackendError(f"device 'rtx' needs ONNX Runtime 1.24, and {version} is installed: {RTX_INSTALL}")
    try:
        plugin = importlib.import_module(_MODULE)
    except (ImportError, OSError) as problem:
        raise BackendError(f"device 'rtx': {_MODULE} {state_of(problem, _MODULE)}: {RTX_INSTALL}") from problem
    library = str(plugin.get_library_path())
    with _lock:
        if library not in _registered:
            _register(runtime, library)
            _registered.add(library)
    found = [each for each in runtime.get_ep_devices() if each.ep_name == RTX]
    if not found:
        raise BackendError(
            "device 'rtx': NVIDIA's plugin finds no GPU that it takes, which are those of compute capability 8.6, 8.9, "
            f"12.0 and newer, not H100 and H200 (9.0). {_ELSEWHERE}"
        )
    return found


def _register(runtime: Any, library: str) -> None:
    try:
        runtime.register_execution_provider_library(RTX, library)
    except Exception as problem:  # its errors have no common base of their own
        told = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:300]
        if any(name in told for name in _DRIVER):
            raise BackendError(
                f"device 'rtx': there is no NVIDIA driver, without which NVIDIA's plugin does not load. {_ELSEWHERE}"
            ) from problem
        raise BackendError(
            f"device 'rtx': ONNX Runtime cannot load NVIDIA's plugin ({told}). {_ELSEWHERE}"
        ) from problem


def rtx_options(contract: Contract, max_batch: int, folder: str) -> dict[str, str]:
    """Options of the provider for a model: one profile, compiled kernels kept in `folder`.

    CUDA graphs stay off: with them the provider takes inputs of one shape alone.
    """
    shapes = profile_shapes(contract, max_batch)
    return {
        **{f"nv_profile_{which}_shapes": text for which, text in shapes.items()},
        "nv_runtime_cache_path": folder,
        "enable_cuda_graph": "0",
    }


def rtx_facts(device: Any) -> tuple[str, ...]:
    """What compiled kernels are bound to: the plugin's version and the GPU; the driver is checked by the library."""
    hardware = getattr(device, "device", None)
    told = (str(getattr(hardware, name, "")) for name in ("vendor_id", "device_id"))
    return (rtx_version(), *told)


def rtx_version() -> str:
    """Of the plugin that is installed."""
    return str(getattr(importlib.import_module(_MODULE), "__version__", "unknown"))
