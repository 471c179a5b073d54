"""Several processes, several pieces of a batch: what they learn is what one process learns."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing

from tests.train.corpora import RECIPE, write_recipe
from tests.train.runs import options, same_run, state, train
from voxport.train.checkpoint import load_checkpoint
from voxport.train.plots import read_log
from voxport.train.recipe import Recipe, load_recipe
from voxport.train.training.dataloaders import Share
from voxport.train.training.fit import fit
from voxport.train.training.lightning_module import SpeakerModule, TrainingError
from voxport.train.training.run_dir import RunFolder

# Dropout draws other numbers in every process. With a small learning rate rounding is not amplified.
EXACT = RECIPE.replace("dropout = 0.1", "dropout = 0.0").replace("1e-2", "1e-3").replace("steps = 24", "steps = 12")


@pytest.fixture
def exact(tmp_path: Path) -> Recipe:
    return load_recipe(str(write_recipe(tmp_path, EXACT)))


def learnt(out: Path) -> dict[str, torch.Tensor]:
    """The weights at the end, without the biases that no loss depends on, where the optimiser follows rounding."""
    weights = dict(state(RunFolder(out))["state_dict"])
    for name in list(weights):
        if name.endswith("in_proj_bias"):
            query, _key, value = weights.pop(name).chunk(3)  # softmax takes a shift of all scores away
            weights |= {f"{name}.query": query, f"{name}.value": value}
    before_batch_norm = ("conv_module.sequential.2.bias", "final_layer_norm.bias")
    unseen = ("pooling.score.bias", *before_batch_norm)
    return {name: value for name, value in weights.items() if not name.endswith(unseen)}


def assert_same(left: Path, right: Path) -> None:
    a, b = learnt(left), learnt(right)
    assert a.keys() == b.keys()
    for name, value in a.items():
        if "running_mean" in name:  # follows the bias before it
            continue
        torch.testing.assert_close(b[name], value, rtol=1e-3, atol=1e-4, msg=f"{name}: {(b[name] - value).abs().max()}")


def loss_curve(out: Path) -> list[tuple[int, float]]:
    return read_log(RunFolder(out))["train/loss"]


def test_two_processes_learn_what_one_learns(data: Path, exact: Recipe, tmp_path: Path) -> None:
    alone = train(data, exact, tmp_path / "alone")
    both = train(data, exact, tmp_path / "both", devices=2)
    assert_same(tmp_path / "alone", tmp_path / "both")
    for (step, loss), (other_step, other) in zip(
        loss_curve(tmp_path / "alone"), loss_curve(tmp_path / "both"), strict=True
    ):
        assert step == other_step
        assert other == pytest.approx(loss, rel=1e-4)
    assert both.accuracy_whole == alone.accuracy_whole
    assert load_checkpoint(both.model).state.keys() == load_checkpoint(alone.model).state.keys()
    assert len(list((tmp_path / "both" / "logs" / "csv").iterdir())) == 1, "the first process alone writes a log"
    assert not list((tmp_path / "both").glob("*.part"))


def test_torchrun_starts_the_same_run(data: Path, tmp_path: Path) -> None:
    """One of the processes prints, and only one writes."""
    path, out = write_recipe(tmp_path, EXACT.replace("steps = 12", "steps = 4")), tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "voxport.cli", "train", "fit", "--data", str(data), "--recipe", str(path), "--out", str(out)]
    command += ["--cache", str(data.parent / "cache"), "--device", "cpu", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    printed = done.stdout[done.stdout.index("{") :]  # Gloo of PyTorch 2.9 tells on stdout of its connections
    assert json.loads(printed)["steps"] == 4
    assert load_checkpoint(out / "model.pt").step == 4
    assert (out / "curves.png").is_file()
    assert len(list((out / "logs" / "csv").iterdir())) == 1


def test_a_killed_process_ends_the_run_and_leaves_its_checkpoint(data: Path, exact: Recipe, tmp_path: Path) -> None:
    endless = dataclasses.replace(exact, train=dataclasses.replace(exact.train, steps=100_000, save_every=1))
    folder = RunFolder(tmp_path / "run")

    def kill_second() -> None:
        while not folder.last.exists():
            time.sleep(0.05)
        second = max(torch.multiprocessing.active_children(), key=lambda process: process.name)
        assert second.pid is not None
        os.kill(second.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_second, daemon=True)
    killer.start()
    with pytest.raises(TrainingError, match=r"process 1 of 2 ended by SIGKILL.*--resume"):
        train(data, endless, folder.path, devices=2)
    killer.join()
    assert not torch.multiprocessing.active_children()
    assert state(folder)["global_step"] >= 1
    assert all(value.isfinite().all() for value in state(folder)["state_dict"].values())
    with folder.lock():
        pass  # the run let go of its folder


def test_pieces_of_a_batch_add_up_to_the_batch(data: Path, tmp_path: Path) -> None:
    """Without batch normalisation, whose statistics are a piece's, the sum of gradients is the batch's."""
    text = EXACT.replace("[train]", 'encoder = "transformer"\nbatch_norm = false\n\n[train]')
    recipe = load_recipe(str(write_recipe(tmp_path, text)))
    train(data, recipe, tmp_path / "whole")
    train(data, recipe, tmp_path / "pieces", accumulate=4)
    assert_same(tmp_path / "whole", tmp_path / "pieces")
    assert state(RunFolder(tmp_path / "pieces"))["global_step"] == 12
    steps = [step for step, _ in read_log(RunFolder(tmp_path / "pieces"))["valid/accuracy_whole"]]
    assert steps == [step for step, _ in read_log(RunFolder(tmp_path / "whole"))["valid/accuracy_whole"]]


def test_pieces_draw_different_dropout_and_lengths_and_resume_exactly(data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path, RECIPE + "shortest_crop = 20\n")))
    pieces = dataclasses.replace(options(data, tmp_path / "whole"), accumulate=2)
    fit(data, recipe, pieces)
    stopped = dataclasses.replace(pieces, out=tmp_path / "stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpeakerModule, "on_train_batch_start", stop_at(14))
        with pytest.raises(RuntimeError, match="stopped here"):
            fit(data, recipe, stopped)
    assert state(RunFolder(stopped.out))["global_step"] == 12
    with pytest.raises(TrainingError, match="started with another accumulate"):
        fit(data, recipe, dataclasses.replace(stopped, resume=True, accumulate=1))
    fit(data, recipe, dataclasses.replace(stopped, resume=True))
    assert same_run(RunFolder(pieces.out), RunFolder(stopped.out))


def stop_at(step: int) -> Callable[[SpeakerModule, Any, int], None]:
    original = SpeakerModule.on_train_batch_start

    def hook(module: SpeakerModule, batch: Any, batch_idx: int) -> None:
        if module.global_step == step and batch_idx % 2:
            raise RuntimeError("stopped here")
        original(module, batch, batch_idx)

    return hook


@pytest.mark.parametrize(("world", "pieces"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 3)])
def test_shares_make_up_the_batch(world: int, pieces: int) -> None:
    rows = [
        np.arange(48)[Share(rank, world, pieces).rows(48, piece)] for rank in range(world) for piece in range(pieces)
    ]
    assert sorted(np.concatenate(rows)) == list(range(48))
    assert {len(part) for part in rows} == {48 // (world * pieces)}


@pytest.mark.parametrize(("batch_size", "world", "pieces"), [(8, 3, 1), (8, 2, 3), (8, 4, 2), (8, 8, 1)])
def test_batches_that_do_not_divide_are_refused(batch_size: int, world: int, pieces: int) -> None:
    message = rf"batch_size {batch_size} does not divide into {world * pieces} equal parts of at least 2"
    with pytest.raises(TrainingError, match=message):
        Share(0, world, pieces).check(batch_size)


def test_mistakes_are_refused_before_anything_is_written(data: Path, exact: Recipe, tmp_path: Path) -> None:
    plain = options(data, tmp_path / "run")
    with pytest.raises(TrainingError, match="does not divide into 3 equal parts"):
        fit(data, exact, dataclasses.replace(plain, devices=3))
    with pytest.raises(TrainingError, match="--compile works on one device only"):
        fit(data, exact, dataclasses.replace(plain, devices=2, compiled=True))
    mixed = dataclasses.replace(exact, train=dataclasses.replace(exact.train, shortest_crop=20))
    with pytest.raises(TrainingError, match=r"--compile: train.shortest_crop = 20 .*leave out one"):
        fit(data, mixed, dataclasses.replace(plain, compiled=True))
    assert not (tmp_path / "run").exists()


def test_the_pieces_of_a_batch_are_cut_to_one_length(data: Path, tmp_path: Path) -> None:
    text = EXACT.replace("[train]", 'encoder = "transformer"\nbatch_norm = false\n\n[train]\nshortest_crop = 20')
    recipe = load_recipe(str(write_recipe(tmp_path, text)))
    train(data, recipe, tmp_path / "whole")
    train(data, recipe, tmp_path / "pieces", accumulate=2)
    assert_same(tmp_path / "whole", tmp_path / "pieces")
