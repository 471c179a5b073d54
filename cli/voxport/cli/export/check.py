"""`voxport export check`: do two forms of one network give the same answers? And would TensorRT take one?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, given_options, json_option, needs, show_table
from voxport.cli.export.options import gate_choices, gate_options, show_report, warn
from voxport.cli.export.tensorrt_check import TensorRTChoice, check_fit, tensorrt_check_options

if TYPE_CHECKING:
    from voxport.export.verification.report import ParityReport
    from voxport.runtime.backends.options import PrecisionChoice, RuntimeChoice


@click.command(
    epilog=example(
        """
        voxport export check model.onnx runs/best/model.pt
        voxport export check model.onnx runs/best/model.pt --report proof/
        voxport export check small.onnx model.onnx
        voxport export check model.onnx runs/best/model.pt --bisect
        voxport export check model.onnx runs/best/model.pt --runtime openvino --precision bf16
        voxport export check model.onnx --tensorrt
        voxport export check model.onnx --tensorrt --compute-capability 12.0 --json
        """
    )
)
@click.argument("model", metavar="A", type=FILE_PATH)
@click.argument("other", metavar="[B]", type=FILE_PATH, required=False)
@click.option("--report", "folder", type=FILE_PATH, help="Folder for the report (JSON, page, plot).")
@click.option(
    "--bisect",
    is_flag=True,
    help="Compare ONNX with the checkpoint part by part; name the first that rounding does not explain.",
)
@click.option("--runtime", type=click.Choice(["onnxruntime", "openvino"]), help="The library that runs the ONNX model.")
@click.option(
    "--precision",
    type=click.Choice(["bf16", "fp16"]),
    help="With --runtime openvino: compute in it what the file holds in float32, and allow what that moves.",
)
@gate_options
@tensorrt_check_options
@json_option
@needs("export", "cpu")
def check(
    model: Path,
    other: Path | None,
    folder: Path | None,
    bisect: bool,
    runtime: "RuntimeChoice | None",
    precision: "PrecisionChoice | None",
    fit: TensorRTChoice | None,
    as_json: bool,
    **choices: Any,
) -> None:
    """Hold A against B, two forms of one network; exits with 1 where they differ.

    Each is an artefact of any kind, or one is the checkpoint. The reference is then eager PyTorch on each
    utterance alone. The artefact sees the same utterances alone and in padded batches, over the whole range of
    lengths that it promises to take. Of two artefacts each is the reference for the other, over the lengths
    that both promise; --real, --runtime and --accuracy-data need the checkpoint.

    With --tensorrt there is no B: NVIDIA's own parser and builder (extra rtx) judge the ONNX file A, voxport's
    or any other, without a GPU. Exits with 1 where they refuse it.
    """
    if fit is not None:
        _refuse_with_tensorrt(other)
        check_fit(model, fit, as_json)
        return
    if other is None:
        raise click.UsageError("Missing argument 'B': give the form to hold A against, or --tensorrt")
    from voxport.export.pipeline import report_stem
    from voxport.export.verification.check import CheckOptions
    from voxport.export.verification.check import check as run_check
    from voxport.export.verification.report import ParityError, write_report
    from voxport.runtime.backends.formats import is_checkpoint
    from voxport.runtime.backends.options import BackendOptions

    if is_checkpoint(model):
        model, other = other, model
    gate = gate_choices(choices)
    if not is_checkpoint(other):
        _needs_checkpoint(model, bisect, gate)
        gate["real"] = None
    runs = None if runtime is None and precision is None else BackendOptions("cpu", None, precision, runtime=runtime)
    report = run_check(model, other, CheckOptions(bisect=bisect, runs=runs, **gate))
    if folder is not None:
        write_report(report, folder / report_stem(model).name)
    if as_json:
        emit_json(report)
        warn(report)
    else:
        show_report(report)
        _show_bisection(report)
    if not report.passed:
        more = f" (and {len(report.failures) - 1} more)" if len(report.failures) > 1 else ""
        raise ParityError(f"{model}: parity failed: {report.failures[0]}{more}")


def _show_bisection(report: "ParityReport") -> None:
    from voxport.export.verification.bisection_report import COLUMNS, bisection_rows

    if report.bisection is None:
        return
    click.echo()
    show_table("Part by part", COLUMNS, bisection_rows(report.bisection))
    click.echo(f"bisection: {report.bisection.verdict}")


def _refuse_with_tensorrt(other: Path | None) -> None:
    if other is not None:
        raise click.UsageError(f"--tensorrt judges one file; leave out {other}")
    names = ("folder", "bisect", "runtime", "precision", "real", "cache", "progress")
    if given := given_options((*names, "accuracy_data", "accuracy_limit", "max_drop")):
        raise click.UsageError(f"{', '.join(given)}: about two forms of a network, and --tensorrt judges one file")


def _needs_checkpoint(model: Path, bisect: bool, gate: dict[str, Any]) -> None:
    """Refuse, by the names of the options, what two artefacts alone cannot be asked."""
    if given := given_options(("runtime", "precision")):
        raise click.UsageError(f"{', '.join(given)}: needs the checkpoint, as A or B")
    if bisect:
        raise click.UsageError(
            "--bisect needs the checkpoint as A or B; search each of the two against it: "
            f"voxport export check {model} RUN/model.pt --bisect"
        )
    if gate["accuracy"] is not None:
        raise click.UsageError("--accuracy-data needs the checkpoint: give it as A or B")
    if given_options(("real",)) and gate["real"].count:
        raise click.UsageError("--real needs the checkpoint, which knows its data: give it as A or B")
