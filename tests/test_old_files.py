"""Files that an earlier voxport wrote are read by this one: a model or a run outlives the program that made it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.packaging_tools import ROOT
from tests.train.corpora import write_homework, write_recipe
from voxport.benchmarks.documents import read_document
from voxport.benchmarks.latency.report import LatencyReport
from voxport.runtime import Gallery, load_backend, read_contract
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import CorpusOptions
from voxport.train.recipe import load_recipe
from voxport.train.training.fit import FitOptions, fit

FEATURES = np.linspace(-10, 2, 20 * 40, dtype=np.float32).reshape(1, 20, 40)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "old_files.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def expected(old: Path) -> Any:
    """What the old program said: the scores of FEATURES, and the version of PyTorch that wrote the programs."""
    return json.loads((old / "expected.json").read_text(encoding="utf-8"))


def test_a_checkpoint_answers_as_before(old: Path, expected: Any) -> None:
    network = load_checkpoint(old / "model.pt").network().eval()
    with torch.inference_mode():
        scores = network(torch.from_numpy(FEATURES))[0]
    assert scores.tolist() == pytest.approx(expected["scores"], abs=1e-3)


@pytest.mark.parametrize("name", ["model.onnx", "model.ts", "model.pt2"])
def test_a_model_answers_as_before(old: Path, expected: Any, name: str) -> None:
    writer = tuple(int(part) for part in expected["torch"].split(".")[:2])
    reader = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if name == "model.pt2" and reader < writer:
        pytest.skip("a .pt2 file is not read by an older PyTorch than the one that wrote it")
    scores = load_backend(old / name).run(FEATURES, [20]).scores[0]
    assert scores.tolist() == pytest.approx(expected["scores"], abs=1e-3)


def test_a_gallery_is_read(old: Path) -> None:
    gallery = Gallery.load(old / "people.gallery", read_contract(old / "model.onnx"))
    assert [each.speaker for each in gallery.speakers] == ["Ada", "Борис", "지수"]
    assert (gallery.thresholds.verify, gallery.thresholds.identify) == (0.25, 0.5)


def test_a_measurement_is_read(old: Path) -> None:
    report = read_document(old / "latency.json")
    assert isinstance(report, LatencyReport)
    assert len(report.blocks) == 4
    assert {row.verdict for row in report.rows} >= {"baseline", "faster"}


def test_a_run_goes_on_where_it_was_left(old: Path, tmp_path: Path) -> None:
    """Its corpus is made anew, with the same features; the two validations before the stop are remembered."""
    state = torch.load(old / "last.ckpt", weights_only=True)
    assert (state["global_step"], set(state["callbacks"])) == (16, {"RunSaver"})
    run, data = tmp_path / "run", write_homework(tmp_path / "corpus")
    run.mkdir()
    (run / "last.ckpt").write_bytes((old / "last.ckpt").read_bytes())
    facts = json.loads((old / "run.json").read_text(encoding="utf-8"))
    (run / "run.json").write_text(json.dumps({**facts, "data": str(data)}), encoding="utf-8")
    corpus = CorpusOptions(profile("homework_mel40"), cache=tmp_path / "cache", progress=False)
    options = FitOptions(run, corpus, device="cpu", resume=True, progress=False)
    result = fit(data, load_recipe(str(write_recipe(tmp_path))), options)
    assert result.steps == 24
    after = torch.load(run / "last.ckpt", weights_only=True)
    before, history = state["callbacks"]["RunSaver"]["history"], after["callbacks"]["RunSaver"]["history"]
    assert [row["step"] for row in history] == [8, 16, 24]
    assert history[:2] == before
