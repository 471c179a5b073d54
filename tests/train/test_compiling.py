"""The compiled network: the same scores and gradients, the same names, and an error where it cannot be compiled."""

import dataclasses
import functools
import shutil
from pathlib import Path

import pytest
import torch

from tests.train.corpora import write_homework, write_recipe
from voxport.runtime.profiles import profile
from voxport.train import fit as fit_module
from voxport.train.compiling import compiled_scores
from voxport.train.data import CorpusOptions
from voxport.train.fit import FitOptions, fit
from voxport.train.model import SpeakerNet, build_network
from voxport.train.module import SpeakerModule, TrainingError
from voxport.train.recipe import ModelOptions, load_recipe
from voxport.train.run import RunFolder


def network(encoder: str) -> SpeakerNet:
    torch.manual_seed(0)
    options = ModelOptions(
        1,
        d_model=8,
        num_heads=2,
        ffn_dim=8,
        kernel_size=3,
        dropout=0.0,
        encoder=encoder,  # type: ignore[arg-type]
    )
    return build_network(options, 4, 3)


def assert_compiles(encoder: str, backend: str) -> None:
    eager, other = network(encoder), network(encoder)
    features = torch.randn(4, 9, 4)
    compiled = compiled_scores(other, "cpu", backend)
    expected, got = eager(features), compiled(features)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    expected.square().sum().backward()
    got.square().sum().backward()  # type: ignore[no-untyped-call]
    for (name, a), b in zip(eager.named_parameters(), other.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-3, msg=f"{name}: {a.grad} {b.grad}")


@pytest.mark.parametrize("encoder", ["conformer", "transformer"])
def test_the_network_is_one_graph_without_breaks(encoder: str) -> None:
    assert_compiles(encoder, "eager")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_machine_code_gives_the_networks_scores() -> None:
    assert_compiles("conformer", "inductor")


def test_without_a_compiler_there_is_an_error_and_no_eager_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/g++",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with pytest.raises(TrainingError, match=r"--compile: torch.compile failed \(.*C\+\+ compiler"):
        compiled_scores(network("transformer"), "cpu")(torch.randn(3, 7, 4))


def test_runs_go_on_across_the_option_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dynamo's own back end, which runs the captured graph as it is: the same bits as without."""
    monkeypatch.setattr(fit_module, "compiled_scores", functools.partial(compiled_scores, backend="eager"))
    data, recipe = write_homework(tmp_path / "corpus"), load_recipe(str(write_recipe(tmp_path)))
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, dropout=0.0))
    corpus = CorpusOptions(profile("homework_mel40"), cache=tmp_path / "cache", progress=False)
    plain = FitOptions(tmp_path / "plain", corpus, device="cpu", progress=False)
    fit(data, recipe, plain)
    mixed = dataclasses.replace(plain, out=tmp_path / "mixed", compiled=True)
    with monkeypatch.context() as patch:
        patch.setattr(SpeakerModule, "on_train_batch_start", _stop_at_14)
        with pytest.raises(RuntimeError, match="stopped here"):
            fit(data, recipe, mixed)
    fit(data, recipe, dataclasses.replace(mixed, compiled=False, resume=True))
    a, b = (torch.load(RunFolder(tmp_path / name).last, weights_only=True) for name in ("plain", "mixed"))
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        torch.testing.assert_close(b["state_dict"][name], value, rtol=1e-3, atol=1e-4)


_start = SpeakerModule.on_train_batch_start


def _stop_at_14(module: SpeakerModule, batch: object, batch_idx: int) -> None:
    if batch_idx == 14:
        raise RuntimeError("stopped here")
    _start(module, batch, batch_idx)
