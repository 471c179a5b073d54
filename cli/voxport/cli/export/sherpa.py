"""`voxport export sherpa` and `sherpa-check`: models for sherpa-onnx, on phones and in other languages."""

from pathlib import Path
from typing import Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, json_option, needs, show_table
from voxport.cli.export.options import export_options, run_export


@click.command(
    epilog=example(
        """
        voxport export sherpa runs/best/model.pt -o speaker.onnx
        voxport export sherpa runs/best/model.pt -o speaker.onnx --language English --force
        """
    )
)
@export_options(
    click.option("--language", default="unspecified", help="Free text, which sherpa-onnx asks for."),
    inputs=False,
    outputs=False,
)
def sherpa(**choices: Any) -> None:
    """Write CHECKPOINT as a speaker model for sherpa-onnx, proven equal to eager PyTorch.

    sherpa-onnx computes features itself, so the checkpoint must be trained with features that it knows:
    those of `--frontend nemo_mel40` or `--frontend kaldi_fbank80`. Others are refused. The file also
    carries voxport's own contract. Its parity report is written beside it.
    """
    run_export("sherpa", choices)


@click.command(
    "sherpa-check",
    epilog=example(
        """
        voxport export sherpa-check speaker.onnx
        """
    ),
)
@click.argument("model", type=FILE_PATH)
@json_option
@needs("cpu")
def sherpa_check(model: Path, as_json: bool) -> None:
    """Say whether sherpa-onnx could use MODEL, whoever wrote it; exits with 1 where it could not.

    sherpa-onnx crashes on most wrong files, and on some it gives wrong embeddings. This looks at what it
    relies on (metadata, tensors, lengths, the embedding's size) and runs the graph, without sherpa-onnx.
    """
    from voxport.export.errors import ExportError
    from voxport.export.targets.sherpa.validate import check_sherpa

    report = check_sherpa(model)
    if as_json:
        emit_json(report)
    else:
        rows = [(each.name, "ok" if each.passed else "WRONG", each.detail) for each in report.findings]
        show_table(f"sherpa-onnx: {'can use it' if report.passed else 'CANNOT USE IT'}", ("", "", ""), rows)
    if not report.passed:
        more = f" (and {len(report.complaints) - 1} more)" if len(report.complaints) > 1 else ""
        raise ExportError(f"{model}: sherpa-onnx cannot use it: {report.complaints[0]}{more}")
