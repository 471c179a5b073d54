"""Load a TorchScript or .pt2 file with PyTorch, exactly where it was asked for. torch is imported here alone."""

import contextlib
import importlib
import io
import os
import platform
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from voxport.runtime.backends.base import check_threads
from voxport.runtime.backends.pytorch.file import Archive, TorchFile, TorchKind, open_archive
from voxport.runtime.backends.pytorch.program_check import check_program
from voxport.runtime.backends.pytorch.script_check import check_script
from voxport.runtime.contract import Precision
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.imports import state_of

TorchDevice = Literal["auto", "cpu", "cuda"]
Network = Callable[[Any, Any], Any]  # (inputs, lengths), tensors on the device → (scores, embedding)

INSTALL = 'pip install "voxport[torch]"'
# Instruction sets that a compiler may use once it is told to build for this very processor. A program that
# uses one which is not there ends the process, so they are compared before it is loaded.
CPU_FEATURES = (
    *("sse3", "ssse3", "sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "bmi1", "bmi2", "abm", "movbe", "popcnt"),
    *("avx_vnni", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "avx512vbmi", "avx512ifma", "avx512_vbmi2", "avx512_bitalg", "avx512_vpopcntdq", "amx_tile"),
    *("amx_int8", "amx_bf16", "gfni", "vaes", "vpclmulqdq", "sha_ni", "aes", "pclmulqdq", "adx", "asimd", "asimdhp"),
    *("asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)


@dataclass(frozen=True)
class TorchOptions:
    """How to run a TorchScript or .pt2 file.

    `device` is "cpu", "cuda", or "auto": the GPU where torch finds one, else the CPU; a compiled package
    knows only the device that it was compiled for. `threads` are those inside one operator. torch has one
    setting for the whole process: None leaves it alone, a number is set around every run and put back.
    `precision` refuses a model of another. Raises BackendError for other devices and for numbers that cannot be.
    """

    device: TorchDevice = "auto"
    threads: int | None = None
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if self.device not in get_args(TorchDevice):
            raise BackendError(
                f"device {self.device!r} cannot run TorchScript and .pt2 files; "
                f"choose one of {', '.join(get_args(TorchDevice))}, or export the model to ONNX"
            )
        check_threads(self.threads)


def import_torch() -> Any:
    """The module torch, imported when it is first needed. Raises BackendError where it is not usable."""
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError) as problem:
        raise BackendError(
            f"PyTorch {state_of(problem, 'torch')}, and TorchScript and .pt2 files run in it; {INSTALL}, "
            "or run an ONNX model, which needs no PyTorch: voxport export onnx CHECKPOINT -o MODEL.onnx"
        ) from problem


def choose_device(torch: Any, asked: TorchDevice, file: TorchFile, where: str) -> tuple[str, str]:
    """Where `file` will run, and why.

    Raises:
        BackendError: the device that was asked for is not there, or is not the one the file was compiled for.
    """
    compiled_for = dict(file.built_with).get("device", "cpu") if file.kind == "package" else None
    if asked == "auto" and compiled_for is None:
        if torch.cuda.is_available():
            return "cuda", "auto: torch finds a GPU"
        return "cpu", "auto: torch finds no GPU"
    if compiled_for not in (None, "cpu", "cuda"):
        raise ContractError(f"{where}: compiled for the device {compiled_for!r}, which is not known here")
    if compiled_for is not None and asked not in ("auto", compiled_for):
        raise BackendError(
            f"{where}: compiled for device {compiled_for!r}, and {asked!r} was asked for; compile it for that: "
            f"voxport export pt2 CHECKPOINT -o MODEL.pt2 --aoti --device {asked}"
        )
    device = asked if compiled_for is None else compiled_for
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"{where}: device 'cuda' was asked for, but torch {torch.__version__} finds no usable GPU; check the "
            "driver with nvidia-smi and that torch is built for CUDA. Or use device 'cpu'"
            + (", with a package that is compiled for it" if compiled_for else "")
        )
    if asked == "auto":
        return device, "auto: a compiled package runs on its own device"
    return device, f"device {device!r} was asked for"


def load_network(torch: Any, path: str | os.PathLike[str], file: TorchFile, device: str) -> Network:
    """What the file computes, as a function of tensors on `device`.

    Raises:
        ContractError: the file holds what voxport never writes, torch cannot read it, or it changed meanwhile.
        BackendError: a compiled package that was compiled for another machine or another torch.
    """
    where = os.fspath(path)
    with open_archive(path) as archive:
        if archive.describe() != file:
            raise ContractError(f"{where}: the file changed while it was being loaded; load it again")
        checked = _checked(archive, file.kind)
    if file.kind == "package":
        check_machine(file, str(torch.__version__), where)
        if device == "cuda":
            _check_gpu(torch, file, where)
    try:
        if file.kind == "torchscript":
            return _load_script(torch, checked, device)
        if file.kind == "program":
            return _load_program(torch, checked, device)
        return _load_package(torch, where)
    except Exception as problem:  # torch's errors have no common base
        raise ContractError(
            f"{where}: torch {torch.__version__} cannot load it ({first_line(problem)}); export it again with this one"
        ) from problem


def _checked(archive: Archive, kind: TorchKind) -> bytes:
    """The archive as torch will read it. Native code cannot be checked: a package is taken as it is."""
    if kind == "package":
        return b""
    check_script(archive) if kind == "torchscript" else check_program(archive)
    return archive.copy()


def check_machine(file: TorchFile, torch_version: str, where: str) -> None:
    """Raise BackendError where compiled code would crash or not link: another processor, another torch."""
    facts = dict(file.built_with)
    again = "compile it here: voxport export pt2 CHECKPOINT -o MODEL.pt2 --aoti"
    for what, built, here in (
        ("machine", facts.get("machine", "none"), f"{platform.system()} {platform.machine()}"),
        ("torch", _series(facts.get("torch", "none")), _series(torch_version)),
    ):
        if built != here:
            raise BackendError(f"{where}: compiled for the {what} {built}, here is {here}; {again}")
    wanted, has = facts.get("cpu_features", "").split(), cpu_features()
    missing = sorted(set(wanted) - set(has)) if has else []
    if missing:
        raise BackendError(
            f"{where}: compiled for a processor with {', '.join(missing)}, which this one does not have; {again}"
        )


def _check_gpu(torch: Any, file: TorchFile, where: str) -> None:
    built = dict(file.built_with).get("compute_capability", "none")
    here = ".".join(map(str, torch.cuda.get_device_capability()))
    if built != here:
        raise BackendError(
            f"{where}: compiled for a GPU of compute capability {built}, this one has {here}; "
            "compile it here: voxport export pt2 CHECKPOINT -o MODEL.pt2 --aoti --device cuda"
        )


def cpu_features() -> tuple[str, ...]:
    """Which of `CPU_FEATURES` this machine's first core has; empty where there is no /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    has = set(value.split())
                    return tuple(feature for feature in CPU_FEATURES if feature in has)
    except OSError:
        pass
    return ()


@contextlib.contextmanager
def limited_threads(torch: Any, threads: int | None) -> Iterator[None]:
    """Set the number of torch's threads for the block, then put it back. None and the present number change nothing."""
    before = torch.get_num_threads()
    if threads in (None, before):
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def first_line(problem: BaseException) -> str:
    """The first line of an error's text; torch's go on with its own source lines."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:300]


def _series(version: str) -> str:
    """2.11 of 2.11.0+cu130."""
    return ".".join(version.split(".")[:2])


def _load_script(torch: Any, content: bytes, device: str) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; the user was told when the file was written
        module = torch.jit.load(io.BytesIO(content), map_location=device)
    execution = importlib.import_module("torch.jit").optimized_execution

    def run(inputs: Any, lengths: Any) -> Any:
        # The optimizing executor studies the first runs and compiles for the shapes that it saw: with
        # sound of any length that is work which is thrown away, and the first answers wait for it.
        with execution(False):
            return module(inputs, lengths)

    return run


def _load_program(torch: Any, content: bytes, device: str) -> Network:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the weights are views of bytes that nobody writes to
        program = importlib.import_module("torch.export").load(io.BytesIO(content))
    if device != "cpu":
        program = importlib.import_module("torch.export.passes").move_to_device_pass(program, device)
    network: Network = program.module()
    return network


def _load_package(torch: Any, where: str) -> Network:
    # The loader that C++ programs use. torch._inductor.aoti_load_package would import the compiler and
    # start g++ to learn what the processor can do, which takes seconds.
    loader = torch._C._aoti.AOTIModelPackageLoader(where, "model", False, 1, -1)
    lock = threading.Lock()  # the loader's own waiting is done in C++, where it might hold Python's lock

    def run(inputs: Any, lengths: Any) -> Any:
        # The code reads memory as it was compiled to, whatever the tensors are.
        for name, tensor, kind in (("inputs", inputs, torch.float32), ("lengths", lengths, torch.int64)):
            if tensor.dtype != kind or not tensor.is_contiguous():
                raise ValueError(f"{name}: a contiguous tensor of {kind} is needed, found {tensor.dtype}")
        if len(inputs) != len(lengths) or len(lengths) == 0:
            raise ValueError(f"inputs of {len(inputs)} rows and {len(lengths)} lengths; as many are needed, at least 1")
        with lock:
            return loader.boxed_run([inputs, lengths])

    return run
