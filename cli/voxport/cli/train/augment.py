"""Options of `voxport train fit` that say how its sounds are changed."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from voxport.cli.common import FILE_PATH

F = TypeVar("F", bound=Callable[..., Any])

AUGMENT_NAMES = ("augment", "noise", "rirs")  # what a run that goes on may not change


def augment_options(command: F) -> F:
    """Add --augment, --noise and --rirs."""
    command = click.option(
        "--rirs",
        type=FILE_PATH,
        help="Folder of room responses, such as OpenSLR 28 (RIRS_NOISES), in place of simulated rooms.",
    )(command)
    command = click.option(
        "--noise", type=FILE_PATH, help="Folder of noises, such as MUSAN or RIRS_NOISES, in place of coloured noise."
    )(command)
    return click.option(
        "--augment/--no-augment",
        default=None,
        help="Learn from changed copies too: noise, babble, rooms, codecs, microphones, clipping, speed; each with its "
        "probability and range in the recipe's table [augment], see docs/training.md.  [default: for sound files]",
    )(command)
