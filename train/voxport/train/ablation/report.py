"""The table of an ablation: one row per recipe, as JSON, Markdown and pictures."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import encode
from voxport.train import plots
from voxport.train.ablation import plots as ablation_plots
from voxport.train.ablation.runner import Ablation, RunResult, read_det
from voxport.train.evaluation.breakdown import Bucket
from voxport.train.recipe import Reference
from voxport.train.reporting import write_json, write_text

# Public scores that the 600-speaker homework asks for.
BASELINES = (("simple", 0.60824), ("medium", 0.70375), ("strong", 0.77750), ("boss", 0.86500))
_HOMEWORK_SPEAKERS = 600


@dataclass(frozen=True)
class Spread:
    """A figure over seeds; equal where there is one seed."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One recipe. `reported` are its source's figures, on the 600-speaker homework and nothing else.

    `would_pass` is the homework's baseline that a public score as high as the mean accuracy on whole
    validation utterances would pass; None for another corpus, "none" below the lowest.
    """

    recipe: str
    seeds: int
    parameters: int
    accuracy_whole: Spread
    accuracy_crop: Spread
    by_length: tuple[Bucket, ...]
    eer: Spread | None
    min_dcf_01: Spread | None
    min_dcf_05: Spread | None
    steps_per_second: Spread | None
    minutes: Spread | None
    would_pass: str | None
    reported: Reference | None


def rows(ablation: Ablation) -> tuple[Row, ...]:
    """The table's rows, in the order of the runs."""
    names = dict.fromkeys(run.recipe for run in ablation.runs)
    official = ablation.kind == "homework" and ablation.speakers == _HOMEWORK_SPEAKERS
    return tuple(_row([run for run in ablation.runs if run.recipe == name], official) for name in names)


def baseline_passed(score: float) -> str:
    """The highest of the homework's baselines that `score` reaches, or "none"."""
    return next((name for name, bar in reversed(BASELINES) if score >= bar), "none")


def _row(runs: Sequence[RunResult], official: bool) -> Row:
    whole = _spread(run.accuracy_whole for run in runs)
    crop = _spread(run.accuracy_crop for run in runs)
    assert whole is not None
    assert crop is not None
    return Row(
        recipe=runs[0].recipe,
        seeds=len(runs),
        parameters=runs[0].parameters,
        accuracy_whole=whole,
        accuracy_crop=crop,
        by_length=_merged(bucket for run in runs for bucket in run.by_length),
        eer=_spread(run.eer for run in runs),
        min_dcf_01=_spread(run.min_dcf_01 for run in runs),
        min_dcf_05=_spread(run.min_dcf_05 for run in runs),
        steps_per_second=_spread(run.steps_per_second for run in runs),
        minutes=_spread(run.minutes for run in runs),
        would_pass=baseline_passed(whole.mean) if official else None,
        reported=runs[0].reference,
    )


def _spread(values: Iterable[float | None]) -> Spread | None:
    """Over the values that there are; None where there is none."""
    known = [value for value in values if value is not None]
    return Spread(statistics.fmean(known), min(known), max(known)) if known else None


def _merged(buckets: Iterable[Bucket]) -> tuple[Bucket, ...]:
    """Buckets of all seeds together, each utterance counting once per seed."""
    merged: dict[tuple[int, int | None], tuple[int, float]] = {}
    for bucket in buckets:
        count, right = merged.get((bucket.low, bucket.high), (0, 0.0))
        merged[bucket.low, bucket.high] = count + bucket.utterances, right + bucket.accuracy * bucket.utterances
    return tuple(Bucket(*edges, count, right / count) for edges, (count, right) in sorted(merged.items()))


COLUMNS = (
    "recipe",
    "whole",
    "crops",
    "EER",
    "minDCF .01",
    "minDCF .05",
    "parameters",
    "steps/s",
    "minutes",
    "reported public",
    "private",
)


