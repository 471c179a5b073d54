"""`voxport train ablate`: many recipes on one corpus, in one table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, needs, show_table
from voxport.cli.progress import is_shown
from voxport.cli.train.options import (
    corpus_options,
    data_option,
    default_frontend,
    frontend_option,
    layout_options_of,
    reading_options,
    say,
)


@click.command(
    epilog=example(
        """
        voxport train ablate --data corpus/ --steps 800 --out ablation/
        voxport train ablate --data corpus/ --recipes sap_am,sap_am_bn,mine.toml --seeds 2 --out ablation/
        """
    )
)
@data_option
@click.option("--out", type=FILE_PATH, required=True, help="Folder of all runs and of the table.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps of every recipe, in place of its own.")
@click.option(
    "--recipes",
    multiple=True,
    help="Names and paths of recipes, with commas or repeated; default: the whole reference table.",
)
@click.option("--seeds", type=click.IntRange(1), default=1, help="Runs of each recipe.")
@frontend_option
@reading_options
@needs("train")
def ablate(data: Path | None, out: Path, recipes: tuple[str, ...], as_json: bool, **choices: Any) -> None:
    """Train the reference table, or recipes of your own, and compare them.

    Give the same command again to go on after a stop: finished runs are kept, an unfinished one is
    resumed. The table has the recipes that the command names: to add one, name the others too.
    """
    from voxport.train.ablation.report import COLUMNS, cells, notes, rows, write_ablation
    from voxport.train.ablation.runner import REFERENCE_TABLE, AblationOptions
    from voxport.train.ablation.runner import ablate as run_ablation
    from voxport.train.recipe import load_recipe

    if data is None:
        raise click.UsageError("--data is needed: the corpus to train on")
    given = [name.strip() for part in recipes for name in part.split(",")]
    names = tuple(filter(None, given)) if recipes else REFERENCE_TABLE
    if not names:
        raise click.UsageError("--recipes names no recipe")
    shown = is_shown(choices["progress"])
    own = choices["frontend"] is None
    first = load_recipe(names[0])
    name = default_frontend(first, data, layout_options_of(choices)) if own else first.frontend
    corpus = corpus_options(choices, name, shown)
    corpus = replace(corpus, announce=say)
    options = AblationOptions(out, corpus, own, names, choices["steps"], choices["seeds"], choices["device"], shown)
    ablation = run_ablation(data, options, lambda line: click.echo(line, err=True), lambda it: write_ablation(it, out))
    write_ablation(ablation, out)
    if as_json:
        emit_json({"runs": ablation.runs, "rows": rows(ablation), "notes": notes(ablation)})
        return
    show_table("Ablation", COLUMNS, map(cells, rows(ablation)))
    for note in notes(ablation):
        click.echo(f"- {note}")
    click.echo(f"table, JSON and plots: {out}")
