"""`voxport train …`: fit, predict and recipes here; evaluate, ablate and profile in files of their own."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from voxport.cli.common import FILE_PATH, emit_json, example, json_option, let_threads_sleep, needs, show_table
from voxport.cli.progress import is_shown
from voxport.cli.train.ablate import ablate
from voxport.cli.train.augment import AUGMENT_NAMES, augment_options
from voxport.cli.train.corpus import corpus as show_corpus
from voxport.cli.train.evaluate import evaluate
from voxport.cli.train.options import (
    LAYOUT_NAMES,
    bar,
    checkpoint_argument,
    compile_option,
    corpus_of,
    data_option,
    frontend_option,
    layout_options_of,
    reading_options,
    resident_option,
    say,
)
from voxport.cli.train.profile import profile as profile_a_step

if TYPE_CHECKING:
    from voxport.runtime.contract import Rejection


@click.group()
def train() -> None:
    """Train, evaluate and predict with PyTorch."""


@train.command(
    epilog=example(
        """
        voxport train fit --data corpus/ --recipe sap_am_bn_3layers --out runs/best
        voxport train fit --resume --out runs/best
        voxport train fit --data corpus/ --recipe sap_am_bn_3layers --out runs/best --noise musan/ --rirs RIRS_NOISES/
        voxport train fit --data corpus/ --recipe sap_am_bn_3layers --out runs/best --devices 4
        """
    )
)
@data_option
@click.option("--recipe", help="Name of a recipe (see `voxport train recipes`), or a path to a .toml file.")
@click.option("--out", type=FILE_PATH, required=True, help="Folder of the run.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps, in place of the recipe's.")
@click.option("--seed", type=int, help="Seed, in place of the recipe's.")
@click.option("--resume", is_flag=True, help="Go on where the run in --out was stopped, to the same result.")
@augment_options
@frontend_option
@click.option("--devices", type=click.IntRange(1), default=1, help="GPUs that share every batch.")
@click.option("--accumulate", type=click.IntRange(1), help="Pieces in which a batch goes through the network [1].")
@click.option(
    "--false-accept-rate",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.05,
    help='Share of strangers that the threshold of "nobody known" may let through; 0: no threshold.',
)
@resident_option
@compile_option
@reading_options
@needs("train")
def fit(out: Path, resume: bool, device: str, progress: bool | None, as_json: bool, **choices: Any) -> None:
    """Train a recipe on a corpus; writes OUT/model.pt, logs and curves.

    The recipe's batch size is that of all devices together; with --device cpu, --devices counts processes.
    """
    let_threads_sleep()
    from voxport.train.plots import plot_run
    from voxport.train.training.distributed import here
    from voxport.train.training.run import RunOptions
    from voxport.train.training.run import fit as run_fit
    from voxport.train.training.run import resume as resume_run
    from voxport.train.training.run_dir import RunFolder

    place = here()
    shown = is_shown(progress) and place.first  # of torchrun's processes one talks
    if resume:
        _refuse_with_resume(choices)
    elif choices["data"] is None or choices["recipe"] is None:
        raise click.UsageError("--data and --recipe are needed (or --resume, to go on with a run)")
    data, name, accumulate = choices.pop("data"), choices.pop("recipe"), choices.pop("accumulate") or 1
    rate = choices.pop("false_accept_rate") or None
    layout = layout_options_of(choices)
    rest = {key: value for key, value in choices.items() if key not in LAYOUT_NAMES}
    options = RunOptions(
        **rest,
        layout=layout,
        device=device,
        accumulate=accumulate,
        false_accept_rate=rate,
        progress=shown,
        announce=say if place.first else None,
    )
    result = resume_run(out, options) if resume else run_fit(name, data, out, options)
    recipe = RunFolder(out).read().recipe
    if not place.first:
        return
    curves = out / "curves.png"
    plot_run(RunFolder(out), curves)
    if as_json:
        emit_json(result)
        return
    changed = [line for line in result.conditions if line.accuracy is not None and line.kind != "clean"]
    rows = [
        ("recipe", recipe.name),
        ("parameters", f"{result.parameters:,}"),
        ("steps", f"{result.steps:,} (best validation at {result.best_step:,})"),
        ("accuracy, whole utterances", f"{result.accuracy_whole:.2%}"),
        ("accuracy, crops", f"{result.accuracy_crop:.2%} of {recipe.train.crop_frames} frames"),
        ("batch", _shares(result.batch_size, max(choices["devices"], place.world), accumulate)),
        ("nobody known", _threshold(result.rejection)),
        *((f"sounds changed: {line.kind}", f"{line.accuracy:.1%} of {line.sounds}") for line in changed),
        ("time", f"{result.seconds / 60:.1f} min"),
        ("checkpoint", str(result.model)),
        ("curves", str(curves)),
    ]
    show_table("Training", ("", "validation part"), rows)


def _threshold(rejection: "Rejection | None") -> str:
    if rejection is None:
        return "no threshold"
    known = "" if rejection.false_reject_rate is None else f", {rejection.false_reject_rate:.1%} of the known kept out"
    strangers = f"{rejection.false_accept_rate:.1%} of strangers let through"
    return f"below a cosine of {rejection.threshold:.3f}: {strangers}{known}"


def _refuse_with_resume(choices: dict[str, Any]) -> None:
    """Refuse what would contradict the run that goes on."""
    fixed = ("data", "recipe", "steps", "seed", "frontend", "accumulate", *AUGMENT_NAMES, *LAYOUT_NAMES)
    given = [
        "no-augment" if choices[name] is False else name.replace("_", "-")
        for name in fixed
        if choices[name] is not None
    ]
    if click.get_current_context().get_parameter_source("skip_bad") == ParameterSource.COMMANDLINE:
        given.append("skip-bad" if choices["skip_bad"] else "strict")
    if given:
        raise click.UsageError(f"--resume goes on with what the run began with; leave out --{', --'.join(given)}")


def _shares(batch_size: int, devices: int, pieces: int) -> str:
    """A batch in words: what each device takes of it, and in how many pieces."""
    if devices == pieces == 1:
        return f"{batch_size} crops"
    return f"{batch_size} crops: {devices} devices × {pieces} pieces × {batch_size // (devices * pieces)}"


@train.command(epilog=example("voxport train predict runs/best/model.pt --data corpus/ --csv predictions.csv"))
@checkpoint_argument
@data_option
@click.option("--csv", "csv_path", type=FILE_PATH, required=True, help="File to write.")
@reading_options
@needs("train")
def predict(checkpoint: Path, csv_path: Path, device: str, as_json: bool, **choices: Any) -> None:
    """Write a CSV of predictions (Id,Category) for a corpus's test part, in its order."""
    from voxport.train.checkpoint import load_checkpoint
    from voxport.train.evaluation.inference import check_csv, write_csv
    from voxport.train.evaluation.inference import predict as run_predict
    from voxport.train.training.fit import choose_device

    check_csv(csv_path)
    loaded = load_checkpoint(checkpoint)
    corpus = corpus_of(loaded, choices)
    with bar("Predicting", is_shown(choices["progress"])) as progress:
        rows = run_predict(loaded, corpus, choose_device(device), progress)
    write_csv(rows, csv_path)
    if as_json:
        emit_json({"csv": str(csv_path), "utterances": len(rows), "speakers": len({speaker for _, speaker in rows})})
    else:
        click.echo(f"{len(rows)} predictions written to {csv_path}")


