"""What a person is shown of long work and of an evaluation."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from voxport.runtime.errors import VoxportError
from voxport.runtime.schema import encode
from voxport.train import plots
from voxport.train.evaluate import Evaluation
from voxport.train.evaluate import Progress as Report


@contextlib.contextmanager
def progress_bar(title: str, shown: bool) -> Iterator[Report]:
    """A bar on stderr; the function that it yields takes (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def write_evaluation(
    evaluation: Evaluation, confusion: npt.NDArray[np.int64], labels: tuple[str, ...], out: Path
) -> None:
    """Write evaluation.json, confusion.png and lengths.png into the folder `out`."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        part = out / ".evaluation.json.part"
        part.write_text(json.dumps(encode(evaluation), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, out / "evaluation.json")
        title = f"{evaluation.accuracy_whole:.1%} of {evaluation.utterances} whole utterances"
        plots.plot_confusion(confusion, labels, title, out / "confusion.png")
        plots.plot_lengths(evaluation, out / "lengths.png")
    except OSError as problem:
        raise VoxportError(f"{out}: the report cannot be written ({problem})") from problem
