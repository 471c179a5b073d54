"""`voxport bench conditions`: how much of a model's accuracy survives outside the studio."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from voxport.cli.bench.common import check_output, finish
from voxport.cli.common import FILE_PATH, example, json_option, needs
from voxport.cli.progress import step_bar

if TYPE_CHECKING:
    from voxport.benchmarks.conditions.report import ConditionsReport


@click.command(
    "conditions",
    epilog=example(
        """
        voxport bench conditions model.onnx held-out/
        voxport bench conditions model.onnx held-out/ -o conditions.json --plot conditions.png
        voxport bench conditions model.onnx case-benchmark/ --save runs/best/model.pt
        """
    ),
)
@click.argument("model", type=FILE_PATH)
@click.argument("data", type=FILE_PATH)
@click.option("--seed", type=click.IntRange(0), default=1, help="Seed of noises, voices, rooms and bootstrap.")
@click.option(
    "--limit", type=click.IntRange(2), default=500, help="Most files, spread evenly over DATA; they are held in memory."
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "tensorrt", "rtx"]), default="auto", help="Device of MODEL."
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads of the model.")
@click.option("-o", "--output", type=FILE_PATH, help="Write the report as JSON.")
@click.option("--plot", type=FILE_PATH, help="Draw a chart (.png, .svg or .pdf).")
@click.option(
    "--save",
    type=FILE_PATH,
    help="Checkpoint that MODEL was exported from: store a line a kind in it, which later exports then carry.",
)
@json_option
@needs("bench", "train", "augment", "cpu")
def conditions_command(
    output: Path | None, plot: Path | None, save: Path | None, as_json: bool, **choices: Any
) -> None:
    """Judge MODEL on clean labelled sounds, and on the same sounds changed.

    MODEL is any file that `voxport export` wrote, DATA a folder per speaker or a manifest of sound files, best
    such as training has not seen. Every sound is answered clean and after each change: louder and softer,
    clipped, noise, babble of DATA's other speakers, reverberation, telephone and music codecs, a loudspeaker,
    other speeds. Shown are, with their differences from clean and 95 % intervals: the share that is named
    rightly, the equal error rate of clean against changed sounds, false accepts at the model's own rejection
    threshold, and how sure the model is of its wrong answers. Where DATA is the folder of the public benchmark CASE,
    its own trials are scored.
    """
    from voxport.benchmarks.conditions.chart import draw_conditions
    from voxport.benchmarks.conditions.measure import measure_conditions
    from voxport.benchmarks.conditions.report import ConditionsSettings

    check_output("--output", output)
    check_output("--plot", plot)
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise click.BadParameter(f"{plot}: the name must end in .png, .svg or .pdf", param_hint="--plot")
    if save is not None:
        _check_source(str(choices["model"]), save)
    settings = ConditionsSettings(str(choices.pop("model")), str(choices.pop("data")), **choices)
    with step_bar() as progress:
        report = measure_conditions(settings, progress)
    if save is not None:
        _store(report, save)
    if plot is not None:
        draw_conditions(report, plot)
    finish(report, output, as_json, (plot, save))


def _check_source(model: str, checkpoint: Path) -> None:
    """Refuse, before the work, a checkpoint that the model was not exported from."""
    from voxport.runtime.errors import VoxportError
    from voxport.runtime.inspection import inspect_model
    from voxport.train.checkpoint import checkpoint_sha256, load_checkpoint

    load_checkpoint(checkpoint)
    if inspect_model(model, verify=False).contract.checkpoint_sha256 != checkpoint_sha256(checkpoint):
        raise VoxportError(
            f"{checkpoint}: {model} was not exported from it as it is now; export the model again, or leave out --save"
        )


def _store(report: "ConditionsReport", checkpoint: Path) -> None:
    import dataclasses

    from voxport.benchmarks.conditions.shares import contract_lines
    from voxport.train.checkpoint import load_checkpoint, save_checkpoint

    what = f"{report.files} files of {Path(report.settings.data).name}, seed {report.settings.seed}"
    changed = dataclasses.replace(load_checkpoint(checkpoint), conditions=contract_lines(report.rows, what))
    save_checkpoint(changed, checkpoint / "model.pt" if checkpoint.is_dir() else checkpoint)
