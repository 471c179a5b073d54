"""The train commands as a user types them."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from tests.train.corpora import write_homework, write_recipe
from voxport.cli.root import cli
from voxport.train.checkpoint import load_checkpoint
from voxport.train.effects.options import AugmentOptions


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_homework(tmp_path / "corpus")
    write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXPORT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def voxport(line: str) -> Result:
    return CliRunner().invoke(cli, line.split())


def test_fit_evaluate_predict(here: Path) -> None:
    fit = voxport("train fit --data corpus --recipe tiny.toml --steps 12 --out run --device cpu --augment --json")
    assert fit.exit_code == 0, fit.output
    assert json.loads(fit.stdout)["steps"] == 12
    assert (here / "run" / "curves.png").is_file()

    shown = voxport("train evaluate run/model.pt --device cpu --out report")
    assert shown.exit_code == 0, shown.output
    assert "whole utterances" in shown.stdout
    assert "equal error rate" in shown.stdout
    assert (here / "report" / "det.png").is_file()
    evaluated = voxport("train evaluate run/model.pt --device cpu --json")
    assert json.loads(evaluated.stdout)["accuracy_whole"] == json.loads(fit.stdout)["accuracy_whole"]

    before = load_checkpoint(here / "run" / "model.pt")
    assert before.recipe.augment == AugmentOptions()  # stored features are changed where it is asked for
    assert voxport("train fit --resume --out run --no-augment").exit_code == 2
    rejecting = voxport("train evaluate run --device cpu --false-accept-rate 0.25 --save")
    assert rejecting.exit_code == 0, rejecting.output
    assert "impostors accepted" in rejecting.stdout
    after = load_checkpoint(here / "run" / "model.pt")
    assert before.rejection is not None  # the run's own
    assert before.rejection != after.rejection
    assert after.rejection is not None
    assert after.rejection.false_accept_rate == 0.25
    assert dataclasses.replace(after, rejection=None, state={}) == dataclasses.replace(before, rejection=None, state={})
    assert all(torch.equal(after.state[name], value) for name, value in before.state.items())
    refused = voxport("train evaluate run --device cpu --false-accept-rate 0.001 --save")
    assert refused.exit_code == 1
    assert "cannot be measured on 5 held-out utterances" in refused.stderr
    assert load_checkpoint(here / "run" / "model.pt").rejection == after.rejection

    predicted = voxport("train predict run/model.pt --csv out.csv --device cpu")
    assert predicted.exit_code == 0, predicted.output
    assert (here / "out.csv").read_text().splitlines()[0] == "Id,Category"
    assert len((here / "out.csv").read_text().splitlines()) == 6

    again = voxport("train fit --data corpus --recipe tiny.toml --out run")
    assert again.exit_code == 1
    assert "--resume" in again.stderr
    resumed = voxport("train fit --resume --out run --device cpu --json")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout)["accuracy_whole"] == json.loads(fit.stdout)["accuracy_whole"]


def test_recipes_are_listed_with_parameters_and_reported_figures() -> None:
    result = voxport("train recipes --speakers 240 --json")
    listed = {recipe["name"]: recipe for recipe in json.loads(result.stdout)}
    assert len(listed) >= 10
    assert listed["sap_am_bn"]["reference"]["private"] == 0.87325
    # One speaker more is one class vector more; the head of 1-5 + 7 is twice as wide.
    more = {r["name"]: r["parameters"] for r in json.loads(voxport("train recipes --speakers 241 --json").stdout)}
    assert more["sap_am_bn"] - listed["sap_am_bn"]["parameters"] == 256
    assert more["sap_max_am"] - listed["sap_max_am"]["parameters"] == 512
    table = voxport("train recipes").stdout
    for figure in ("0.9433", "0.88125", "0.879", "47", "100,000", "official_sample"):
        assert figure in table
