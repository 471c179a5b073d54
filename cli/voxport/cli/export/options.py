"""What every `voxport export …` shares: its options, its one way of running, and how reports and dry runs are shown."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, Decorator, emit_json, given_options, json_option, needs, show_table, together
from voxport.cli.progress import is_shown, progress_option

if TYPE_CHECKING:
    from voxport.export.dry_run import Preview
    from voxport.export.verification.report import ParityReport

_REAL = 40


class OutputChoice(click.Choice[str]):
    """scores, embedding or both, as the names of outputs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        if str(value).lower() not in self.choices:
            self.fail(
                f"{value!r} is not one of {', '.join(self.choices)}; the file to write is given with -o", param, ctx
            )
        chosen = super().convert(value, param, ctx)
        return ("scores", "embedding") if chosen == "both" else (chosen,)


def precision_option(choices: Sequence[str], default: str, text: str) -> Decorator:
    """`--precision`."""
    return click.option("--precision", type=click.Choice(list(choices)), default=default, help=text)


input_option = click.option(
    "--input",
    "input_kind",
    type=click.Choice(["features", "waveform"]),
    default="features",
    help="What the model takes: log-mel features, or sound with the features computed inside.",
)
output_option = click.option(
    "--output",
    "outputs",
    type=OutputChoice(["scores", "embedding", "both"]),
    default="both",
    help="What the model gives: scores of its speakers, the voice as a vector, or both.",
)
length_options = together(
    click.option("--min-frames", type=click.IntRange(1), default=20, help="Shortest input, in frames."),
    click.option("--max-frames", type=click.IntRange(1), default=3000, help="Longest input, in frames."),
)
as_norm_option = click.option(
    "--as-norm",
    type=click.IntRange(2),
    metavar="K",
    help="Have galleries normalise scores (AS-norm) by the K nearest of the training speakers, whose vectors the file "
    "then carries; 40 is a usual number.",
)
opset_option = click.option("--opset", type=int, default=20, help="ONNX operator set, 18 to 22.")
gate_options = together(
    click.option(
        "--real",
        type=click.IntRange(0),
        default=_REAL,
        help="Real utterances to compare, at most, where the checkpoint's data is still there.",
    ),
    click.option("--cache", type=FILE_PATH, help="Folder of computed features, as in training."),
    progress_option,
    click.option(
        "--accuracy-data",
        type=FILE_PATH,
        help="Labelled utterances on which the exported model must be as accurate as eager PyTorch: homework folder, "
        "folder per speaker, or CSV/JSONL manifest.",
    ),
    click.option(
        "--max-drop",
        type=click.FloatRange(0, 100, max_open=True),
        default=0.2,
        help="Points of accuracy that may be lost on --accuracy-data; more fails where chance does not explain it.",
    ),
    click.option("--accuracy-limit", type=click.IntRange(1), help="Labelled utterances to take, at most."),
)


def export_options(*own: Decorator, inputs: bool = True, outputs: bool = True) -> Decorator:
    """CHECKPOINT, -o, and what every target that writes a file takes; `own` are the target's further options.

    `inputs` and `outputs` say whether the user chooses those of the graph. Without `outputs`, --output is -o.
    """
    names = ["-o", "output"] if outputs else ["-o", "--output", "output"]
    return together(
        click.argument("checkpoint", type=FILE_PATH),
        click.option(*names, type=FILE_PATH, required=True, help="File to write."),
        *((input_option,) if inputs else ()),
        *((output_option,) if outputs else ()),
        *own,
        as_norm_option,
        length_options,
        click.option("--force", is_flag=True, help="Replace an existing file."),
        click.option("--keep-failed", is_flag=True, help="Keep a file that does not pass, as NAME.failed.SUFFIX."),
        click.option("--dry-run", is_flag=True, help="Show what would be built, checked and written; write nothing."),
        gate_options,
        json_option,
    )


def gate_choices(choices: dict[str, Any]) -> dict[str, Any]:
    """Take the gate's options out of `choices`, and return them as fields of a GateOptions."""
    from voxport.export.inputs.corpus_samples import RealOptions

    real, cache, shown = choices.pop("real"), choices.pop("cache"), is_shown(choices.pop("progress"))
    data, max_drop, limit = (choices.pop(name) for name in ("accuracy_data", "max_drop", "accuracy_limit"))
    accuracy = None
    if data is not None:
        from voxport.export.verification.accuracy import AccuracyOptions

        accuracy = AccuracyOptions(data, max_drop, limit, cache, shown)
    elif given := given_options(("max_drop", "accuracy_limit")):
        raise click.UsageError(f"{', '.join(given)}: about a labelled set, and there is none; give --accuracy-data")
    return {"real": RealOptions(real, cache, shown), "accuracy": accuracy, "progress": shown}


