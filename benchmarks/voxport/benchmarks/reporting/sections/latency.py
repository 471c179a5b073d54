"""The part of a report about `voxport bench latency`: the sentence, the charts and the tables of times."""

from collections.abc import Sequence

from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.latency.report import UNRANKED, LatencyReport, Row
from voxport.benchmarks.reporting.page import (
    Chip,
    Entry,
    Facts,
    IntervalChart,
    Mark,
    MarkGroup,
    Notes,
    Part,
    Section,
    Table,
    Text,
    Tile,
)
from voxport.benchmarks.reporting.sections.latency_details import colours, evidence_sections, pareto_sections
from voxport.benchmarks.reporting.wording import (
    COMPARED,
    TIMED,
    VERDICTS,
    machine_facts,
    megabytes,
    number,
    percent,
    plural,
    ratio,
    sentence,
    verdict,
    versions_text,
)
from voxport.benchmarks.stats.intervals import LEVEL, Interval


def latency_part(report: LatencyReport) -> Part:
    """Everything that the document tells."""
    sections: list[Section] = []
    if report.rows:
        faster = "How much higher a rate" if report.settings.scenario == "server" else "How much faster"
        sections.append(Section(faster, _speed_ups(report)))
        sections.append(Section(f"How long {TIMED[report.settings.scenario]} takes", (_times(report),)))
    sections += pareto_sections(report)
    if report.rows:
        sections.append(Section("All figures", (*_tables(report), _legend(report))))
    sections += evidence_sections(report)
    if report.failures:
        sections.append(Section("What could not be measured", (_failures(report),)))
    sections.append(Section("Notes", (Notes(report.notes or ("nothing unusual was seen",)),)))
    sections.append(Section("Machine and settings", _provenance(report), folded=True))
    where = report.machine.cpu if report.settings.device == "cpu" else _gpu_name(report)
    what = {"single-stream": "Latency", "offline": "Offline", "server": "Server"}[report.settings.scenario]
    kicker = f"{what}{_whose(report)}, {where}, {report.settings.threads_told}, {report.created[:10]}"
    return Part(kicker, headline(report), _tiles(report), tuple(sections))


def _whose(report: LatencyReport) -> str:
    """The models that were given, so that the parts of a page can be told apart."""
    names = [each.spec.name for each in report.backends if each.spec.role == "candidate" and not each.spec.optional]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f" of {', '.join(names[:3])}{more}" if names else ""


def _gpu_name(report: LatencyReport) -> str:
    gpus = report.machine.gpus
    return gpus[0].facts[0].value if gpus and gpus[0].facts else "a GPU"


def _roles(report: LatencyReport) -> dict[str, str]:
    return {item.spec.name: item.spec.role for item in report.backends}


def _candidates(report: LatencyReport) -> list[Row]:
    roles = _roles(report)
    return [row for row in report.rows if roles.get(row.backend) == "candidate"]


def headline(report: LatencyReport) -> str:
    """The result in a sentence that claims no more than the intervals allow."""
    best = _best(report)
    if best is None or best.speed_up is None:
        return "No model could be compared with eager PyTorch"
    return _claim(report, best, best.speed_up) + _doubt(report, best.backend)


def _best(report: LatencyReport) -> Row | None:
    """The fastest of those that passed, at the first cell."""
    rows = [row for row in _candidates(report) if row.speed_up is not None and row.verdict not in UNRANKED]
    first = next((cell for cell in report.cells if any(row.cell == cell for row in rows)), None)
    at_first = [row for row in rows if row.cell == first]
    return max(at_first, key=lambda row: row.speed_up.ratio if row.speed_up else 0, default=None)


def _doubt(report: LatencyReport, backend: str) -> str:
    """What must stand beside a claim of speed: right answers that were lost, and perhaps not by chance."""
    judged = next((each for each in report.accuracy if each.backend == backend), None)
    if judged is None or judged.verdict != "undecided" or judged.drop is None:
        return ""
    return f"; its accuracy is {judged.drop:.2f} points lower, which may or may not be chance"


