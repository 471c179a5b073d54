"""Charts as HTML with inline SVG, and their axes.

Places are in percent, so lines stretch with the page and texts keep their size.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from voxport.benchmarks.reporting.page import (
    BarChart,
    Chart,
    Chip,
    Dot,
    IntervalChart,
    Line,
    LineChart,
    Mark,
    ScatterChart,
)
from voxport.benchmarks.reporting.wording import number

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


COLOURS = 6  # in the style sheet, c0 to c5; cb and cc are the baseline's and the control's


def chart_html(chart: Chart) -> str:
    """The chart in a figure."""
    if isinstance(chart, IntervalChart):
        body = _intervals(chart)
    elif isinstance(chart, BarChart):
        body = _bars(chart)
    elif isinstance(chart, ScatterChart):
        body = _scatter(chart)
    else:
        body = _lines(chart)
    legend = f"<p class=legend>{escape(chart.legend)}</p>" if chart.legend else ""
    return f"<figure><figcaption>{escape(chart.title)}</figcaption>{body}{legend}</figure>"


def colour(index: int) -> str:
    """The class of a series' colour."""
    return {-1: "cb", -2: "cc"}.get(index, f"c{index % COLOURS}")


def chip_html(chip: Chip) -> str:
    """A judgement as a small coloured word."""
    return f'<span class="chip {chip.tone}">{escape(chip.text)}</span>'


# --- rows: intervals and bars -----------------------------------------------------------------------


def _intervals(chart: IntervalChart) -> str:
    marks = [mark for group in chart.groups for mark in group.marks]
    values = [value for mark in marks for value in (mark.value, mark.low, mark.high, mark.far) if value is not None]
    axis = make_axis([*values, *([chart.line] if chart.line is not None else [])])
    rows = [_row_axis(axis, chart.unit)]
    for group in chart.groups:
        if group.title:
            rows.append(f"<div class=group>{escape(group.title)}</div>")
        rows += [_interval_row(mark, chart, axis) for mark in group.marks]
    return f"<div class=rows>{''.join(rows)}</div>"


def _interval_row(mark: Mark, chart: IntervalChart, axis: Axis) -> str:
    x, low, high = axis.at(mark.value), axis.at(mark.low), axis.at(mark.high)
    parts = [_grid(axis), _reference(chart, axis)]
    if mark.far is not None:
        far = axis.at(mark.far)
        parts.append(f'<line class=thin x1="{x}%" x2="{far}%" y1="50%" y2="50%"/>')
        parts.append(f'<line class=thin x1="{far}%" x2="{far}%" y1="28%" y2="72%"/>')
    parts.append(f'<line class=thick x1="{low}%" x2="{high}%" y1="50%" y2="50%"/>')
    face = " hollow" if mark.hollow else ""
    parts.append(f'<circle class="dot{face}" cx="{x}%" cy="50%" r="5.5"/>')
    chip = chip_html(mark.chip) if mark.chip else ""
    return (
        f'<div class="row {colour(mark.colour)}"><span class=label>{escape(mark.label)}</span>'
        f'<svg class=strip role=img aria-label="{escape(mark.label)}: {escape(mark.text)}">{"".join(parts)}</svg>'
        f"<span class=value><b>{escape(mark.text)}</b>{chip}</span></div>"
    )


def _reference(chart: IntervalChart, axis: Axis) -> str:
    found = ""
    if chart.band is not None:
        left, right = axis.at(chart.band[0]), axis.at(chart.band[1])
        found += f'<rect class=band x="{left}%" width="{round(right - left, 3)}%" y="0" height="100%"/>'
    if chart.line is not None:
        x = axis.at(chart.line)
        found += f'<line class=ref x1="{x}%" x2="{x}%" y1="0" y2="100%"/>'
    return found


def _grid(axis: Axis) -> str:
    places = [axis.at(tick) for tick in axis.ticks]
    return "".join(f'<line class=grid x1="{x}%" x2="{x}%" y1="0" y2="100%"/>' for x in places)


def _row_axis(axis: Axis, unit: str) -> str:
    texts = "".join(
        f'<text x="{axis.at(tick)}%" y="13" text-anchor="{_anchor(axis.at(tick))}">{tick_text(tick)}</text>'
        for tick in axis.ticks
    )
    return (
        f'<div class="row axis"><span class=label>{escape(unit)}</span><svg class=ticks aria-hidden=true>{texts}</svg>'
        "<span class=value></span></div>"
    )


def _anchor(place: float) -> str:
    return "start" if place < 3 else "end" if place > 97 else "middle"


def _bars(chart: BarChart) -> str:
    axis = make_axis([sum(bar.parts) for bar in chart.bars], log=False, zero=True)
    rows = [_row_axis(axis, chart.unit)]
    for bar in chart.bars:
        start, parts = 0.0, [_grid(axis)]
        for index, part in enumerate(bar.parts):
            left, right = axis.at(start), axis.at(start + part)
            tip = f"{chart.names[index]}: {number(part)} {chart.unit}"
            parts.append(
                f'<rect class="bar {colour(index)}" x="{left}%" width="{round(right - left, 3)}%" y="18%" '
                f'height="64%"><title>{escape(tip)}</title></rect>'
            )
            start += part
        rows.append(
            f"<div class=row><span class=label>{escape(bar.label)}</span><svg class=strip role=img "
            f'aria-label="{escape(bar.label)}: {escape(bar.text)}">{"".join(parts)}</svg>'
            f"<span class=value><b>{escape(bar.text)}</b></span></div>"
        )
    keys = "".join(f'<span class="{colour(i)}"><i></i>{escape(name)}</span>' for i, name in enumerate(chart.names))
    return f"<div class=rows>{''.join(rows)}</div><div class=keys>{keys}</div>"


