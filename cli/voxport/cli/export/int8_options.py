"""The options of int8: how activations get their scales, from which recordings, and which layers stay in float."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from voxport.cli.common import given_options, needs
from voxport.cli.export.options import is_shown

F = TypeVar("F", bound=Callable[..., Any])

_NAMES = ("scheme", "calibration", "calibration_count", "calibration_method", "keep_float", "sensitivity_budget")


def _layer_count(_: click.Context, __: click.Parameter, value: str) -> int | str:
    """A number of layers, or `auto`."""
    if value != "auto" and not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number of layers nor auto")
    return value if value == "auto" else int(value)


def int8_options(command: F) -> F:
    """The options of `--precision int8`. They reach `command` as one, `quantize`: a QuantizeOptions or None."""
    wrapped = _as_one(command)
    for option in (
        click.option(
            "--sensitivity-budget",
            type=float,
            default=1e-3,
            show_default=True,
            help="int8: mean 1 - cosine of embeddings that --keep-float auto allows.",
        ),
        click.option(
            "--keep-float",
            callback=_layer_count,
            metavar="N|auto",
            default="auto",
            show_default=True,
            help="int8: how many of the most harmful layers stay in float; auto: as few as the budget demands.",
        ),
        click.option(
            "--calibration-method",
            type=click.Choice(["max", "percentile", "entropy"]),
            default="max",
            show_default=True,
            help="int8, static: how ranges are chosen from the magnitudes seen.",
        ),
        click.option(
            "--calibration-count", type=click.IntRange(1), default=64, show_default=True, help="int8: utterances."
        ),
        click.option(
            "--calibration",
            type=click.Path(path_type=Path),
            help="int8: corpus of real utterances; default: the training part of the checkpoint's own.",
        ),
        click.option(
            "--quantize",
            "scheme",
            type=click.Choice(["dynamic", "static"]),
            default="dynamic",
            show_default=True,
            help="int8: activations get one scale per frame as they come, or one per layer from a calibration.",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def _as_one(command: F) -> F:
    @functools.wraps(command)
    @needs("export", "cpu")
    def wrapper(**choices: Any) -> Any:
        chosen = {name: choices.pop(name) for name in _NAMES}
        if choices["precision"] != "int8":
            _refuse_without_int8()
            return command(quantize=None, **choices)
        if chosen["scheme"] == "dynamic" and given_options(("calibration_method",)):
            raise click.UsageError("--calibration-method chooses ranges for --quantize static")
        from voxport.export.quantization.quantizer import QuantizeOptions

        quantize = QuantizeOptions(
            chosen["scheme"],
            chosen["calibration"],
            chosen["calibration_count"],
            chosen["calibration_method"],
            chosen["keep_float"],
            chosen["sensitivity_budget"],
            choices["cache"],
            is_shown(choices["progress"]),
        )
        return command(quantize=quantize, **choices)

    return cast(F, wrapper)


def _refuse_without_int8() -> None:
    if given := given_options(_NAMES):
        raise click.UsageError(f"{', '.join(given)}: of --precision int8 alone")
