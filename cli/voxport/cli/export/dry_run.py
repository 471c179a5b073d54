"""`--dry-run` of every `voxport export …`: what would be built, without building or writing it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from voxport.cli.common import emit_json, show_table

if TYPE_CHECKING:
    from voxport.export.dry_run import Preview

F = TypeVar("F", bound=Callable[..., Any])


def dry_run_option(command: F) -> F:
    """`--dry-run`, which reaches `command` as `dry_run`."""
    text = "Only say what would be built, checked and written; nothing is."
    return click.option("--dry-run", is_flag=True, help=text)(command)


def show_preview(found: "Preview", as_json: bool) -> None:
    """Print what would be built, as JSON or as a table."""
    if as_json:
        emit_json(found)
        return
    first = f"{found.writes[0]} ({_standing(found)})"
    rows = [("kind", found.target)]
    rows += [("writes", path) for path in (first, *found.writes[1:])]
    rows.append(("checkpoint", f"{found.checkpoint}: recipe {found.recipe}, {found.speakers} speakers"))
    rows += [("input", str(tensor)) for tensor in found.inputs]
    rows += [("output", str(tensor)) for tensor in found.outputs]
    rows.append(("precision", found.precision))
    if found.opset is not None:
        rows.append(("opset", str(found.opset)))
    rows.append(("length in frames", f"{found.min_frames} to {found.max_frames}"))
    rows.append(("length in seconds", f"{found.min_seconds:.2f} to {found.max_seconds:.2f}"))
    rows.append(("gate", f"{found.utterances} synthetic utterances in {found.runs} runs, alone and in padded batches"))
    rows.append(("real utterances", found.real))
    rows.append(("accuracy", found.accuracy))
    rows += [("note", text) for text in found.notes]
    show_table("Would be built", ("", ""), rows)


def _standing(found: "Preview") -> str:
    if not found.exists:
        return "new"
    return "exists, and would be replaced" if found.replaced else "exists, and would be refused without --force"
