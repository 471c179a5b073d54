"""The table of conditions as a picture."""

from pathlib import Path

from voxport.benchmarks.conditions.report import ConditionRow, ConditionsReport, Share
from voxport.benchmarks.conditions.runner import KINDS
from voxport.benchmarks.core.records import ReportError
from voxport.benchmarks.latency.chart import COLOURS, GRID, INK, save_figure

_COLOUR: dict[str, str] = dict(zip(KINDS, ("#4d4d4d", *COLOURS), strict=False))


def draw_conditions(report: ConditionsReport, path: Path) -> None:
    """Write the chart to `path`, in the format that its ending names (.png, .svg, .pdf).

    Accuracy on the left where the model knows speakers of the corpus, equal error rate on the right.

    Raises:
        ReportError: there is nothing to draw, or the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measures = [
        (title, name)
        for title, name in (("named rightly, %", "accuracy"), ("equal error rate, %", "eer"))
        if any(getattr(row, name) is not None for row in report.rows)
    ]
    if not measures:
        raise ReportError(
            f"{path}: neither accuracy nor equal error rate could be measured, so there is nothing to draw"
        )
    heights = _heights(report.rows)
    figure = Figure(figsize=(4 + 4 * len(measures), 1.4 + 0.27 * max(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(measures), squeeze=False, sharey=True)[0]
    for axes, (title, name) in zip(panels, measures, strict=True):
        axes.set_title(title, fontsize=10, color=INK)
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        clean = getattr(report.rows[0], name)
        for row, height in zip(report.rows, heights, strict=True):
            share: Share | None = getattr(row, name)
            if share is not None and clean is not None:
                value = 100 * share.value
                axes.barh(height, value, 0.72, color=_COLOUR[row.kind], alpha=0.85)
                low, high = (100 * max(0.0, clean.value + each) for each in (share.low, share.high))
                axes.plot((min(low, 100), min(high, 100)), (height, height), color=INK, linewidth=1.2)
                axes.text(max(value, min(high, 100)) + 1, height, f"{value:.0f}", va="center", fontsize=8, color=INK)
        most = max((100 * share.value for row in report.rows if (share := getattr(row, name)) is not None), default=1.0)
        axes.set_xlim(0, 112 if name == "accuracy" else max(10.0, 1.3 * most))
        if clean is not None:
            axes.axvline(100 * clean.value, color=INK, linewidth=0.8, linestyle=":")
    panels[0].set_yticks(heights, [row.name for row in report.rows], fontsize=9)
    panels[0].set_ylim(max(heights) + 0.8, -0.8)
    figure.suptitle(
        f"{report.model} on {report.files} files of {report.speakers} speakers; dotted: clean; "
        "lines: 95 % of the difference from clean",
        fontsize=9,
        color=INK,
    )
    save_figure(figure, path)


def _heights(rows: tuple[ConditionRow, ...]) -> list[float]:
    """One row each from top to bottom, with half a row between kinds."""
    heights, height, kind = [], 0.0, rows[0].kind
    for row in rows:
        height += 0.6 if row.kind != kind else 0.0
        kind = row.kind
        heights.append(height)
        height += 1.0
    return heights
