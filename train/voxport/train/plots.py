"""Pictures of a run and of an evaluation."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from voxport.runtime.errors import VoxportError
from voxport.train.evaluation.evaluate import Evaluation
from voxport.train.evaluation.intervals import wilson
from voxport.train.evaluation.lengths import LengthRow
from voxport.train.evaluation.verification import Det, equal_error_rate
from voxport.train.training.run_dir import RunFolder


def read_log(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """Every logged quantity as (step, value), merged over a run's resumptions; the latest value of a step wins.

    A line that a killed run left unfinished is passed over.
    """
    curves: dict[str, dict[int, float]] = {}
    versions = sorted(folder.logs.glob("csv/version_*/metrics.csv"), key=lambda path: int(path.parent.name[8:]))
    if not versions:
        raise VoxportError(f"{folder.path}: no training log in logs/csv")
    for path in versions:
        lines = path.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
        for row in csv.DictReader(lines):
            for name, value in row.items():
                if name not in ("step", "epoch") and value:
                    curves.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(values.items()) for name, values in curves.items()}


def plot_run(folder: RunFolder, path: Path) -> None:
    """Loss, and accuracies in training and validation, against the optimiser step."""
    curves = read_log(folder)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*_xy(curves.get("train/loss", [])), color="tab:blue", linewidth=1)
    left.set(title="Training loss", xlabel="optimiser step", ylabel="loss", ylim=(0, None))
    right.plot(*_xy(curves.get("train/accuracy", [])), color="0.75", linewidth=1, label="training crops, one batch")
    for name, label in (("crop", "validation crops"), ("whole", "validation, whole utterances")):
        if f"valid/accuracy_{name}" in curves:
            right.plot(*_xy(curves[f"valid/accuracy_{name}"]), marker="o", markersize=3, label=label)
    right.set(title="Accuracy", xlabel="optimiser step", ylim=(0, 1.02))
    right.legend(loc="lower right", fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=130)


def plot_confusion(confusion: npt.NDArray[np.int64], labels: tuple[str, ...], title: str, path: Path) -> None:
    """Row-normalised confusion; names and shares are written where there is room for them."""
    totals = np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    share = confusion / totals
    few = len(labels) <= 24
    side = 0.38 * len(labels) + 2.2 if few else 8.0
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axis.set(title=title, xlabel="answered", ylabel="true speaker")
    if few:
        axis.set_xticks(range(len(labels)), labels, rotation=90, fontsize=8)
        axis.set_yticks(range(len(labels)), labels, fontsize=8)
        for row, column in np.argwhere(confusion > 0):
            colour = "white" if share[row, column] > 0.5 else "black"
            axis.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axis, shrink=0.8, label="share of the speaker's utterances")
    figure.savefig(path, dpi=130)


def plot_lengths(evaluation: Evaluation, path: Path) -> None:
    """Accuracy on whole utterances in each bucket of length, with 95 % Wilson intervals."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    names = [f"{b.low}–{b.high - 1}" if b.high is not None else f"{b.low}+" for b in evaluation.by_length]
    values = [bucket.accuracy for bucket in evaluation.by_length]
    intervals = [wilson(b.accuracy, b.utterances) for b in evaluation.by_length]
    errors: Any = np.abs(np.array(intervals).T - values)
    axis.bar(names, values, yerr=errors, capsize=4, color="tab:blue", alpha=0.8)
    for i, bucket in enumerate(evaluation.by_length):
        axis.text(i, 0.02, f"{bucket.utterances}", ha="center", color="white", fontsize=8)
    axis.set(title="Accuracy against length (utterances in each bar)", xlabel="frames", ylim=(0, 1.02))
    figure.savefig(path, dpi=130)


def plot_pieces(known: Sequence[LengthRow], strangers: Sequence[LengthRow], path: Path) -> None:
    """Accuracy, calibration error and equal error rate against the length of a piece; whole utterances at the right."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    lengths = sorted({row.frames for row in (*known, *strangers) if row.frames is not None})
    places = {length: place for place, length in enumerate((*lengths, None))}
    series = [(known, "accuracy", axes[0], ""), (known, "calibration_error", axes[1], "")]
    series += [(known, "eer", axes[2], ", known speakers"), (strangers, "eer", axes[2], ", strangers")]
    for rows, name, axis, whose in series:
        for heard, style in (("alone", "-o"), ("cut", "--s")):
            found = [row for row in rows if row.heard in (heard, "whole") and getattr(row, name) is not None]
            if any(row.heard == heard for row in found):
                label = {"alone": "as a sound of its own", "cut": "cut from the whole's features"}[heard] + whose
                values = [100 * getattr(row, name) for row in found]
                axis.plot([places[row.frames] for row in found], values, style, markersize=3, label=label)
    for axis, title in zip(axes, ("Right [%]", "Calibration error [%]", "Equal error rate [%]"), strict=True):
        axis.set(title=title, xlabel="frames heard", ylim=(0, None))
        axis.set_xticks(list(places.values()), [str(length) if length else "all" for length in places])
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(loc="best", fontsize=7)  # unless told so, matplotlib warns where a busy machine takes a second
    figure.savefig(path, dpi=130)


def plot_det(curves: Mapping[str, Det], path: Path) -> None:
    """DET curves by name, on axes where normally distributed scores give straight lines."""
    figure = Figure(figsize=(5.2, 5), layout="constrained")
    axis = figure.subplots()
    ticks = np.array([0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
    low, high = _probit(np.array([0.0005, 0.65]))
    for name, det in curves.items():
        label = f"{name}: EER {equal_error_rate(det)[0]:.2%}"
        axis.plot(_probit(det.false_accept), _probit(det.miss), linewidth=1.2, label=label)
    axis.plot([low, high], [low, high], color="0.8", linewidth=0.8, zorder=0)
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks(list(_probit(ticks)), [f"{100 * tick:g}" for tick in ticks])
    axis.set(title="Detection error trade-off", xlabel="non-targets accepted [%]", ylabel="targets missed [%]")
    axis.set(xlim=(low, high), ylim=(low, high))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=130)


def _probit(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Standard normal quantiles; 0 and 1, which have none, are moved beyond the picture's edge."""
    clipped = np.clip(shares, 1e-5, 1 - 1e-5)
    return np.asarray(torch.special.ndtri(torch.from_numpy(clipped)).numpy())


def plot_scores(target: npt.NDArray[np.bool_], cosine: npt.NDArray[np.float32], threshold: float, path: Path) -> None:
    """Distributions of the cosines of target and of non-target trials; `threshold` is that of the EER."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    bins: list[float] = np.linspace(min(-0.2, float(cosine.min())), 1.0, 81).tolist()
    for kind, label, colour in ((False, "two speakers", "tab:orange"), (True, "one speaker", "tab:blue")):
        values = cosine[target == kind]
        axis.hist(values, bins, density=True, alpha=0.6, color=colour, label=f"{label} ({len(values):,} trials)")
    axis.axvline(threshold, color="black", linewidth=1, linestyle="--", label=f"threshold of the EER, {threshold:.2f}")
    axis.set(title="Cosine of two utterances", xlabel="cosine", ylabel="density", yticks=[])
    axis.legend(loc="best", fontsize=8)
    figure.savefig(path, dpi=130)


def _xy(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
