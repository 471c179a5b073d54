"""Numbers, machines and verdicts in words, as every part of a report writes them."""

import math
from collections.abc import Sequence

from voxport.benchmarks.core.settings import Scenario
from voxport.benchmarks.reporting.page import Chip, Facts, Tone
from voxport.benchmarks.stats.intervals import Estimate, Interval
from voxport.benchmarks.system.machine import Fact, Machine

_TONES: dict[str, Tone] = {
    "faster": "good",
    "slower": "bad",
    "equivalent": "neutral",
    "undecided": "unsure",
    "baseline": "base",
    "answers differ": "bad",
    "less accurate": "bad",
    "ok": "good",
    "failed": "bad",
    "skipped": "unsure",
    "passed": "good",
    "not judged": "unsure",
}

# What a time is in each scenario, and what a speed-up compares.
TIMED: dict[Scenario, str] = {"single-stream": "a call", "offline": "a pass over the set", "server": "an answer"}
COMPARED: dict[Scenario, str] = {
    "single-stream": "Times as fast as eager PyTorch",
    "offline": "Times as fast as eager PyTorch",
    "server": "Times the rate of queries that eager PyTorch holds",
}

VERDICTS = (
    ("faster", "the 95 % interval of the speed-up excludes 1, and the difference exceeds the margin"),
    ("slower", "the same, the other way round"),
    ("equivalent", "the whole interval lies within the margin"),
    ("undecided", "the measurement cannot tell; more rounds may"),
    ("answers differ", "other scores than the reference gives: shown, and not ranked"),
    ("less accurate", "loses more right answers than was allowed, and beyond chance: shown, and not ranked"),
)


def verdict(text: str) -> Chip:
    """A verdict in its colour."""
    return Chip(text, _TONES.get(text, "neutral"))


def number(value: float | None, digits: int = 3) -> str:
    """`value` with this many significant digits, with thousands apart; n/a for None."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def ratio(interval: Interval | None) -> str:
    """A speed-up with its interval."""
    if interval is None:
        return "n/a"
    return f"{number(interval.ratio)}× [{number(interval.low)}, {number(interval.high)}]"


def estimate(found: Estimate | None, unit: str = "") -> str:
    """A median with its interval, where there is one."""
    if found is None:
        return "n/a"
    text = f"{number(found.median)}{unit}"
    return text if found.low is None or found.high is None else f"{text} [{number(found.low)}, {number(found.high)}]"


def percent(value: float | None, digits: int = 1) -> str:
    """A share."""
    return "n/a" if value is None else f"{100 * value:.{digits}f}\u00a0%"


def megabytes(value: float | None) -> str:
    """Bytes in MB."""
    return "n/a" if value is None else f"{number(value / 1e6)}\u00a0MB"


def plural(count: int, what: str) -> str:
    """`1 round`, `5 rounds`."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def machine_facts(machine: Machine, load_end: float | None = None) -> Facts:
    """What of the machine decides speed."""
    cores = f"{machine.usable_cores:g} usable of {machine.cores or '?'}"
    load = [f"{value:.2f}" for value in (machine.load_average, load_end) if value is not None]
    items = [
        ("processor", machine.cpu),
        ("cores", cores + (f", limited to {machine.cpu_quota:g}" if machine.cpu_quota else "")),
        ("memory", megabytes(machine.memory)),
        ("load average", " before, ".join(load) + (" after" if len(load) == 2 else "") if load else "unknown"),
        ("governor", machine.governor or "not told"),
        ("virtual machine", {True: "yes", False: "no", None: "not told"}[machine.virtual]),
        ("system", f"{machine.os}; {machine.python}"),
    ]
    items += [(f"GPU {i}", ", ".join(fact.value for fact in gpu.facts)) for i, gpu in enumerate(machine.gpus)]
    return Facts(tuple(items))


def versions_text(facts: Sequence[Fact]) -> str:
    """Packages in a line."""
    return ", ".join(f"{fact.name} {fact.value}" for fact in facts)


def sentence(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))
