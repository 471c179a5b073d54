"""A table of ten speakers with eight files each trains with every recipe that comes with voxport, its choices told."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runtime.test_speech import talk
from voxport.train import RunOptions, fit, recipe_names
from voxport.train.recipe import Recipe, load_recipe
from voxport.train.training import run as whole_run

SPEAKERS, FILES = 10, 8


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of 1 to 2.5 s: some are shorter than the recipes' crops."""
    folder = tmp_path_factory.mktemp("table")
    speech, random = talk(30.0), np.random.default_rng(0)
    rows = [("path", "speaker")]
    for speaker in range(SPEAKERS):
        for number in range(FILES):
            count, start = int(random.integers(16000, 40000)), int(random.integers(0, 400000))
            name = f"{speaker}-{number}.wav"
            soundfile.write(folder / name, speech[start : start + count], 16000)
            rows.append((name, f"speaker {speaker}"))
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "table.csv"


@pytest.mark.parametrize("name", recipe_names())
def test_ten_speakers_with_eight_files_just_work(
    table: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shrunk(wanted: str) -> Recipe:  # everything but the network's size is the recipe's own
        recipe = load_recipe(wanted)
        model = dataclasses.replace(recipe.model, num_layers=1, d_model=16, num_heads=2, ffn_dim=16, kernel_size=5)
        return dataclasses.replace(recipe, model=model)

    monkeypatch.setattr(whole_run, "load_recipe", shrunk)
    told: list[str] = []
    cache = table.parent / "cache"
    options = RunOptions(steps=2, augment=False, cache=cache, device="cpu", false_accept_rate=0.2, announce=told.append)
    result = fit(name, table, tmp_path / "run", options)
    assert result.steps == 2
    assert result.model.is_file()
    assert f"usable: {SPEAKERS} speakers, {SPEAKERS * FILES} utterances" in " ".join(told)
    wanted = load_recipe(name).train.batch_size
    lines = [line for line in told if line.startswith("  batch: ")]
    if result.batch_size == wanted:
        assert lines == []
    else:
        assert result.batch_size < wanted
        assert len(lines) == 1
        assert lines[0].startswith(f"  batch: {result.batch_size} in place of {name}'s {wanted}, for ")
