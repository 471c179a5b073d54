"""`voxport bench scale`: how cost grows with length, batch, speakers, a gallery, a recording."""

from pathlib import Path
from typing import Any

import click

from voxport.cli.bench.common import check_output, finish
from voxport.cli.common import FILE_PATH, example, json_option, let_threads_sleep, needs
from voxport.cli.progress import step_bar

_CURVES = ("length", "batch", "speakers", "gallery", "chunks")


@click.command(
    "scale",
    epilog=example(
        """
        voxport bench scale -o scale.json
        voxport bench scale model.onnx --curve length --curve chunks -o scale.json
        voxport bench scale --curve gallery --sizes gallery=10,1000,100000
        """
    ),
)
@click.argument("model", required=False, type=FILE_PATH)
@click.option("--recipe", default="sap_am_bn_3layers", help="Recipe of a freshly initialised network, without MODEL.")
@click.option(
    "--curve", "curves", multiple=True, type=click.Choice(_CURVES), help="Curve to measure; repeatable. Default: all."
)
@click.option("--sizes", multiple=True, metavar="CURVE=N,N,…", help="Sizes at which to measure a curve; repeatable.")
@click.option("--questions", type=click.IntRange(1), default=64, help="Queries of a gallery at once.")
@click.option("--embedding", type=click.IntRange(1), default=256, help="Embedding size of heads and gallery.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Device of the network.")
@click.option("--threads", type=click.IntRange(1), default=1, help="Number of CPU threads.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Number of rounds over all points.")
@click.option("--seconds", type=click.FloatRange(0.01), default=1.0, help="Seconds to time at each point.")
@click.option("--patience", type=click.FloatRange(0.01), default=20.0, help="Longest call, in seconds.")
@click.option("--seed", type=int, default=1, help="Seed of inputs and weights.")
@click.option("--timeout", type=click.FloatRange(1), default=600.0, help="Time limit of a curve, in seconds.")
@click.option("-o", "--output", type=FILE_PATH, help="Write everything as JSON.")
@json_option
@needs("train", "cpu")
def scale_command(
    model: Path | None, sizes: tuple[str, ...], output: Path | None, as_json: bool, **choices: Any
) -> None:
    """Measure how cost grows, and fit the exponent of its tail with a 95 % interval.

    MODEL is an artefact or a checkpoint; without one a fresh network of the recipe is used. Curves: length of an
    utterance (attention grows with its square), batch, trained speakers, enrolled voices, and recordings
    answered whole or in windows. `voxport bench report` draws them. Exits with 1 where a curve could not be measured.
    """
    let_threads_sleep()
    from voxport.benchmarks.scaling.report import CURVES, ScaleSettings
    from voxport.benchmarks.scaling.runner import measure_scale

    check_output("--output", output)
    if model is not None and not model.exists():
        raise click.BadParameter(f"{model}: no such file", param_hint="MODEL")
    choices["curves"] = choices["curves"] or CURVES
    settings = ScaleSettings(model=str(model or ""), sizes=_sizes(sizes), **choices)
    with step_bar() as progress:
        report = measure_scale(settings, progress)
    finish(report, output, as_json)
    if any(curve.failure for curve in report.curves):
        raise click.exceptions.Exit(1)


def _sizes(texts: tuple[str, ...]) -> tuple[Any, ...]:
    from voxport.benchmarks.scaling.report import Sizes, default_sizes

    found = {each.curve: each for each in default_sizes()}
    for text in texts:
        name, _, values = text.partition("=")
        try:
            found[name] = Sizes(name, tuple(int(value) for value in values.split(",")))  # type: ignore[index, arg-type]
        except ValueError as problem:
            reason = str(problem) if "sizes" in str(problem) else "expected numbers"
            raise click.BadParameter(f"{text}: {reason}, such as gallery=10,1000", param_hint="--sizes") from problem
        if name not in _CURVES:
            raise click.BadParameter(f"{text}: curves are {', '.join(_CURVES)}", param_hint="--sizes")
    return tuple(found.values())
