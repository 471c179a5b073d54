"""Evaluation and prediction, against one utterance at a time through the plain network."""

import csv
import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.corpora import write_homework
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.log_mel import pad_value
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusOptions, open_corpus, split_utterances
from voxport.train.data.collation import FixedCrops
from voxport.train.evaluation.evaluate import EvaluateOptions, evaluate
from voxport.train.evaluation.inference import predict, write_csv
from voxport.train.evaluation.lengths import calibration_error
from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import ModelOptions, Recipe, TrainOptions
from voxport.train.reporting import write_evaluation


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
    evaluation, evidence = evaluate(checkpoint, corpus)
    confusion = evidence.confusion.copy()
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


def test_crops_are_as_long_as_asked_for(checkpoint: Checkpoint, corpus: Corpus) -> None:
    network, right = checkpoint.network(), 0
    crops = FixedCrops(
        corpus.features, corpus.indices(checkpoint.split.valid).tolist(), 21, pad_value(corpus.frontend), 87
    )
    for batch in crops:
        with torch.inference_mode():
            answered = network(batch.features).argmax(dim=1).tolist()
        for answer, position in zip(answered, batch.positions.tolist(), strict=True):
            true = corpus.labels[corpus.utterances[crops.indices[position]].speaker]
            right += checkpoint.labels[answer] == true
    evaluation, _ = evaluate(checkpoint, corpus, EvaluateOptions(crop_frames=21))
    assert (evaluation.crop_frames, evaluation.accuracy_crop) == (21, right / 24)
    assert evaluate(checkpoint, corpus)[0].crop_frames == 32


def test_parts_are_the_checkpoints(checkpoint: Checkpoint, corpus: Corpus) -> None:
    assert evaluate(checkpoint, corpus, EvaluateOptions("train"))[0].utterances == len(checkpoint.split.train)
    assert evaluate(checkpoint, corpus, EvaluateOptions("all"))[0].utterances == len(corpus.utterances)


def test_speakers_that_the_checkpoint_does_not_know_are_named(checkpoint: Checkpoint, corpus: Corpus) -> None:
    stranger = dataclasses.replace(checkpoint, labels=("someone", *checkpoint.labels[1:]))
    with pytest.raises(VoxportError, match=r"1 of 8 speakers are not in the checkpoint.*id00007"):
        evaluate(stranger, corpus, EvaluateOptions("all"))


def test_another_corpus_of_the_same_speakers_is_a_part_of_its_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_homework(tmp_path / "other", speakers=8, utterances=4, seed=5)
    for path in sorted((tmp_path / "other").glob("uttr-*.pt")):
        path.rename(path.with_name(f"new-{path.name}"))
    for name in ("metadata.json", "testdata.json"):
        file = tmp_path / "other" / name
        file.write_text(file.read_text().replace("uttr-", "new-uttr-"))
    options = CorpusOptions(profile("homework_mel40"), cache=tmp_path / "cache", progress=False)
    other = open_corpus(tmp_path / "other", options)
    with pytest.raises(VoxportError, match=r"24 of 24 utterances of the split are not in this corpus.*--part all"):
        evaluate(checkpoint, other)
    assert evaluate(checkpoint, other, EvaluateOptions("all"))[0].utterances == 32


