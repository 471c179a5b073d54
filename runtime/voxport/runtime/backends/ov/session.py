"""Compile a model for OpenVINO's CPU plugin exactly as asked, or say why that cannot be. Nothing falls back in silence.

By itself OpenVINO computes float32 models in bfloat16 where the processor has it, and rounds what it multiplies with
int8 weights in groups of 32. Both are told here what the caller wants, and the answer is read back.
"""

import io
import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

from voxport.runtime.backends.base import check_threads, default_threads
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.imports import state_of
from voxport.runtime.privacy import import_openvino

Computed = Literal["fp32", "bf16", "fp16"]

_INSTALL = 'pip install "voxport[openvino]"'
_HINTS: dict[str, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_TYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}  # as OpenVINO's Python calls them
_MOST_STREAMS = 256
# Of compiled kernels, a few for each shape. With OpenVINO's own limit of 5,000 a process grows by gigabytes; rounded
# lengths keep the shapes few, and this bounds what batches of many sizes add.
_KEPT_KERNELS = 500


@dataclass(frozen=True)
class OpenVinoOptions:
    """How to run an ONNX model in OpenVINO, on the CPU.

    `threads` are those of one run; None takes `default_threads()`. `streams` is how many runs go on at once, each with
    its `threads`; further calls wait. `computed` is the precision of what the file holds in float32: "bf16" and "fp16"
    compute it in less, which of an int8 model is all that is not int8. The compiled model is kept below `cache`, else
    $VOXPORT_CACHE, else ~/.cache/voxport; with `keep` False nowhere. Raises BackendError for what cannot be.
    """

    threads: int | None = None
    streams: int = 1
    computed: Computed = "fp32"
    cache: str | os.PathLike[str] | None = None
    keep: bool = True

    def __post_init__(self) -> None:
        check_threads(self.threads)
        if not 1 <= self.streams <= _MOST_STREAMS:
            raise BackendError(f"streams must be between 1 and {_MOST_STREAMS}, found {self.streams}")
        if self.computed not in get_args(Computed):
            raise BackendError(f"unknown precision {self.computed!r}; choose one of {', '.join(get_args(Computed))}")


class Engine:
    """OpenVINO's CPU plugin with one set of options."""

    def __init__(self, options: OpenVinoOptions) -> None:
        """Raises BackendError where openvino is not usable, or this CPU does not compute in the precision."""
        try:
            library = import_openvino()
        except (ImportError, OSError) as problem:
            raise BackendError(f"openvino {state_of(problem, 'openvino')}; run {_INSTALL}") from problem
        self.options, self._core = options, library.Core()
        self.version = str(library.__version__)
        self.capabilities = tuple(sorted(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")))
        wanted, able = options.computed, [name.lower() for name in self.capabilities]
        if wanted != "fp32" and wanted not in able:
            offered = [name for name in ("bf16", "fp16") if name in able]
            raise BackendError(
                f"precision {wanted} was asked for, which OpenVINO does not compute in on this CPU; "
                + (f"ask for {' or '.join(offered)}, or for none" if offered else "ask for none")
            )

    @property
    def threads(self) -> int:
        """Threads of one run."""
        return self.options.threads or default_threads()

    def read(self, path: str) -> Any:
        """The graph of an ONNX file. Raises ContractError where OpenVINO cannot read it."""
        try:
            with open(path, "rb") as file:  # its bytes: whatever the file is called, and as it is at this moment
                return self._core.read_model(file.read(), b"")
        except Exception as problem:  # its errors have no common base of their own
            raise ContractError(f"{path}: openvino cannot read it ({first_line(problem)})") from problem

    def compile(self, graph: Any, path: str, computed: Computed) -> Any:
        """`graph`, compiled in this precision.

        Raises:
            ContractError: OpenVINO cannot compile it.
            BackendError: what it compiled is of another precision.
        """
        try:
            compiled = self._core.compile_model(graph, "CPU", self._settings(computed))
        except Exception as problem:
            raise ContractError(f"{path}: openvino cannot compile it ({first_line(problem)})") from problem
        found, wanted = str(compiled.get_property("INFERENCE_PRECISION_HINT")), _TYPES[_HINTS[computed]]
        if f"'{wanted}'" not in found:
            raise BackendError(f"{path}: precision {computed} was asked for, OpenVINO computes in {found}")
        return compiled

    def load(self, content: bytes, computed: Computed) -> Any:
        """A compiled model from the bytes of an earlier one. Raises whatever OpenVINO raises."""
        return self._core.import_model(io.BytesIO(content), "CPU", self._settings(computed))

    def _settings(self, computed: Computed) -> dict[str, Any]:
        """OpenVINO's own options.

        Threads are not pinned: two processes would be pinned to the same cores.
        """
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": str(self.options.streams),
            "INFERENCE_NUM_THREADS": self.threads * self.options.streams,
            "INFERENCE_PRECISION_HINT": _HINTS[computed],
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
            "ENABLE_CPU_PINNING": False,
            "CPU_RUNTIME_CACHE_CAPACITY": str(_KEPT_KERNELS),
        }


def first_line(problem: BaseException) -> str:
    """What an error of OpenVINO's says, without the places in its source that come first."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Check '", "Exception from"))]
    return ((told or lines or [type(problem).__name__])[0])[:300]
