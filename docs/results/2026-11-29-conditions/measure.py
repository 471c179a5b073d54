"""Answers of a checkpoint, in PyTorch, to the sounds of `voxport bench conditions`.

python measure.py train CORPUS RUN SEED      the demo's recipe, 280 steps, with the usual augmentation
python measure.py judge RUN/model.pt HELD_OUT
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch

from voxport.benchmarks.conditions.measure import CorpusSurroundings, read_files
from voxport.benchmarks.conditions.runner import CONDITIONS
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile
from voxport.runtime.results import softmax
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions
from voxport.train.data.collation import WholeUtterances
from voxport.train.evaluation.inference import answer_whole
from voxport.train.recipe import load_recipe
from voxport.train.training.fit import FitOptions, fit, with_steps

SEED = 1  # of the changes


def train(corpus: Path, run: Path, seed: int) -> None:
    """A run of the demo's recipe."""
    recipe = with_steps(load_recipe("demo"), 280, seed)
    recipe = dataclasses.replace(recipe, augment=recipe.augment_for(sounds=True))
    fit(corpus, recipe, FitOptions(run, CorpusOptions(profile(recipe.frontend_for(sounds=True))), device="cpu"))


def judge(model: Path, held_out: Path) -> None:
    """Share named rightly, what wrong answers claim, and who is known, under every condition."""
    checkpoint = load_checkpoint(model)
    files = read_files(held_out, checkpoint.frontend.sample_rate, None)
    around = CorpusSurroundings(files, checkpoint.frontend.sample_rate, SEED)
    labels = np.array([checkpoint.labels.index(speaker) for speaker in files.speakers])
    for condition in CONDITIONS:
        rows = [compute_features(changed, checkpoint.frontend) for changed in around.changed(condition)]
        whole = WholeUtterances(lambda i, rows=rows: rows[i], range(len(rows)), [len(each) for each in rows])
        scores = answer_whole(checkpoint, whole).scores
        wrong = scores.argmax(axis=1) != labels
        claimed = np.array([softmax(row, checkpoint.temperature).max() for row in scores])
        threshold = -1.0 if checkpoint.rejection is None else checkpoint.rejection.threshold
        known = scores.max(axis=1) / checkpoint.recipe.model.am_scale >= threshold
        said = f"{np.median(claimed[wrong]):.2f}" if wrong.any() else "-"
        line = f"right {1 - wrong.mean():6.1%}  wrong claim {said:>4}  known {known.mean():6.1%}"
        sys.stdout.write(f"{condition.name:28} {line}  known under a wrong name {(known & wrong).mean():.1%}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        judge(Path(sys.argv[2]), Path(sys.argv[3]))
