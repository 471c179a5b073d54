"""A small corpus, a recipe for it, and one whole run, made once: trainings are most of what these tests cost."""

from pathlib import Path

import pytest

from tests.train.corpora import write_homework, write_recipe
from tests.train.runs import train
from voxport.train.recipe import Recipe, load_recipe
from voxport.train.training.run_dir import RunFolder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read, never changed; the cache of its features lies beside it."""
    return write_homework(tmp_path_factory.mktemp("data") / "corpus")


@pytest.fixture(scope="session")
def recipe(data: Path) -> Recipe:
    return load_recipe(str(write_recipe(data.parent)))  # 24 steps, saved every 4, validated every 8


@pytest.fixture(scope="session")
def whole(data: Path, recipe: Recipe) -> RunFolder:
    """A run that nothing stopped."""
    train(data, recipe, data.parent / "whole")
    return RunFolder(data.parent / "whole")
