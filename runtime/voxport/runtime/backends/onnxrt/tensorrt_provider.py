"""ONNX Runtime's TensorRT provider: its options, its caches, and what must be there before it can start.

Options as ONNX Runtime documents them (TensorRT execution provider, "Configurations"). Without explicit
profiles the provider builds an engine anew whenever a shape exceeds those it has seen, for a minute each
time; here one profile spans the contract's lengths from the start.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError
from voxport.runtime.length_range import LengthRange
from voxport.runtime.storage.atomic import file_sha256
from voxport.runtime.storage.cache_root import cache_root

if TYPE_CHECKING:
    from pathlib import Path

TENSORRT = "TensorrtExecutionProvider"
INSTALL = 'pip install "voxport[gpu]" "tensorrt>=10,<11"'
_NEEDED = 10  # the major version of TensorRT that onnxruntime-gpu's provider is linked against since 1.18
_TYPICAL_SECONDS = 4.0


def check_tensorrt() -> str:
    """Load TensorRT's libraries and return its version, "" where only the system has them.

    Raises:
        BackendError: the tensorrt that is installed is of a major version that the provider cannot use.
    """
    try:
        found = importlib.import_module("tensorrt")  # it loads libnvinfer, which no loader path leads to
    except ImportError:
        return ""  # a system's package may have the libraries; if not, the session says so
    version = str(getattr(found, "__version__", "0"))
    if version.partition(".")[0] != str(_NEEDED):
        raise BackendError(
            f"device 'tensorrt' was asked for, but ONNX Runtime's TensorRT provider needs TensorRT {_NEEDED} and "
            f"{version} is installed; {INSTALL}. Or build a plan for TensorRT {version}, or ask for device 'cuda'"
        )
    return version


def provider_options(contract: Contract, precision: str, max_batch: int, folder: "Path") -> dict[str, str]:
    """Options of the provider for a model: one profile, engines and timings cached in `folder`."""
    shapes = profile_shapes(contract, max_batch)
    return {
        **{f"trt_profile_{which}_shapes": text for which, text in shapes.items()},
        "trt_fp16_enable": "1" if precision == "fp16" else "0",
        "trt_int8_enable": "1" if precision == "int8" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder.parent),  # timings of one model's layers serve another's
    }


def profile_shapes(contract: Contract, max_batch: int) -> dict[str, str]:
    """The profile as ONNX Runtime writes it, for "min", "opt" and "max": all lengths of the contract.

    It is tuned for one input of four seconds, or the nearest length that the contract allows.
    """
    allowed = LengthRange.of_input(contract)
    rate = contract.frontend.sample_rate / (1 if allowed.unit == "samples" else contract.frontend.hop_length)
    typical = min(max(round(_TYPICAL_SECONDS * rate), allowed.shortest), allowed.longest)
    tail = f"x{contract.frontend.n_mels}" if contract.input_kind == "features" else ""

    def shape(rows: int, length: int) -> str:
        return f"{contract.input_kind}:{rows}x{length}{tail},lengths:{rows}"

    return {
        "min": shape(1, allowed.shortest),
        "opt": shape(1, typical),
        "max": shape(max_batch, allowed.longest),
    }


def cache_folder(
    path: str | os.PathLike[str],
    cache: str | os.PathLike[str] | None,
    facts: tuple[str, ...],
    kind: str = "tensorrt",
) -> "Path":
    """Make and return the folder of the engines of the model `path`.

    It is named after the model's SHA-256 and after `facts`, all that makes an engine another one: ONNX
    Runtime's own names leave some of it out. Below `cache`, or else $VOXPORT_CACHE, or ~/.cache/voxport.

    Raises:
        BackendError: the folder cannot be made, or there is no home folder to make it in.
    """
    import hashlib  # here and not above: every start would pay for it

    root = cache_root(cache)
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()
    folder = root / kind / f"{file_sha256(path)[:16]}-{key[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BackendError(
            f"{folder}: engines cannot be cached there ({problem.strerror or problem}); set VOXPORT_CACHE to a folder "
            "that can be written"
        ) from problem
    return folder


def nodes_by_provider(session: Any) -> dict[str, int]:
    """How many of the graph's nodes each provider runs; empty where this onnxruntime does not tell (before 1.24)."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return {}
    try:
        groups = ask()
    except Exception:  # it was not recorded; its errors have no common base of their own
        return {}
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.ep_name] = counts.get(group.ep_name, 0) + len(group.get_nodes())
    return counts
