"""The part of a report about `voxport bench scale`: curves, exponents, and what tames them."""

from voxport.benchmarks.reporting.page import Block, Facts, Line, LineChart, Notes, Part, Section, Table, Text, Tile
from voxport.benchmarks.reporting.wording import machine_facts, number, plural, sentence, versions_text
from voxport.benchmarks.scaling.report import Curve, ScaleReport, Series
from voxport.benchmarks.stats.power_law import Growth

# What a reader should look for, whatever the figures.
_LEADS = {
    "length": "Attention compares every frame with every other, so its cost grows with the square of the length; "
    "all the rest grows in proportion to it.",
    "batch": "One call's own cost is shared by the utterances in it, until arithmetic is all that is left.",
    "speakers": "The head compares one embedding with every speaker. Weights that are normalised once leave a plain "
    "matrix product.",
    "gallery": "A search must look at every voice. Sorting them all as well is avoidable, and questions that come "
    "together share the reading.",
    "chunks": "Windows of constant length turn the square of a recording's length into a multiple of it, and keep "
    "memory constant.",
}


def scale_part(report: ScaleReport) -> Part:
    """Everything that the document tells."""
    sections = [Section(curve.title, _blocks(curve)) for curve in report.curves]
    if report.notes:
        sections.append(Section("Notes", (Notes(report.notes),)))
    settings = report.settings
    asked = (
        ("model", report.model),
        ("device and threads", f"{settings.device}, {plural(settings.threads, 'thread')}"),
        ("points", f"{plural(settings.rounds, 'round')} in an order drawn for each, {settings.seconds:g} s in all"),
        ("exponents", "least squares between logarithms on the larger half of the sizes, 95 % intervals"),
        ("packages", versions_text(report.versions)),
    )
    facts = (machine_facts(report.machine, report.load_average_end), Facts(asked))
    sections.append(Section("Machine and settings", facts, folded=True))
    failed = [curve.title for curve in report.curves if curve.failure]
    return Part(
        f"Growth, {report.model}, {report.created[:10]}", _headline(report, failed), _tiles(report), tuple(sections)
    )


def _headline(report: ScaleReport, failed: list[str]) -> str:
    found = {series.name: series for curve in report.curves for series in curve.series}
    attention = found.get("attention alone")
    if attention is not None and attention.growth is not None:
        whole = found.get("whole network")
        rest = f", the whole network's with its power {whole.growth.exponent:.2f}" if whole and whole.growth else ""
        return f"Attention's cost grows with the length to the power {attention.growth.exponent:.2f}{rest}"
    if failed:
        return f"Not measured: {sentence(failed)}"
    return "How cost grows with the size of the task"


def growth_text(growth: Growth | None) -> str:
    """`n^1.98 [1.91, 2.05]`."""
    if growth is None:
        return ""
    interval = "" if growth.low is None or growth.high is None else f" [{growth.low:.2f}, {growth.high:.2f}]"
    return f"n^{growth.exponent:.2f}{interval}"


def _tiles(report: ScaleReport) -> tuple[Tile, ...]:
    tiles = []
    for curve in report.curves:
        best = min(
            (series for series in curve.series if series.points and not series.derived),
            key=lambda series: (-series.points[-1].size, series.points[-1].ms),
            default=None,
        )
        if best is not None and curve.name != "length":
            last = best.points[-1]
            tiles.append(Tile(f"{number(last.ms)} ms", f"at {last.size:,} {curve.size}", best.name))
    return tuple(tiles[:4])


def _blocks(curve: Curve) -> tuple[Block, ...]:
    lead = Text(_LEADS[curve.name])
    if curve.failure:
        return lead, Notes((f"not measured: {curve.failure}",))
    blocks: list[Block] = [lead]
    lines = tuple(_line(series, i) for i, series in enumerate(curve.series) if series.points)
    if lines:
        legend = "Both axes are logarithmic: a straight line is a power law, and its slope the exponent."
        blocks.append(LineChart(f"Milliseconds against {curve.size}: {curve.cost}", curve.size, "ms", lines, legend))
        blocks.append(_table(curve))
    ended = tuple(f"{series.name} ends there: {series.ended}" for series in curve.series if series.ended)
    if curve.notes or ended:
        blocks.append(Notes((*curve.notes, *ended)))
    return tuple(blocks)


def _line(series: Series, index: int) -> Line:
    points = tuple((float(point.size), point.ms) for point in series.points)
    return Line(series.name, points, index, series.derived, growth_text(series.growth))


def _table(curve: Curve) -> Table:
    sizes = sorted({point.size for series in curve.series for point in series.points})
    rows = []
    for series in curve.series:
        found = {point.size: number(point.ms) for point in series.points}
        growth = series.growth
        rows.append((series.name, *(found.get(size, "") for size in sizes), growth_text(growth)))
    return Table(("ms", *(f"{size:,}" for size in sizes), "grows as"), tuple(rows))
