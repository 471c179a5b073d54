"""The compiled network: the same scores and gradients, the same names, and an error where it cannot be compiled."""

import copy
import dataclasses
import functools
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.train.runs import state, train
from voxport.train.models.speaker_net import SpeakerNet, build_network
from voxport.train.recipe import ModelOptions, Recipe
from voxport.train.training import fit as fit_module
from voxport.train.training.compile import compiled_scores
from voxport.train.training.lightning_module import SpeakerModule, TrainingError
from voxport.train.training.run_dir import RunFolder


def network(encoder: str) -> SpeakerNet:
    options = ModelOptions(1, 8, 2, 8, kernel_size=3, dropout=0.0, encoder=encoder)  # type: ignore[arg-type]
    return build_network(options, 4, 3)


def assert_compiles(eager: nn.Module, backend: str) -> None:
    other, features = copy.deepcopy(eager), torch.randn(4, 9, 4)
    expected, got = eager(features), compiled_scores(other, "cpu", backend=backend)(features)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    torch.autograd.backward([expected, got], [torch.ones_like(got), torch.ones_like(got)])
    for (name, a), b in zip(eager.named_parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-4, msg=f"{name}: {a.grad} {b.grad}")


@pytest.mark.parametrize("encoder", ["conformer", "transformer"])
def test_the_network_is_one_graph_without_breaks(encoder: str) -> None:
    assert_compiles(network(encoder), "eager")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_machine_code_gives_the_same_scores_and_gradients() -> None:
    """A small network, since compiling takes long; dynamo's part of the real ones is tested above."""
    assert_compiles(nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3)), "inductor")


def test_without_a_compiler_there_is_an_error_and_no_eager_run() -> None:
    settings = {"cpp.cxx": ("/nowhere/g++",), "fx_graph_cache": False}
    small = nn.Sequential(nn.Linear(4, 6), nn.SiLU())
    message = r"--compile: torch.compile failed \(.*/nowhere/g\+\+.*needs a C\+\+ compiler"
    with (
        torch._inductor.config.patch(settings),
        torch._functorch.config.patch(enable_autograd_cache=False),
        pytest.raises(TrainingError, match=message),
    ):
        compiled_scores(small, "cpu")(torch.randn(3, 7, 4))


def test_runs_go_on_across_the_option_and_names_stay(
    data: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dynamo's own back end, which runs the captured graph as it is: the same bits as without."""
    monkeypatch.setattr(fit_module, "compiled_scores", functools.partial(compiled_scores, backend="eager"))
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, dropout=0.0))
    train(data, recipe, tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setattr(SpeakerModule, "on_train_batch_start", _stop_at_14)
        with pytest.raises(RuntimeError, match="stopped here"):
            train(data, recipe, tmp_path / "mixed", compiled=True)
    train(data, recipe, tmp_path / "mixed", resume=True)
    a, b = (state(RunFolder(tmp_path / name)) for name in ("plain", "mixed"))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        torch.testing.assert_close(b["state_dict"][name], value, rtol=1e-3, atol=1e-4)


_start = SpeakerModule.on_train_batch_start


def _stop_at_14(module: SpeakerModule, batch: object, batch_idx: int) -> None:
    if batch_idx == 14:
        raise RuntimeError("stopped here")
    _start(module, batch, batch_idx)
