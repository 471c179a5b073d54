"""Start an ONNX Runtime session exactly as asked, or say why that cannot be. Nothing falls back in silence."""

import contextlib
import importlib
import io
import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

from voxport.runtime.backends.base import check_threads, default_threads
from voxport.runtime.backends.onnxrt.rtx_provider import (
    RTX,
    RTX_INSTALL,
    rtx_devices,
    rtx_facts,
    rtx_options,
    rtx_version,
)
from voxport.runtime.backends.onnxrt.tensorrt_provider import (
    INSTALL,
    TENSORRT,
    cache_folder,
    check_tensorrt,
    nodes_by_provider,
    profile_shapes,
    provider_options,
)
from voxport.runtime.contract import Contract, Precision
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.imports import state_of
from voxport.runtime.privacy import keep_private

Device = Literal["cpu", "cuda", "tensorrt", "rtx"]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_PROVIDER = {"cuda": _CUDA, "tensorrt": TENSORRT, "rtx": RTX}
_INSTALL = {
    "cpu": 'pip install "voxport[cpu]"',
    "cuda": 'pip install "voxport[gpu]"',
    "tensorrt": INSTALL,
    "rtx": RTX_INSTALL,
}
_UNINSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu"
_FILE_ERRORS = ("InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel")  # not the device's fault


@dataclass(frozen=True)
class OnnxOptions:
    """How to run an ONNX model.

    `device` is "cpu", "cuda", "tensorrt" (ONNX Runtime's TensorRT provider) or "rtx" (NVIDIA's plugin with TensorRT for
    RTX). `threads` is the number of threads inside one operator; None takes `default_threads()`. The rest is for
    "tensorrt" and "rtx": `max_batch` rows run at once, a larger batch in several runs; engines or compiled kernels are
    cached below `cache`, else $VOXPORT_CACHE, else ~/.cache/voxport; on "tensorrt" `precision` "fp16" lets TensorRT
    compute an fp32 model in half, None keeps the model's own. Raises BackendError for any other device and for numbers
    that cannot be.
    """

    device: Device = "cpu"
    threads: int | None = None
    max_batch: int = 8
    precision: Precision | None = None
    cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.device not in get_args(Device):
            raise BackendError(f"unknown device {self.device!r}; choose one of {', '.join(get_args(Device))}")
        check_threads(self.threads)
        if self.max_batch < 1:
            raise BackendError(f"max_batch must be at least 1, found {self.max_batch}")

    def precision_for(self, contract: Contract) -> Precision:
        """What the model will be computed in. Raises BackendError where that is not what `precision` asks for."""
        own, wanted = contract.precision, self.precision or contract.precision
        if wanted != own and (own, wanted, self.device) != ("fp32", "fp16", "tensorrt"):
            raise BackendError(
                f"precision {wanted} was asked for, the model is {own}; export it in {wanted}"
                + (", or ask for device 'tensorrt', which can compute it in half" if wanted == "fp16" else "")
            )
        return wanted


def start_session(path: str | os.PathLike[str], options: OnnxOptions, contract: Contract | None = None) -> Any:
    """An onnxruntime.InferenceSession of `path` that runs where `options` say. "tensorrt" and "rtx" need the contract.

    Raises:
        BackendError: onnxruntime is missing, or the device is.
        ContractError: onnxruntime cannot read the file.
    """
    device = options.device
    runtime = import_onnxruntime(device)
    said = _prepare_gpu(runtime, device) if device in ("cuda", "tensorrt") else ""
    settings, providers = _session_options(runtime, options), None
    if device == "rtx":  # a plugin's provider goes into the options, with its devices
        _add_rtx(runtime, settings, path, options, contract)
    else:
        providers = _providers(options) if device != "tensorrt" else _tensorrt(runtime, path, options, contract)
    try:
        session = runtime.InferenceSession(
            os.fspath(path), sess_options=settings, providers=providers, enable_fallback=0
        )
    except Exception as problem:  # its errors have no common base of their own
        if device != "cpu" and type(problem).__name__ not in _FILE_ERRORS:
            raise BackendError(_no_gpu(device, _first_line(problem))) from problem
        raise ContractError(f"{os.fspath(path)}: onnxruntime cannot load it ({_first_line(problem)})") from problem
    if device != "cpu":
        _check_gpu(session, device, said)
    return session


def _check_gpu(session: Any, device: Device, said: str) -> None:
    """Raise BackendError where the session runs elsewhere: onnxruntime leaves only a log line."""
    provider, offered = _PROVIDER[device], session.get_providers()
    if offered[0] != provider:
        raise BackendError(_no_gpu(device, said or f"it offers {', '.join(offered)}"))
    nodes = nodes_by_provider(session)
    if nodes and provider not in nodes:
        raise BackendError(_no_gpu(device, f"{provider} took no part of this model"))


def give_back(runtime: Any) -> Any:
    """Run options under which the CPU's arena returns its unused memory after the run."""
    options = runtime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def import_onnxruntime(device: Device) -> Any:
    """The module onnxruntime, imported when it is first needed. Raises BackendError where it is not usable.

    Whatever imports it in voxport does so here, so that it reports nothing: see `privacy`.
    """
    keep_private()
    try:
        runtime = importlib.import_module("onnxruntime")
    except (ImportError, OSError) as problem:
        raise BackendError(f"onnxruntime {state_of(problem, 'onnxruntime')}; {_way_out(device)}") from problem
    if not hasattr(runtime, "InferenceSession"):  # what is left when one of two packages was uninstalled
        raise BackendError(f"onnxruntime is installed only in part; {_UNINSTALL}, then {_INSTALL[device]}")
    return runtime


