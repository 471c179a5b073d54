"""`voxport bench train`: how many optimiser steps a second, and how far from what the machine can do."""

from pathlib import Path
from typing import Any

import click

from voxport.cli.bench.common import check_output, finish
from voxport.cli.common import FILE_PATH, example, json_option, let_threads_sleep, needs
from voxport.cli.progress import step_bar


@click.command(
    "train",
    epilog=example(
        """
        voxport bench train --recipe sap_am_bn_3layers -o train.json
        voxport bench train --device cuda --precision bf16 --compile --batch-size 128
        voxport bench train --data corpus/ --rounds 10
        """
    ),
)
@click.option("--recipe", default="sap_am_bn_3layers", help="A recipe's name, or a .toml file.")
@click.option("--data", type=FILE_PATH, help="Corpus to train on. Default: synthetic features.")
@click.option("--frontend", help="Frontend profile. Default: the recipe's.")
@click.option("--batch-size", type=click.IntRange(2), help="Utterances in a step. Default: the recipe's.")
@click.option("--frames", type=click.IntRange(1), help="Length of a crop. Default: the recipe's.")
@click.option(
    "--speakers", type=click.IntRange(2), default=600, help="Speakers of the synthetic corpus, without --data."
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    default="fp32",
    help="Precision of training; tf32 and fp16 need a GPU, bf16 and fp16 are mixed precision.",
)
@click.option("--compile/--no-compile", default=False, help="Train with torch.compile.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Device to train on.")
@click.option("--threads", type=click.IntRange(1), default=1, help="Number of CPU threads.")
@click.option("--rounds", type=click.IntRange(1), default=5, help="Number of rounds, each in a fresh process.")
@click.option("--seconds", type=click.FloatRange(0.01), default=5.0, help="Seconds to time in each round.")
@click.option("--warmup", type=click.FloatRange(0), default=2.0, help="Warm-up of each round, in seconds.")
@click.option("--seed", type=int, default=1, help="Seed of weights and crops.")
@click.option("--timeout", type=click.FloatRange(1), default=600.0, help="Time limit of a round, in seconds.")
@click.option("-o", "--output", type=FILE_PATH, help="Write everything as JSON.")
@json_option
@needs("train")
def train_command(output: Path | None, as_json: bool, **choices: Any) -> None:
    """Train for some seconds in fresh processes: steps a second with a 95 % interval.

    Steps are those of `voxport train fit` without Lightning: crops, loss, backward pass, AdamW. Shown beside the
    rate: its share of the best matrix product measured in the same processes, and what part of a step goes
    to data, forward pass, backward pass and optimiser. Exits with 1 where a round failed.
    """
    let_threads_sleep()
    from voxport.benchmarks.training.report import TrainSettings
    from voxport.benchmarks.training.runner import measure_training
    from voxport.train.recipe import load_recipe

    check_output("--output", output)
    recipe = load_recipe(choices["recipe"])
    choices["batch_size"] = choices["batch_size"] or recipe.train.batch_size
    choices["frames"] = choices["frames"] or recipe.train.crop_frames
    choices["data"], choices["frontend"] = str(choices["data"] or ""), choices["frontend"] or ""
    with step_bar() as progress:
        report = measure_training(TrainSettings(**choices), progress)
    finish(report, output, as_json)
    if report.failures:
        raise click.exceptions.Exit(1)
