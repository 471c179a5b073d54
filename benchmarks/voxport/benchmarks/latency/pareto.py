"""Truth against speed as a picture: who is both quicker and truer than the others."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from voxport.benchmarks.core.records import ReportError
from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.latency.chart import GRID, INK, backend_colours, footnotes, logarithmic, save_figure
from voxport.benchmarks.latency.report import LatencyReport, Row
from voxport.benchmarks.latency.summary import RANKED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Clock = Literal["wall", "cpu"]
Looks = Mapping[str, tuple[str, str]]  # a colour and a mark by the name of a backend

LEAST_ERROR = 1e-7  # drawn for answers that do not differ at all
MARKS = "os^Dvp"


def draw_pareto(report: LatencyReport, path: Path, clock: Clock = "wall") -> None:
    """One panel a cell: accuracy where it was measured, else max |Δscore|, against the median time by `clock`.

    Filled marks passed parity and accuracy; the line joins those that nobody beats in both. Where candidates have
    several numbers of threads, a colour is a model in an engine and a mark is a number of threads.

    Raises:
        ReportError: there is nothing to draw, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    controls = {item.spec.name for item in report.backends if item.spec.role == "control"}
    rows = [row for row in report.rows if row.backend not in controls and truth_of(row) is not None]
    if clock == "cpu":
        rows = [dataclasses.replace(row, p50_ms=row.cpu_p50_ms) for row in rows]
    cells = [cell for cell in report.cells if any(row.cell == cell for row in rows)]
    if not rows:
        raise ReportError(f"{path}: no backend was both timed and compared, so there is nothing to draw")
    columns = min(3, len(cells))
    lines = -(-len(cells) // columns)
    figure = Figure(figsize=(max(8.0, 4.2 * columns + 2.0), 3.6 * lines + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    looks = looks_of(report, list(dict.fromkeys(row.backend for row in report.rows)))
    for axes, cell in zip(panels, cells, strict=False):
        _draw(axes, cell, [row for row in rows if row.cell == cell], looks)
        which = "processor time" if clock == "cpu" else "time"
        axes.set_xlabel(f"median {which} of a call in ms", fontsize=9)
    for axes in panels[len(cells) :]:
        axes.set_visible(False)
    what = "Accuracy" if _by_accuracy(rows) else "Distance from eager PyTorch's scores"
    figure.suptitle(f"{what} against latency", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    notes = ["filled: answers and accuracy pass; hollow: they do not, so it is not ranked"]
    notes.append("line: those whom nobody beats in both")
    if not _by_accuracy(rows):
        notes[-1] += f"; eager PyTorch is the reference, drawn at {LEAST_ERROR:g}"
    figure.supxlabel("\n".join((*notes, *footnotes(report))), x=0.01, ha="left", fontsize=8, color=INK)
    handles = [
        Line2D([], [], marker=looks[name][1], linestyle="", color=looks[name][0], label=name) for name in _names(rows)
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8.5, frameon=False)
    save_figure(figure, path)


def looks_of(report: LatencyReport, names: Sequence[str]) -> Looks:
    """The chart's colours, and a mark for each number of threads; what differs in nothing else shares its colour."""
    threads = {item.spec.name: item.spec.threads for item in report.backends}
    marks = dict(zip(sorted({threads[name] for name in names}), MARKS * len(names), strict=False))
    alike: dict[object, str] = {}  # the first name of those that differ in nothing but threads
    for item in report.backends:
        alike.setdefault(dataclasses.replace(item.spec, name="", threads=0), item.spec.name)
    first = {item.spec.name: alike[dataclasses.replace(item.spec, name="", threads=0)] for item in report.backends}
    colours = backend_colours(report, list(dict.fromkeys(first[name] for name in names)))
    return {name: (colours[first[name]], marks[threads[name]]) for name in names}


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.backend for row in rows))


def truth_of(row: Row) -> float | None:
    """Accuracy, else minus the error; larger is better. The baseline has no error: it is the reference."""
    if row.accuracy is not None:
        return row.accuracy
    if row.answer is None:
        return -LEAST_ERROR if row.verdict == "baseline" else None
    return None if row.answer.max_abs is None else -max(row.answer.max_abs, LEAST_ERROR)


def frontier(rows: Sequence[Row]) -> list[Row]:
    """Those that no other one beats in both time and truth, the quickest first. Only who passes is considered."""
    fair = sorted(
        (row for row in rows if row.verdict in RANKED and truth_of(row) is not None),
        key=lambda row: (_time(row), -(truth_of(row) or 0.0)),
    )
    best: list[Row] = []
    for row in fair:
        if not best or (truth_of(row) or 0.0) > (truth_of(best[-1]) or 0.0):
            best.append(row)
    return best


def _time(row: Row) -> float:
    return row.max_ms if row.p50_ms is None else row.p50_ms


def _by_accuracy(rows: Sequence[Row]) -> bool:
    return all(row.accuracy is not None for row in rows)


def _height(row: Row, accuracy: bool) -> float:
    value = truth_of(row) or 0.0
    return 100 * value if accuracy else abs(value)


def _widen(axes: "Axes", factor: float = 3.0) -> None:
    """At least so many times from left to right, so that a few percent do not look like a world."""
    low, high = axes.get_xlim()
    if high < factor * low:
        middle = (low * high) ** 0.5
        axes.set_xlim(middle / factor**0.5, middle * factor**0.5)


def _draw(axes: "Axes", cell: Cell, rows: Sequence[Row], looks: Looks) -> None:
    accuracy = _by_accuracy(rows)
    if not accuracy:  # errors and accuracies do not share an axis
        rows = [row for row in rows if row.answer is not None or row.verdict == "baseline"]
    line = frontier(rows)
    axes.plot([_time(row) for row in line], [_height(row, accuracy) for row in line], color=INK, linewidth=1, alpha=0.5)
    for row in rows:
        colour, mark = looks[row.backend]
        face = colour if row.verdict in RANKED else "white"
        axes.plot((_time(row),), (_height(row, accuracy),), mark, markersize=9, color=colour, markerfacecolor=face)
    logarithmic(axes)
    axes.set_ylabel("accuracy in %" if accuracy else "max |Δscore|, best at the top", fontsize=9)
    if not accuracy:
        axes.set_yscale("log")
        axes.invert_yaxis()
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(0.15)
    _widen(axes)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"batch {cell}" + ("" if cell.trace else " frames"), fontsize=10, loc="left", color=INK)
