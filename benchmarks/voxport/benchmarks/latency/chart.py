"""The benchmark as a picture: times on the left, speed-ups with their intervals on the right."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxport.benchmarks.core.records import ReportError
from voxport.benchmarks.core.settings import Cell, Scenario
from voxport.benchmarks.latency.report import LatencyReport, Row
from voxport.benchmarks.stats.intervals import LEVEL
from voxport.runtime.storage.atomic import writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind people too; greys are eager PyTorch and its twin.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C564B", "#B8A500", "#17807E")
BASELINE, CONTROL, INK, GRID, BAND = "#4d4d4d", "#a6a6a6", "#222222", "#ececec", "#dcdcdc"

TITLES: dict[Scenario, str] = {
    "single-stream": "Latency against eager PyTorch",
    "offline": "Offline: passes over a whole set, against eager PyTorch",
    "server": "Server: latency at the highest rate that keeps the bound, against eager PyTorch",
}

Places = dict[tuple[str, Cell], float]


def draw_latency(report: LatencyReport, path: Path) -> None:
    """Write the chart to `path`, in the format that its ending names (.png, .svg, .pdf).

    Raises:
        ReportError: there is nothing to draw, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not report.rows:
        raise ReportError(f"{path}: no backend was timed, so there is nothing to draw")
    cells = list(dict.fromkeys(row.cell for row in report.rows))
    names = list(dict.fromkeys(row.backend for row in report.rows))
    figure = Figure(figsize=(12, 1.6 + 0.3 * len(report.rows) + 0.4 * len(cells)), layout="constrained")
    FigureCanvasAgg(figure)
    times, ratios = figure.subplots(1, 2, width_ratios=(3, 2))
    places, colours = _places(report.rows, cells), backend_colours(report, names)
    for axes in (times, ratios):
        _tidy(axes, max(places.values()))
    times.set_yticks(list(places.values()), [_shortened(name) for name, _ in places], fontsize=9)
    _draw_times(times, report.rows, places, colours)
    _draw_ratios(ratios, report.rows, places, colours, report.margin)
    _head_cells(times, report, cells, places)
    _title(figure, report)
    save_figure(figure, path)


def _places(rows: Sequence[Row], cells: Sequence[Cell]) -> Places:
    """Height of each row: cells from top to bottom, each with room for its heading above it."""
    places: Places = {}
    height = 0.0
    for cell in cells:
        for row in rows:
            if row.cell == cell:
                places[row.backend, cell] = height
                height += 1.0
        height += 1.2
    return places


def _shortened(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


def backend_colours(report: LatencyReport, names: Sequence[str]) -> dict[str, str]:
    """A colour for each of `names`: greys for the baseline and its control, the palette for the others."""
    roles = {item.spec.name: item.spec.role for item in report.backends}
    fixed = {"baseline": BASELINE, "control": CONTROL}
    others = [name for name in names if roles[name] == "candidate"]
    free = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}
    return {name: fixed.get(roles[name]) or free[name] for name in names}


def _middle(row: Row) -> float:
    """The median; the largest time where the calls are too few for one."""
    return row.max_ms if row.p50_ms is None else row.p50_ms


def _draw_times(axes: "Axes", rows: Sequence[Row], places: Places, colours: dict[str, str]) -> None:
    logarithmic(axes)
    for row in rows:
        height, colour = places[row.backend, row.cell], colours[row.backend]
        middle = end = _middle(row)
        if row.p90_ms is not None:
            axes.plot((middle, row.p90_ms), (height, height), color=colour, linewidth=5, solid_capstyle="butt")
            end = row.p90_ms
        if row.p99_ms is not None:
            axes.plot((end, row.p99_ms), (height, height), color=colour, linewidth=1.5)
            axes.plot((row.p99_ms,), (height,), color=colour, marker="|", markersize=9, markeredgewidth=1.5)
            end = row.p99_ms
        steady = row.unstable_rounds == 0
        face = colour if steady else "white"
        axes.plot((middle,), (height,), "o", markersize=8, color=colour, markerfacecolor=face)
        which = "max" if row.p50_ms is None else "p50"
        _say(axes, end, height, f"{which} {middle:.3g} ms" + ("" if steady else " (unstable)"))
    low, high = min(_middle(row) for row in rows), max(row.p99_ms or row.p90_ms or _middle(row) for row in rows)
    axes.set_xlim(low / (high / low) ** 0.06 / 1.05, high * (high / low) ** 0.22 * 1.1)
    axes.set_title("one call in milliseconds: ● p50, thick to p90, thin to p99", fontsize=10, loc="left", color=INK)


