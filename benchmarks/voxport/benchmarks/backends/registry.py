"""Ways to run a model, as a worker sees them, and those that can be compared by name.

Each imports its library when it is opened, never before.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.core.settings import BackendSpec, Engine, InputSpec
from voxport.benchmarks.system.machine import Fact
from voxport.runtime.contract import Rounding
from voxport.runtime.errors import BackendError, VoxportError
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.imports import explain_import
from voxport.runtime.privacy import import_openvino

Array = npt.NDArray[np.float32]
Lengths = npt.NDArray[np.int64]


class Backend(Protocol):
    """A loaded model. `run` is one timed call: host arrays in, host scores out, device work finished."""

    frontend: Frontend
    speakers: int

    def run(self, inputs: Array, lengths: Lengths) -> Array:
        """Inputs (B, T, F) or (B, samples), lengths (B,) → scores (B, S)."""
        ...

    def facts(self) -> tuple[Fact, ...]:
        """What the library says about how it runs."""
        ...


@dataclass(frozen=True)
class Kind:
    """Where a kind of back end lives (`module:Class`), what it imports first, and what brings its packages.

    `builder` (`module:function`) makes of the checkpoint what the class opens; `suffix` is that file's ending.
    `profiler` says who can tell where its time goes.
    """

    opener: str
    imports: tuple[str, ...]
    install: str
    builder: str = ""
    suffix: str = ""
    profiler: str = ""


_TRAIN, _CPU = 'pip install "voxport[train]"', 'pip install "voxport[cpu]"'
_TORCH = ("torch", "voxport.train.checkpoint")
_HERE = "voxport.benchmarks."
KINDS: dict[str, Kind] = {
    "eager": Kind(_HERE + "backends.eager:EagerBackend", _TORCH, _TRAIN, profiler="torch"),
    "eager_graphs": Kind(_HERE + "backends.eager:EagerBackend", _TORCH, _TRAIN, profiler="torch"),
    "torchscript": Kind(
        _HERE + "backends.compiled:TorchScriptBackend",
        _TORCH,
        _TRAIN,
        _HERE + "backends.compiled:build_torchscript",
        ".ts",
        profiler="torch",
    ),
    "compile": Kind(
        _HERE + "backends.compiled:CompileBackend",
        _TORCH,
        _TRAIN,
        _HERE + "backends.compiled:build_compile",
        "",
        profiler="torch",
    ),
    "aoti": Kind(
        _HERE + "backends.compiled:AotiBackend",
        _TORCH,
        _TRAIN,
        _HERE + "backends.compiled:build_aoti",
        ".pt2",
        profiler="torch",
    ),
    "plain_onnx": Kind(
        _HERE + "backends.onnx:SessionBackend",
        ("onnxruntime",),
        'pip install "voxport[export,cpu]"',
        _HERE + "backends.compiled:build_plain_onnx",
        ".onnx",
        profiler="onnx",
    ),
    "onnx": Kind(
        _HERE + "backends.onnx:OnnxBackend",
        ("onnxruntime", "voxport.runtime.backends.onnxrt.model"),
        _CPU,
        profiler="onnx",
    ),
    "onnx_graphs": Kind(
        _HERE + "backends.onnx:SessionBackend", ("onnxruntime", "voxport.runtime.backends.onnxrt.model"), _CPU
    ),
    "onnx_session": Kind(_HERE + "backends.onnx:SessionBackend", ("onnxruntime",), _CPU, profiler="onnx"),
    "openvino": Kind(
        _HERE + "backends.onnx:OpenVinoBackend",
        ("openvino", "voxport.runtime.backends.ov.model"),
        'pip install "voxport[openvino]"',
    ),
    "artefact": Kind(_HERE + "backends.onnx:ArtefactBackend", ("voxport.runtime.backends.load",), _CPU),
}


def kind_of(spec: BackendSpec) -> Kind:
    """Raises VoxportError for a kind that nobody knows."""
    if spec.kind not in KINDS:
        raise VoxportError(f"unknown back end kind {spec.kind!r}; there are {', '.join(KINDS)}")
    return KINDS[spec.kind]


def open_backend(spec: BackendSpec) -> Backend:
    """Load `spec`.

    Raises:
        VoxportError: the file, the device or a package is not usable.
    """
    kind = kind_of(spec)
    backend: Backend = _call(spec, kind.opener, spec)
    return backend


def build_backend(spec: BackendSpec, inputs: InputSpec) -> str:
    """Make `spec.built` of the checkpoint, and say how it was made.

    Raises:
        VoxportError: the checkpoint or a package is not usable.
    """
    detail: str = _call(spec, kind_of(spec).builder, spec, inputs)
    return detail


def import_libraries(spec: BackendSpec) -> None:
    """Import what `open_backend` will need, so that a cold start can time it apart."""
    for module in kind_of(spec).imports:
        _import(spec, module)


def _call(spec: BackendSpec, where: str, *arguments: Any) -> Any:
    module, _, name = where.partition(":")
    try:
        return getattr(importlib.import_module(module), name)(*arguments)
    except (ImportError, OSError) as problem:
        raise _unusable(spec, problem) from problem


def _import(spec: BackendSpec, module: str) -> None:
    try:
        import_openvino() if module == "openvino" else importlib.import_module(module)
    except (ImportError, OSError) as problem:
        raise _unusable(spec, problem) from problem


def _unusable(spec: BackendSpec, problem: Exception) -> Exception:
    failure = explain_import(problem)
    if failure is None:
        return problem  # a bug of ours: no package would help
    if not failure.is_missing:
        return BackendError(f"{spec.name}: {failure}")
    return BackendError(
        f"{spec.name} needs the package {failure.module}, which is not installed: {KINDS[spec.kind].install}"
    )


@dataclass(frozen=True)
class Variant:
    """A back end made of the checkpoint, or of each ONNX model. `engine` None: where the run's device is."""

    kind: str
    of: Literal["checkpoint", "model"]
    engine: Engine | None
    what: str
    graphs: bool = False
    computed: Rounding | None = None


