"""The corpus in the device's memory: the same batches, bit for bit, and no silent second choice."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from tests.train.corpora import write_homework
from tests.train.runs import same_run, train
from voxport.runtime.frontend.presets import profile
from voxport.train.data import Corpus, CorpusOptions, CropBatches, open_corpus
from voxport.train.recipe import Recipe
from voxport.train.training import dataloaders as resident
from voxport.train.training.dataloaders import ResidentCrops, goes_on_device
from voxport.train.training.lightning_module import TrainingError
from voxport.train.training.run_dir import RunFolder

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("resident")
    data = write_homework(folder / "corpus", speakers=5, utterances=7)
    return open_corpus(data, CorpusOptions(profile("homework_mel40"), cache=folder / "cache", progress=False))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fill", ["pad", "repeat"])
def test_batches_are_those_of_the_file(
    corpus: Corpus, device: str, fill: Literal["pad", "repeat"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "PLANNED_STEPS", 4)
    monkeypatch.setattr(resident, "_COPY_ROWS", 100)  # the corpus goes over in several pieces
    batches = CropBatches(corpus, np.arange(30), batch_size=8, crop_frames=40, seed=3, fill=fill)
    there = ResidentCrops(batches, torch.device(device))
    padded = 0
    for step in (0, 1, 4, 3, 11, 12, 5):
        for rows in (slice(0, 8), slice(2, 4)):
            features, speakers = batches.batch(step, rows)
            got_features, got_speakers = there.batch(step, rows)
            assert got_features.device.type == got_speakers.device.type == device
            np.testing.assert_array_equal(got_features.cpu(), features)
            np.testing.assert_array_equal(got_speakers.cpu(), speakers)
            padded += int((features == batches.pad).all(axis=2).sum())
    assert (padded > 0) == (fill == "pad"), "the corpus has utterances shorter than the crop, so that padding is tried"


def test_a_resident_run_learns_the_same(data: Path, recipe: Recipe, whole: RunFolder, tmp_path: Path) -> None:
    train(data, recipe, tmp_path / "there", resident="yes")
    assert same_run(RunFolder(tmp_path / "there"), whole)


def test_a_corpus_that_does_not_fit_is_mapped_or_refused(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = CropBatches(corpus, np.arange(30), batch_size=8, crop_frames=40, seed=3)
    gpu, size = torch.device("cuda"), batches.last_row * 40 * 4
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * size, 4 * size))
    assert goes_on_device(batches, gpu, "auto")
    assert goes_on_device(batches, gpu, "yes")
    assert not goes_on_device(batches, gpu, "no")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2 * size - 1, 4 * size))
    assert not goes_on_device(batches, gpu, "auto")
    with pytest.raises(TrainingError, match=r"--resident yes: the features take .* GiB .* use --resident no"):
        goes_on_device(batches, gpu, "yes")
    assert not goes_on_device(batches, torch.device("cpu"), "auto")
