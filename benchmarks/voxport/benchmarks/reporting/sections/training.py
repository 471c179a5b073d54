"""The part of a report about `voxport bench train`."""

from voxport.benchmarks.reporting.page import Bar, BarChart, Facts, Notes, Part, Section, Table, Tile
from voxport.benchmarks.reporting.wording import machine_facts, megabytes, number, percent, plural, versions_text
from voxport.benchmarks.training.report import Phases, Rate, TrainReport

PHASES = ("data", "forward", "backward", "optimiser")


def train_part(report: TrainReport) -> Part:
    """Everything that the document tells."""
    settings = report.settings
    sections = []
    if report.rounds:
        chart = BarChart(
            "What a step consists of",
            PHASES,
            tuple(
                Bar(f"round {i}", phase_ms(each.phases), f"{number(1e3 * each.phases.total)} ms")
                for i, each in enumerate(report.rounds, 1)
            ),
            "ms",
            "Medians of steps that were taken apart, which makes a GPU wait between phases.",
        )
        sections.append(Section("Where a step's time goes", (chart,)))
        rows = tuple(
            (
                str(number_),
                number(each.rate),
                plural(each.steps, "step"),
                number(1e3 * each.first_step),
                number(each.gflop),
                number(each.ceiling),
                percent(each.rate * each.gflop / each.ceiling if each.ceiling else None),
                phase_shares(each.phases),
                megabytes(each.resident),
                megabytes(each.device_bytes),
            )
            for number_, each in enumerate(report.rounds, 1)
        )
        columns = ("round", "steps/s", "timed", "first step ms", "GFLOP a step", "ceiling GFLOP/s", "share")
        table = Table((*columns, ", ".join(PHASES), "memory", "on the GPU"), rows)
        sections.append(Section("Rounds", (table,)))
    sections.append(Section("Notes", (Notes(report.notes or ("nothing unusual was seen",)),)))
    asked = (
        ("recipe", f"{settings.recipe}, {report.parameters:,} parameters, {report.speakers:,} speakers"),
        ("batch", f"{settings.batch_size} × {settings.frames} frames"),
        ("precision", settings.precision + (", torch.compile" if settings.compile else "")),
        ("data", settings.data or "features from a seed"),
        ("packages", versions_text(report.versions)),
    )
    facts = (machine_facts(report.machine, report.load_average_end), Facts(asked))
    sections.append(Section("Machine and settings", facts, folded=True))
    kicker = f"Training, {settings.device}, {settings.precision}, {report.created[:10]}"
    return Part(kicker, _headline(report), _tiles(report), tuple(sections))


def phase_shares(phases: Phases | None) -> str:
    """What part of a step each of PHASES takes."""
    return "n/a" if phases is None else ", ".join(percent(ms / 1e3 / phases.total, 0) for ms in phase_ms(phases))


def phase_ms(phases: Phases) -> tuple[float, ...]:
    """Milliseconds in the order of PHASES."""
    return tuple(1e3 * float(getattr(phases, name)) for name in PHASES)


def _headline(report: TrainReport) -> str:
    if report.rate is None:
        return "No round of training succeeded"
    share = f", {percent(report.share.value)} of what matrix products reach here" if report.share else ""
    return f"{number(report.rate.value)} optimiser steps a second{share}"


def _span(rate: Rate, factor: float = 1.0) -> str:
    if rate.low is None or rate.high is None:
        return "one round, no interval"
    return f"95 % interval {number(factor * rate.low)} to {number(factor * rate.high)}"


def _tiles(report: TrainReport) -> tuple[Tile, ...]:
    if report.rate is None:
        return ()
    utterances = report.rate.value * report.settings.batch_size
    tiles = [
        Tile(number(report.rate.value), "steps a second", _span(report.rate)),
        Tile(number(utterances), "utterances a second", f"{report.settings.frames} frames each"),
    ]
    if report.share is not None:
        tiles.append(Tile(percent(report.share.value), "of the arithmetic ceiling", _span(report.share, 100)))
    peak = [each.device_bytes or each.resident for each in report.rounds]
    tiles.append(Tile(megabytes(max((each for each in peak if each), default=None)), "peak memory"))
    return tuple(tiles)
