"""A torch.export program → native code, by AOTInductor: C++ for the CPU, Triton kernels for the GPU.

The compiler builds for the very processor that it runs on, and the code calls libtorch. So the package runs
only where the processor has the same instruction sets and torch is of the same release; what it was built
with travels inside it, and the runtime compares before it loads.
"""

import contextlib
import io
import os
import platform
import subprocess
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from voxport.export.errors import ExportError
from voxport.export.targets.pytorch.archive import Members, members_of
from voxport.export.targets.pytorch.capture import first_line, quiet
from voxport.export.targets.pytorch.compiler import find_compiler
from voxport.runtime.backends.base import Backend
from voxport.runtime.backends.pytorch.session import cpu_features
from voxport.runtime.errors import BackendError, VoxportError
from voxport.runtime.length_range import LengthRange

AotiDevice = Literal["cpu", "cuda"]

CHECK_INPUTS = "AOTI_RUNTIME_CHECK_INPUTS"  # set to 1, compiled code holds each input against what it was compiled for
_BATCHES = (1, 2, 3, 15, 16, 17, 64, 257)  # of the corners; compilers decide at powers of two


def need_compiler() -> str:
    """Where the C++ compiler is that AOTInductor will call.

    Raises:
        BackendError: there is none; the message says how to get one.
    """
    compiler = find_compiler()
    if compiler.path is None:
        raise BackendError(
            f"AOTInductor needs a C++ compiler, and {compiler.name} is not found; {compiler.get}, "
            "or name another in CXX. Without --aoti, the program needs none"
        )
    return compiler.path


def check_device(device: AotiDevice) -> None:
    """Raise BackendError unless code for `device` can be compiled and proven here."""
    need_compiler()
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"--device cuda: torch {torch.__version__} finds no usable GPU, and a package is proven on its device; "
            "check the driver with nvidia-smi and that torch is built for CUDA, or compile for --device cpu"
        )


@contextlib.contextmanager
def any_size() -> Iterator[None]:
    """Capture and compile for any number of rows.

    Without this the compiler decides by the example's two rows which convolution to take, and writes the condition,
    from 2 to 15 rows, into the code as its range (torch 2.14.1). The operators are right for all.
    """
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        yield


@contextlib.contextmanager
def checked_inputs() -> Iterator[None]:
    """Packages that first run in this block check their inputs, then and ever after."""
    before = os.environ.get(CHECK_INPUTS)
    os.environ[CHECK_INPUTS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[CHECK_INPUTS]
        else:
            os.environ[CHECK_INPUTS] = before


def check_corners(backend: Backend) -> None:
    """Run a package that checks its inputs at the ends of the range that its contract promises.

    Raises:
        ExportError: the code refuses what the contract promises: the compiler narrowed the range.
    """
    contract, allowed = backend.contract, LengthRange.of_input(backend.contract)
    shape = (contract.frontend.n_mels,) if contract.input_kind == "features" else ()
    corners = [(rows, allowed.shortest) for rows in _BATCHES] + [(rows, allowed.longest) for rows in _BATCHES[:3]]
    for rows, length in corners:
        batch = np.zeros((rows, length, *shape), np.float32)
        try:
            with checked_inputs():
                backend.run(batch, np.full(rows, length))
        except VoxportError as problem:
            raise ExportError(
                f"AOTInductor of torch {torch.__version__} made code that refuses {rows} rows of {length}, which were "
                f"asked for ({first_line(problem)}); export without --aoti, or with another torch"
            ) from problem


def compile_package(program: ExportedProgram, device: AotiDevice) -> Members:
    """Compile `program` for `device`, which takes a minute or more; the members of the package.

    Raises:
        BackendError: no compiler, or no such device.
        ExportError: the compilation failed.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.utils import fresh_cache

    check_device(device)
    if device == "cuda":
        program = move_to_device_pass(program, device)
    # Without it the number of threads of this process is written into the code.
    settings: dict[str, Any] = {"cpp.dynamic_threads": True}
    if hasattr(torch._inductor.config.aot_inductor, "check_lowerbound"):
        settings["aot_inductor.check_lowerbound"] = False  # it says 2 rows, though 1 was asked for and is answered
    buffer = io.BytesIO()
    try:
        # In a folder of its own, which is gone afterwards: leftovers of other models are not packed too.
        with quiet(), torch.no_grad(), fresh_cache(), any_size():
            aoti_compile_and_package(program, package_path=buffer, inductor_configs=settings)
    except Exception as problem:  # the compiler's errors have no common base
        raise ExportError(f"AOTInductor cannot compile the network: {first_line(problem)}") from problem
    # The sources tell where they were written and are not needed to run, but the loader looks for their names.
    return {name: b"" if name.endswith(".cpp") else each for name, each in members_of(buffer.getvalue()).items()}


def built_with(device: AotiDevice) -> dict[str, str]:
    """Facts about this machine that the runtime compares before it loads a package, and the compiler's for a person."""
    facts = {
        "device": device,
        "machine": f"{platform.system()} {platform.machine()}",
        "torch": str(torch.__version__),
        "cpu_features": " ".join(cpu_features()),
        "compiler": _compiler_version(),
    }
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        facts |= {
            "gpu": torch.cuda.get_device_name(),
            "compute_capability": f"{major}.{minor}",
            "cuda": str(torch.version.cuda),
        }
    return facts


def _compiler_version() -> str:
    try:
        done = subprocess.run([need_compiler(), "--version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.strip().splitlines() or ["unknown"])[0][:100]
