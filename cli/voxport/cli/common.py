"""What every command shares: examples in help texts, JSON and tables on stdout, missing extras."""

import functools
import importlib.util
import json
import math
import os
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from voxport.runtime.contract import ConditionLine

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]

FILE_PATH = click.Path(path_type=Path)  # an option or argument that names a file or folder

json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")


def together(*options: Decorator) -> Decorator:
    """One decorator of several; help lists their options in this order."""
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


def example(text: str) -> str:
    r"""Return `text` (one command a line) as a command's epilog that click does not re-wrap (`\b`)."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def given_options(names: Collection[str]) -> list[str]:
    """Those of the running command's parameters `names` that the user gave, as they are typed: `--max-drop`."""
    ctx = click.get_current_context()
    chosen = [each for each in ctx.command.params if each.name in names]
    return [each.opts[0] for each in chosen if ctx.get_parameter_source(str(each.name)) is ParameterSource.COMMANDLINE]


def needs(*extras: str) -> Callable[[F], F]:
    """Decorate a command's callback: where a package is missing or does not load, name the pip command.

    The decorated function raises BackendError in place of what the import of a third-party package raised.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except Exception as problem:
                from voxport.runtime.errors import BackendError
                from voxport.runtime.imports import explain_import

                failure = explain_import(problem)
                if failure is None:
                    raise
                message = _missing(failure.module, extras) if failure.is_missing else str(failure)
                raise BackendError(message) from problem

        return cast(F, wrapper)

    return decorate


def let_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait for each other; call it before anything imports torch.

    By default they spin. Where another process wants a core too, a training step was then seen to take
    six times as long; on an idle machine the two are equal. A user's own setting is kept.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _missing(package: str, extras: Sequence[str]) -> str:
    # With onnxruntime-gpu already there, naming `cpu` would install the second ONNX Runtime over it.
    has_onnxruntime = importlib.util.find_spec("onnxruntime") is not None
    wanted = [extra for extra in extras if not (extra == "cpu" and has_onnxruntime)] or list(extras)
    return f'this needs the package {package}, which is not installed: pip install "voxport[{",".join(wanted)}]"'


def emit_json(value: object) -> None:
    """Print `value` (dataclasses, paths and NumPy values included) as one JSON document on stdout."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=ascii_only, allow_nan=False))


def _plain(value: Any) -> Any:
    """Make of `value` what JSON can hold; NaN and infinities, which it cannot, become null."""
    from voxport.runtime.storage.serialization import encode

    value = encode(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays, torch tensors
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout: with rich at a terminal, as aligned plain text in a pipe or without rich."""
    cells = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left", title_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if _numeric(cells, number) else "left", overflow="fold")
        for row in cells:
            table.add_row(*row)
        Console(file=sys.stdout, markup=False, highlight=False).print(table)
        return
    click.echo(_plain_table(title, columns, cells))


def _numeric(cells: Sequence[Sequence[str]], column: int) -> bool:
    return bool(cells) and all(row[column][:1].isdigit() or row[column][:1] in "+-−" for row in cells)


def _plain_table(title: str, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    lines = [title] if title else []
    for row in (columns, ["-" * width for width in widths], *cells):
        padded = []
        for number, cell in enumerate(row):
            space = " " * (widths[number] - _width(cell))
            padded.append(space + cell if _numeric(cells, number) else cell + space)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _width(text: str) -> int:
    """Columns of a terminal that `text` takes: Korean and Chinese letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


CONDITION_COLUMNS = ("kind", "sounds", "right", "EER", "known under a wrong name", "wrong answers claim")


def condition_row(line: "ConditionLine") -> tuple[object, ...]:
    """One line of a contract's table of conditions."""
    shares = (line.accuracy, line.equal_error_rate, line.wrong_known)
    claimed = "–" if line.wrong_probability is None else f"{line.wrong_probability:.2f}"
    return (line.kind, line.sounds, *("–" if share is None else f"{100 * share:.1f} %" for share in shares), claimed)
