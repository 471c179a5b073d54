"""Training end to end on a small corpus: it learns, resumes exactly, and refuses what would spoil a run."""

import dataclasses
import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from tests.train.corpora import RECIPE, write_homework, write_recipe
from tests.train.runs import same_run, state, train
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusError, CorpusOptions
from voxport.train.plots import read_log
from voxport.train.recipe import Recipe, load_recipe
from voxport.train.training.fit import FitOptions, fit
from voxport.train.training.lightning_module import SpeakerModule, TrainingError, learning_rate_factor
from voxport.train.training.run_dir import RunFolder


def test_learns_to_tell_speakers_apart(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    longer = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=60, validate_every=30))
    result = train(data, longer, tmp_path / "run")
    assert result.accuracy_whole >= 0.75  # chance is 0.25
    checkpoint = load_checkpoint(result.model)
    assert checkpoint.labels == tuple(f"id{i:05}" for i in range(4))
    assert checkpoint.step == result.best_step
    assert not set(checkpoint.split.train) & set(checkpoint.split.valid)
    assert len(checkpoint.split.train) + len(checkpoint.split.valid) == 24


def test_a_program_trains_in_five_lines_as_the_command_does(data: Path, tmp_path: Path) -> None:
    import voxport.train

    options = voxport.train.RunOptions(steps=2, device="cpu", cache=tmp_path / "cache")
    result = voxport.train.fit(write_recipe(tmp_path), str(data), str(tmp_path / "run"), options)
    assert (result.steps, load_checkpoint(result.model).recipe.name) == (2, "tiny")
    facts = RunFolder(tmp_path / "run").read()
    assert (facts.recipe.train.steps, facts.frontend) == (2, profile("homework_mel40"))
    assert voxport.train.resume(tmp_path / "run", options).accuracy_whole == result.accuracy_whole
    with pytest.raises(TrainingError, match="resume"):
        voxport.train.fit(write_recipe(tmp_path), data, tmp_path / "run", options)
    with pytest.raises(TrainingError, match="change sounds"):
        voxport.train.fit(
            write_recipe(tmp_path), data, tmp_path / "other", dataclasses.replace(options, noise=tmp_path)
        )


def test_the_log_names_the_steps_that_it_tells_of(recipe: Recipe, whole: RunFolder) -> None:
    rates = dict(read_log(whole)["train/learning_rate"])
    assert sorted(rates) == [9, 19]  # counted from 0: the tenth and the twentieth
    for step, rate in rates.items():
        assert rate == pytest.approx(recipe.train.learning_rate * learning_rate_factor(step, recipe.train), rel=1e-5)
    assert state(whole)["global_step"] == 24


def test_two_runs_give_the_same_weights(data: Path, recipe: Recipe, whole: RunFolder, tmp_path: Path) -> None:
    train(data, recipe, tmp_path / "again")
    assert same_run(RunFolder(tmp_path / "again"), whole)
    other = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, seed=1, steps=4))
    train(data, other, tmp_path / "other")
    assert not same_run(RunFolder(tmp_path / "other"), whole)


def test_killed_run_resumes_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("steps = 24", "steps = 80").replace(
        "save_every = 4", 'save_every = 1\nsecond_crop = [8, 20]\noptimizer = "muon"'
    )
    path = write_recipe(tmp_path, text)
    train(data, load_recipe(str(path)), tmp_path / "whole")
    folder = RunFolder(tmp_path / "killed")
    command = [sys.executable, "-m", "voxport.cli", "train", "fit", "--data", str(data), "--recipe", str(path)]
    command += ["--out", str(folder.path), "--cache", str(data.parent / "cache"), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not folder.last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert 0 < state(folder)["global_step"] < 80
    train(data, load_recipe(str(path)), folder.path, resume=True)
    assert same_run(folder, RunFolder(tmp_path / "whole"))


def test_folder_that_holds_a_run_is_refused(data: Path, recipe: Recipe, whole: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds a run already; go on with --resume"):
        train(data, recipe, whole.path)
    other = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=99))
    with pytest.raises(TrainingError, match="started with another recipe"):
        train(data, other, whole.path, resume=True)
    with pytest.raises(TrainingError, match="no run to resume"):
        train(data, recipe, tmp_path / "nothing", resume=True)