def _claim(report: LatencyReport, best: Row, interval: Interval) -> str:
    where = f"at {cell_text(best.cell)}"
    span = f"{LEVEL:.0%} interval {number(interval.low)} to {number(interval.high)}"
    if report.settings.scenario == "server":
        bound = f"within {report.settings.server.bound_ms:g} ms"
        held = f"{best.backend} answers {number(interval.ratio)} times as many queries {bound} as eager PyTorch {where}"
        return held + {"undecided": ", which may be chance"}.get(best.verdict, "") + f" ({span})"
    if best.verdict == "faster":
        return f"{best.backend} is {number(interval.ratio)} times as fast as eager PyTorch {where} ({span})"
    if best.verdict == "slower":
        return f"{best.backend} is slower than eager PyTorch {where}: {number(interval.ratio)} times as fast ({span})"
    if best.verdict == "equivalent":
        return f"{best.backend} is as fast as eager PyTorch {where} ({span})"
    return f"Whether {best.backend} is faster than eager PyTorch {where} cannot be told ({span})"


def cell_text(cell: Cell) -> str:
    """A cell in words."""
    batch = f"batch {cell.batch}, "
    return f"{batch}lengths up to {cell.frames} frames" if cell.trace else f"{batch}{cell.frames} frames"


def _tiles(report: LatencyReport) -> tuple[Tile, ...]:
    tiles = []
    best = _best(report)
    rows = [row for row in _candidates(report) if row.speed_up is not None and row.verdict not in UNRANKED]
    rows = [row for row in rows if best is not None and row.backend == best.backend]  # whom the headline names
    for row in (rows[0], rows[-1]) if len(rows) > 1 else rows:
        assert row.speed_up is not None
        tone = "good" if row.verdict == "faster" else "bad" if row.verdict == "slower" else "unsure"
        tiles.append(
            Tile(
                f"{number(row.speed_up.ratio)}×",
                f"{row.backend}, {row.verdict}",
                f"{cell_text(row.cell)}; {number(row.speed_up.low)} to {number(row.speed_up.high)}",
                tone,  # type: ignore[arg-type]
            )
        )
    names = {row.backend for row in _candidates(report)}
    checks = [check for check in report.answers if check.backend in names and check.max_abs is not None]
    if checks:
        worst = max(checks, key=lambda check: check.max_abs or 0.0)
        tone = "good" if all(check.same for check in report.answers if check.backend in names) else "bad"
        top = percent(min(check.top1 for check in checks))
        tiles.append(
            Tile(number(worst.max_abs), "largest difference of a score", f"{top} same best speaker", tone)  # type: ignore[arg-type]
        )
    missing = report.not_compared
    tiles.append(
        Tile(
            plural(report.settings.rounds, "round"),
            "of fresh processes",
            f"not compared: {sentence(missing)}" if missing else "every model was compared",
            "bad" if missing else "neutral",
        )
    )
    return tuple(tiles)


def _middle(row: Row) -> float:
    return row.max_ms if row.p50_ms is None else row.p50_ms


def _times(report: LatencyReport) -> IntervalChart:
    colour = colours(report)
    groups = []
    for cell in report.cells:
        marks = tuple(
            Mark(
                row.backend,
                _middle(row),
                _middle(row),
                row.p90_ms or _middle(row),
                row.p99_ms,
                f"{number(_middle(row))} ms",
                colour.get(row.backend, 0),
                hollow=row.unstable_rounds > 0,
            )
            for row in report.rows
            if row.cell == cell
        )
        if marks:
            groups.append(MarkGroup(_cell_title(report, cell), marks))
    legend = "● median, thick to the 90th percentile, thin to the 99th. Hollow: warm-up did not settle in some round."
    title = f"Milliseconds of {TIMED[report.settings.scenario]}"
    if report.settings.scenario == "server":
        title += ", waiting included, each back end at the highest rate that it held"
    return IntervalChart(title, tuple(groups), "ms", legend=legend)


def _cell_title(report: LatencyReport, cell: Cell) -> str:
    try:
        return f"{cell_text(cell)} ({number(report.sound_seconds(cell))} s of sound each)"
    except (StopIteration, ZeroDivisionError):  # the document was printed without its samples
        return cell_text(cell)


def _speed_ups(report: LatencyReport) -> tuple[IntervalChart | Text, ...]:
    colour, margin = colours(report), report.margin
    groups = []
    for cell in report.cells:
        marks = tuple(
            Mark(
                row.backend,
                row.speed_up.ratio,
                row.speed_up.low,
                row.speed_up.high,
                None,
                f"{number(row.speed_up.ratio)}×",
                colour.get(row.backend, 0),
                hollow=row.verdict in ("undecided", *UNRANKED),
                chip=verdict(row.verdict),
            )
            for row in report.rows
            if row.cell == cell and row.speed_up is not None
        )
        if marks:
            groups.append(MarkGroup(cell_text(cell), marks))
    if not groups:
        return (Text("No back end could be paired with the baseline in two rounds or more, so there is no speed-up."),)
    title = f"{COMPARED[report.settings.scenario]}, {LEVEL:.0%} interval over rounds"
    legend = f"The line is eager PyTorch; within the band (±{margin:.0%}) speeds are alike to a user."
    return (IntervalChart(title, tuple(groups), "×", 1.0, (1 / (1 + margin), 1 + margin), legend),)