def _draw_ratios(axes: "Axes", rows: Sequence[Row], places: Places, colours: dict[str, str], margin: float) -> None:
    axes.axvspan(1 / (1 + margin), 1 + margin, color=BAND, linewidth=0, zorder=0)
    axes.axvline(1, color=BASELINE, linewidth=1, zorder=1)
    for row in rows:
        interval, height, colour = row.speed_up, places[row.backend, row.cell], colours[row.backend]
        if interval is None:
            continue
        axes.plot((interval.low, interval.high), (height, height), color=colour, linewidth=2, marker="|", markersize=9)
        face = "white" if row.verdict in ("undecided", "answers differ") else colour
        axes.plot((interval.ratio,), (height,), "D", markersize=6.5, color=colour, markerfacecolor=face)
        # All in one column beside the plot: inside it, they would cross the line at 1.
        text = f"{interval.ratio:.2f}×  {row.verdict}"
        place = axes.get_yaxis_transform()
        axes.annotate(text, (1, height), (6, 0), place, "offset points", va="center", fontsize=9, annotation_clip=False)
    ends = [end for row in rows if row.speed_up for end in (row.speed_up.low, row.speed_up.high)]
    low, high = min([*ends, 0.95]), max([*ends, 1.05])
    if high > 4 * low:
        logarithmic(axes)
        axes.set_xlim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
    else:
        axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
    what = "eager's rate" if rows[0].queries_per_second is not None else "as fast as eager"
    title = f"times {what}, {LEVEL:.0%} interval (grey: ±{margin:.0%})"
    axes.set_title(title, fontsize=10, loc="left", color=INK)


def logarithmic(axes: "Axes") -> None:
    """A logarithmic x axis whose ticks are plain numbers."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")


def _say(axes: "Axes", x: float, height: float, text: str) -> None:
    axes.annotate(text, (x, height), (8, 0), "data", "offset points", va="center", fontsize=9, color=INK)


def _tidy(axes: "Axes", lowest: float) -> None:
    axes.set_yticks(())
    axes.set_ylim(lowest + 0.7, -1.4)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _head_cells(axes: "Axes", report: LatencyReport, cells: Sequence[Cell], places: Places) -> None:
    """Name each group of rows above its first row, in the left corner."""
    for cell in cells:
        first = min(height for (_, other), height in places.items() if other == cell)
        frames = f"trace to {cell.frames}" if cell.trace else str(cell.frames)
        mean = "on average" if cell.trace else "each"
        text = f"batch {cell.batch}, {frames} frames ({report.sound_seconds(cell):.3g} s of sound {mean})"
        axes.text(
            0.005, first - 0.8, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9, weight="bold"
        )


def _title(figure: "Figure", report: LatencyReport) -> None:
    figure.suptitle(TITLES[report.settings.scenario], x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    figure.supxlabel("\n".join(footnotes(report)), x=0.01, ha="left", fontsize=8, color=INK)


def footnotes(report: LatencyReport) -> list[str]:
    """Where, when and what: a picture travels without its document."""
    settings = report.settings
    where = report.machine.cpu if settings.device == "cpu" else "GPU"
    rounds = f"{settings.rounds} round" + ("s" if settings.rounds > 1 else "")
    facts = f"{where}, {settings.threads_told}, {rounds} of fresh processes, {report.created[:10]}"
    return [facts, *(boundary.text for boundary in report.boundaries)]


def save_figure(figure: "Figure", path: Path) -> None:
    """Write `figure` whole or not at all. Raises ReportError where it cannot be written."""
    try:
        with writing(path, path.suffix or ".png") as part:
            figure.savefig(part, dpi=150)
    except (OSError, ValueError) as problem:  # matplotlib: an unknown file ending
        raise ReportError(f"{path}: cannot write the chart ({problem})") from problem
