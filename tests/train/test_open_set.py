"""The threshold of "nobody known" at the end of a run: what it is calibrated on, and what carries it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.corpora import write_homework, write_recipe
from voxport.runtime.contract import Array, ConditionLine, Contract, Golden, Rejection
from voxport.runtime.errors import ContractError
from voxport.runtime.frontend.presets import profile
from voxport.runtime.results import rank
from voxport.train.checkpoint import Checkpoint, load_checkpoint
from voxport.train.data import Corpus, CorpusOptions, open_corpus
from voxport.train.open_set import WARPS, calibrate_open_set, store_calibration, warped
from voxport.train.recipe import load_recipe
from voxport.train.training.fit import FitOptions, fit
from voxport.train.training.lightning_module import TrainingError


def test_bands_are_stretched_as_by_interpolation() -> None:
    features = np.random.default_rng(0).normal(size=(7, 40)).astype(np.float32)
    for factor in (*WARPS, 1.0):
        places = np.arange(40) * factor
        expected = np.array([np.interp(places, np.arange(40), row) for row in features])  # held at the ends too
        np.testing.assert_allclose(warped(features, factor), expected, atol=1e-5)
    np.testing.assert_array_equal(warped(features, 1.0), features)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CorpusOptions, Path]:
    """A corpus, how it is opened, and the run folder of a network with AM-Softmax."""
    folder = tmp_path_factory.mktemp("open-set")
    data = write_homework(folder / "corpus")
    recipe = load_recipe(str(write_recipe(folder)))
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, head="am_softmax"))
    corpus = CorpusOptions(profile("homework_mel40"), cache=folder / "cache", progress=False)
    fit(data, recipe, FitOptions(folder / "run", corpus, device="cpu", progress=False))
    return data, corpus, folder / "run"


@pytest.fixture
def checkpoint(trained: Any) -> Checkpoint:
    return load_checkpoint(trained[2])


@pytest.fixture
def corpus(trained: Any) -> Corpus:
    return open_corpus(trained[0], trained[1])


def cosines(checkpoint: Checkpoint, corpus: Corpus, warp: float) -> np.ndarray:
    """Cosines (utterances, speakers), one utterance at a time."""
    import torch

    network = checkpoint.network()
    rows = []
    for i in corpus.indices(checkpoint.split.valid):
        values = torch.from_numpy(warped(corpus.features(int(i)), warp))[None]
        with torch.inference_mode():
            embedded = network.embed(values, torch.tensor([values.shape[1]]))
            rows.append(network.scores(embedded)[0].numpy() / checkpoint.recipe.model.am_scale)
    return np.array(rows)


def test_a_run_ends_with_a_threshold_that_holds_for_both_kinds_of_stranger(
    checkpoint: Checkpoint, corpus: Corpus
) -> None:
    rejection = checkpoint.rejection
    assert rejection is not None
    count = len(checkpoint.split.valid)
    allowed = int(rejection.false_accept_rate * count + 1e-9)
    assert rejection.false_accept_rate == max(0.05, 1 / count)
    own = cosines(checkpoint, corpus, 1.0)
    labels = corpus.speakers[corpus.indices(checkpoint.split.valid)]
    others = np.where(np.eye(own.shape[1], dtype=bool)[labels], -2, own).max(axis=1)
    kinds = [others, *(cosines(checkpoint, corpus, warp).max(axis=1) for warp in WARPS)]
    let_through = [int((kind >= rejection.threshold).sum()) for kind in kinds]
    assert max(let_through) == allowed  # at most, and a lower threshold would let more through
    assert rejection.false_reject_rate == pytest.approx(float((own.max(axis=1) < rejection.threshold).mean()))
    assert rejection.calibrated_on is not None
    assert f"{count} held-out utterances of 4 speakers" in rejection.calibrated_on


def test_a_threshold_needs_cosines_and_held_out_utterances(checkpoint: Checkpoint, corpus: Corpus) -> None:
    unsplit = dataclasses.replace(checkpoint, split=dataclasses.replace(checkpoint.split, valid=()))
    assert calibrate_open_set(unsplit, corpus, 0.05) is None
    model = dataclasses.replace(checkpoint.recipe.model, head="mlp")
    linear = dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, model=model))
    assert calibrate_open_set(linear, corpus, 0.05) is None


def test_storing_changes_the_threshold_alone(trained: Any, corpus: Corpus, checkpoint: Checkpoint) -> None:
    path = trained[2] / "model.pt"
    stored = store_calibration(path, corpus, 0.5, "cpu").rejection
    assert stored is not None
    assert stored.threshold <= checkpoint.rejection.threshold  # type: ignore[union-attr]
    again = load_checkpoint(path)
    assert again.rejection == stored
    assert again.split == checkpoint.split
    assert again.metrics == checkpoint.metrics


def test_a_run_without_it_and_a_rate_that_is_none(trained: Any, tmp_path: Path) -> None:
    data, options, run = trained
    recipe = load_checkpoint(run).recipe
    plain = FitOptions(tmp_path / "run", options, device="cpu", progress=False, false_accept_rate=None)
    assert fit(data, recipe, plain).rejection is None
    assert load_checkpoint(tmp_path / "run").rejection is None
    with pytest.raises(TrainingError, match="between 0 and 1"):
        dataclasses.replace(plain, false_accept_rate=1.0)


def test_contracts_say_what_it_was_seen_on_and_are_read_without() -> None:
    golden = Golden(Array.of(np.zeros((4, 40))), Array.of(np.zeros(2)), 1e-3)
    old = Rejection(0.5, 0.01)
    contract = Contract(("a", "b"), profile("homework_mel40"), "features", 1, 9, "fp32", 4, 30.0, "r", "0", golden,
                        rejection=old)  # fmt: skip
    assert json.loads(contract.to_json())["rejection"] == {"threshold": 0.5, "false_accept_rate": 0.01}
    assert Contract.from_json(contract.to_json(), "m").rejection == old
    told = contract.replace(rejection=Rejection(0.5, 0.01, "nine voices", 0.1))
    assert Contract.from_json(told.to_json(), "m") == told
    assert "temperature" not in told.to_json()
    assert "conditions" not in told.to_json()
    line = ConditionLine("noise", 34, 0.9, 0.05, 0.0, None, "34 sounds")
    tested = told.replace(temperature=2.5, conditions=(line,))
    assert Contract.from_json(tested.to_json(), "m") == tested
    scores = np.array([3.0, 1.0], np.float32)
    assert rank(scores, tested, 1, 1.0).best.probability == pytest.approx(1 / (1 + np.exp(-2 / 2.5)))
    with pytest.raises(ContractError, match="temperature must be between"):
        Contract.from_json(tested.to_json().replace('"temperature": 2.5', '"temperature": 0'), "m")
