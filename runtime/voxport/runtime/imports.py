"""Imports that wait until they are needed; why a package does not import, and the pip command that mends it."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

# What a compiled or closely tied package has to fit: beside another release of it, it does not load.
_PARTNERS = {
    "matplotlib": ("numpy",),
    "onnx": ("protobuf", "numpy"),
    "onnxruntime": ("numpy",),
    "onnxscript": ("onnx", "onnx-ir"),
    "openvino": ("numpy",),
    "pytorch_lightning": ("torch", "torchmetrics"),
    "scipy": ("numpy",),
    "sklearn": ("scipy", "numpy"),
    "soxr": ("numpy",),
    "tensorboard": ("protobuf",),
    "torch": ("numpy",),
    "torchaudio": ("torch",),
    "torchmetrics": ("torch",),
    "torchvision": ("torch",),
}
# Without it voxport uses its own Conformer, which gives the same bits: nothing is lost.
_NOT_NEEDED = {"torchaudio"}
# By an import: of a missing name, of a library that is not found or lacks a symbol, of a name that NumPy 2 took away.
_RAISED = (ImportError, OSError, AttributeError, RuntimeError)
_PIP_NAMES = {"sklearn": "scikit-learn", "cuda": "cuda-python", "google": "protobuf"}
_REASON_LENGTH = 200


def on_demand(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package that offers more than each of its users pays for (PEP 562).

    Args:
        package: its full name.
        modules: the module below `package` that defines each name.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, names


@dataclass(frozen=True)
class ImportFailure:
    """A package that is missing, or that is installed and does not load.

    Attributes:
        module: its name in an import statement.
        package: its name for pip.
        version: None where it is not installed.
        partner: the installed package that it most likely clashes with, and its version.
        reason: the first line of the exception.
    """

    module: str
    package: str
    version: str | None
    partner: tuple[str, str] | None
    reason: str

    @property
    def is_missing(self) -> bool:
        """Whether the package is not there at all."""
        return self.version is None

    @property
    def command(self) -> str:
        """What to type to mend a package that does not load."""
        if self.package in _NOT_NEEDED:
            return f"pip uninstall -y {self.package}"
        names = [self.package, *([self.partner[0]] if self.partner else [])]
        return "pip install --upgrade --force-reinstall " + " ".join(f'"{_wanted(name)}"' for name in names)

    def __str__(self) -> str:
        """One sentence with the packages, the reason and the command."""
        if self.is_missing:
            return f'the package {self.package} is not installed: pip install "{_wanted(self.package)}"'
        return f"{self.package} {self.state}: {self.command}"

    @property
    def state(self) -> str:
        """What to say after the package's name: that it is missing, or what keeps it from loading."""
        if self.is_missing:
            return "is not installed"
        beside = f" beside {' '.join(self.partner)}" if self.partner else ""
        return f"{self.version} does not load{beside} ({self.reason})"


def explain_import(problem: BaseException) -> ImportFailure | None:
    """Read from an exception which package did not import.

    Returns:
        None where `problem` was not raised by the import of a package, or where a module of voxport is missing:
        that is a mistake of ours, and no pip command would help.
    """
    if isinstance(problem, ModuleNotFoundError):
        return _not_found(problem)
    if not isinstance(problem, _RAISED):
        return None
    named = _root(problem.name) if isinstance(problem, ImportError) else ""
    # dlopen's OSError has no number; one that has speaks of a file of the user's.
    if isinstance(problem, OSError) and problem.errno is not None:
        return None
    module = _importing(problem.__traceback__) or named
    if module in ("", "voxport"):
        return None
    return _failure(module, named if named not in ("", module, "voxport") else None, problem)


def state_of(problem: BaseException, module: str) -> str:
    """What to say after the name of `module`, whose import raised `problem`: that it is missing, or does not load."""
    failure = explain_import(problem)
    if failure is None or failure.module != module:
        return f"does not load ({_first_line(problem)})"
    return failure.state


def _not_found(problem: ModuleNotFoundError) -> ImportFailure | None:
    """A package that is not there, or one that lacks a part of itself, as after an interrupted installation."""
    module = _root(problem.name)
    if module in ("", "voxport"):
        return None
    package, version = _distribution(module)
    in_part = version is not None and problem.name != module
    return ImportFailure(module, package, version if in_part else None, None, _first_line(problem))


def _failure(module: str, other: str | None, problem: BaseException) -> ImportFailure:
    package, version = _distribution(module)
    candidates = [_distribution(other)[0]] if other else list(_PARTNERS.get(module, ()))
    installed = [(name, found) for name in candidates if (found := _version(name)) is not None]
    return ImportFailure(
        module, package, version or "unknown", installed[0] if installed else None, _first_line(problem)
    )


def _importing(trace: TracebackType | None) -> str:
    """The package whose module was being executed when the exception came, below the last frame of ours; or ""."""
    found = ""
    for name, function in _frames(trace):
        if name == "voxport":
            found = ""
        elif function == "<module>" and name not in ("", "__main__"):
            found = name
    return found


def _frames(trace: TracebackType | None) -> Iterator[tuple[str, str]]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield _root(trace.tb_frame.f_globals.get("__name__")), code.co_name
        trace = trace.tb_next


def _root(name: object) -> str:
    return str(name or "").partition(".")[0]


def _distribution(module: str) -> tuple[str, str | None]:
    """The package that brings `module`, by pip's name, and its version; None where it is not installed."""
    from importlib.metadata import packages_distributions  # milliseconds, and wanted only for a message

    brought_by = packages_distributions().get(module, ())
    for name in (module, *brought_by):
        if (version := _version(name)) is not None:
            return name.replace("_", "-").lower(), version
    return _PIP_NAMES.get(module, module.replace("_", "-")), None


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _wanted(package: str) -> str:
    """`package` with the versions that voxport allows, where it names them."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        lines = requires("voxport") or ()
    except PackageNotFoundError:
        lines = ()
    for line in lines:
        match = re.match(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*([^;]*)", line)
        if match is not None and re.sub(r"[-_.]+", "-", match[1]).lower() == package:
            return package + match[2].strip(" ()")
    return package


def _first_line(problem: BaseException) -> str:
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return (lines[0] if lines else type(problem).__name__)[:_REASON_LENGTH]