@train.command(
    epilog=example(
        """
        voxport train recipes
        voxport train recipes --speakers 240 --json
        """
    )
)
@click.option("--speakers", type=click.IntRange(1), default=600, help="Speakers of the heads that are counted.")
@json_option
@needs("train")
def recipes(speakers: int, as_json: bool) -> None:
    """List the recipes: networks, parameters, and all the figures that their sources reported.

    Reported accuracies are the sources' own, on the 600-speaker homework; nothing of them is computed here.
    """
    from voxport.runtime.frontend.presets import profile
    from voxport.runtime.storage.serialization import encode
    from voxport.train.models.speaker_net import count_parameters
    from voxport.train.recipe import load_recipe, recipe_names

    listed = []
    for recipe in map(load_recipe, recipe_names()):
        count = count_parameters(recipe.model, profile(recipe.frontend).n_mels, speakers)
        listed.append((recipe, count))
    if as_json:
        emit_json([{**encode(recipe), "parameters": count, "speakers": speakers} for recipe, count in listed])
        return
    rows = []
    for recipe, count in listed:
        facts = [recipe.name, recipe.summary, f"{count:,}", f"{recipe.train.steps:,}", recipe.train.batch_size]
        reported = encode(recipe.reference) if recipe.reference else {}
        figures = [_figure(reported.get(name)) for name in ("train", "valid", "public", "private", "minutes")]
        rows.append((*facts, *figures))
    columns = ("recipe", "network", "parameters", "steps", "batch", "train", "valid", "public", "private", "minutes")
    show_table(f"Recipes, for {speakers:,} speakers; the last five columns as the sources reported them", columns, rows)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


train.add_command(show_corpus)
train.add_command(evaluate)
train.add_command(ablate)
train.add_command(profile_a_step)