def run_export(
    name: str,
    choices: dict[str, Any],
    *,
    show: "Callable[[Any], None] | None" = None,
    preview: "Callable[[Any], None] | None" = None,
    note: str = "",
) -> None:
    """Export to the target `name` as the options in `choices` say, or say what would be done, as a page or as JSON.

    Args:
        name: a row of the table of targets.
        choices: the command's parameters.
        show: prints what the target's export returns besides the parity report's page.
        preview: prints its dry run, where that is none of the gate's.
        note: for stderr, after the export.
    """
    from voxport.export.targets import TARGETS

    target = TARGETS[name]

    @needs(*target.extras)
    def run(checkpoint: Path, output: Path, dry_run: bool, as_json: bool, **rest: Any) -> None:
        options = target.load("options")(**gate_choices(rest), **rest)
        done = target.load("preview" if dry_run else "export")(checkpoint, output, options)
        if dry_run:
            if as_json:
                emit_json(done)
            else:
                (preview or show_preview)(done)
            return
        if note:
            click.echo(note, err=True)
        show_export(name, done, output, as_json, show)

    run(**choices)


def show_export(name: str, done: Any, output: Path, as_json: bool, show: "Callable[[Any], None] | None") -> None:
    """Print what an export returned: a parity report, or something that has one as `parity`, and `facts()` besides."""
    from voxport.export.pipeline import report_stem
    from voxport.export.verification.report import ParityReport
    from voxport.runtime.storage.serialization import encode

    alone = isinstance(done, ParityReport)
    parity = done if alone else done.parity
    if as_json:
        emit_json({**encode(parity), **({} if alone else {name: done.facts()})})
        warn(parity)
        return
    show_report(parity)
    if show is not None:
        show(done)
    click.echo(f"report: {report_stem(output)}.json, .md, .png")


def show_report(report: "ParityReport") -> None:
    """Print the report's figures as tables."""
    from voxport.export.verification.report import facts

    show_table(f"Parity: {'passed' if report.passed else 'FAILED'}", ("", ""), facts(report))
    click.echo()
    rows = [(check.name, "equal" if check.passed else "FAILED", check.detail) for check in report.checks]
    show_table("Besides the answers", ("", "", ""), rows)
    warn(report)


def warn(report: "ParityReport") -> None:
    """Say on stderr what a passing report leaves open."""
    if report.accuracy is not None and report.accuracy.doubt:
        click.echo(f"warning: accuracy {report.accuracy.doubt}", err=True)
    if report.real_lost:
        click.echo(f"warning: the gate compared no real utterances: {report.real_utterances}", err=True)


def show_preview(found: "Preview") -> None:
    """Print what would be built."""
    first = f"{found.writes[0]} ({_standing(found)})"
    rows = [("kind", found.target)]
    rows += [("writes", path) for path in (first, *found.writes[1:])]
    rows.append(("checkpoint", f"{found.checkpoint}: recipe {found.recipe}, {found.speakers} speakers"))
    rows += [("input", str(tensor)) for tensor in found.inputs]
    rows += [("output", str(tensor)) for tensor in found.outputs]
    rows.append(("precision", found.precision))
    if found.opset is not None:
        rows.append(("opset", str(found.opset)))
    rows.append(("length in frames", f"{found.min_frames} to {found.max_frames}"))
    rows.append(("length in seconds", f"{found.min_seconds:.2f} to {found.max_seconds:.2f}"))
    rows.append(("gate", f"{found.utterances} synthetic utterances in {found.runs} runs, alone and in padded batches"))
    rows.append(("real utterances", found.real))
    rows.append(("accuracy", found.accuracy))
    rows += [("note", text) for text in found.notes]
    show_table("Dry run", ("", ""), rows)


def _standing(found: "Preview") -> str:
    if not found.exists:
        return "new"
    return "exists, and would be replaced" if found.replaced else "exists, and would be refused without --force"
