"""Held-out stored features changed by kind, and the calibration of a run over them."""

import dataclasses
from pathlib import Path

import numpy as np

from tests.train.corpora import RECIPE, write_homework, write_recipe
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions
from voxport.train.effects.kinds import KINDS, Kind
from voxport.train.effects.mel_kinds import change_energies_of_kind
from voxport.train.effects.options import AugmentOptions
from voxport.train.recipe import load_recipe
from voxport.train.training.fit import FitOptions, fit


def test_stored_features_are_changed_by_kind_as_sounds_are() -> None:
    frontend = profile("homework_mel40")
    random = np.random.default_rng(2)
    energies = random.random((60, 40)) + 0.1
    voices = [random.random((80, 40)) for _ in range(6)]

    def changed(kind: Kind, seed: int) -> np.ndarray:
        return change_energies_of_kind(
            energies, kind, frontend, lambda count, _: voices[:count], np.random.default_rng(seed)
        )

    assert changed("clean", 0) is energies
    for kind in KINDS[1:]:
        for seed in range(12):  # both ways of each kind are among them
            found = changed(kind, seed)
            np.testing.assert_array_equal(found, changed(kind, seed))
            assert np.isfinite(found).all()
            assert (found > 0).all()
            assert found.shape != energies.shape or not np.allclose(found, energies)
    added = np.array(
        [10 * np.log10(energies.mean() / (changed("noise", seed) - energies).mean()) for seed in range(40)]
    )
    assert 5 <= added.min() < 9
    assert 21 < added.max() <= 25
    top = [10 * np.log10(changed("codec", seed)[:, -1].mean() / energies[:, -1].mean()) for seed in range(12)]
    assert max(top) < -6  # the highest band is centred at 7.4 kHz, and no codec here reaches 6
    lasting = [len(changed("playback", seed)) for seed in range(12)]
    assert 54 <= min(lasting) < 60 < max(lasting) <= 67
    tail = [changed("reverberation", seed) - energies for seed in range(12)]
    assert all((each >= 0).all() and (each[0] == 0).all() for each in tail)  # nothing is heard before its sound


def test_a_run_on_changed_features_knows_its_limits(tmp_path: Path) -> None:
    text = RECIPE.replace("steps = 24", "steps = 4").replace("[model]", '[model]\nhead = "am_softmax"')
    recipe = dataclasses.replace(load_recipe(str(write_recipe(tmp_path, text))), augment=AugmentOptions(copies=1))
    data = write_homework(tmp_path / "corpus")
    corpus = CorpusOptions(profile("homework_mel40"), cache=tmp_path / "cache", progress=False, jobs=1)
    fit(data, recipe, FitOptions(tmp_path / "run", corpus, device="cpu", progress=False))
    checkpoint = load_checkpoint(tmp_path / "run")
    assert [line.kind for line in checkpoint.conditions] == list(KINDS)
    assert all("stored features were changed" in line.measured_on for line in checkpoint.conditions)
    assert checkpoint.temperature > 0
    assert checkpoint.rejection is not None
    assert "changed in 5 ways" in (checkpoint.rejection.calibrated_on or "")
