"""How to run a model file of any format, and what the table of formats gets from an engine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from voxport.runtime.backends.base import Backend, Explanation
from voxport.runtime.contract import Contract, Precision, TensorSpec
from voxport.runtime.errors import BackendError

Device = Literal["cpu", "cuda", "tensorrt", "rtx"]
DeviceChoice = Literal["auto", "cpu", "cuda", "tensorrt", "rtx"]
Specialization = Literal["lazy", "eager", "none"]
RuntimeChoice = Literal["onnxruntime", "openvino"]
PrecisionChoice = Literal["fp32", "fp16", "int8", "bf16"]
Path = str | os.PathLike[str]


@dataclass(frozen=True)
class BackendOptions:
    """How to run a model of any kind.

    `device`: "cpu", "cuda", "tensorrt" and "rtx" are taken at their word and raise where they are not there.
    "auto" takes the GPU where ONNX Runtime or torch can start on it, else the CPU, TensorRT for a plan, and TensorRT
    for RTX for an RTX engine. It never takes these two for an ONNX model, because building the engine takes long.
    `threads` are the CPU's, inside one operator; None takes one on one or two cores, else two, and for
    TorchScript and .pt2 files what the process has set in torch.
    `precision` refuses a model that would be computed in another; with "tensorrt", "fp16" lets an fp32 ONNX
    model be computed in half, and in OpenVINO "bf16" and "fp16" compute in it what the file holds in float32.
    `runtime` is the library that runs an ONNX model: "onnxruntime", the usual one, or "openvino", on the CPU, where
    `streams` runs may go on at once, and `cache` keeps what was compiled; see `OpenVinoOptions`.
    `max_batch` and `cache` are for ONNX models on "tensorrt" and "rtx", see `OnnxOptions`.
    `graphs` and `host_code` are for plans, see `PlanOptions`. For RTX engines `graphs` above 0 lets the library record
    them, `kernels` says when it compiles for a shape, and `cache` where that is kept; see `RtxOptions`.
    """

    device: DeviceChoice = "auto"
    threads: int | None = None
    precision: PrecisionChoice | None = None
    max_batch: int = 8
    cache: str | os.PathLike[str] | None = None
    graphs: int = 16
    host_code: bool = False
    kernels: Specialization = "lazy"
    runtime: RuntimeChoice | None = None
    streams: int = 1

    def __post_init__(self) -> None:
        if self.device not in get_args(DeviceChoice):
            raise BackendError(f"unknown device {self.device!r}; choose one of {', '.join(get_args(DeviceChoice))}")
        if self.kernels not in get_args(Specialization):
            raise BackendError(f"unknown kernels {self.kernels!r}; choose one of {', '.join(get_args(Specialization))}")
        for name, choices in (("precision", PrecisionChoice), ("runtime", RuntimeChoice)):
            value = getattr(self, name)
            if value is not None and value not in get_args(choices):
                raise BackendError(f"unknown {name} {value!r}; choose one of {', '.join(get_args(choices))}")
        if self.precision == "bf16" and self.runtime != "openvino":
            raise BackendError("precision bf16 is computed by OpenVINO alone; ask for runtime 'openvino' as well")


def own_precision(options: BackendOptions) -> Precision | None:
    """The options' precision for an engine that does not compute in bf16, which is then not asked for."""
    return None if options.precision == "bf16" else options.precision


@runtime_checkable
class LoadedBackend(Backend, Protocol):
    """A back end that can say what runs where."""

    def explain(self) -> Explanation: ...


@dataclass(frozen=True)
class Loaded:
    """A model that runs, and why it runs where it does."""

    backend: LoadedBackend
    why: str


@dataclass(frozen=True)
class ModelFile:
    """What a model file says about itself, read without the library that runs it.

    `kind` and `details` go into JSON, `title` and `rows` are the same for a person. `inputs` and `outputs` are the
    graph's own where the format shows them, else those that the contract promises. `one_device` says that the file
    was compiled for a device and runs on no other, `two_files` that another file describes it, so that the two may
    not belong together.
    """

    kind: str
    title: str
    contract: Contract
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    details: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[tuple[str, str], ...] = ()
    one_device: bool = False
    two_files: bool = False


class Entry(Protocol):
    """What the module `entry` of an engine's folder offers; the table of `formats` imports it when it is needed.

    The first three need NumPy alone and raise ContractError for a file that is missing, damaged or not voxport's.
    """

    def contract(self, path: Path) -> Contract:
        """The contract, read as cheaply as the format allows."""
        ...

    def describe(self, path: Path) -> ModelFile:
        """All that the file says about itself."""
        ...

    def check_digest(self, path: Path) -> bool:
        """Whether the file has a digest, which is then the one of its bytes; raises ContractError where it is not."""
        ...

    def load(self, path: Path, options: BackendOptions, verify: bool) -> Loaded:
        """Load the model; `options.device` is one of the format's devices, or "auto"."""
        ...
