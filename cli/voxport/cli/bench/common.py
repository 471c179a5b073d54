"""What the commands of `voxport bench` share: checks of outputs, numbers as text."""

import os
from pathlib import Path

import click


def check_output(option: str, path: Path | None) -> None:
    """Find out before minutes of measuring that their result could not be written."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path.parent}: no such folder; make it first", param_hint=option)
    if path.is_dir():
        raise click.BadParameter(f"{path} is a folder; name a file in it", param_hint=option)
    if not os.access(path.absolute().parent, os.W_OK):
        raise click.BadParameter(f"{path.absolute().parent}: may not be written to", param_hint=option)


def number(value: float | None, digits: int = 3) -> str:
    """`value` with this many significant digits, or n/a."""
    if value is None:
        return "n/a"
    text = f"{value:.{digits}g}"
    return f"{value:,.0f}" if "e" in text and abs(value) >= 1 else text


def with_interval(value: float, low: float | None, high: float | None, unit: str = "") -> str:
    """`1.23 [1.10, 1.37]`, or the value alone where there is no interval."""
    text = f"{number(value)}{unit}"
    return text if low is None or high is None else f"{text} [{number(low)}, {number(high)}]"


def size(value: int | None) -> str:
    """Bytes in MB."""
    return "n/a" if value is None else f"{value / 1e6:,.0f} MB"
