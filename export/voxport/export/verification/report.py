"""What the parity gate found, for programs (JSON), for people (Markdown) and as a picture."""

import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from voxport.export.errors import ExportError
from voxport.export.quantization.quantizer import QuantizationReport
from voxport.export.quantization.sensitivity import LayerCost
from voxport.export.staging import write_atomic
from voxport.export.verification.accuracy import AccuracyReport
from voxport.export.verification.bisection_report import Bisection, bisection_section
from voxport.export.verification.compare import Agreement, CaseResult
from voxport.export.verification.reference import Tolerance
from voxport.runtime.contract import ConditionLine, Parity
from voxport.runtime.storage.serialization import encode

_GROUPS = {  # of the plot: colour and marker
    "alone, not padded": ("tab:blue", "o"),
    "alone, padded": ("tab:cyan", "s"),
    "batch, not padded": ("tab:green", "^"),
    "batch, padded": ("tab:orange", "x"),
}
_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)  # that the plot may mark
_SHOWN = 10  # flips and failures that a page lists before it only counts


@dataclass(frozen=True)
class Check:
    """One fact that must hold besides the answers, such as equal labels."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class ParityReport:
    """Everything that the gate measured; `failures` says in words why it did not pass.

    `score_noise` and `embedding_noise` are the eager network's own rounding, float32 against float64.
    `real_utterances` says how many real ones were used, or why none. `accuracy` is None where no labelled
    set was given, `quantization` where nothing was quantised. `other` is the artefact that `model` was held
    against where that was no checkpoint; `checkpoint` is then the hash that both name, and no noise is known.
    `bisection` is None where the parts were not compared. `conditions` are the contract's lines, for the page alone.
    """

    model: str
    checkpoint: str
    passed: bool
    failures: tuple[str, ...]
    checks: tuple[Check, ...]
    precision: str
    tolerance: Tolerance
    score_noise: float
    embedding_noise: float
    real_utterances: str
    agreement: Agreement | None
    cases: tuple[CaseResult, ...]
    seconds: float
    accuracy: AccuracyReport | None = None
    quantization: QuantizationReport | None = None
    other: str | None = None
    bisection: Bisection | None = None
    conditions: tuple[ConditionLine, ...] = ()

    @property
    def real_lost(self) -> bool:
        """Whether real utterances were wanted and known, and could not be had: the corpus or the cache is not there."""
        usual = ("none were asked for", "the checkpoint does not say", "no checkpoint was given")
        told, _, reason = self.real_utterances.partition("none, because ")
        return not told and bool(reason) and not reason.startswith(usual)

    def summary(self) -> Parity | None:
        """What a contract keeps of it, rounded so that chance in the last digits does not change its bytes."""
        found = self.agreement
        if found is None:
            return None
        return Parity(
            cases=found.comparisons,
            max_abs_score=float(f"{found.max_abs_score:.1e}"),
            min_cosine=None if found.min_cosine is None else math.floor(found.min_cosine * 1e6) / 1e6,
            top1_agreement=found.top1,
            tolerance=self.tolerance.score,
        )


def write_report(report: ParityReport, stem: Path) -> tuple[Path, ...]:
    """Write STEM.json, STEM.md and STEM.png, each whole or not at all; returns their paths."""
    paths = tuple(stem.with_name(f"{stem.name}.{suffix}") for suffix in ("json", "md", "png"))
    document = json.dumps(plain(report), indent=1, ensure_ascii=False, allow_nan=False)
    picture = io.BytesIO()
    plot(report).savefig(picture, format="png", dpi=130)
    contents = (f"{document}\n".encode(), f"{markdown(report)}\n".encode(), picture.getvalue())
    for path, content in zip(paths, contents, strict=True):
        write_atomic(path, content)
    return paths


def plain(report: ParityReport) -> Any:
    """The report as JSON can hold it: numbers that are not finite become null."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return clean(encode(report))


def markdown(report: ParityReport) -> str:
    """The report as a page."""
    lines = [f"# Parity: {'passed' if report.passed else 'FAILED'}", ""]
    if report.failures:
        lines += ["## Why", "", *_bullets(report.failures), ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts(report)), ""]
    lines += ["## Besides the answers", "", "| | | |", "|---|---|---|"]
    lines += [f"| {check.name} | {'equal' if check.passed else 'FAILED'} | {check.detail} |" for check in report.checks]
    if report.agreement is not None and report.agreement.flips:
        lines += ["", "## Another best speaker", "", *_bullets(report.agreement.flips)]
    lines += [*accuracy_section(report.accuracy), *quantization_section(report.quantization)]
    lines += [*bisection_section(report.bisection), *_conditions_section(report.conditions)]
    lines += ["", "## Cases", ""]
    lines += ["| case | kind | batch | padded to | padding | frames | max abs Δscore | max ‖Δembedding‖ | flips |"]
    lines += ["|--:|---|--:|--:|---|---|--:|--:|--:|", *map(_case_line, report.cases)]
    return "\n".join(lines)