def versions(device: Device) -> tuple[tuple[str, str], ...]:
    """Versions of what runs a session on `device`, as far as they can be asked."""
    found = [("onnxruntime", str(getattr(import_onnxruntime(device), "__version__", "unknown")))]
    if device == "tensorrt":
        found.append(("tensorrt", check_tensorrt() or "of the system"))
    if device == "rtx":
        found.append(("onnxruntime-ep-nv-tensorrt-rtx", rtx_version()))
    if device == "cpu":
        return tuple(found)
    from voxport.runtime.backends.cuda import cuda_versions

    return (*found, *cuda_versions())


def installed_packages() -> tuple[str, ...]:
    """Those of the packages onnxruntime and onnxruntime-gpu that are installed. Both overwrite each other."""
    from importlib import metadata  # costs milliseconds and is wanted only for a message

    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            metadata.distribution(name)
            found.append(name)
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def _way_out(device: Device) -> str:
    packages = installed_packages()
    if len(packages) == 2:
        return (
            "both onnxruntime and onnxruntime-gpu are installed and overwrite each other; "
            f"run {_UNINSTALL}, then {_INSTALL[device]}"
        )
    if device != "cpu" and packages == ("onnxruntime",):
        return f"run {_UNINSTALL}, then {_INSTALL[device]}"
    return f"run {_INSTALL[device]}"


def _prepare_gpu(runtime: Any, device: Device) -> str:
    """Load the CUDA and cuDNN libraries that pip installed; returns what onnxruntime prints about them."""
    said = io.StringIO()
    preload = getattr(runtime, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(said):  # it prints, and stdout may be somebody's JSON
            preload()
    offered = runtime.get_available_providers()
    if _PROVIDER[device] not in offered:
        raise BackendError(
            f"device {device!r} was asked for, but this onnxruntime has only {', '.join(offered)}; "
            f"{_way_out(device)}. Or ask for device 'cpu'"
        )
    return " ".join(said.getvalue().split())[:300]


def _no_gpu(device: Device, why: str) -> str:
    if device == "rtx":
        return (
            f"device 'rtx' was asked for, but NVIDIA's plugin could not start it ({why}); check the driver with "
            "nvidia-smi. Or ask for device 'cuda' or 'cpu'"
        )
    libraries = "CUDA and cuDNN" if device == "cuda" else "CUDA, cuDNN and TensorRT 10"
    return (
        f"device {device!r} was asked for, but onnxruntime could not start it ({why}); check the driver with "
        f"nvidia-smi, and the {libraries} libraries with: {_INSTALL[device]}. Or ask for device 'cpu'"
    )


def _session_options(runtime: Any, options: OnnxOptions) -> Any:
    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = options.threads or default_threads()
    settings.inter_op_num_threads = 1
    settings.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3  # errors; a library does not write warnings to its host's stderr
    # A spinning thread burns the core that the application, or a second session, needs.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    settings.add_session_config_entry("session.load_model_format", "ONNX")  # whatever the file is called
    # Every length is a new shape, and a pattern would be kept for each that was ever seen. The arena stays:
    # without it every run asks the system for its memory page by page, which took up to as long
    # again as the arithmetic. `give_back` keeps what it holds bounded.
    settings.enable_mem_pattern = False
    if options.device != "cpu":  # so that it can be told, and checked, which nodes run where
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


def _providers(options: OnnxOptions) -> list[Any]:
    if options.device == "cpu":
        return [_CPU]
    # The exhaustive search would tune again for every new length. TF32 would round fp32 products to
    # 10 bits. CPU stays in the list because onnxruntime puts shape arithmetic there on purpose:
    # session.disable_cpu_ep_fallback would refuse every graph with a dynamic time axis.
    return [(_CUDA, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}), _CPU]


def _tensorrt(runtime: Any, path: str | os.PathLike[str], options: OnnxOptions, contract: Contract | None) -> list[Any]:
    """TensorRT, and CUDA and the CPU for what TensorRT leaves."""
    if contract is None:
        raise BackendError("device 'tensorrt' needs the model's contract for its profile; use load_backend")
    version = check_tensorrt()
    precision = options.precision_for(contract)
    shapes = profile_shapes(contract, options.max_batch)
    facts = (getattr(runtime, "__version__", ""), version, precision, *shapes.values())
    folder = cache_folder(path, options.cache, facts)
    return [
        (TENSORRT, provider_options(contract, precision, options.max_batch, folder)),
        *_providers(options),
    ]


def _add_rtx(
    runtime: Any, settings: Any, path: str | os.PathLike[str], options: OnnxOptions, contract: Contract | None
) -> None:
    """TensorRT for RTX on its first GPU. ONNX Runtime adds the CPU for what it leaves."""
    if contract is None:
        raise BackendError("device 'rtx' needs the model's contract for its profile; use load_backend")
    options.precision_for(contract)
    device = rtx_devices(runtime)[0]
    facts = (getattr(runtime, "__version__", ""), *rtx_facts(device))
    folder = cache_folder(path, options.cache, facts, "rtx-provider")
    settings.add_provider_for_devices([device], rtx_options(contract, options.max_batch, str(folder)))


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:300]