VARIANTS: dict[str, Variant] = {
    "plain_onnx": Variant(
        "plain_onnx", "checkpoint", None, "plain torch.onnx.export of the eager network, ONNX Runtime"
    ),
    "torchscript": Variant("torchscript", "checkpoint", None, "torch.jit.trace, frozen"),
    "compile": Variant("compile", "checkpoint", None, "torch.compile, dynamic shapes"),
    "aoti": Variant("aoti", "checkpoint", None, "torch.export and AOTInductor"),
    "eager_cpu": Variant("eager", "checkpoint", "cpu", "eager PyTorch on the CPU"),
    "eager_cuda": Variant("eager", "checkpoint", "cuda", "eager PyTorch on a GPU"),
    "eager_graphs": Variant("eager_graphs", "checkpoint", "cuda", "eager PyTorch behind CUDA graphs", graphs=True),
    "compile_graphs": Variant("compile", "checkpoint", "cuda", "torch.compile with CUDA graphs", graphs=True),
    "onnx_cpu": Variant("onnx", "model", "cpu", "each ONNX model, ONNX Runtime on the CPU"),
    "onnx_cuda": Variant("onnx", "model", "cuda", "each ONNX model, ONNX Runtime's CUDA provider"),
    "onnx_graphs": Variant("onnx_graphs", "model", "cuda", "the same with CUDA graphs", graphs=True),
    "onnx_tensorrt": Variant("onnx", "model", "tensorrt", "each ONNX model, ONNX Runtime's TensorRT provider"),
    "onnx_rtx": Variant("artefact", "model", "rtx", "each ONNX model, NVIDIA's plugin with TensorRT for RTX"),
    "onnx_openvino": Variant("openvino", "model", "cpu", "each ONNX model in OpenVINO, in its own precision"),
    "onnx_openvino_bf16": Variant(
        "openvino", "model", "cpu", "the same, in bfloat16 what is float32 in the file", computed="bf16"
    ),
}


def chosen(names: Sequence[str]) -> dict[str, Variant]:
    """The variants of these names; "all" is every one.

    Raises:
        VoxportError: a name that is none.
    """
    unknown = [name for name in names if name not in VARIANTS and name != "all"]
    if unknown:
        raise VoxportError(f"no back end is called {unknown[0]}; there are {', '.join(VARIANTS)}, and all")
    return dict(VARIANTS) if "all" in names else {name: VARIANTS[name] for name in names}
