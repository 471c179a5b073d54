"""`voxport train profile`: where the time of a training step goes."""

from typing import Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, let_threads_sleep, needs, show_table
from voxport.cli.progress import is_shown
from voxport.cli.train.options import (
    compile_option,
    corpus_options,
    data_option,
    default_frontend,
    frontend_option,
    layout_options_of,
    reading_options,
    resident_option,
)


@click.command(
    epilog=example(
        """
        voxport train profile --recipe sap_am_bn_3layers
        voxport train profile --recipe sap_am_bn_3layers --data corpus/ --compile --trace step.json
        """
    )
)
@click.option("--recipe", required=True, help="Name of a recipe (see `voxport train recipes`), or a path to a .toml.")
@data_option
@click.option(
    "--speakers", type=click.IntRange(2), default=600, help="Speakers of the synthetic corpus, without --data."
)
@click.option("--steps", type=click.IntRange(1), default=20, help="Steps to measure.")
@click.option("--warmup", type=click.IntRange(1), default=5, help="Warm-up steps.")
@click.option(
    "--accumulate", type=click.IntRange(1), default=1, help="Pieces in which a batch goes through the network."
)
@resident_option
@compile_option
@click.option("--trace", type=FILE_PATH, help="Chrome trace of three steps, for Perfetto.")
@frontend_option
@reading_options
@needs("train")
def profile(recipe: str, progress: bool | None, as_json: bool, **choices: Any) -> None:
    """Measure a recipe's training step: sections, slowest operators, share of the device's ceiling.

    Runs a few steps as `fit` would, on --data or on noise, and keeps nothing.
    """
    let_threads_sleep()
    from voxport.train.profiling.step_profile import ProfileOptions, profile_step
    from voxport.train.recipe import load_recipe

    loaded = load_recipe(recipe)
    named = choices["frontend"] is not None
    name = loaded.frontend if named else default_frontend(loaded, choices["data"], layout_options_of(choices))
    corpus = corpus_options(choices, name, is_shown(progress))
    names = ("data", "speakers", "steps", "warmup", "device", "accumulate", "compiled", "resident", "trace")
    report = profile_step(loaded, ProfileOptions(corpus=corpus, **{name: choices[name] for name in names}))
    if as_json:
        emit_json(report)
        return
    rows = [(part.name, f"{part.milliseconds:.3f}", f"{part.share:.1%}") for part in report.sections]
    show_table(
        f"One step of {report.recipe}: {report.batch_size} × {report.crop_frames} frames, {report.precision}, "
        f"{report.device}; {report.step_ms:.3f} ms, {report.steps_per_second:.2f} steps/s",
        ("section, alone", "ms", "share"),
        rows,
    )
    click.echo()
    operators = [
        (part.name, f"{part.milliseconds:.3f}", f"{part.share:.1%}", f"{part.calls:g}") for part in report.operators
    ]
    show_table("Slowest operators", ("operator", "ms", "share", "calls"), operators)
    click.echo(
        f"\n{report.step_gflop:.3g} GFLOP per step, of a ceiling of {report.ceiling_gflops:.4g} GFLOP/s: "
        f"{report.ceiling_share:.1%}"
    )
    if choices["trace"]:
        click.echo(f"trace written to {choices['trace']}; open it in https://ui.perfetto.dev")