def _conditions_section(conditions: Sequence[ConditionLine]) -> list[str]:
    if not conditions:
        return []
    lines = ["", "## Outside the studio", "", f"As the checkpoint says, on {conditions[0].measured_on}.", ""]
    lines += [
        "| kind | sounds | right | EER | known under a wrong name | wrong answers claim |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for line in conditions:
        shares = (line.accuracy, line.equal_error_rate, line.wrong_known, line.wrong_probability)
        cells = ["–" if share is None else f"{share:.1%}" for share in shares]
        lines.append(f"| {line.kind} | {line.sounds} | {' | '.join(cells)} |")
    return lines


def facts(report: ParityReport) -> list[tuple[str, str]]:
    """The figures of the report as (name, value), for a table."""
    reference = "eager PyTorch in float32, each utterance alone"
    if report.other is not None:
        reference = f"{report.other}, each utterance alone; and the other way round"
    rows = [
        ("model", report.model),
        ("checkpoint", report.checkpoint),
        ("reference", reference),
        ("real utterances", report.real_utterances),
    ]
    found = report.agreement
    score_bound = _bound(report.tolerance.score, report.tolerance.scores)
    if found is not None:
        low, high = found.top1_interval
        rows += [
            ("compared", f"{found.comparisons} answers, {found.utterances} utterances, {len(report.cases)} runs"),
            (
                "max abs Δscore",
                f"{found.max_abs_score:.3g} ({score_bound})",
            ),
            ("worst", found.worst),
            *_embedding_facts(found, _bound(report.tolerance.embedding, report.tolerance.embeddings)),
            ("room left", f"{room_left(found)}, least at {found.closest}"),
            ("same best speaker", f"{found.top1:.2%} of utterances (95 % interval {low:.2%} to {high:.2%})"),
            ("flips", str(len(found.flips))),
        ]
    judged = [] if report.other is not None else accuracy_facts(report.accuracy)
    rows += [*judged, *quantization_facts(report.quantization)]
    return [*rows, ("tolerance", f"{report.precision}: {report.tolerance.reason}"), ("time", f"{report.seconds:.0f} s")]


def room_left(found: Agreement) -> str:
    """How much of its tolerance the closest comparison left."""
    if found.used > 1:
        return f"none: {found.used:.3g} times the tolerance"
    return f"{1 - found.used:.0%} of the tolerance"


def _bound(most: float, each: Sequence[float]) -> str:
    return f"tolerance {most:.3g}" if not each else f"tolerance {min(each):.2g} to {max(each):.2g}, by the utterance"


def _embedding_facts(found: Agreement, bound: str) -> list[tuple[str, str]]:
    if found.max_embedding_distance is None or found.min_cosine is None:
        return [("embeddings", "none: the artefact gives scores alone")]
    return [
        ("max ‖Δembedding‖", f"{found.max_embedding_distance:.3g} ({bound})"),
        ("min cosine of embeddings", f"{found.min_cosine:.9f}"),
    ]


def plot(report: ParityReport) -> Figure:
    """Every comparison: max |Δscore| against the utterance's length, and against the rows of its batch."""
    figure = Figure(figsize=(10, 4.2))
    by_length, by_batch = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    # A layout that is worked out would draw everything a second time.
    figure.subplots_adjust(left=0.08, right=0.76, top=0.9, bottom=0.13, wspace=0.06)
    smallest = report.tolerance.score * 1e-4  # stands in for an exact 0 on the logarithmic axis
    for name, (colour, marker) in _GROUPS.items():
        pairs = [(case, row) for case in report.cases if _group(case) == name for row in case.rows]
        pairs = [(case, row) for case, row in pairs if math.isfinite(row.max_abs_score)]
        values = [max(row.max_abs_score, smallest) for _, row in pairs]
        style: dict[str, Any] = {"s": 18, "c": colour, "marker": marker, "label": name, "alpha": 0.7}
        if pairs:
            by_length.scatter([row.frames for _, row in pairs], values, **style)
            by_batch.scatter([case.batch for case, _ in pairs], values, **style)
    for axis in (by_length, by_batch):
        axis.axhline(report.tolerance.score, color="tab:red", label="tolerance")
        if report.other is None:
            noise = max(report.score_noise, smallest)
            axis.axhline(noise, color="0.5", linestyle=":", label="eager float32 against float64")
        axis.set(xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    frames = [row.frames for case in report.cases for row in case.rows] or [1]
    _mark(by_length, [size for size in _LENGTHS if min(frames) <= size <= max(frames)])
    _mark(by_batch, sorted({case.batch for case in report.cases}))
    by_length.set(xlabel="frames", ylabel="max |Δscore|")
    by_batch.set(xlabel="utterances in the batch")
    by_batch.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle(f"Parity {'passed' if report.passed else 'FAILED'}: {Path(report.model).name}")
    return figure


def _mark(axis: Any, sizes: Sequence[int]) -> None:
    """Mark these places alone, as whole numbers: powers of ten with factors would overlap."""
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.set_xticks([], minor=True)


def _group(case: CaseResult) -> str:
    return f"{'alone' if case.batch == 1 else 'batch'}, {'not padded' if case.garbage == 'none' else 'padded'}"


def _case_line(case: CaseResult) -> str:
    head = f"| {case.case} | {case.kind} | {case.batch} | {case.padded} | {case.garbage} |"
    if case.error is not None:
        return f"{head} | {case.error} | | |"
    frames = [row.frames for row in case.rows]
    span = str(frames[0]) if min(frames) == max(frames) else f"{min(frames)} to {max(frames)}"
    score = max(row.max_abs_score for row in case.rows)
    distances = [row.embedding_distance for row in case.rows if row.embedding_distance is not None]
    distance = f"{max(distances):.2g}" if distances else "none"
    return f"{head} {span} | {score:.2g} | {distance} | {sum(row.flipped for row in case.rows)} |"


def _bullets(items: Iterable[str]) -> list[str]:
    items = list(items)
    more = [f"- … and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return [*(f"- {item}" for item in items[:_SHOWN]), *more]


class ParityError(ExportError):
    """An artefact was built, and its answers are not the original's; `report` says how, where there is one."""

    def __init__(self, message: str, report: "ParityReport | None" = None) -> None:
        super().__init__(message)
        self.report = report


NOT_GATED = "NOT gated: no labelled set was given; --accuracy-data does"


def accuracy_facts(report: AccuracyReport | None) -> list[tuple[str, str]]:
    """Accuracy as (name, value), for a table."""
    if report is None:
        return [("accuracy", NOT_GATED)]
    verdict = ("accuracy's verdict", report.doubt or report.verdict)
    return [("accuracy", report.figures), verdict, *(("accuracy's set", remark) for remark in report.remarks)]


def quantization_facts(report: QuantizationReport | None) -> list[tuple[str, str]]:
    """Int8 as (name, value), for a table; empty where nothing was quantised."""
    if report is None:
        return []
    scales = "one scale per frame" if report.scheme == "dynamic" else f"calibrated, {report.method}"
    saved = 1 - report.int8_bytes / report.float_bytes
    float_layers = ", ".join(report.kept_float) or "none"
    return [
        ("int8", f"{report.scheme} ({scales}), weights per channel; {len(report.layers)} matrix products"),
        ("int8 calibrated on", report.utterances),
        ("int8 costs", f"mean 1 - cosine {report.cost.mean_error:.2g}, largest {report.cost.max_error:.2g}"),
        ("layers kept in float", f"{float_layers} ({report.keep_rule})"),
        ("graph", f"{report.int8_bytes / 1e6:.2f} MB, float {report.float_bytes / 1e6:.2f} MB: {saved:.0%} saved"),
    ]


def accuracy_section(report: AccuracyReport | None) -> list[str]:
    """Lines of Markdown: the speakers whose answers changed. Empty where none did."""
    if report is None or not report.worst:
        return []
    rows = [f"| {each.speaker} | {each.utterances} | {each.eager} | {each.artefact} |" for each in report.worst]
    head = ["", "## Speakers whose utterances are recognised otherwise", ""]
    return [*head, "| speaker | utterances | eager right | artefact right |", "|---|--:|--:|--:|", *rows]


def quantization_section(report: QuantizationReport | None) -> list[str]:
    """Lines of Markdown: what int8 costs each layer, the most harmful first."""
    if report is None:
        return []
    head = ["", "## Int8, layer by layer", ""]
    head += ["Each layer alone in int8, the rest in float32, against the float32 graph, on the calibration utterances."]
    head += ["", "| layer | weight | share of products | mean 1 - cosine | largest | max abs Δscore | kept in float |"]
    return [*head, "|---|---|--:|--:|--:|--:|---|", *map(_layer_line, report.worst)]


def _layer_line(each: LayerCost) -> str:
    cost = each.cost
    return (
        f"| {each.layer} | {each.rows} × {each.columns} | {each.share:.1%} | {cost.mean_error:.2g} | "
        f"{cost.max_error:.2g} | {cost.max_abs_score:.2g} | {'yes' if each.kept_float else ''} |"
    )
