"""The part of a report about `voxport bench gpu`."""

from voxport.benchmarks.gpu.report import GpuReport, GpuRow
from voxport.benchmarks.reporting.page import (
    Bar,
    BarChart,
    Block,
    Chip,
    Facts,
    IntervalChart,
    Mark,
    MarkGroup,
    Notes,
    Part,
    Section,
    Table,
    Tile,
)
from voxport.benchmarks.reporting.sections.training import PHASES, phase_ms, phase_shares
from voxport.benchmarks.reporting.wording import machine_facts, megabytes, number, percent, ratio, verdict


def gpu_part(report: GpuReport) -> Part:
    """Everything that the document tells, finished or not."""
    sections = []
    if report.rows:
        sections.append(Section("How long a call takes", (_chart(report), _grid(report))))
    if report.backends:
        sections.append(Section("Every way of running it", _backends(report)))
    if report.training:
        sections.append(Section("Training", _training(report)))
    if report.ceilings is not None:
        sections.append(Section("What the device can do", (_ceilings(report),)))
    sections.append(Section("Notes", (Notes(report.notes or ("nothing unusual was seen",)),)))
    if report.rows:
        sections.append(Section("All figures", (_all(report),), folded=True))
    steps = tuple((each.name, verdict(each.status), number(each.seconds), each.reason) for each in report.steps)
    facts = Facts(tuple((fact.name, fact.value) for fact in report.environment))
    blocks = (facts, machine_facts(report.machine), Table(("step", "outcome", "s", "why"), steps, "Steps"))
    sections.append(Section("Environment and steps", blocks, folded=True))
    return Part(f"{_device(report)}, {report.created[:10]}", _headline(report), _tiles(report), tuple(sections))


def _device(report: GpuReport) -> str:
    found = {fact.name: fact.value for fact in report.environment}
    return found.get("gpu") or f"{report.machine.cpu} (rehearsal)"


def _best(report: GpuReport) -> GpuRow | None:
    """The fastest right answer at the smallest cell."""
    rows = [row for row in report.rows if row.verdict != "answers differ"]
    first = [row for row in rows if row.cell == rows[0].cell] if rows else []
    return min(first, key=lambda row: row.p50_ms, default=None)


def _headline(report: GpuReport) -> str:
    best = _best(report)
    if best is None:
        return "Nothing could be timed" if report.finished else "The measurement was not finished"
    times = "" if best.ratio is None or best.verdict == "baseline" else f", {number(best.ratio)} times eager float32"
    told = {"undecided": "; more rounds must confirm it"}.get(best.verdict, "")
    where = f"batch {best.cell.batch}, {best.cell.frames} frames"
    return f"{best.backend} answers fastest at {where}: {number(best.p50_ms)} ms{times}{told}"


def _tiles(report: GpuReport) -> tuple[Tile, ...]:
    tiles = []
    best = _best(report)
    if best is not None:
        tiles.append(Tile(f"{number(best.p50_ms)} ms", best.backend, f"{best.cell}, host to host", "good"))
        most = max(
            (row for row in report.rows if row.verdict != "answers differ"), key=lambda row: row.utterances_per_second
        )
        detail = f"{most.backend} at {most.cell}"
        tiles.append(Tile(number(most.utterances_per_second), "utterances a second at most", detail))
    rates = [each for each in report.training if each.steps_per_second is not None]
    if rates:
        top = max(rates, key=lambda each: each.steps_per_second or 0.0)
        tiles.append(Tile(number(top.steps_per_second), "training steps a second at most", top.name))
    worked = sum(each.status == "ok" for each in report.backends)
    tiles.append(Tile(f"{worked} of {len(report.backends)}", "back ends ran", "the others say why below"))
    return tuple(tiles)


def _colours(report: GpuReport) -> dict[str, int]:
    """Alike for back ends of a family."""
    families: dict[str, int] = {}
    found = {}
    for backend in report.backends:
        family = backend.how.split(",")[0]
        found[backend.name] = families.setdefault(family, len(families))
    return found


def _chart(report: GpuReport) -> IntervalChart:
    colour = _colours(report)
    groups = []
    for cell in dict.fromkeys(row.cell for row in report.rows):
        rows = sorted((row for row in report.rows if row.cell == cell), key=lambda row: row.p50_ms)
        marks = tuple(
            Mark(
                row.backend,
                row.p50_ms,
                min(row.device_p50_ms or row.p50_ms, row.p50_ms),
                row.p50_ms,
                row.p99_ms,
                f"{number(row.p50_ms)} ms"
                + ("" if row.ratio is None or row.verdict == "baseline" else f", {number(row.ratio)}×"),
                -1 if row.verdict == "baseline" else colour.get(row.backend, 0),
                hollow=row.verdict == "answers differ",
                chip=Chip("answers differ", "bad") if row.verdict == "answers differ" else None,
            )
            for row in rows
        )
        groups.append(MarkGroup(f"batch {cell.batch}, {cell.frames} frames", marks))
    legend = (
        "● median from host to host; thick: from the time on the device alone to it; thin: to the 99th percentile. "
        "× is times as fast as eager float32. A colour for each family of back ends."
    )
    return IntervalChart("Milliseconds of one call, the fastest first", tuple(groups), "ms", legend=legend)