def cells(row: Row) -> tuple[str, ...]:
    """A row as it is shown, under `COLUMNS`."""
    reported = row.reported or Reference()
    return (
        row.recipe,
        _percent(row.accuracy_whole),
        _percent(row.accuracy_crop),
        _percent(row.eer),
        _number(row.min_dcf_01, 3),
        _number(row.min_dcf_05, 3),
        f"{row.parameters:,}",
        _number(row.steps_per_second, 2),
        _number(row.minutes, 1),
        *("–" if value is None else f"{value:g}" for value in (reported.public, reported.private)),
    )


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    seeds = "" if spread.low == spread.high else f" ({spread.low:.2%}–{spread.high:.2%})"
    return f"{spread.mean:.2%}{seeds}"


def _number(spread: Spread | None, digits: int) -> str:
    return "–" if spread is None else f"{spread.mean:.{digits}f}"


def notes(ablation: Ablation) -> tuple[str, ...]:
    """What a reader of the table must know."""
    steps = "each recipe's own number of steps" if ablation.steps is None else f"{ablation.steps:,} steps"
    said = [
        f"Trained here: {steps}, {ablation.seeds} seed(s), on {ablation.device}; {ablation.speakers:,} speakers. "
        "A seed decides the split into training and validation too. Figures are means over seeds, with their range.",
        "Scored is the network of a run's best validation, on the same validation utterances, so that all figures are "
        "somewhat optimistic, for all recipes alike. Whole: whole utterances; crops: one of the recipe's length each.",
        "EER and minDCF: cosine of two embeddings over all pairs of validation utterances, of speakers known from "
        "training.",
        "steps/s and minutes count validation and start. –: not computed, or not known because a run was interrupted.",
        "The last two columns are the sources' own figures on the 600-speaker homework; none was computed here.",
    ]
    if ablation.kind == "homework" and ablation.speakers == _HOMEWORK_SPEAKERS:
        bars = ", ".join(f"{name} {bar:.5f}" for name, bar in BASELINES)
        said += [
            f"{row.recipe}: a public score as high as its accuracy here would pass: {row.would_pass}."
            for row in rows(ablation)
        ]
        said.append(f"No public score was computed: only the homework's graders can. Their baselines: {bars}.")
    return (*said, *ablation.notes)


def markdown(ablation: Ablation) -> str:
    """The whole report as Markdown."""
    table = rows(ablation)
    lines = ["# Ablation", "", f"Corpus: `{Path(ablation.data).name}`", "", *_table(COLUMNS, map(cells, table)), ""]
    edges = sorted({(bucket.low, bucket.high) for row in table for bucket in row.by_length})
    names = [f"{low}–{high - 1} frames" if high is not None else f"{low}+ frames" for low, high in edges]
    lengths = []
    for row in table:
        found = {(bucket.low, bucket.high): bucket for bucket in row.by_length}
        shown = [f"{found[e].accuracy:.2%} of {found[e].utterances:,}" if e in found else "–" for e in edges]
        lengths.append((row.recipe, *shown))
    lines += ["## Whole utterances by length", "", *_table(("recipe", *names), lengths), "", "## Notes", ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes(ablation))]) + "\n"


def _table(columns: Sequence[str], content: Iterable[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *content]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def write_ablation(ablation: Ablation, out: Path) -> None:
    """Write ablation.json, ablation.md and the plots into `out`."""
    table = rows(ablation)
    try:
        write_json({**encode(ablation), "rows": table, "notes": notes(ablation)}, out / "ablation.json")
        write_text(markdown(ablation), out / "ablation.md")
        ablation_plots.plot_accuracy({row.recipe: _of(ablation, row) for row in table}, out / "accuracy.png")
        ablation_plots.plot_curves(out, ablation.runs, out / "curves.png")
        ablation_plots.plot_lengths({row.recipe: row.by_length for row in table}, out / "lengths.png")
        first = {row.recipe: next(run for run in ablation.runs if run.recipe == row.recipe) for row in table}
        curves = {name: read_det(out, run) for name, run in first.items() if run.eer is not None}
        if curves:
            plots.plot_det(curves, out / "det.png")
    except OSError as problem:
        raise VoxportError(f"{out}: the report cannot be written ({problem})") from problem


def _of(ablation: Ablation, row: Row) -> list[RunResult]:
    return [run for run in ablation.runs if run.recipe == row.recipe]
