"""Axes of charts: places in percent of the plot, and round numbers to mark."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

_MANY = 6  # ticks


@dataclass(frozen=True)
class Axis:
    """Maps values to 0…100 percent."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where `value` is, kept within the plot."""
        if self.log:
            value = max(value, self.low * 1e-9)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(min(max(100 * share, 0.0), 100.0), 3)


def make_axis(values: Iterable[float], log: bool | None = None, zero: bool = False, room: float = 0.06) -> Axis:
    """An axis around `values`; logarithmic where they are positive and span more than a factor of four."""
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    if log is None:
        log = low > 0 and high > 4 * low
    if log and low <= 0:
        positive = [value for value in found if value > 0] or [1.0]
        low = min(positive)
        high = max(high, low)
    if log:
        step = max((high / low) ** room, 1.03)
        low, high = low / step, high * step
        ticks = _log_ticks(low, high)
        return Axis(low, high, True, ticks if len(ticks) > 2 else _even_ticks(low, high))
    low = min(low, 0.0) if zero else low
    space = room * (high - low) or abs(high) * 0.1 or 1.0
    low, high = (low if zero and low == 0 else low - space), high + space
    return Axis(low, high, False, _even_ticks(low, high))


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) <= _MANY:
            return tuple(ticks)
    return tuple(ticks[:: -(-len(ticks) // _MANY)])


def _even_ticks(low: float, high: float) -> tuple[float, ...]:
    rough = (high - low) / (_MANY - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough * 0.999)
    first = math.ceil(low / step)
    return tuple(round(step * i, 12 - math.floor(math.log10(step))) for i in range(first, math.floor(high / step) + 1))


def tick_text(value: float) -> str:
    """A mark's text: short."""
    if value == 0:
        return "0"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scale = {"G": 1e9, "M": 1e6, "k": 1e3}[unit]
            return f"{value / scale:g}{unit}"
    return f"{value:g}"
