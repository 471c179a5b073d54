"""Options of `voxport train fit` that say how its sounds are changed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from voxport.train.recipe import Recipe

F = TypeVar("F", bound=Callable[..., Any])

AUGMENT_NAMES = ("augment", "noise", "rirs")  # what a run that goes on may not change


def augment_options(command: F) -> F:
    """Add --augment, --noise and --rirs."""
    command = click.option(
        "--rirs",
        type=click.Path(path_type=Path),
        help="Folder of room responses, such as OpenSLR 28 (RIRS_NOISES), in place of simulated rooms.",
    )(command)
    command = click.option(
        "--noise",
        type=click.Path(path_type=Path),
        help="Folder of noises, such as MUSAN or RIRS_NOISES, in place of coloured noise.",
    )(command)
    return click.option(
        "--augment/--no-augment",
        default=None,
        help="Learn from changed copies too: noise, babble, rooms, codecs, microphones, clipping, speed; each with its "
        "probability and range in the recipe's table [augment], see docs/training.md.  [default: for sound files]",
    )(command)


def augmented(recipe: "Recipe", sounds: bool, choices: dict[str, Any]) -> "Recipe":
    """`recipe` with the augmentation that the user wants, for a corpus of `sounds` or of stored features."""
    from voxport.train.effects.options import AugmentOptions

    wish, noise, rirs = choices["augment"], choices["noise"], choices["rirs"]
    augment = None if wish is False else recipe.augment_for(sounds=sounds)
    if wish and augment is None:
        augment = AugmentOptions()
    if noise is None and rirs is None:
        return dataclasses.replace(recipe, augment=augment)
    if augment is None or not sounds:
        raise click.UsageError(
            "--noise and --rirs change sounds: leave out --no-augment, and give --data with sound files"
        )
    noise_folder = augment.noise_folder if noise is None else str(noise.absolute())
    rir_folder = augment.rir_folder if rirs is None else str(rirs.absolute())
    return dataclasses.replace(
        recipe, augment=dataclasses.replace(augment, noise_folder=noise_folder, rir_folder=rir_folder)
    )
