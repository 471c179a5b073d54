"""Clocks, power and memory of the GPUs during a run, from nvidia-smi: a GPU that throttles is another GPU."""

import os
import shutil
import subprocess
from dataclasses import dataclass

from voxport.benchmarks.system.machine import Fact


@dataclass(frozen=True)
class GpuState:
    """Clocks, power and temperature, as nvidia-smi tells them right after a block."""

    facts: tuple[Fact, ...]


STATE = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "utilization.gpu")
# Why the clocks are not higher; drivers before 535 knew it by the second name only, and refuse what they do not know.
THROTTLING = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
PATIENCE = 20.0


def gpu_states() -> tuple[GpuState, ...]:
    """One state for each GPU; none where nvidia-smi is missing or fails."""
    for names in (*((*STATE, reason) for reason in THROTTLING), STATE):
        rows = _query(names)
        if rows:
            return tuple(GpuState(tuple(map(Fact, names, row))) for row in rows)
    return ()


def first_gpu() -> str:
    """The GPU that libraries call the first, as NVIDIA's tools name it: an index or a UUID.

    CUDA_VISIBLE_DEVICES renumbers GPUs for CUDA, and not for nvidia-smi and NVML.
    """
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return first if first.isdigit() or first.startswith(("GPU-", "MIG-")) else "0"


def gpu_memory_used() -> int | None:
    """Bytes in use by all processes on the GPU that is measured, None where nobody tells."""
    rows = _query(("memory.used",), "csv,noheader,nounits", f"--id={first_gpu()}")
    value = rows[0][0].strip() if rows else ""
    return int(value) << 20 if value.isdigit() else None


def _query(fields: tuple[str, ...], form: str = "csv,noheader", *more: str) -> list[list[str]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={','.join(fields)}", f"--format={form}", *more]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(", ") for line in told.splitlines() if line.strip()]
