"""How much memory this process holds, as the kernel tells it."""

from pathlib import Path

from voxport.benchmarks.core.records import Memory


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
