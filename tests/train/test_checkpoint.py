"""Checkpoints: what is written is read back, and nothing else is."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from voxport.runtime.contract import Rejection
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import Checkpoint, CheckpointError, checkpoint_sha256, load_checkpoint, save_checkpoint
from voxport.train.data import Split
from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import ModelOptions, Recipe


@pytest.fixture
def checkpoint() -> Checkpoint:
    recipe = Recipe("tiny", "for tests", ModelOptions(1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3))
    network = build_network(recipe.model, 40, 3)
    split = Split(("a.pt", "b.pt"), ("c.pt",))
    facts = {"valid/accuracy_whole": 0.5}
    frontend = profile("homework_mel40")
    return Checkpoint(
        recipe, frontend, ("x", "y", "지수"), network.state_dict(), split, 7, facts, "corpus", Rejection(0.3, 0.01)
    )


def test_round_trip(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(checkpoint, path)
    loaded = load_checkpoint(path)
    for name in ("recipe", "frontend", "labels", "split", "step", "metrics", "data", "rejection"):
        assert getattr(loaded, name) == getattr(checkpoint, name)
    assert all(torch.equal(loaded.state[name], value) for name, value in checkpoint.state.items())
    assert load_checkpoint(tmp_path).labels == checkpoint.labels  # a run's folder will do
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    features = torch.randn(2, 9, 40)
    network = loaded.network()
    assert not network.training
    torch.testing.assert_close(network(features), checkpoint.network()(features))


def test_checkpoint_from_before_other_encoders_and_heads_is_read(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(checkpoint, path)
    content = torch.load(path, weights_only=True)
    for name in ("encoder", "head", "head_dropout"):
        del content["recipe"]["model"][name]
    torch.save(content, path)
    assert load_checkpoint(path).recipe == checkpoint.recipe


def test_hash_is_of_the_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    import hashlib

    save_checkpoint(checkpoint, tmp_path / "model.pt")
    assert checkpoint_sha256(tmp_path / "model.pt") == hashlib.sha256((tmp_path / "model.pt").read_bytes()).hexdigest()


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile",)


def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"voxport_checkpoint": 1, "state": Hostile()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Hostile(), protocol=2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(CheckpointError, match=name):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "hostile").exists()


def test_other_files_are_named(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a voxport checkpoint"):
        load_checkpoint(tmp_path / "other.pt")
    torch.save({"voxport_checkpoint": 2}, tmp_path / "new.pt")
    with pytest.raises(CheckpointError, match="version 2"):
        load_checkpoint(tmp_path / "new.pt")
    torch.save({"voxport_checkpoint": 1, "state": {}, "metrics": {}, "colour": 1}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match="unknown key colour"):
        load_checkpoint(tmp_path / "odd.pt")


def test_weights_of_another_network_are_refused(checkpoint: Checkpoint) -> None:
    import dataclasses

    other = dataclasses.replace(checkpoint, labels=("x", "y"))
    with pytest.raises(CheckpointError, match="do not fit recipe tiny"):
        other.network()


def test_failed_write_keeps_the_older_file(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(checkpoint, path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(checkpoint, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
