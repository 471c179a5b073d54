"""Evaluation and prediction, against one utterance at a time through the plain network."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.corpora import write_homework
from voxport.runtime.errors import VoxportError
from voxport.runtime.profiles import profile
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusOptions, open_corpus, split_utterances
from voxport.train.evaluate import evaluate
from voxport.train.model import build_network
from voxport.train.plots import wilson
from voxport.train.predict import predict, write_csv
from voxport.train.recipe import ModelOptions, Recipe, TrainOptions
from voxport.train.report import write_evaluation


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    write_homework(tmp_path / "corpus", speakers=8)
    return open_corpus(
        tmp_path / "corpus", CorpusOptions(profile("homework_mel40"), cache=tmp_path / "cache", progress=False)
    )


@pytest.fixture
def checkpoint(corpus: Corpus) -> Checkpoint:
    torch.manual_seed(1)
    model = ModelOptions(1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=5)
    recipe = Recipe("tiny", "for tests", model, TrainOptions(crop_frames=32))
    network = build_network(model, 40, len(corpus.labels))
    split = split_utterances(corpus, 0.5, seed=0)
    labels = tuple(reversed(corpus.labels))  # a checkpoint need not number speakers as a corpus does
    return Checkpoint(recipe, corpus.frontend, labels, network.state_dict(), split, 1, {})


def answers(checkpoint: Checkpoint, corpus: Corpus, keys: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """True and answered speakers, one utterance at a time."""
    network, true, answered = checkpoint.network(), [], []
    for i, utterance in enumerate(corpus.utterances):
        if utterance.key in keys:
            with torch.inference_mode():
                scores = network(torch.from_numpy(np.array(corpus.features(i))).unsqueeze(0))
            true.append(corpus.labels[utterance.speaker])
            answered.append(checkpoint.labels[int(scores.argmax())])
    return true, answered


def test_accuracy_equals_counting_one_by_one(checkpoint: Checkpoint, corpus: Corpus) -> None:
    evaluation, confusion = evaluate(checkpoint, corpus, "valid")
    true, answered = answers(checkpoint, corpus, checkpoint.split.valid)
    assert evaluation.utterances == len(true) == confusion.sum() == 24
    assert evaluation.accuracy_whole == np.mean([t == a for t, a in zip(true, answered, strict=True)])
    for t, a in zip(true, answered, strict=True):
        confusion[checkpoint.labels.index(t), checkpoint.labels.index(a)] -= 1
    assert not confusion.any()
    assert sum(bucket.utterances for bucket in evaluation.by_length) == 24
    assert sum(row.utterances for row in evaluation.speakers) == 24
    assert [row.accuracy for row in evaluation.speakers] == sorted(row.accuracy for row in evaluation.speakers)
    assert evaluation.top5_whole is not None
    assert evaluation.top5_whole >= evaluation.accuracy_whole


def test_parts_are_the_checkpoints(checkpoint: Checkpoint, corpus: Corpus) -> None:
    assert evaluate(checkpoint, corpus, "train")[0].utterances == len(checkpoint.split.train)
    assert evaluate(checkpoint, corpus, "all")[0].utterances == len(corpus.utterances)


def test_speakers_that_the_checkpoint_does_not_know_are_named(checkpoint: Checkpoint, corpus: Corpus) -> None:
    import dataclasses

    stranger = dataclasses.replace(checkpoint, labels=("someone", *checkpoint.labels[1:]))
    with pytest.raises(VoxportError, match=r"1 of 8 speakers are not in the checkpoint.*id00007"):
        evaluate(stranger, corpus, "all")


def test_report_is_written(checkpoint: Checkpoint, corpus: Corpus, tmp_path: Path) -> None:
    evaluation, confusion = evaluate(checkpoint, corpus)
    write_evaluation(evaluation, confusion, checkpoint.labels, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert report["accuracy_whole"] == evaluation.accuracy_whole
    for name in ("confusion.png", "lengths.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_predictions_follow_testdata_order(checkpoint: Checkpoint, corpus: Corpus, tmp_path: Path) -> None:
    rows = predict(checkpoint, corpus)
    order = [entry["feature_path"] for entry in json.loads((corpus.path / "testdata.json").read_text())["utterances"]]
    assert [key for key, _ in rows] == order
    network = checkpoint.network()
    for i, (_, speaker) in enumerate(rows):
        with torch.inference_mode():
            scores = network(torch.from_numpy(np.array(corpus.test_features(i))).unsqueeze(0))
        assert speaker == checkpoint.labels[int(scores.argmax())]
    write_csv(rows, tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        assert list(csv.reader(file)) == [["Id", "Category"], *map(list, rows)]
    with pytest.raises(VoxportError, match="cannot be written"):
        write_csv(rows, tmp_path / "nowhere" / "out.csv")


def test_wilson_interval_against_statsmodels_figures() -> None:
    """Figures of Newcombe, Statistics in Medicine 1998, table I, method 3: 81/263 and 15/148."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
