"""How a TensorRT plan is to be built, on which machine, and the name by which the same build is found again."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from voxport.export.errors import ExportError
from voxport.export.targets.trt.profiles import ShapeProfile
from voxport.runtime.backends.cuda import Cuda, cuda_module, cuda_versions, gpu_name
from voxport.runtime.backends.trt.library import TENSORRT
from voxport.runtime.contract import Precision
from voxport.runtime.errors import BackendError

Hardware = Literal["none", "ampere", "same-capability"]

_FORMAT = 1  # of what the builder makes of the same settings; another number makes all cached engines strangers


@dataclass(frozen=True)
class PlanSettings:
    """Everything that makes a plan another one, but for the graph and the machine.

    `hardware` is how far the plan may travel: "none" to GPUs of this very model, "ampere" to Ampere and newer,
    "same-capability" to GPUs of the same compute capability. `workspace_mib` bounds the scratch memory.
    """

    precision: Precision
    profiles: tuple[ShapeProfile, ...]
    version_compatible: bool = False
    hardware: Hardware = "none"
    workspace_mib: int | None = None

    def __post_init__(self) -> None:
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise ExportError(f"workspace {self.workspace_mib} MiB: must be at least 1")

    def facts(self) -> dict[str, object]:
        """The settings as plain values, for the key, for a person and for the file beside the plan."""
        return {
            "precision": self.precision,
            "profiles": [profile.shapes() for profile in self.profiles],
            "version_compatible": self.version_compatible,
            "hardware_compatible": self.hardware,
            "workspace_mib": self.workspace_mib,
        }


@dataclass(frozen=True)
class Machine:
    """What a plan is bound to besides its settings. `gpu` includes the compute capability."""

    gpu: str
    tensorrt: str
    cuda: str

    def facts(self) -> dict[str, str]:
        return {"gpu": self.gpu, "tensorrt": self.tensorrt, "cuda": self.cuda}


def engine_key(graph: bytes, settings: PlanSettings, machine: Machine | None) -> str:
    """The name of a plan in the engine cache: of the graph, of the settings, of the machine.

    The three parts make visible why an engine is not found. Where `machine` is None, nobody can know the last.
    """
    parts = [hashlib.sha256(graph).hexdigest()[:16], _short({"format": _FORMAT, **settings.facts()})]
    parts.append("?" if machine is None else _short(machine.facts()))
    return "-".join(parts)


def _short(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


_KNOWN = (8, 10, 11)


def find_machine() -> tuple[Machine | None, tuple[str, ...]]:
    """This machine, or None and everything that it lacks, each with the way to get it."""
    missing = []
    version = ""
    try:
        version = TENSORRT.version
        if TENSORRT.major not in _KNOWN or version.startswith(("8.0", "8.2", "8.4", "8.5")):
            missing.append(f'TensorRT {version} is not known here, 8.6, 10 and 11 are: pip install "tensorrt>=10,<12"')
    except BackendError as problem:
        missing.append(str(problem))
    try:
        Cuda(cuda_module()).close()
    except BackendError as problem:
        missing.append(str(problem))
    if missing:
        return None, tuple(missing)
    return Machine(gpu_name(), version, ", ".join(f"{name} {value}" for name, value in cuda_versions())), ()


def require_machine() -> Machine:
    """This machine. Raises BackendError that names everything it lacks."""
    machine, missing = find_machine()
    if machine is None:
        raise BackendError(
            "a TensorRT plan is built on the GPU that it is for, and here something is missing: "
            f"{'; '.join(missing)}. --dry-run shows what would be built, and needs none of it"
        )
    return machine
