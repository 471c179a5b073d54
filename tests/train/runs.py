"""Trainings of the tests, and what they leave behind."""

from pathlib import Path
from typing import Any

import torch

from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions
from voxport.train.recipe import Recipe
from voxport.train.training.fit import FitOptions, FitResult, fit
from voxport.train.training.run_dir import RunFolder


def options(data: Path, out: Path, **more: Any) -> FitOptions:
    """On the CPU, without a bar, the features cached beside the corpus."""
    corpus = CorpusOptions(profile("homework_mel40"), cache=data.parent / "cache", progress=False)
    return FitOptions(out, corpus, **{"device": "cpu", "progress": False, **more})


def train(data: Path, recipe: Recipe, out: Path, **more: Any) -> FitResult:
    return fit(data, recipe, options(data, out, **more))


def state(folder: RunFolder) -> Any:
    """What `last.ckpt` holds."""
    return torch.load(folder.last, weights_only=True)


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def same_run(left: RunFolder, right: RunFolder) -> bool:
    """Whether the best weights and the last are the same, to the bit."""
    best = [dict(load_checkpoint(folder.model).state) for folder in (left, right)]
    return equal(*best) and equal(state(left)["state_dict"], state(right)["state_dict"])
