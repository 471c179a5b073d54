"""`voxport demo`: the whole way once, on speech made on the spot."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voxport.cli.common import FILE_PATH, emit_json, example, json_option, let_threads_sleep, needs, show_table
from voxport.cli.progress import is_shown, progress_option

if TYPE_CHECKING:
    from voxport.cli.demo.steps import DemoOptions
    from voxport.cli.demo.summary import Summary


@click.command(epilog=example("voxport demo --out demo-out\nvoxport demo --out demo-out --seed 3 --json"))
@click.option("--out", type=FILE_PATH, default=Path("demo-out"), help="Folder to write everything to.")
@click.option("--seed", type=click.IntRange(0), default=87, help="Seed of sentences, training and timing.")
@click.option("--steps", type=click.IntRange(1), default=280, help="Optimiser steps of the training.")
@progress_option
@json_option
@needs("demo", "cpu")
def demo(out: Path, seed: int, steps: int, progress: bool | None, as_json: bool) -> None:
    """Speak, train, export, prove, measure and identify once; takes a few minutes on two cores.

    espeak-ng speaks a small corpus, a small recipe is trained on it and exported to ONNX, the export is
    proven equal to the network and timed against it, and a process without PyTorch names the speakers
    of files that training never saw. Everything stays in the folder --out.
    """
    from voxport.cli.demo.steps import DemoOptions, check_packages

    check_packages()
    let_threads_sleep()
    summary = run_demo(out, DemoOptions(seed, steps, is_shown(progress)))
    if as_json:
        emit_json(summary)
        return
    show_table("voxport demo", ("", "result", "file"), summary.rows())


def run_demo(out: Path, options: "DemoOptions") -> "Summary":
    """Carry out every step into the folder `out`, saying on stderr what is being done.

    Raises:
        VoxportError: the folder holds something else, or a step failed; what was done until then stays.
    """
    from voxport.cli.demo import steps as demo_steps
    from voxport.cli.demo.summary import summarize
    from voxport.cli.demo.workspace import DemoFolder, write_json

    folder = DemoFolder.at(out)
    folder.prepare()
    times: dict[str, float] = {}
    with _step(1, "make speech", times):
        corpus = demo_steps.speak(folder, options)
    with _step(2, "train", times):
        fitted = demo_steps.train(folder, corpus, options)
    with _step(3, "export and prove", times):
        parity = demo_steps.export(folder, fitted.model, options)
    with _step(4, "bench latency", times):
        latency = demo_steps.bench(folder, fitted.model, options)
    with _step(5, "identify", times):
        answers = demo_steps.identify(folder, corpus)
    summary = summarize(folder, corpus, fitted, parity, latency, answers, times)
    write_json(summary, folder.summary)
    return summary


@contextmanager
def _step(number: int, title: str, times: dict[str, float]) -> Iterator[None]:
    """Say on stderr what is being done, and how long it took."""
    click.echo(f"[{number}/5] {title} …", err=True)
    began = time.perf_counter()
    yield
    times[title] = time.perf_counter() - began
    click.echo(f"[{number}/5] {title}: {times[title]:.0f} s", err=True)