def _grid(report: GpuReport) -> Table:
    cells = list(dict.fromkeys(row.cell for row in report.rows))
    rows = {(row.backend, row.cell): row for row in report.rows}
    lines = []
    for name in dict.fromkeys(row.backend for row in report.rows):
        found = [rows.get((name, cell)) for cell in cells]
        lines.append((name, *map(_grid_text, found)))
    caption = "Median ms from host to host, batch × frames; × against eager fp32; * answers differ"
    return Table(("back end", *(str(cell) for cell in cells)), tuple(lines), caption)


def _grid_text(row: GpuRow | None) -> str:
    if row is None:
        return "n/a"
    times = "" if row.ratio is None or row.verdict == "baseline" else f" ({number(row.ratio)}×)"
    return f"{number(row.p50_ms)}{times}" + (" *" if row.verdict == "answers differ" else "")


def _backends(report: GpuReport) -> tuple[Block, ...]:
    """What ran and how right it is; then what did not run, and why."""
    lines = []
    for each in report.backends:
        checks = [check for check in report.parity if check.backend == each.name]
        if not checks and each.status != "ok":
            continue
        away = max((check.max_abs for check in checks if check.max_abs is not None), default=None)
        relative = max((check.relative for check in checks if check.relative is not None), default=None)
        parity = "passed" if checks and all(check.same for check in checks) else "failed" if checks else "not judged"
        lines.append(
            (
                each.name,
                each.how,
                number(each.build_seconds),
                megabytes(each.device_bytes),
                "n/a" if away is None else f"{away:.1e}",
                "n/a" if relative is None else f"{relative:.1e}",
                f"{checks[0].allowed:.0e}" if checks else "n/a",
                percent(min((check.top1 for check in checks), default=None)),
                verdict(parity),
            )
        )
    columns = ("back end", "how", "first answer s", "on the GPU", "max |Δscore|", "relative")
    caption = "Answers are held against float64; the worst cell counts"
    ran = Table((*columns, "allowed", "same best speaker", "answers"), tuple(lines), caption)
    missing = tuple((each.name, verdict(each.status), each.reason) for each in report.backends if each.reason)
    caption = "What did not run, or not everywhere"
    return (ran, Table(("back end", "outcome", "why"), missing, caption)) if missing else (ran,)


def _training(report: GpuReport) -> tuple[Block, ...]:
    bars = tuple(
        Bar(each.name, phase_ms(each.phases), f"{number(1e3 * each.phases.total)} ms")
        for each in report.training
        if each.phases is not None
    )
    rows = tuple(
        (
            each.name,
            verdict(each.status),
            number(each.steps_per_second),
            number(each.gflop),
            number(None if each.ceiling is None else each.ceiling / 1e3),
            percent(each.share),
            phase_shares(each.phases),
            megabytes(each.device_bytes),
            each.reason,
        )
        for each in report.training
    )
    columns = ("training", "ran", "steps/s", "GFLOP a step", "ceiling TFLOP/s", "share", ", ".join(PHASES))
    chart = (BarChart("What a training step consists of", PHASES, bars, "ms"),) if bars else ()
    return *chart, Table((*columns, "on the GPU", "why not"), rows)


def _ceilings(report: GpuReport) -> Facts:
    found = report.ceilings
    assert found is not None
    items = [(f"matrix products, {fact.name}", f"{fact.value} GFLOP/s") for fact in found.products]
    items.append(("copy, bytes read and written", f"{number(found.copy_gb_s)} GB/s"))
    items.append(("an empty kernel", "n/a" if found.launch_us is None else f"{number(found.launch_us)} µs"))
    items += [(f"one call at {fact.name}", f"{fact.value} GFLOP") for fact in found.network_gflop]
    return Facts(tuple(items))


def _all(report: GpuReport) -> Table:
    columns = ("back end", "batch × frames", "rounds", "calls", "p50 ms", "p99 ms", "device ms", "utterances/s")
    rows = tuple(
        (
            row.backend,
            str(row.cell),
            str(row.rounds),
            f"{row.calls:,}",
            number(row.p50_ms),
            number(row.p99_ms),
            number(row.device_p50_ms),
            number(row.utterances_per_second),
            ratio(row.speed_up) if row.speed_up else "",
            verdict(row.verdict),
        )
        for row in report.rows
    )
    return Table((*columns, "speed-up", "verdict"), rows)
