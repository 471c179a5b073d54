"""`voxport demo`: the whole way once, on speech made on the spot."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table


@click.command(epilog=example("voxport demo --out demo-out\nvoxport demo --out demo-out --seed 3 --json"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo-out"), show_default=True, help="Folder.")
@click.option(
    "--seed", type=click.IntRange(0), default=87, show_default=True, help="Of sentences, training and timing."
)
@click.option("--steps", type=click.IntRange(1), default=160, show_default=True, help="Optimiser steps.")
@click.option("--progress/--no-progress", default=None, help="Progress bars; default: at a terminal.")
@json_option
@needs("demo", "cpu")
def demo(out: Path, seed: int, steps: int, progress: bool | None, as_json: bool) -> None:
    """Speak, train, export, prove, measure and identify once; takes a few minutes on two cores.

    espeak-ng speaks a small corpus, a small recipe is trained on it and exported to ONNX, the export is
    proven equal to the network and timed against it, and a process without PyTorch names the speakers
    of files that training never saw. Everything stays in the folder --out.
    """
    from voxport.cli import demo_steps as steps_of
    from voxport.cli.demo_folder import DemoFolder, write_json
    from voxport.cli.demo_summary import summarize

    steps_of.check_packages()
    folder = DemoFolder.at(out)
    folder.prepare()
    shown = sys.stderr.isatty() if progress is None else progress
    options = steps_of.DemoOptions(seed, steps, shown)
    times: dict[str, float] = {}
    with _step(1, "make speech", times):
        corpus = steps_of.speak(folder, options)
    with _step(2, "train", times):
        fitted = steps_of.train(folder, corpus, options)
    with _step(3, "export and prove", times):
        parity = steps_of.export(folder, fitted.model, options)
    with _step(4, "bench latency", times):
        latency = steps_of.bench(folder, fitted.model, options)
    with _step(5, "identify", times):
        answers = steps_of.identify(folder, corpus)
    summary = summarize(folder, corpus, fitted, parity, latency, answers, times)
    write_json(summary, folder.summary)
    if as_json:
        emit_json(summary)
        return
    show_table("voxport demo", ("", "result", "file"), summary.rows())


@contextmanager
def _step(number: int, title: str, times: dict[str, float]) -> Iterator[Any]:
    """Say on stderr what is being done, and how long it took."""
    click.echo(f"[{number}/5] {title} …", err=True)
    began = time.perf_counter()
    yield
    times[title] = time.perf_counter() - began
    click.echo(f"[{number}/5] {title}: {times[title]:.0f} s", err=True)