# --- planes: scatter and lines ----------------------------------------------------------------------


def _plane(x_axis: Axis, y_axis: Axis, x: str, y: str, inside: str) -> str:
    grid = "".join(
        f'<line class=grid x1="0" x2="100%" y1="{_down(y_axis, tick)}%" y2="{_down(y_axis, tick)}%"/>'
        for tick in y_axis.ticks
    )
    grid += "".join(
        f'<line class=grid x1="{x_axis.at(tick)}%" x2="{x_axis.at(tick)}%" y1="0" y2="100%"/>' for tick in x_axis.ticks
    )
    left = "".join(
        f'<text x="100%" y="{_down(y_axis, tick)}%" dy=".35em" text-anchor=end>{tick_text(tick)}</text>'
        for tick in y_axis.ticks
    )
    below = "".join(
        f'<text x="{x_axis.at(tick)}%" y="14" text-anchor="{_anchor(x_axis.at(tick))}">{tick_text(tick)}</text>'
        for tick in x_axis.ticks
    )
    return (
        f"<div class=yname>{escape(y)}</div><div class=plane><svg class=yticks aria-hidden=true>{left}</svg>"
        f'<svg class=area role=img aria-label="{escape(y)} against {escape(x)}">{grid}{inside}</svg>'
        f"<svg class=xticks aria-hidden=true>{below}</svg></div><div class=xname>{escape(x)}</div>"
    )


def _down(axis: Axis, value: float) -> float:
    return round(100 - axis.at(value), 3)


def _scatter(chart: ScatterChart) -> str:
    x_axis = make_axis([dot.x for dot in chart.dots], log=chart.log_x or None, room=0.12)
    y_axis = make_axis([dot.y for dot in chart.dots], log=chart.log_y or None, room=0.15)
    best = _frontier(chart.dots) if chart.frontier else ()
    inside = ""
    if len(best) > 1:
        inside += _path([(dot.x, dot.y) for dot in best], x_axis, y_axis, "cb", True)
    keys = []
    for number_, dot in enumerate(chart.dots, 1):
        face = " hollow" if dot.hollow else ""
        x, y = x_axis.at(dot.x), _down(y_axis, dot.y)
        inside += (
            f'<g class="{colour(dot.colour)}"><circle class="dot big{face}" cx="{x}%" cy="{y}%" r="9"/>'
            f'<text class="num{face}" x="{x}%" y="{y}%" dy=".35em" text-anchor=middle>{number_}</text></g>'
        )
        text = f"{number(dot.x)} / {number(dot.y)}"
        keys.append(
            f'<li class="{colour(dot.colour)}"><i class="{"hollow" if dot.hollow else ""}">{number_}</i>'
            f"<span>{escape(dot.label)}</span><small>{escape(text)}</small></li>"
        )
    return _plane(x_axis, y_axis, chart.x, chart.y, inside) + f"<ol class=numbers>{''.join(keys)}</ol>"


def _frontier(dots: tuple[Dot, ...]) -> tuple[Dot, ...]:
    """Those that nobody beats in both: smaller x and larger y are better."""
    found: list[Dot] = []
    for dot in sorted((dot for dot in dots if not dot.hollow), key=lambda each: (each.x, -each.y)):
        if not found or dot.y > found[-1].y:
            found.append(dot)
    return tuple(found)


def _path(points: list[tuple[float, float]], x_axis: Axis, y_axis: Axis, name: str, dashed: bool) -> str:
    """A line through points, in a picture of its own that stretches while its stroke does not."""
    places = " ".join(f"{x_axis.at(x)},{_down(y_axis, y)}" for x, y in points)
    dash = " dashed" if dashed else ""
    return (
        '<svg viewBox="0 0 100 100" preserveAspectRatio=none width="100%" height="100%" class=stretch>'
        f'<polyline class="{name} curve{dash}" points="{places}"/></svg>'
    )


def _lines(chart: LineChart) -> str:
    points = [point for line in chart.lines for point in line.points]
    x_axis = make_axis([x for x, _ in points], log=True, room=0.03)
    y_axis = make_axis([y for _, y in points], log=True, room=0.05)
    inside = "".join(_line(line, x_axis, y_axis) for line in chart.lines)
    keys = "".join(
        f'<li class="{colour(line.colour)}"><i class="{"dashed" if line.dashed else ""}"></i>'
        f"<span>{escape(line.label)}</span><small>{escape(line.text)}</small></li>"
        for line in chart.lines
    )
    return _plane(x_axis, y_axis, chart.x, chart.y, inside) + f"<ul class=linekeys>{keys}</ul>"


def _line(line: Line, x_axis: Axis, y_axis: Axis) -> str:
    dots = "".join(
        f'<circle class="dot small" cx="{x_axis.at(x)}%" cy="{_down(y_axis, y)}%" r="3.5">'
        f"<title>{escape(line.label)}: {number(y)} at {number(x)}</title></circle>"
        for x, y in line.points
    )
    return _path(list(line.points), x_axis, y_axis, colour(line.colour), line.dashed) + (
        f'<g class="{colour(line.colour)}">{dots}</g>'
    )
