"""The part of a report about `voxport bench conditions`."""

from voxport.benchmarks.conditions.report import ConditionsReport, Share
from voxport.benchmarks.reporting.page import Facts, Notes, Part, Section, Table, Tile
from voxport.benchmarks.reporting.wording import percent

COLUMNS = (
    "condition",
    "kind",
    "right",
    "against clean, points",
    "EER",
    "against clean, points",
    "false accepts",
    "p of wrong",
)


def conditions_part(report: ConditionsReport) -> Part:
    """Everything that the document tells."""
    rows = tuple(table_row(report, number) for number in range(len(report.rows)))
    kinds = tuple((row.kind, str(row.conditions), percent(row.accuracy), percent(row.eer)) for row in report.kinds)
    asked = (
        ("model", f"{report.model}, recipe {report.recipe}, frontend {report.frontend}"),
        ("data", f"{report.settings.data}: {report.files} files of {report.speakers} speakers"),
        ("of speakers whom the model knows", f"{report.known} files"),
        ("seed", str(report.settings.seed)),
        ("rejection threshold", "none" if report.threshold is None else f"cosine {report.threshold:.4f}"),
    )
    sections = (
        Section("Conditions", (Table(COLUMNS, rows, "In brackets: 95 % interval, paired bootstrap over files."),)),
        Section("By kind", (Table(("kind", "conditions", "right", "EER"), kinds),)),
        Section("Notes", (Notes(report.notes or ("nothing unusual was seen",)),)),
        Section("Settings", (Facts(asked),), folded=True),
    )
    return Part(f"Conditions, {report.created[:10]}", _headline(report), _tiles(report), sections)


def table_row(report: ConditionsReport, number: int) -> tuple[str, ...]:
    """One condition in words."""
    row = report.rows[number]
    return (
        row.name,
        row.kind,
        _value(row.accuracy),
        _difference(row.accuracy),
        _value(row.eer),
        _difference(row.eer),
        _value(row.false_accepts),
        "–" if row.wrong_probability is None else f"{row.wrong_probability:.2f}",
    )


def _value(share: Share | None) -> str:
    return "–" if share is None else f"{100 * share.value:.1f} %"


def _difference(share: Share | None) -> str:
    if share is None:
        return "–"
    return f"{100 * share.difference:+.1f} [{100 * share.low:+.1f}, {100 * share.high:+.1f}]"


def _headline(report: ConditionsReport) -> str:
    clean, *changed = report.rows
    if clean.accuracy is not None:
        worst = min(changed, key=lambda row: row.accuracy.value if row.accuracy else 1.0)
        assert worst.accuracy is not None
        return f"{_value(clean.accuracy)} right on clean sound, {_value(worst.accuracy)} at worst: {worst.name}"
    if clean.eer is not None:
        worst = max(changed, key=lambda row: row.eer.value if row.eer else 0.0)
        return f"EER {_value(clean.eer)} on clean sound, {_value(worst.eer)} at worst: {worst.name}"
    return "Nothing could be measured"


def _tiles(report: ConditionsReport) -> tuple[Tile, ...]:
    if report.rows[0].accuracy is not None:
        return tuple(Tile(percent(row.accuracy), "right", row.kind) for row in report.kinds)
    return tuple(Tile(percent(row.eer), "EER", row.kind) for row in report.kinds)
