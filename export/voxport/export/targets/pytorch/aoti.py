"""A torch.export program → native code, by AOTInductor: C++ for the CPU, Triton kernels for the GPU.

The compiler builds for the very processor that it runs on, and the code calls libtorch. So the package runs
only where the processor has the same instruction sets and torch is of the same release; what it was built
with travels inside it, and the runtime compares before it loads.
"""

import io
import platform
import subprocess
from typing import Any, Literal

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from voxport.export.errors import ExportError
from voxport.export.targets.pytorch.archive import Members, members_of
from voxport.export.targets.pytorch.capture import first_line, quiet
from voxport.export.targets.pytorch.compiler import find_compiler
from voxport.runtime.backends.pytorch.session import cpu_features
from voxport.runtime.errors import BackendError

AotiDevice = Literal["cpu", "cuda"]


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
    buffer = io.BytesIO()
    try:
        # In a folder of its own, which is gone afterwards: leftovers of other models are not packed too.
        with quiet(), torch.no_grad(), fresh_cache():
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
