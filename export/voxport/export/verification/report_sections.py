"""The parts of a parity report that only some exports have: accuracy on a labelled set, and int8 layer by layer."""

from voxport.export.quantization.quantizer import QuantizationReport
from voxport.export.quantization.sensitivity import LayerCost
from voxport.export.verification.accuracy import AccuracyReport

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