def _tables(report: LatencyReport) -> tuple[Table, ...]:
    columns = ("back end", "verdict", "speed-up", "p50 ms", "p90 ms", "p99 ms", "max ms", "CPU ms", "utt/s", "RTF")
    shares = any(row.share is not None for row in report.rows)
    device = any(row.device_p50_ms is not None for row in report.rows)
    ranks = any(row.rank is not None for row in report.rows)
    served = any(row.queries_per_second is not None for row in report.rows)
    tables = []
    for cell in report.cells:
        rows = [row for row in report.rows if row.cell == cell]
        if not rows:
            continue
        further = (("GPU ms", device), ("queries/s", served), ("of the limit", shares), ("rank", ranks))
        shown = [name for name, is_there in further if is_there]
        tables.append(Table((*columns, *shown), tuple(_row(row, shown) for row in rows), _cell_title(report, cell)))
    return tuple(tables)


def _row(row: Row, shown: Sequence[str]) -> tuple[Entry, ...]:
    further = {
        "GPU ms": number(row.device_p50_ms),
        "queries/s": number(row.queries_per_second),
        "of the limit": percent(row.share, 0),
        "rank": str(row.rank or ""),
    }
    return (
        row.backend,
        Chip(row.verdict + (" (unstable)" if row.unstable_rounds else ""), verdict(row.verdict).tone),
        ratio(row.speed_up) if row.speed_up else "",
        number(row.p50_ms),
        number(row.p90_ms),
        number(row.p99_ms),
        number(row.max_ms),
        number(row.cpu_p50_ms),
        number(row.utterances_per_second),
        number(row.real_time_factor, 2),
        *(further[name] for name in shown),
    )


def _legend(report: LatencyReport) -> Table:
    rows = tuple((verdict(name), text) for name, text in VERDICTS)
    rest = (
        "n/a: too few calls for that percentile, or not measured; unstable: warm-up did not settle in some round; "
        "utt/s: utterances a second; RTF: time over the duration of sound, below 1 is real time. Each interval stands "
        "for itself: of 20, expect one to miss its true value"
    )
    return Table(("verdict", "when"), rows, f"What the verdicts mean; the margin is {report.margin:.0%}. {rest}")


def _failures(report: LatencyReport) -> Table:
    rows = tuple(
        (
            each.backend,
            each.stage,
            str(each.cell) if each.cell else "",
            "" if each.round is None else str(each.round + 1),
            each.reason,
        )
        for each in report.failures
    )
    return Table(("back end", "stage", "batch × frames", "round", "why"), rows)


def _provenance(report: LatencyReport) -> tuple[Facts | Table, ...]:
    settings, server = report.settings, report.settings.scenario == "server"
    items = [("scenario", report.scenario)]
    items += [(f"timed, {each.input_kind}", each.text) for each in report.boundaries]
    items += [
        ("device and threads", f"{settings.device}, {settings.threads_told}"),
        *([("bound", f"99 % of the queries answered within {settings.server.bound_ms:g} ms")] if server else []),
        *([("set", f"{settings.queries} utterances")] if settings.scenario == "offline" else []),
        *([("trace", f"lengths of {min(report.trace)} to {max(report.trace)} frames")] if report.trace else []),
        ("rounds", f"{settings.rounds}, timed {settings.rule.seconds:g} s each at every cell, seed {settings.seed}"),
    ]
    if report.harness_us is not None:
        share = f"{report.harness_us:.1f} µs of each call, {report.harness_us / 5e3:.3%} of a call of 5 ms"
        items.append(("the harness itself", f"{share}; measured with a call that does nothing"))
    files = tuple(
        (
            item.spec.name,
            item.precision,
            megabytes(item.size_bytes),
            item.sha256[:16],
            versions_text(item.opened.versions) if item.opened else "never opened",
        )
        for item in report.backends
    )
    table = Table(("back end", "precision", "file", "SHA-256", "packages"), files, "Files and versions")
    return machine_facts(report.machine, report.load_average_end), Facts(tuple(items)), table
