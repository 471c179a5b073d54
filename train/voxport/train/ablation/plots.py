"""Pictures of an ablation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from voxport.train.ablation.runner import RunResult, run_folder
from voxport.train.evaluation.breakdown import Bucket
from voxport.train.plots import read_log


def plot_accuracy(runs: Mapping[str, Sequence[RunResult]], path: Path) -> None:
    """Accuracy of each recipe on whole utterances and on crops: a dot for each seed, a bar for their mean."""
    figure = Figure(figsize=(8, 1.2 + 0.5 * len(runs)), layout="constrained")
    axis = figure.subplots()
    for name, colour, shift in (("accuracy_whole", "tab:blue", -0.18), ("accuracy_crop", "tab:orange", 0.18)):
        label = "whole utterances" if name == "accuracy_whole" else "crops"
        values = [[100 * float(getattr(run, name)) for run in group] for group in runs.values()]
        places = [row + shift for row in range(len(runs))]
        means = [sum(group) / len(group) for group in values]
        axis.barh(places, means, height=0.34, color=colour, alpha=0.35, label=label)
        for place, group in zip(places, values, strict=True):
            axis.plot(group, [place] * len(group), "o", color=colour, markersize=4)
    axis.set_yticks(range(len(runs)), list(runs))
    axis.invert_yaxis()
    axis.set(title="Accuracy on validation utterances (a dot per seed)", xlabel="accuracy [%]", xlim=(0, 101))
    axis.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside lower right", ncols=2, fontsize=8)
    figure.savefig(path, dpi=130)


def plot_curves(out: Path, runs: Sequence[RunResult], path: Path) -> None:
    """Accuracy on whole validation utterances against the optimiser step, a line per run."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    colours = _colours([run.recipe for run in runs])
    named: set[str] = set()
    for run in runs:
        points = read_log(run_folder(out, run.recipe, run.seed)).get("valid/accuracy_whole", [])
        label = None if run.recipe in named else run.recipe
        named.add(run.recipe)
        steps, values = [step for step, _ in points], [100 * value for _, value in points]
        axis.plot(steps, values, marker="o", markersize=3, linewidth=1.2, color=colours[run.recipe], label=label)
    axis.set(title="Whole validation utterances", xlabel="optimiser step", ylabel="accuracy [%]", ylim=(0, 101))
    axis.grid(alpha=0.3)
    axis.legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=130)


def plot_lengths(lengths: Mapping[str, Sequence[Bucket]], path: Path) -> None:
    """Accuracy of each recipe against the length of whole utterances."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    edges = sorted({(bucket.low, bucket.high) for buckets in lengths.values() for bucket in buckets})
    colours = _colours(list(lengths))
    for name, buckets in lengths.items():
        places = [edges.index((bucket.low, bucket.high)) for bucket in buckets]
        values = [100 * bucket.accuracy for bucket in buckets]
        axis.plot(places, values, marker="o", markersize=4, linewidth=1.2, color=colours[name], label=name)
    names = [f"{low}–{high - 1}" if high is not None else f"{low}+" for low, high in edges]
    axis.set_xticks(range(len(edges)), names)
    axis.set(title="Accuracy against length", xlabel="frames", ylabel="accuracy [%]", ylim=(0, 101))
    axis.grid(alpha=0.3)
    axis.legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=130)


def _colours(names: Sequence[str]) -> dict[str, tuple[float, float, float, float]]:
    """A colour for each different name; from the tenth on they come again."""
    different = list(dict.fromkeys(names))
    return {name: colormaps["tab10"](i % 10) for i, name in enumerate(different)}
