"""Load a model file with the back end that its kind needs, on the device that was asked for."""

import os
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

from voxport.runtime.backends.base import Backend, Explanation
from voxport.runtime.backends.formats import is_plan, is_torch_file, read_contract
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.onnxrt.session import Device, OnnxOptions, import_onnxruntime
from voxport.runtime.contract import Precision
from voxport.runtime.errors import BackendError

DeviceChoice = Literal["auto", "cpu", "cuda", "tensorrt"]


@dataclass(frozen=True)
class BackendOptions:
    """How to run a model of any kind.

    `device`: "cpu", "cuda" and "tensorrt" are taken at their word and raise where they are not there.
    "auto" takes the GPU where ONNX Runtime or torch can start on it, else the CPU, and TensorRT for a plan. It
    never takes TensorRT for an ONNX model, because building the engine takes minutes.
    `threads` are the CPU's, inside one operator; None takes one on one or two cores, else two, and for
    TorchScript and .pt2 files what the process has set in torch.
    `precision` refuses a model that would be computed in another; with "tensorrt", "fp16" lets an fp32 ONNX
    model be computed in half. `max_batch` and `cache` are for ONNX models on "tensorrt", see `OnnxOptions`.
    `graphs` and `host_code` are for plans, see `PlanOptions`.
    """

    device: DeviceChoice = "auto"
    threads: int | None = None
    precision: Precision | None = None
    max_batch: int = 8
    cache: str | os.PathLike[str] | None = None
    graphs: int = 16
    host_code: bool = False

    def __post_init__(self) -> None:
        if self.device not in get_args(DeviceChoice):
            raise BackendError(f"unknown device {self.device!r}; choose one of {', '.join(get_args(DeviceChoice))}")
        if self.precision is not None and self.precision not in get_args(Precision):
            raise BackendError(f"unknown precision {self.precision!r}; choose one of {', '.join(get_args(Precision))}")


@runtime_checkable
class LoadedBackend(Backend, Protocol):
    """A back end that can say what runs where."""

    def explain(self) -> Explanation: ...


@dataclass(frozen=True)
class Loaded:
    """A model that runs, and why it runs where it does."""

    backend: LoadedBackend
    why: str


def load_backend(
    path: str | os.PathLike[str], options: BackendOptions | None = None, *, verify: bool = True
) -> LoadedBackend:
    """Load the model file `path`: ONNX, TorchScript, .pt2, or a TensorRT plan with `<plan>.json` beside it.

    `verify` replays the golden vector.

    Raises:
        ContractError: the file is missing, damaged, of a kind that is not supported, or no longer true.
        BackendError: the device, a package or the precision that was asked for is not there.
    """
    return load_explained(path, options, verify=verify).backend


def load_explained(
    path: str | os.PathLike[str], options: BackendOptions | None = None, *, verify: bool = True
) -> Loaded:
    """Like `load_backend`, with the reason for the device."""
    chosen = options or BackendOptions()
    if is_plan(path):
        return _load_plan(path, chosen, verify)
    if is_torch_file(path):
        return _load_torch(path, chosen, verify)
    if chosen.device != "auto":
        return Loaded(_onnx(path, chosen, chosen.device, verify), f"device {chosen.device!r} was asked for")
    return _load_auto(path, chosen, verify)


def _load_auto(path: str | os.PathLike[str], options: BackendOptions, verify: bool) -> Loaded:
    """On the GPU where that starts. A file that is wrong is refused there and not tried again on the CPU."""
    read_contract(path)  # a wrong file is told before a missing package
    if "CUDAExecutionProvider" not in import_onnxruntime("cpu").get_available_providers():
        return Loaded(_onnx(path, options, "cpu", verify), "auto: this onnxruntime is built for the CPU alone")
    try:
        return Loaded(_onnx(path, options, "cuda", verify), "auto: onnxruntime starts on the GPU")
    except BackendError as problem:
        return Loaded(_onnx(path, options, "cpu", verify), f"auto: the GPU cannot be used ({problem})")


def _onnx(path: str | os.PathLike[str], options: BackendOptions, device: Device, verify: bool) -> OnnxModel:
    onnx = OnnxOptions(device, options.threads, options.max_batch, options.precision, options.cache)
    return OnnxModel.load(path, onnx, verify=verify)


def _load_torch(path: str | os.PathLike[str], options: BackendOptions, verify: bool) -> Loaded:
    from voxport.runtime.backends.pytorch.model import TorchModel
    from voxport.runtime.backends.pytorch.session import TorchOptions

    if options.device == "tensorrt":
        raise BackendError(
            f"{os.fspath(path)}: TorchScript and .pt2 files do not run on device 'tensorrt'; "
            "ask for 'cpu', 'cuda' or 'auto', or load the ONNX model"
        )
    model = TorchModel.load(path, TorchOptions(options.device, options.threads, options.precision), verify=verify)
    return Loaded(model, model.explain().why)


def _load_plan(path: str | os.PathLike[str], options: BackendOptions, verify: bool) -> Loaded:
    from voxport.runtime.backends.trt.model import PlanModel, PlanOptions

    where = os.fspath(path)
    if options.device not in ("auto", "tensorrt"):
        raise BackendError(
            f"{where}: a TensorRT plan cannot run on device {options.device!r}; ask for 'tensorrt' or 'auto', "
            "or load the ONNX model"
        )
    model = PlanModel.load(path, PlanOptions(graphs=options.graphs, host_code=options.host_code), verify=verify)
    if options.precision not in (None, model.contract.precision):
        model.close()
        raise BackendError(
            f"{where}: precision {options.precision} was asked for, the plan is {model.contract.precision}"
        )
    asked = options.device == "tensorrt"
    return Loaded(model, "device 'tensorrt' was asked for" if asked else "auto: a plan runs on TensorRT alone")
