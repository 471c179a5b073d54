"""What the commands of `voxport bench` share: checks of outputs, and how reports are written and shown."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voxport.cli.common import emit_json, show_table

if TYPE_CHECKING:
    from voxport.benchmarks.documents import Document
    from voxport.benchmarks.reporting.page import Entry


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


def finish(report: "Document", output: Path | None, as_json: bool, more: Iterable[Path | None] = ()) -> None:
    """Write `report` to `output`, show it, and name it with what else was written."""
    from voxport.benchmarks.core.writing import write_json
    from voxport.runtime.storage.serialization import encode

    plain = encode(report)
    if output is not None:
        write_json(plain, output)
    if as_json:
        plain.pop("blocks", None)  # raw samples, for files alone
        emit_json(plain)
        return
    show_document(report)
    for path in (output, *more):
        if path is not None:
            click.echo(f"wrote {path}")


def show_document(document: "Document") -> None:
    """Print what `voxport bench report` makes a page of, without the charts, whose figures its tables hold.

    The headline comes last, where a terminal stands still.
    """
    from voxport.benchmarks.reporting.build import part_of
    from voxport.benchmarks.reporting.page import Chip, Facts, Notes, Table, Text

    def plain(entry: "Entry") -> str:
        return (entry.text if isinstance(entry, Chip) else entry).replace("\u00a0", " ")

    part = part_of(document)
    for section in reversed(part.sections):
        title = section.title
        for block in section.blocks:
            if isinstance(block, (Table, Facts)):
                columns, rows = (("", ""), block.items) if isinstance(block, Facts) else (block.columns, block.rows)
                heading = ": ".join(filter(None, (title, block.caption if isinstance(block, Table) else "")))
                show_table(heading, columns, [[plain(entry) for entry in row] for row in rows])
            elif isinstance(block, (Notes, Text)):
                lines = block.items if isinstance(block, Notes) else (block.text,)
                click.echo("\n".join([title, *(f"- {line}" for line in lines)] if title else lines))
            else:
                continue
            click.echo()
            title = ""
    show_table("", ("", "", ""), [(plain(tile.value), tile.label, plain(tile.detail)) for tile in part.tiles])
    click.echo(f"\n{part.headline}\n({part.kicker})")
