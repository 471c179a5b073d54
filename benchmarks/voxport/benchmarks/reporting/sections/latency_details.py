"""What a latency document holds beside times: truth, memory, energy, cold starts, limits, profiles."""

import math
from collections.abc import Mapping, Sequence

from voxport.benchmarks.core.records import ColdStart, Limits, Profile
from voxport.benchmarks.latency.report import UNRANKED, AnswerCheck, LatencyReport, Row
from voxport.benchmarks.reporting.page import Bar, BarChart, Block, Dot, Notes, ScatterChart, Section, Table
from voxport.benchmarks.reporting.wording import TIMED, estimate, megabytes, number, percent, verdict

_OPS = 8  # kinds of operation that a profile shows


def pareto_sections(report: LatencyReport) -> list[Section]:
    """Right answers against latency, or the distance of scores where no labelled utterances were given."""
    first = next((cell for cell in report.cells if any(row.cell == cell for row in report.rows)), None)
    rows = [row for row in report.rows if row.cell == first and row.p50_ms is not None]
    rows = [row for row in rows if colours(report).get(row.backend) != -2]  # the control is the baseline's twin
    judged = [row for row in rows if row.accuracy is not None]
    if len(judged) > 1:
        return [Section("Speed beside truth", (_accuracy_chart(judged, report), *_truth_tables(report)))]
    wrong = [row for row in rows if row.answer is not None and row.answer.max_abs]
    if len(wrong) > 1:
        return [Section("Speed beside truth", (_error_chart(wrong, report), *_truth_tables(report)))]
    tables = _truth_tables(report)
    return [Section("The same answers?", tables)] if tables else []


def colours(report: LatencyReport) -> dict[str, int]:
    """Each back end's colour: greys for the baseline and its twin."""
    roles = {item.spec.name: item.spec.role for item in report.backends}
    fixed = {"baseline": -1, "control": -2}
    others = [name for name, role in roles.items() if role == "candidate"]
    return {name: fixed.get(role, others.index(name) if name in others else 0) for name, role in roles.items()}


def _dots(rows: Sequence[Row], colour: Mapping[str, int], heights: Sequence[float]) -> tuple[Dot, ...]:
    return tuple(
        Dot(row.backend, row.p50_ms or row.max_ms, height, colour.get(row.backend, 0), hollow=row.verdict in UNRANKED)
        for row, height in zip(rows, heights, strict=True)
    )


def _accuracy_chart(rows: Sequence[Row], report: LatencyReport) -> ScatterChart:
    heights = [100 * (row.accuracy or 0.0) for row in rows]
    legend = "Up and to the left is better. The dashed line joins those that nobody beats in both; hollow: not ranked."
    what = TIMED[report.settings.scenario]
    title = f"Right answers against the median of {what}, {rows[0].cell}"
    dots = _dots(rows, colours(report), heights)
    return ScatterChart(title, f"ms of {what}", "right answers, %", dots, legend=legend)


def _error_chart(rows: Sequence[Row], report: LatencyReport) -> ScatterChart:
    heights = [row.answer.max_abs or 0.0 for row in rows if row.answer is not None]
    legend = "Down and to the left is better. Hollow: over the tolerance, so not ranked."
    what = TIMED[report.settings.scenario]
    title = f"Largest difference of a score against the median of {what}, {rows[0].cell}"
    dots = _dots(rows, colours(report), heights)
    return ScatterChart(title, f"ms of {what}", "max |Δscore|", dots, log_y=True, frontier=False, legend=legend)


def _truth_tables(report: LatencyReport) -> tuple[Table, ...]:
    found = []
    if report.answers:
        found.append(_answers(report.answers))
    if report.accuracy:
        alike = len({each.note for each in report.accuracy}) == 1
        judged = tuple(
            (
                each.backend,
                percent(each.accuracy, 2),
                f"{each.correct:,} of {each.utterances:,}",
                "n/a" if each.drop is None else f"{each.drop:.2f} points",
                f"{each.allowed_drop:g}",
                "n/a" if each.lost is None else f"{each.lost}, {each.gained}",
                verdict(each.verdict or "not judged"),
                *(() if alike else (each.note,)),
            )
            for each in report.accuracy
        )
        heads = ("back end", "accuracy", "right", "below eager", "allowed", "lost, gained", "gate")
        caption = "Right answers on " + (report.accuracy[0].note if alike else "labelled utterances")
        found.append(Table(heads if alike else (*heads, "note"), judged, caption))
    return tuple(found)