def test_report_is_written(checkpoint: Checkpoint, corpus: Corpus, tmp_path: Path) -> None:
    evaluation, evidence = evaluate(checkpoint, corpus)
    write_evaluation(evaluation, evidence, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert report["accuracy_whole"] == evaluation.accuracy_whole
    assert report["verification"]["source"] == "all pairs"
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "evaluation.json",
        "confusion.png",
        "lengths.png",
        "pieces.png",
        "det.png",
        "scores.png",
    }
    for path in (tmp_path / "report").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def single(checkpoint: Checkpoint, corpus: Corpus, i: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embedding and scores of one utterance alone."""
    network = checkpoint.network()
    with torch.inference_mode():
        embedding = network.embed(torch.from_numpy(np.array(corpus.features(i))).unsqueeze(0))
        return embedding[0], network.scores(embedding)[0]


def test_verification_is_over_all_pairs_of_the_part(checkpoint: Checkpoint, corpus: Corpus) -> None:
    evaluation, evidence = evaluate(checkpoint, corpus)
    indices = corpus.indices(checkpoint.split.valid).tolist()
    embeddings = {i: single(checkpoint, corpus, i)[0] for i in indices}
    cosines: dict[bool, list[float]] = {True: [], False: []}
    for i, j in itertools.combinations(indices, 2):
        cosine = float(torch.nn.functional.cosine_similarity(embeddings[i], embeddings[j], dim=0))
        cosines[corpus.utterances[i].speaker == corpus.utterances[j].speaker].append(cosine)
    for kind, values in cosines.items():
        np.testing.assert_allclose(np.sort(evidence.cosine[evidence.target == kind]), sorted(values), atol=1e-5)
    result = evaluation.verification
    assert result is not None
    assert (result.trials, result.possible_trials) == (24 * 23 // 2, 24 * 23 // 2)
    assert result.target_trials == len(cosines[True]) == 8 * 3
    assert (result.utterances, result.seen_in_training) == (24, 0)
    missed = np.mean(np.array(cosines[True]) < result.eer_threshold - 1e-5)
    accepted = np.mean(np.array(cosines[False]) >= result.eer_threshold - 1e-5)
    assert result.eer == pytest.approx(missed, abs=1 / 24)
    assert result.eer == pytest.approx(accepted, abs=1 / 24)
    everything = evaluate(checkpoint, corpus, EvaluateOptions("all"))[0].verification
    assert everything is not None
    assert everything.seen_in_training == len(checkpoint.split.train)
    sample = evaluate(checkpoint, corpus, EvaluateOptions(max_trials=100))[0].verification
    assert sample is not None
    assert (sample.trials, sample.possible_trials, sample.target_trials) == (100, 276, 24)


def test_verification_follows_a_trial_list(checkpoint: Checkpoint, corpus: Corpus, tmp_path: Path) -> None:
    """A list that compares training with validation utterances; what it says of a pair counts, true or not."""
    keys = [*checkpoint.split.train[:4], *checkpoint.split.valid[:4]]
    path = tmp_path / "trials.txt"
    pairs = list(itertools.combinations(keys, 2))
    path.write_text("".join(f"{k % 2} {a} {b}\n" for k, (a, b) in enumerate(pairs)))
    evaluation, evidence = evaluate(checkpoint, corpus, EvaluateOptions(trials=path))
    for (a, b), target, cosine in zip(pairs, evidence.target, evidence.cosine, strict=True):
        left, right = (single(checkpoint, corpus, int(corpus.indices([key])[0]))[0] for key in (a, b))
        assert cosine == pytest.approx(float(torch.nn.functional.cosine_similarity(left, right, dim=0)), abs=1e-5)
        assert target == (pairs.index((a, b)) % 2 == 1)
    result = evaluation.verification
    assert result is not None
    assert (result.source, result.trials, result.utterances, result.seen_in_training) == (str(path), 28, 8, 4)
    assert evaluation.utterances == 24
    assert evaluation.accuracy_whole == evaluate(checkpoint, corpus)[0].accuracy_whole
    path.write_text("1 a b\n0 a c\n")
    with pytest.raises(
        VoxportError, match=r"names 3 utterances that .*corpus has not, first a; write keys .*like uttr-"
    ):
        evaluate(checkpoint, corpus, EvaluateOptions(trials=path))


def test_without_pairs_there_is_no_verification(checkpoint: Checkpoint, corpus: Corpus) -> None:
    alone = dataclasses.replace(
        checkpoint, split=dataclasses.replace(checkpoint.split, valid=(corpus.utterances[0].key,))
    )
    evaluation, _ = evaluate(alone, corpus)
    assert evaluation.verification is None
    empty = dataclasses.replace(checkpoint, split=dataclasses.replace(checkpoint.split, valid=()))
    with pytest.raises(VoxportError, match="part valid holds no utterances"):
        evaluate(empty, corpus)


def test_rejection_is_on_the_cosines_of_held_out_utterances(checkpoint: Checkpoint, corpus: Corpus) -> None:
    report = evaluate(checkpoint, corpus, EvaluateOptions(false_accept_rate=0.25))[0].rejection
    assert report is not None
    accepts = rejects = 0
    for i in corpus.indices(checkpoint.split.valid):
        cosines = single(checkpoint, corpus, int(i))[1] / 30.0
        true = checkpoint.labels.index(corpus.labels[corpus.utterances[i].speaker])
        rejects += bool(cosines.max() < report.threshold)
        cosines[true] = -2.0
        accepts += bool(cosines.max() >= report.threshold)
    assert (report.utterances, report.false_accepts, report.false_rejects) == (24, accepts, rejects)
    assert accepts == 6
    with pytest.raises(VoxportError, match="at least 100 are needed"):
        evaluate(checkpoint, corpus, EvaluateOptions(false_accept_rate=0.01))
    for part in ("train", "all"):
        with pytest.raises(VoxportError, match=r"24 of .* utterances were trained on"):
            evaluate(checkpoint, corpus, EvaluateOptions(part, false_accept_rate=0.25))


def test_rejection_needs_cosines(checkpoint: Checkpoint, corpus: Corpus) -> None:
    model = dataclasses.replace(checkpoint.recipe.model, head="mlp")
    recipe = dataclasses.replace(checkpoint.recipe, model=model)
    network = build_network(model, 40, len(corpus.labels))
    other = dataclasses.replace(checkpoint, recipe=recipe, state=network.state_dict())
    assert evaluate(other, corpus)[0].verification is not None
    with pytest.raises(VoxportError, match="head 'mlp', whose scores are no cosines"):
        evaluate(other, corpus, EvaluateOptions(false_accept_rate=0.25))


def test_calibration_error_against_counting() -> None:
    random = np.random.default_rng(0)
    scores = (3 * random.normal(size=(400, 7))).astype(np.float32)
    labels = random.integers(0, 7, 400)
    shares = np.exp(scores.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    confidence, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    expected = 0.0
    for k in range(15):
        inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert calibration_error(scores, labels) == pytest.approx(expected, abs=1e-6)


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
