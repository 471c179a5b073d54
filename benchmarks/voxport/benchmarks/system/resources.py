"""Memory of this process, and energy counters of the processor (RAPL) and of NVIDIA GPUs (NVML).

The counters count the whole package or board, whoever made it work: only on a quiet machine is that one model's
energy.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from voxport.benchmarks.system.gpu_state import first_gpu


@dataclass(frozen=True)
class Memory:
    """Bytes after a block: resident, proportional share (PSS), and on the GPU; None where nobody tells."""

    resident: int | None = None
    proportional: int | None = None
    device: int | None = None


@dataclass(frozen=True)
class Energy:
    """Joules of the whole package or GPU during a block's timed calls, or None and in `source` why."""

    joules: float | None
    source: str


def peak_memory() -> int | None:
    """The most resident bytes that this process had so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


POWERCAP = Path("/sys/class/powercap")


class Meter(Protocol):
    """Joules between `start` and `stop`."""

    def start(self) -> None: ...

    def stop(self) -> Energy: ...


class NoMeter:
    """Says why there is none."""

    def __init__(self, why: str) -> None:
        self._why = why

    def start(self) -> None:
        return None

    def stop(self) -> Energy:
        return Energy(None, self._why)


class RaplMeter:
    """The processor packages' counters of microjoules, which begin again at 0 after their largest value."""

    def __init__(self, zones: tuple[Path, ...]) -> None:
        self._zones = zones
        self._ranges = [_number(zone / "max_energy_range_uj") for zone in zones]
        self._before: list[int] = []

    def start(self) -> None:
        self._before = [_number(zone / "energy_uj") for zone in self._zones]

    def stop(self) -> Energy:
        total = 0
        for zone, before, largest in zip(self._zones, self._before, self._ranges, strict=True):
            spent = _number(zone / "energy_uj") - before
            total += spent if spent >= 0 else spent + largest
        return Energy(total / 1e6, f"RAPL, {len(self._zones)} processor package(s), all processes together")


class NvmlMeter:
    """A GPU's counter of millijoules."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle, self._before = nvml, handle, 0

    def start(self) -> None:
        self._before = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)

    def stop(self) -> Energy:
        spent = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) - self._before
        return Energy(spent / 1e3, "NVML, the whole GPU")


def open_meter(engine: str, powercap: Path = POWERCAP) -> Meter:
    """The meter of what `engine` ("cpu", "cuda", "tensorrt") runs on."""
    return _rapl(powercap) if engine == "cpu" else _nvml()


def _rapl(powercap: Path) -> Meter:
    zones = sorted(filter(_is_package, powercap.glob("intel-rapl:*"))) if powercap.is_dir() else []
    if not zones:
        return NoMeter(f"no energy counter: {powercap} has no processor package")
    try:
        meter = RaplMeter(tuple(zones))
        meter.start()
    except PermissionError:
        return NoMeter(f"the energy counters in {powercap} may be read by root only")
    except (OSError, ValueError) as problem:
        return NoMeter(f"the energy counters in {powercap} cannot be read ({problem})")
    return meter


def _is_package(zone: Path) -> bool:
    """Parts of a package (intel-rapl:0:0) are in its count already, and so is the package in psys, the platform."""
    try:
        return (zone / "name").read_text(encoding="ascii", errors="replace").startswith("package")
    except OSError:
        return False


def _nvml() -> Meter:
    try:
        import pynvml
    except ImportError:
        return NoMeter("no energy counter: the package nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
        meter = NvmlMeter(pynvml, _handle(pynvml, first_gpu()))
        meter.start()
    except pynvml.NVMLError as problem:
        return NoMeter(f"NVML tells no energy ({problem})")
    return meter


def _handle(nvml: Any, gpu: str) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(int(gpu)) if gpu.isdigit() else nvml.nvmlDeviceGetHandleByUUID(gpu)


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def memory_now(device: int | None = None, process: Path = Path("/proc/self")) -> Memory:
    """Resident and proportional bytes of this process; None where the system does not tell.

    PSS counts a page that several processes share only in part: it is what one more process really costs.
    """
    return Memory(_field(process / "status", "VmRSS"), _field(process / "smaps_rollup", "Pss"), device)


def _field(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # another system, or one that hides it
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(values[0]) * 1024 if values and values[0].isdigit() else None