def _answers(checks: Sequence[AnswerCheck]) -> Table:
    """One row a back end: its worst cell."""
    rows = []
    for name in dict.fromkeys(check.backend for check in checks):
        own = [check for check in checks if check.backend == name]
        worst = max(own, key=lambda check: math.inf if check.max_abs is None else check.max_abs / check.allowed)
        rows.append(
            (
                name,
                "not finite" if worst.max_abs is None else f"{worst.max_abs:.1e}",
                f"{worst.allowed:.1e}",
                str(worst.cell),
                percent(min(check.top1 for check in own)),
                verdict("passed" if all(check.same for check in own) else "failed"),
            )
        )
    columns = ("back end", "max |Δscore|", "allowed", "batch × frames", "same best speaker", "parity")
    return Table(columns, tuple(rows), "Answers on the timed inputs, against eager PyTorch: the worst batch and length")


def evidence_sections(report: LatencyReport) -> list[Section]:
    """Cold starts, memory and energy, limits, profiles; what was not measured is left out."""
    sections = []
    if report.cold_starts:
        sections.append(Section("Cold start", (_cold_chart(report.cold_starts), _cold_table(report.cold_starts))))
    if any(row.resident_bytes or row.device_bytes or row.joules_per_utterance for row in report.rows):
        sections.append(Section("Size, memory and energy", (_memory_table(report),)))
    if report.limits is not None:
        sections.append(Section("Distance to the limit", _limits(report.limits)))
    if report.profiles:
        sections.append(Section("Where the time goes", tuple(_profile(each) for each in report.profiles)))
    return sections


def _cold_chart(starts: Sequence[ColdStart]) -> BarChart:
    bars = tuple(
        Bar(
            each.backend,
            (each.process_ms.median, each.imports_ms.median, each.load_ms.median, each.first_ms.median),
            f"{number(each.total_ms.median)} ms",
        )
        for each in starts
    )
    names = ("start of the process", "imports", "load", "first answer")
    legend = f"Medians over {min(each.total_ms.samples for each in starts)} fresh processes or more."
    return BarChart("From nothing to the first answer", names, bars, "ms", legend)


def _cold_table(starts: Sequence[ColdStart]) -> Table:
    columns = (
        "back end",
        "process ms",
        "imports ms",
        "load ms",
        "first answer ms",
        "new shape ms",
        "all ms",
        "samples",
    )
    rows = tuple(
        (
            each.backend,
            *(
                estimate(part)
                for part in (
                    each.process_ms,
                    each.imports_ms,
                    each.load_ms,
                    each.first_ms,
                    each.new_shape_ms,
                    each.total_ms,
                )
            ),
            str(each.total_ms.samples),
        )
        for each in starts
    )
    return Table(columns, rows)


def _memory_table(report: LatencyReport) -> Table:
    """The largest of each back end over its cells."""
    rows = []
    for name in dict.fromkeys(row.backend for row in report.rows):
        own = [row for row in report.rows if row.backend == name]
        energies = [row.joules_per_utterance for row in own if row.joules_per_utterance is not None]
        rows.append(
            (
                name,
                megabytes(_most(row.size_bytes for row in own)),
                megabytes(_most(row.resident_bytes for row in own)),
                megabytes(_most(row.proportional_bytes for row in own)),
                megabytes(_most(row.device_bytes for row in own)),
                number(1e3 * max(energies)) if energies else "n/a",
            )
        )
    columns = ("back end", "file", "resident", "proportional share", "on the GPU", "mJ an utterance")
    sources = sorted({block.energy.source for block in report.blocks if block.energy is not None})
    return Table(columns, tuple(rows), f"The largest over all cells. Energy: {'; '.join(sources) or 'not measured'}")


def _most(values: object) -> int | None:
    found = [value for value in values if value is not None]  # type: ignore[attr-defined]
    return max(found, default=None)


def _limits(limits: Limits) -> tuple[Block, ...]:
    rows = tuple(
        (
            each.model,
            str(each.cell),
            number(each.gflop),
            number(each.gflops),
            number(each.product_ms),
            number(each.memory_ms),
            number(each.floor_ms),
            percent(each.covered, 0),
        )
        for each in limits.floors
    )
    columns = (
        "model",
        "batch × frames",
        "GFLOP",
        "ceiling GFLOP/s",
        "products ms",
        "memory ms",
        "floor ms",
        "measured",
    )
    blocks: list[Block] = [
        Table(columns, rows, "The least time that a call can take here: its products at the measured ceiling")
    ]
    facts = []
    if limits.copy_gb_s is not None:
        facts.append(f"a large copy moves {number(limits.copy_gb_s)} GB/s, bytes read and bytes written counted")
    if limits.launch_us is not None:
        facts.append(f"an empty kernel takes {number(limits.launch_us)} µs")
    if facts or limits.notes:
        blocks.append(Notes((*facts, *limits.notes)))
    return tuple(blocks)


def _profile(profile: Profile) -> Table:
    rows = tuple((op.name, number(op.calls), number(op.us), percent(op.share)) for op in profile.ops[:_OPS])
    title = f"{profile.backend} at {profile.cell}, by {profile.tool}"
    return Table(("operation", "calls", "µs", "share"), rows, title)
