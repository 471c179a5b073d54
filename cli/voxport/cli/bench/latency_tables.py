"""The report of `voxport bench latency` as text: answers, times, what is beside speed, limits."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from voxport.cli.common import show_table

if TYPE_CHECKING:
    from voxport.benchmarks.core.records import ColdStart, Floor, Profile
    from voxport.benchmarks.core.settings import Cell
    from voxport.benchmarks.latency.report import LatencyReport, Row
    from voxport.benchmarks.stats.intervals import Estimate, Interval

_ANSWER_COLUMNS = ("batch × frames", "back end", "max |Δscore|", "allowed", "same best speaker")
_ACCURACY_COLUMNS = ("back end", "utterances", "right", "accuracy", "drop", "allowed", "lost, gained", "verdict")
_COLD_COLUMNS = ("back end", "process", "imports", "load", "first answer", "at a new shape", "all to first answer")
_FLOOR_COLUMNS = ("model", "batch × frames", "GFLOP", "GFLOP/s ceiling", "products ms", "memory ms", "floor ms")


def show_latency(report: "LatencyReport") -> None:
    """Print it."""
    _head(report)
    show_table("Answers on the timed inputs, against eager PyTorch", _ANSWER_COLUMNS, _answers(report))
    for cell in report.cells:
        rows = [row for row in report.rows if row.cell == cell]
        if rows:
            show_table(f"\n{_title(report, cell)}", *_times(report, rows))
            show_table("\nBeside speed", *_beside(rows))
    if report.accuracy:
        show_table("\nAccuracy on labelled utterances", _ACCURACY_COLUMNS, _accuracy(report))
        click.echo(f"judged: {next((item.note for item in report.accuracy if item.accuracy is not None), 'nothing')}")
    if report.cold_starts:
        count = len(report.cold_starts[0].samples)
        title = f"\nCold start in ms, median of {count} fresh processes [interval of the median]"
        show_table(title, _COLD_COLUMNS, map(_cold, report.cold_starts))
    _show_limits(report)
    for profile in report.profiles:
        _show_profile(profile)
    _show_missing(report)
    _foot(report)


def _head(report: "LatencyReport") -> None:
    settings, machine = report.settings, report.machine
    for boundary in report.boundaries:
        click.echo(f"timed: {boundary.text}")
    click.echo(f"scenario: {report.scenario}")
    if settings.scenario == "server":
        click.echo(f"bound: 99 % of the queries answered within {settings.server.bound_ms:g} ms")
    if settings.scenario == "offline":
        click.echo(f"set: {settings.queries} utterances")
    cores = f"{machine.usable_cores:g} usable core" + ("s" if machine.usable_cores != 1 else "")
    click.echo(f"machine: {machine.cpu}, {cores}; {machine.os}; {machine.python}")
    threads = f"{settings.threads} thread" + ("s" if settings.threads != 1 else "")
    click.echo(f"settings: {settings.device}, {threads}, {settings.rounds} rounds of fresh processes\n")


def _title(report: "LatencyReport", cell: "Cell") -> str:
    what = {"single-stream": "Latency", "offline": "Offline", "server": "Server"}[report.settings.scenario]
    seconds = report.sound_seconds(cell)
    if cell.trace:
        lengths = f"{min(report.trace)} to {max(report.trace)} frames, {seconds:.3g} s on average"
        return f"{what}, batch {cell.batch}, lengths of the trace: {lengths}"
    return f"{what}, batch {cell.batch} × {cell.frames} frames ({seconds:.3g} s of sound each)"


def _answers(report: "LatencyReport") -> Iterator[tuple[str, ...]]:
    for check in report.answers:
        distance = "not finite" if check.max_abs is None else f"{check.max_abs:.1e}"
        yield str(check.cell), check.backend, distance, f"{check.allowed:.1e}", f"{check.top1:.1%}"


def _times(report: "LatencyReport", rows: "Iterable[Row]") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    server = report.settings.scenario == "server"
    rate = "queries/s" if server else "utt/s"
    times = ("p50 ms", "p90 ms", "p99 ms", "max ms", "CPU ms")
    columns = ("rank", "back end", *times, rate, "RTF", "speed-up [95 %]", "verdict")
    cells: list[tuple[str, ...]] = [
        (
            "-" if row.rank is None else str(row.rank),
            row.backend,
            _ms(row.p50_ms),
            _ms(row.p90_ms),
            _ms(row.p99_ms),
            _ms(row.max_ms),
            _ms(row.cpu_p50_ms),
            f"{row.utterances_per_second:.1f}" if row.utterances_per_second else "none held",
            f"{row.real_time_factor:.2g}",
            _ratio(row.speed_up),
            row.verdict + (" (unstable)" if row.unstable_rounds else ""),
        )
        for row in rows
    ]
    return columns, cells


def _beside(rows: "Iterable[Row]") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Only the columns in which anything was measured."""
    rows = list(rows)
    columns = {
        "max |Δscore|": [f"{r.answer.max_abs:.1e}" if r.answer and r.answer.max_abs is not None else "" for r in rows],
        "accuracy": ["" if row.accuracy is None else f"{row.accuracy:.2%}" for row in rows],
        "file MB": [_megabytes(row.size_bytes) for row in rows],
        "resident MB": [_megabytes(row.resident_bytes) for row in rows],
        "PSS MB": [_megabytes(row.proportional_bytes) for row in rows],
        "GPU MB": [_megabytes(row.device_bytes) for row in rows],
        "GPU ms": ["" if row.device_p50_ms is None else _ms(row.device_p50_ms) for row in rows],
        "mJ/utt": ["" if row.joules_per_utterance is None else f"{1e3 * row.joules_per_utterance:.1f}" for row in rows],
        "of the limit": ["" if row.share is None else f"{row.share:.0%}" for row in rows],
    }
    kept = {name: values for name, values in columns.items() if any(values)}
    cells = [(row.backend, *(values[i] or "n/a" for values in kept.values())) for i, row in enumerate(rows)]
    return ("back end", *kept), cells


