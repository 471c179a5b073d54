"""Options of `voxport train fit` that say how its sounds are changed."""

import click

from voxport.cli.common import FILE_PATH, together

AUGMENT_NAMES = ("augment", "noise", "rirs")  # what a run that goes on may not change

augment_options = together(
    click.option(
        "--augment/--no-augment",
        default=None,
        help="Learn from changed copies too: noise, babble, rooms, codecs, microphones, clipping, speed; each with its "
        "probability and range in the recipe's table [augment], see docs/training.md.  [default: for sound files]",
    ),
    click.option(
        "--noise", type=FILE_PATH, help="Folder of noises, such as MUSAN or RIRS_NOISES, in place of coloured noise."
    ),
    click.option(
        "--rirs",
        type=FILE_PATH,
        help="Folder of room responses, such as OpenSLR 28 (RIRS_NOISES), in place of simulated rooms.",
    ),
)
