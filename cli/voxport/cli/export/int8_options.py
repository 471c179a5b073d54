"""The options of int8: how activations get their scales, from which recordings, and which layers stay in float."""

from typing import TYPE_CHECKING, Any

import click

from voxport.cli.common import FILE_PATH, given_options, together
from voxport.cli.progress import is_shown

if TYPE_CHECKING:
    from voxport.export.quantization.quantizer import QuantizeOptions

_FIELDS = {  # options by the fields of QuantizeOptions
    "scheme": "scheme",
    "calibration": "data",
    "calibration_count": "count",
    "calibration_method": "method",
    "keep_float": "keep_float",
    "sensitivity_budget": "budget",
}


def _layer_count(_: click.Context, __: click.Parameter, value: str) -> int | str:
    """A number of layers, or `auto`."""
    if value != "auto" and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number of layers nor auto")
    return value if value == "auto" else int(value)


int8_options = together(
    click.option(
        "--quantize",
        "scheme",
        type=click.Choice(["dynamic", "static"]),
        default="dynamic",
        help="int8: give activations one scale per frame as they come, or one per layer from a calibration.",
    ),
    click.option(
        "--calibration",
        type=FILE_PATH,
        help="int8: corpus of real utterances. Default: the training part of the checkpoint's own.",
    ),
    click.option(
        "--calibration-count", type=click.IntRange(1), default=64, help="int8: number of calibration utterances."
    ),
    click.option(
        "--calibration-method",
        type=click.Choice(["max", "percentile", "entropy"]),
        default="max",
        help="int8, static: how ranges are chosen from the magnitudes seen.",
    ),
    click.option(
        "--keep-float",
        callback=_layer_count,
        metavar="N|auto",
        default="auto",
        help="int8: how many of the most harmful layers stay in float; auto: as few as the budget demands.",
    ),
    click.option(
        "--sensitivity-budget",
        type=float,
        default=1e-3,
        help="int8: mean 1 - cosine of embeddings that --keep-float auto allows.",
    ),
)


def int8_choice(choices: dict[str, Any]) -> "QuantizeOptions | None":
    """Take the options above out of `choices`; None where `--precision` is not int8, which then takes none of them."""
    chosen = {field: choices.pop(name) for name, field in _FIELDS.items()}
    if choices["precision"] != "int8":
        if given := given_options(_FIELDS):
            raise click.UsageError(f"{', '.join(given)}: of --precision int8 alone")
        return None
    if chosen["scheme"] == "dynamic" and given_options(("calibration_method",)):
        raise click.UsageError("--calibration-method chooses ranges for --quantize static")
    from voxport.export.quantization.quantizer import QuantizeOptions

    return QuantizeOptions(**chosen, cache=choices["cache"], progress=is_shown(choices["progress"]))
