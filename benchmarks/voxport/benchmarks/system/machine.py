"""Facts about the machine that decide how fast anything runs on it. Unknown facts are None."""

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_GPU_FACTS = (
    "name",
    "driver_version",
    "memory.total",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)


@dataclass(frozen=True)
class Fact:
    """A named fact, in the words of the tool or library that told it."""

    name: str
    value: str


@dataclass(frozen=True)
class Gpu:
    """One GPU, as nvidia-smi describes it at the time of asking."""

    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Machine:
    """The machine before the run. Memory in bytes; `cores_allowed` by affinity, `cpu_quota` in cores by cgroup."""

    os: str
    python: str
    cpu: str
    cores: int | None
    cores_allowed: int
    cpu_quota: float | None
    governor: str | None
    turbo: bool | None
    virtual: bool | None
    memory: int | None
    memory_available: int | None
    memory_limit: int | None
    load_average: float | None
    gpus: tuple[Gpu, ...]

    @property
    def usable_cores(self) -> float:
        """Cores that this process may really use."""
        return min(self.cores_allowed, self.cpu_quota or self.cores_allowed)


def describe_machine(root: Path = Path("/")) -> Machine:
    """Look at the machine now. `root` is where /proc and /sys hang; tests bring their own."""
    memory = _table(root / "proc/meminfo")
    cpu = _table(root / "proc/cpuinfo")
    return Machine(
        os=platform.platform(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        cpu=cpu.get("model name") or platform.processor() or platform.machine(),
        cores=os.cpu_count(),
        cores_allowed=_cores_allowed(),
        cpu_quota=_cpu_quota(root),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        turbo=_turbo(root),
        virtual="hypervisor" in cpu["flags"].split() if "flags" in cpu else None,
        memory=_kilobytes(memory.get("MemTotal")),
        memory_available=_kilobytes(memory.get("MemAvailable")),
        memory_limit=_memory_limit(root),
        load_average=load_average(),
        gpus=_gpus(),
    )


def load_average() -> float | None:
    """Runnable processes over the last minute, the whole machine's; None on Windows."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _cores_allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _table(path: Path) -> dict[str, str]:
    """First value of each `key: value` line."""
    table: dict[str, str] = {}
    for line in (_text(path) or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            table.setdefault(key.strip(), value.strip())
    return table


def _kilobytes(value: str | None) -> int | None:
    return int(value.split()[0]) * 1024 if value and value.split()[0].isdigit() else None


def _cgroup_files(root: Path, name: str) -> list[Path]:
    """`name` in this process's cgroup (version 2) and in each cgroup above it: each may limit it."""
    line = next((line for line in (_text(root / "proc/self/cgroup") or "").splitlines() if line.startswith("0::")), "")
    top = root / "sys/fs/cgroup"
    own = top / line.removeprefix("0::").lstrip("/")
    return [folder / name for folder in (own, *own.parents) if folder == top or top in folder.parents]


def _cpu_quota(root: Path) -> float | None:
    quotas = []
    for path in _cgroup_files(root, "cpu.max"):
        words = (_text(path) or "").split()
        if len(words) == 2 and words[0].isdigit():
            quotas.append(int(words[0]) / int(words[1]))
    old = root / "sys/fs/cgroup/cpu"
    quota, period = _text(old / "cpu.cfs_quota_us"), _text(old / "cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _memory_limit(root: Path) -> int | None:
    limits = [_text(path) for path in _cgroup_files(root, "memory.max")]
    return min((int(limit) for limit in limits if limit and limit.isdigit()), default=None)


def _turbo(root: Path) -> bool | None:
    off = _text(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    if off in ("0", "1"):
        return off == "0"
    boost = _text(root / "sys/devices/system/cpu/cpufreq/boost")
    return boost == "1" if boost in ("0", "1") else None


def _gpus() -> tuple[Gpu, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, f"--query-gpu={','.join(_GPU_FACTS)}", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()  # a driver that is not running: there is no GPU to speak of
    rows = [line.split(", ") for line in told.splitlines() if line.strip()]
    return tuple(Gpu(tuple(Fact(n, v) for n, v in zip(_GPU_FACTS, row, strict=False))) for row in rows)
