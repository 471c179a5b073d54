"""Training end to end on a small corpus: it learns, resumes exactly, and refuses what would spoil a run."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.train.corpora import RECIPE, write_homework, write_recipe
from voxport.runtime.profiles import profile
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions
from voxport.train.fit import FitOptions, FitResult, fit
from voxport.train.module import TrainingError
from voxport.train.recipe import Recipe, load_recipe
from voxport.train.run import RunFolder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_homework(tmp_path / "corpus")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(str(write_recipe(tmp_path)))


def run(data: Path, recipe: Recipe, out: Path, resume: bool = False) -> FitResult:
    corpus = CorpusOptions(profile("homework_mel40"), cache=data.parent / "cache", progress=False)
    return fit(data, recipe, FitOptions(out, corpus, device="cpu", resume=resume, progress=False))


def same_weights(left: Path, right: Path) -> bool:
    a, b = load_checkpoint(left).state, load_checkpoint(right).state
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_learns_to_tell_speakers_apart(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    longer = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=60, validate_every=30))
    result = run(data, longer, tmp_path / "run")
    assert result.accuracy_whole >= 0.75  # chance is 0.25
    checkpoint = load_checkpoint(result.model)
    assert checkpoint.labels == tuple(f"id{i:05}" for i in range(4))
    assert checkpoint.step == result.best_step
    assert not set(checkpoint.split.train) & set(checkpoint.split.valid)
    assert len(checkpoint.split.train) + len(checkpoint.split.valid) == 24


def test_two_runs_give_the_same_weights(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    first, second = run(data, recipe, tmp_path / "a"), run(data, recipe, tmp_path / "b")
    assert same_weights(first.model, second.model)
    other = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, seed=1))
    assert not same_weights(first.model, run(data, other, tmp_path / "c").model)


def test_killed_run_resumes_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path, RECIPE.replace("steps = 24", "steps = 120").replace("save_every = 4", "save_every = 1")
    )
    whole = run(data, load_recipe(str(path)), tmp_path / "whole")
    folder = RunFolder(tmp_path / "killed")
    command = [sys.executable, "-m", "voxport.cli", "train", "fit", "--data", str(data), "--recipe", str(path)]
    command += ["--out", str(folder.path), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not folder.last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    steps = torch.load(folder.last, weights_only=True)["global_step"]
    assert 0 < steps < 120
    resumed = run(data, load_recipe(str(path)), folder.path, resume=True)
    assert same_weights(resumed.model, whole.model)
    final = [torch.load(f.last, weights_only=True)["state_dict"] for f in (folder, RunFolder(tmp_path / "whole"))]
    assert all(torch.equal(final[0][name], final[1][name]) for name in final[1])


def test_folder_that_holds_a_run_is_refused(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    run(data, recipe, tmp_path / "run")
    with pytest.raises(TrainingError, match="holds a run already; go on with --resume"):
        run(data, recipe, tmp_path / "run")
    other = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=99))
    with pytest.raises(TrainingError, match="started with another recipe"):
        run(data, other, tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="no run to resume"):
        run(data, recipe, tmp_path / "nothing", resume=True)


def test_folder_in_use_is_refused(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").lock(), pytest.raises(TrainingError, match="another run is training"):
        run(data, recipe, tmp_path / "run")


def test_corpus_that_cannot_be_opened_leaves_no_run(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Exception, match="empty"):
        run(tmp_path / "empty", recipe, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").facts.exists()


def test_missing_gpu_is_an_error_not_a_fallback(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    corpus = CorpusOptions(profile("homework_mel40"), cache=tmp_path / "cache", progress=False)
    with pytest.raises(TrainingError, match="--device cpu"):
        fit(data, recipe, FitOptions(tmp_path / "run", corpus, device="cuda", progress=False))