def _accuracy(report: "LatencyReport") -> Iterator[tuple[str, ...]]:
    for one in report.accuracy:
        if one.accuracy is None:
            yield one.backend, "0", "0", "n/a", "n/a", f"{one.allowed_drop:g}", "n/a", "n/a"
            continue
        changed = "n/a" if one.lost is None else f"{one.lost}, {one.gained}"
        drop = "n/a" if one.drop is None else f"{one.drop:+.2f} points"
        counts = str(one.utterances), str(one.correct)
        yield one.backend, *counts, f"{one.accuracy:.2%}", drop, f"{one.allowed_drop:g}", changed, one.verdict or "n/a"


def _cold(cold: "ColdStart") -> tuple[str, ...]:
    steps = (cold.process_ms, cold.imports_ms, cold.load_ms, cold.first_ms, cold.new_shape_ms, cold.total_ms)
    return cold.backend, *map(_estimate, steps)


def _estimate(estimate: "Estimate | None") -> str:
    if estimate is None:
        return "n/a"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.median:.0f}"
    digits = 0 if estimate.median >= 100 else 1
    return f"{estimate.median:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def _show_limits(report: "LatencyReport") -> None:
    limits = report.limits
    if limits is None:
        return
    show_table(
        "\nDistance to the limit: the least time of a call on this machine", _FLOOR_COLUMNS, map(_floor, limits.floors)
    )
    said = []
    if limits.copy_gb_s is not None:
        said.append(f"memory copy {limits.copy_gb_s:.1f} GB/s, reads plus writes")
    if limits.launch_us is not None:
        said.append(f"smallest kernel, launch and wait {limits.launch_us:.1f} µs")
    click.echo("measured in the same run: " + "; ".join(said))
    for note in limits.notes:
        click.echo(f"- {note}")


def _floor(floor: "Floor") -> tuple[str, ...]:
    times = (floor.product_ms, floor.memory_ms, floor.floor_ms)
    return floor.model, str(floor.cell), f"{floor.gflop:.3g}", f"{floor.gflops:.1f}", *(f"{one:.3g}" for one in times)


def _show_profile(profile: "Profile") -> None:
    title = f"\nWhere {profile.backend} spends its time at {profile.cell} ({profile.tool}, {profile.runs} runs)"
    rows = [(op.name, f"{op.calls:g}", f"{op.us:.0f}", f"{op.share:.1%}") for op in profile.ops]
    show_table(title, ("operation", "calls", "µs", "share"), rows)


def _show_missing(report: "LatencyReport") -> None:
    if report.missing:
        show_table("\nBack ends that could not be measured here", ("back end", "why"), report.missing)


def _foot(report: "LatencyReport") -> None:
    click.echo("\nn/a: too few calls for that percentile, or not measured. RTF: time over duration of sound.")
    if report.harness_us is not None:
        share = report.harness_us / 5e3
        click.echo(
            f"The harness adds {report.harness_us:.1f} µs to each call ({share:.3%} of a call of 5 ms), "
            "measured with a call that does nothing."
        )
    energy = {block.energy.source for block in report.blocks if block.energy is not None}
    click.echo(f"Energy: {'; '.join(sorted(energy)) or 'not measured'}.")
    click.echo("Each interval stands for itself: with 20 of them, expect one to miss its true value.")
    for note in report.notes:
        click.echo(f"- {note}")


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _megabytes(value: int | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e6:.1f}" if value >= 1e6 else f"{value / 1e6:.2g}"


def _ratio(interval: "Interval | None") -> str:
    return "" if interval is None else f"{interval.ratio:.2f}× [{interval.low:.2f}, {interval.high:.2f}]"