def test_folder_in_use_is_refused(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").lock(), pytest.raises(TrainingError, match="another run is training"):
        train(data, recipe, tmp_path / "run")


def test_corpus_that_cannot_be_opened_leaves_no_run(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Exception, match="empty"):
        train(tmp_path / "empty", recipe, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").facts.exists()


def test_missing_gpu_is_an_error_not_a_fallback(data: Path, recipe: Recipe, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(TrainingError, match="--device cpu"):
        train(data, recipe, tmp_path / "run", device="cuda")


def test_full_disk_stops_the_run_and_leaves_the_last_checkpoint(
    data: Path, recipe: Recipe, whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up in the middle of the second save, after half a file."""
    folder = RunFolder(tmp_path / "full")
    save = pl.Trainer.save_checkpoint

    def save_or_fill_up(trainer: pl.Trainer, path: Path) -> None:
        save(trainer, path)
        if trainer.global_step > 4:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "save_checkpoint", save_or_fill_up)
        with pytest.raises(TrainingError, match=r"last\.ckpt: cannot be written \(.*No space left.*intact.*--resume"):
            train(data, recipe, folder.path)
    assert not list(folder.path.glob("*.part"))
    assert state(folder)["global_step"] == 4
    train(data, recipe, folder.path, resume=True)
    assert same_run(folder, whole)


def test_lost_weights_never_replace_good_ones(
    data: Path, recipe: Recipe, whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is lost at step 6, between two looks at it; the save at step 8 finds out."""
    step = SpeakerModule.training_step

    def lose(module: SpeakerModule, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = step(module, batch, batch_idx)
        return loss * float("nan") if module.global_step == 6 else loss

    folder = RunFolder(tmp_path / "lost")
    with monkeypatch.context() as patch:
        patch.setattr(SpeakerModule, "training_step", lose)
        with pytest.raises(TrainingError, match=r"no longer finite at step 8; the last checkpoint is intact"):
            train(data, recipe, folder.path)
    assert state(folder)["global_step"] == 4
    assert all(value.isfinite().all() for value in state(folder)["state_dict"].values())
    train(data, recipe, folder.path, resume=True)
    assert same_run(folder, whole)


def test_lost_batch_statistics_never_replace_good_ones(
    data: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an overflow in fp16 does it: the gradient's scaler leaves the weights alone, but not the statistics."""
    step = SpeakerModule.training_step

    def spoil(module: SpeakerModule, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if module.global_step == 6:
            assert isinstance(module.network.norm, torch.nn.BatchNorm1d)
            assert module.network.norm.running_mean is not None
            module.network.norm.running_mean[0] = float("nan")
        return step(module, batch, batch_idx)

    monkeypatch.setattr(SpeakerModule, "training_step", spoil)
    with pytest.raises(TrainingError, match=r"norm\.running_mean are no longer finite at step 8"):
        train(data, recipe, tmp_path / "run")
    saved = state(RunFolder(tmp_path / "run"))
    assert saved["global_step"] == 4
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_unreadable_utterance_is_named_and_leaves_no_run(recipe: Recipe, tmp_path: Path) -> None:
    data = write_homework(tmp_path / "corpus")
    damaged = sorted(data.glob("uttr-*.pt"))[11]
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(CorpusError, match=re.escape(damaged.name)):
        train(data, recipe, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").facts.exists()
    corpus = CorpusOptions(profile("homework_mel40"), skip_bad=True, cache=tmp_path / "cache", progress=False)
    result = fit(data, recipe, FitOptions(tmp_path / "skipping", corpus, device="cpu", progress=False))
    split = load_checkpoint(result.model).split
    assert len(split.train) + len(split.valid) == 23
    assert damaged.name not in split.train + split.valid
