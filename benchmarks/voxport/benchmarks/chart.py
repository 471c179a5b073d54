"""The benchmark as a picture: times on the left, speed-ups with their intervals on the right."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxport.benchmarks.plan import Cell
from voxport.benchmarks.report import LatencyReport, ReportError, Row
from voxport.benchmarks.statistics import LEVEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind people too; greys are eager PyTorch and its twin.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE, CONTROL, INK, PALE = "#4d4d4d", "#a6a6a6", "#222222", "#e6e6e6"


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
    figure = Figure(figsize=(11, 1.9 + 0.34 * len(report.rows) + 0.25 * len(cells)), layout="constrained")
    FigureCanvasAgg(figure)
    times, ratios = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = _places(report.rows, cells)
    colours = _colours(report, names)
    _draw_times(times, report.rows, places, colours)
    _draw_ratios(ratios, report.rows, places, colours, report.margin)
    _label_cells(times, report, cells, places)
    _title(figure, report)
    _save(figure, path)


def _places(rows: Sequence[Row], cells: Sequence[Cell]) -> dict[tuple[str, Cell], float]:
    """Height of each row: cells from top to bottom, a gap between them."""
    places: dict[tuple[str, Cell], float] = {}
    height = 0.0
    for cell in cells:
        for row in rows:
            if row.cell == cell:
                places[row.backend, cell] = height
                height += 1.0
        height += 0.8
    return places


def _colours(report: LatencyReport, names: Sequence[str]) -> dict[str, str]:
    roles = {item.spec.name: item.spec.role for item in report.backends}
    fixed = {"baseline": BASELINE, "control": CONTROL}
    others = [name for name in names if roles[name] == "candidate"]
    free = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(others)}
    return {name: fixed.get(roles[name]) or free[name] for name in names}


def _middle(row: Row) -> float:
    """The median; the largest time where the calls are too few for one."""
    return row.max_ms if row.p50_ms is None else row.p50_ms


def _draw_times(
    axes: "Axes", rows: Sequence[Row], places: dict[tuple[str, Cell], float], colours: dict[str, str]
) -> None:
    axes.set_xscale("log")
    largest = max(row.p99_ms or row.p90_ms or _middle(row) for row in rows)
    smallest = min(_middle(row) for row in rows)
    axes.set_xlim(smallest / 1.35, largest * 1.9)
    for row in rows:
        height, colour = places[row.backend, row.cell], colours[row.backend]
        middle = _middle(row)
        end = middle
        if row.p90_ms is not None:
            axes.plot((middle, row.p90_ms), (height, height), color=colour, linewidth=4.5, solid_capstyle="butt")
            end = row.p90_ms
        if row.p99_ms is not None:
            axes.plot((end, row.p99_ms), (height, height), color=colour, linewidth=1.5)
            axes.plot((row.p99_ms,), (height,), color=colour, marker="|", markersize=8, markeredgewidth=1.5)
            end = row.p99_ms
        steady = row.unstable_rounds == 0
        axes.plot(
            (middle,), (height,), marker="o", markersize=8, color=colour, markerfacecolor=colour if steady else "white"
        )
        text = f"{row.backend}  {_digits(middle)} ms" + ("" if steady else "  (unstable)")
        axes.annotate(text, (end, height), (8, 0), "data", "offset points", va="center", fontsize=8.5, color=INK)
    axes.set_title("time of one call: ● p50, thick to p90, thin to p99", fontsize=10, loc="left", color=INK)
    axes.set_xlabel("milliseconds, logarithmic")
    _tidy(axes)


def _digits(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _draw_ratios(
    axes: "Axes",
    rows: Sequence[Row],
    places: dict[tuple[str, Cell], float],
    colours: dict[str, str],
    margin: float,
) -> None:
    axes.axvspan(1 / (1 + margin), 1 + margin, color=PALE, linewidth=0, zorder=0)
    axes.axvline(1, color=BASELINE, linewidth=1, zorder=1)
    for row in rows:
        interval, height = row.speed_up, places[row.backend, row.cell]
        if interval is None:
            continue
        colour = colours[row.backend]
        axes.plot((interval.low, interval.high), (height, height), color=colour, linewidth=2, marker="|", markersize=8)
        decided = row.verdict not in ("undecided", "answers differ")
        face = colour if decided else "white"
        axes.plot((interval.ratio,), (height,), "D", markersize=6.5, color=colour, markerfacecolor=face)
        text = f"{interval.ratio:.2f}×  {row.verdict}"
        axes.annotate(
            text, (interval.high, height), (8, 0), "data", "offset points", va="center", fontsize=8.5, color=INK
        )
    ends = [end for row in rows if row.speed_up for end in (row.speed_up.low, row.speed_up.high)] or [1.0]
    low, high = min(*ends, 0.97), max(*ends, 1.03)
    axes.set_xlim(low - 0.06 * (high - low), high + 0.62 * (high - low))
    title = f"speed-up over eager PyTorch, {LEVEL:.0%} interval; grey: ±{margin:.0%}"
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.set_xlabel("times as fast")
    _tidy(axes)


def _tidy(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

    axes.set_yticks(())
    if axes.get_xscale() == "log":
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _label_cells(
    axes: "Axes", report: LatencyReport, cells: Sequence[Cell], places: dict[tuple[str, Cell], float]
) -> None:
    labels, heights = [], []
    for cell in cells:
        rows = [row for row in report.rows if row.cell == cell]
        seconds = next(block.audio_seconds for block in report.blocks if block.cell == cell) / cell.batch
        labels.append(f"batch {cell.batch}\n{cell.frames} frames\n{seconds:.3g} s of sound")
        heights.append(sum(places[row.backend, cell] for row in rows) / len(rows))
    axes.set_yticks(heights, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(places.values()) + 0.7, -0.7)


def _title(figure: "Figure", report: LatencyReport) -> None:
    settings, machine = report.settings, report.machine
    figure.suptitle("Latency against eager PyTorch", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    where = machine.cpu if settings.device == "cpu" else "GPU"
    threads = f"{settings.threads} thread" + ("s" if settings.threads > 1 else "")
    facts = f"{where}, {threads}, {settings.rounds} rounds of fresh processes, {report.created[:10]}"
    figure.supxlabel(
        "\n".join((facts, *(boundary.text for boundary in report.boundaries))), x=0.01, ha="left", fontsize=8, color=INK
    )


def _save(figure: "Figure", path: Path) -> None:
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix or '.png'}")
    try:
        figure.savefig(part, dpi=150)
        os.replace(part, path)
    except (OSError, ValueError) as problem:  # matplotlib: an unknown file ending
        raise ReportError(f"{path}: cannot write the chart ({problem})") from problem
    finally:
        part.unlink(missing_ok=True)
