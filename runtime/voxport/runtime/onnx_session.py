"""Start an ONNX Runtime session exactly as asked, or say why that cannot be. Nothing falls back in silence."""

import contextlib
import importlib
import io
import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

from voxport.runtime.errors import BackendError, ContractError

Device = Literal["cpu", "cuda"]

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_INSTALL = {"cpu": 'pip install "voxport[cpu]"', "cuda": 'pip install "voxport[gpu]"'}
_UNINSTALL = "pip uninstall -y onnxruntime onnxruntime-gpu"
_FILE_ERRORS = ("InvalidProtobuf", "InvalidGraph", "NoSuchFile", "NoModel")  # not the device's fault


@dataclass(frozen=True)
class OnnxOptions:
    """How to run an ONNX model.

    `device` is "cpu" or "cuda". `threads` is the number of threads inside one operator; None takes
    `default_threads()`. Raises BackendError for any other device and for fewer than one thread.
    """

    device: Device = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.device not in get_args(Device):
            raise BackendError(f"unknown device {self.device!r}; choose one of {', '.join(get_args(Device))}")
        if self.threads is not None and self.threads < 1:
            raise BackendError(f"threads must be at least 1, found {self.threads}")


def default_threads() -> int:
    """One thread on one or two cores, otherwise two.

    A second thread on a two-core machine competes with the application that asked, and a model this
    small gains little from more than two; a server that has cores to spare says so with `threads`.
    """
    return 1 if available_cores() <= 2 else 2


def available_cores(quota_file: str | os.PathLike[str] = "/sys/fs/cgroup/cpu.max") -> int:
    """Cores this process may use: its CPU affinity, and on Linux its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(quota_file) as file:
            quota, period = file.read(100).split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no such limit, or "max"
        return cores


def start_session(path: str | os.PathLike[str], options: OnnxOptions) -> Any:
    """An onnxruntime.InferenceSession of `path` that runs where `options` say.

    Raises:
        BackendError: onnxruntime is missing, or the device is.
        ContractError: onnxruntime cannot read the file.
    """
    runtime = import_onnxruntime(options.device)
    said = _prepare_cuda(runtime) if options.device == "cuda" else ""
    try:
        session = runtime.InferenceSession(
            os.fspath(path),
            sess_options=_session_options(runtime, options),
            providers=_providers(options.device),
            enable_fallback=0,
        )
    except Exception as problem:  # its errors have no common base of their own
        if options.device == "cuda" and type(problem).__name__ not in _FILE_ERRORS:
            raise BackendError(_no_cuda(_first_line(problem))) from problem
        raise ContractError(f"{os.fspath(path)}: onnxruntime cannot load it ({_first_line(problem)})") from problem
    if options.device == "cuda" and session.get_providers()[0] != _CUDA:  # it leaves only a log line
        raise BackendError(_no_cuda(said or f"it offers {', '.join(session.get_providers())}"))
    return session


def import_onnxruntime(device: Device) -> Any:
    """The module onnxruntime, imported when it is first needed. Raises BackendError where it is not usable."""
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as problem:
        why = "is not installed" if getattr(problem, "name", "") == "onnxruntime" else f"does not start ({problem})"
        raise BackendError(f"onnxruntime {why}; {_way_out(device)}") from problem
    if not hasattr(runtime, "InferenceSession"):  # what is left when one of two packages was uninstalled
        raise BackendError(f"onnxruntime is installed only in part; {_UNINSTALL}, then {_INSTALL[device]}")
    return runtime


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
    if device == "cuda" and packages == ("onnxruntime",):
        return f"run {_UNINSTALL}, then {_INSTALL[device]}"
    return f"run {_INSTALL[device]}"


def _prepare_cuda(runtime: Any) -> str:
    """Load the CUDA and cuDNN libraries that pip installed; returns what onnxruntime prints about them."""
    said = io.StringIO()
    preload = getattr(runtime, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(said):  # it prints, and stdout may be somebody's JSON
            preload()
    offered = runtime.get_available_providers()
    if _CUDA not in offered:
        raise BackendError(
            f"device 'cuda' was asked for, but this onnxruntime has only {', '.join(offered)}; "
            f"{_way_out('cuda')}. Or ask for device 'cpu'"
        )
    return " ".join(said.getvalue().split())[:300]


def _no_cuda(why: str) -> str:
    return (
        f"device 'cuda' was asked for, but onnxruntime could not start it ({why}); check the driver with "
        f"nvidia-smi, and the CUDA and cuDNN libraries with: {_INSTALL['cuda']}. Or ask for device 'cpu'"
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
    # Every length is a new shape. Patterns would be kept for each that was ever seen, and the arena would
    # keep what the longest took; without both, 200 lengths cost a process 114 MB, not 187, at equal speed.
    settings.enable_mem_pattern = False
    settings.enable_cpu_mem_arena = False
    return settings


def _providers(device: Device) -> list[Any]:
    if device == "cpu":
        return [_CPU]
    # The exhaustive search would tune again for every new length. TF32 would round fp32 products to
    # 10 bits. CPU stays in the list because onnxruntime puts shape arithmetic there on purpose:
    # session.disable_cpu_ep_fallback would refuse every graph with a dynamic time axis.
    return [(_CUDA, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}), _CPU]


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:300]
