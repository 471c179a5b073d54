"""Ablation: a table of runs that can be stopped, gone on with and added to."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.train import corpora
from voxport.cli.root import cli
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.presets import profile
from voxport.train.ablation import runner as module
from voxport.train.ablation.report import BASELINES, baseline_passed, markdown, notes, rows
from voxport.train.ablation.runner import REFERENCE_TABLE, Ablation, AblationOptions, RunResult, ablate, run_folder
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions, open_corpus
from voxport.train.evaluation.breakdown import Bucket
from voxport.train.evaluation.evaluate import evaluate
from voxport.train.recipe import Reference, recipe_names
from voxport.train.training.fit import steps_done
from voxport.train.training.lightning_module import SpeakerModule, TrainingError

# Slow learners, so that figures are neither perfect nor all alike.
RECIPE = corpora.RECIPE.replace("learning_rate = 1e-2", "learning_rate = 5e-4").replace(
    "warmup_steps = 4", "warmup_steps = 1"
)
BIGGER = RECIPE.replace("d_model = 16", 'd_model = 20\npooling = "self_attention_max"')
LONGER = RECIPE.replace("steps = 24", "steps = 48")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    corpora.write_homework(tmp_path / "corpus", utterances=10)
    for name, text in (("small", RECIPE), ("bigger", BIGGER), ("small_long", LONGER)):
        (tmp_path / f"{name}.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(recipes: str, seeds: int = 1, steps: int | None = 12) -> AblationOptions:
    corpus = CorpusOptions(profile("homework_mel40"), cache=Path("cache"), progress=False)
    return AblationOptions(Path("out"), corpus, True, tuple(recipes.split()), steps, seeds, "cpu", False)


def figures(runs: tuple[RunResult, ...]) -> list[RunResult]:
    """Everything but the time, which no two runs share."""
    return [dataclasses.replace(run, steps_per_second=None, minutes=None) for run in runs]


def test_command_trains_measures_and_reports(here: Path) -> None:
    line = "train ablate --data corpus --steps 10 --seeds 2 --out out"
    recipes = "--recipes small.toml,bigger.toml --recipes small_long.toml"
    result = CliRunner().invoke(cli, f"{line} {recipes} --cache cache --device cpu".split())
    assert result.exit_code == 0, result.output
    assert "4/4: bigger, seed 88, 10 steps" in result.stderr
    assert "small_long is small at 10 steps" in result.stdout
    report = json.loads((here / "out" / "ablation.json").read_text())
    assert [(run["recipe"], run["seed"]) for run in report["runs"]] == [
        ("small", 87),
        ("small", 88),
        ("bigger", 87),
        ("bigger", 88),
    ]
    corpus = open_corpus(here / "corpus", options("small.toml").corpus)
    for run in report["runs"]:
        checkpoint = load_checkpoint(run_folder(here / "out", run["recipe"], run["seed"]).model)
        evaluation, _ = evaluate(checkpoint, corpus)
        assert run["accuracy_whole"] == evaluation.accuracy_whole == checkpoint.metrics["valid/accuracy_whole"]
        assert run["accuracy_crop"] == evaluation.accuracy_crop
        assert evaluation.verification is not None
        assert (run["eer"], run["min_dcf_01"]) == (evaluation.verification.eer, evaluation.verification.min_dcf_01)
        assert run["parameters"] == sum(p.numel() for p in checkpoint.network().parameters())
        assert run["steps_per_second"] * run["minutes"] * 60 == pytest.approx(10)
    assert len({(run["accuracy_whole"], run["eer"]) for run in report["runs"]}) > 2, "figures that tell nothing apart"
    text = (here / "out" / "ablation.md").read_text()
    for row in report["rows"]:
        mean = sum(run["accuracy_whole"] for run in report["runs"] if run["recipe"] == row["recipe"]) / 2
        assert row["accuracy_whole"]["mean"] == pytest.approx(mean)
        assert f"| {row['recipe']} | {mean:.2%}" in text
        assert sum(bucket["utterances"] for bucket in row["by_length"]) == 2 * report["runs"][0]["utterances"]
    for name in ("accuracy", "curves", "lengths", "det"):
        assert (here / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_goes_on_after_a_stop_to_the_same_figures(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ablate(Path("corpus"), dataclasses.replace(options("small.toml bigger.toml"), out=Path("whole")))

    def lost(lightning: SpeakerModule, _loss: Any) -> None:
        if lightning.global_step >= 10:
            raise TrainingError("the loss is nan")

    with monkeypatch.context() as patch:
        patch.setattr(SpeakerModule, "_stop_if_lost", lost)
        with pytest.raises(VoxportError, match="small, seed 87: the loss is nan"):
            ablate(Path("corpus"), options("small.toml bigger.toml"))
    assert steps_done(run_folder(Path("out"), "small", 87)) == 10
    with monkeypatch.context() as patch:  # stopped between training and measuring the first run
        patch.setattr(module, "evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ablate(Path("corpus"), options("small.toml bigger.toml"))
    stopped = ablate(Path("corpus"), options("small.toml bigger.toml"))
    assert figures(stopped.runs) == figures(whole.runs)
    assert (stopped.runs[0].minutes, stopped.runs[0].steps_per_second) == (None, None)
    assert stopped.runs[1].minutes is not None

    monkeypatch.setattr(module, "fit", lambda *_: pytest.fail("a finished run is trained again"))
    assert ablate(Path("corpus"), options("small.toml bigger.toml")) == stopped
    with pytest.raises(VoxportError, match="started with another recipe"):
        ablate(Path("corpus"), options("small.toml", steps=13))


def test_mistakes_cost_no_training(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "fit", lambda *_: pytest.fail("trained"))
    for recipes, message in (("small.toml nonesuch", "no recipe 'nonesuch'"), ("small.toml small.toml", "named twice")):
        with pytest.raises(VoxportError, match=message):
            ablate(Path("corpus"), options(recipes))
    with pytest.raises(VoxportError, match="nowhere"):
        ablate(Path("nowhere"), options("small.toml"))
    Path("large.toml").write_text(RECIPE.replace("batch_size = 8", "batch_size = 128"))
    with pytest.raises(VoxportError, match=r"large: .*32 training utterances do not fill one batch of 128.*--recipes"):
        ablate(Path("corpus"), options("small.toml large.toml"))
    assert not Path("out").exists()


def test_the_table_grows_with_the_runs_and_a_twin_is_named(here: Path) -> None:
    (here / "twin.toml").write_text(RECIPE)
    tables: list[Ablation] = []
    whole = ablate(Path("corpus"), options("small.toml twin.toml bigger.toml", steps=None), so_far=tables.append)
    twin = "twin is small at 24 steps, and was not trained again."
    assert whole.notes == (twin,)
    (partial,) = tables
    assert partial.runs == whole.runs[:1]
    assert partial.notes == ("Not finished yet: 1 of 2 runs are in this table.", twin)


def test_default_is_the_whole_reference_table() -> None:
    assert set(REFERENCE_TABLE) == {name for name in recipe_names() if name.startswith(("sap_", "official"))}


def result(recipe: str, seed: int, accuracy: float, **changes: Any) -> RunResult:
    run = RunResult(
        recipe, seed, 100, 100, 32, 128, 1000, 10, accuracy, accuracy / 2, 0.1, (Bucket(0, 128, 10, accuracy),),
        0.1, 0.5, 0.4, 2.0, 1.5, Reference(public=0.9)
    )  # fmt: skip
    return dataclasses.replace(run, **changes)


def test_rows_are_means_over_seeds() -> None:
    runs = (result("a", 1, 0.8), result("b", 1, 0.5, eer=None), result("a", 2, 0.9, minutes=None))
    first, second = rows(Ablation("d", "folder", 600, 100, 2, "cpu", runs, ()))
    assert (first.recipe, first.seeds, second.seeds) == ("a", 2, 1)
    assert dataclasses.astuple(first.accuracy_whole) == pytest.approx((0.85, 0.8, 0.9))
    (bucket,) = first.by_length
    assert (bucket.low, bucket.high, bucket.utterances) == (0, 128, 20)
    assert bucket.accuracy == pytest.approx(0.85)
    assert first.minutes is not None
    assert first.minutes.mean == 1.5
    assert second.eer is None


def test_baselines_are_named_for_the_homework_alone() -> None:
    assert [baseline_passed(bar) for _, bar in BASELINES] == ["simple", "medium", "strong", "boss"]
    assert [baseline_passed(bar - 1e-6) for _, bar in BASELINES] == ["none", "simple", "medium", "strong"]
    homework = Ablation("d", "homework", 600, 100, 1, "cpu", (result("a", 1, 0.8),), ())
    assert rows(homework)[0].would_pass == "strong"
    text = markdown(homework)
    assert "a: a public score as high as its accuracy here would pass: strong" in text
    assert "No public score was computed" in text
    for other in (dataclasses.replace(homework, speakers=240), dataclasses.replace(homework, kind="folder")):
        assert rows(other)[0].would_pass is None
        assert not any("baseline" in note for note in notes(other))
