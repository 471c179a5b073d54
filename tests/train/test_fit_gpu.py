"""Training on GPUs. Each test says why it is skipped where there is none."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.train.corpora import RECIPE, write_homework, write_recipe
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions
from voxport.train.recipe import Recipe, load_recipe
from voxport.train.training.fit import FitOptions, fit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU on this machine")

EXACT = RECIPE.replace("dropout = 0.1", "dropout = 0.0").replace("1e-2", "1e-3") + 'precision = "fp32"\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(str(write_recipe(tmp_path, EXACT)))


@pytest.fixture
def plain(tmp_path: Path) -> FitOptions:
    corpus = CorpusOptions(profile("homework_mel40"), cache=tmp_path / "cache", progress=False)
    return FitOptions(tmp_path / "plain", corpus, device="cuda", progress=False, resident="no")


def scores(model: Path) -> torch.Tensor:
    network = load_checkpoint(model).network()
    features = torch.linspace(-8, 0, 3 * 50 * 40).reshape(3, 50, 40)
    with torch.no_grad():
        answer: torch.Tensor = network(features)
    return answer


@pytest.mark.parametrize("change", [{"resident": "yes"}, {"compiled": True}, {"compiled": True, "resident": "auto"}])
def test_speed_changes_no_scores(recipe: Recipe, plain: FitOptions, tmp_path: Path, change: dict[str, object]) -> None:
    data = write_homework(tmp_path / "corpus")
    expected = fit(data, recipe, plain)
    got = fit(data, recipe, dataclasses.replace(plain, out=tmp_path / "fast", **change))  # type: ignore[arg-type]
    torch.testing.assert_close(scores(got.model), scores(expected.model), rtol=1e-2, atol=1e-1)
    assert load_checkpoint(got.model).state.keys() == load_checkpoint(expected.model).state.keys()


def test_bf16_learns(plain: FitOptions, tmp_path: Path) -> None:
    text = RECIPE.replace("steps = 24", "steps = 60").replace("validate_every = 8", "validate_every = 30")
    recipe = load_recipe(str(write_recipe(tmp_path, text)))
    result = fit(write_homework(tmp_path / "corpus"), recipe, dataclasses.replace(plain, compiled=True))
    assert result.accuracy_whole >= 0.75  # chance is 0.25


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs on this machine")
def test_two_gpus_learn_what_one_learns(recipe: Recipe, plain: FitOptions, tmp_path: Path) -> None:
    data = write_homework(tmp_path / "corpus")
    expected = fit(data, recipe, plain)
    got = fit(data, recipe, dataclasses.replace(plain, out=tmp_path / "both", devices=2))
    torch.testing.assert_close(scores(got.model), scores(expected.model), rtol=1e-2, atol=1e-1)
