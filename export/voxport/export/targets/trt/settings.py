"""How a TensorRT plan is to be built, and the name under which the same build is found again."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from voxport.export.errors import ExportError
from voxport.export.targets.trt.profiles import ShapeProfile
from voxport.runtime.contract import Precision

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
