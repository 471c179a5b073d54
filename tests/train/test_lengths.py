"""Figures by length, and of voices that a network never heard, against one utterance at a time."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from sklearn.metrics import roc_curve

from tests.train.corpora import write_homework
from voxport.cli.root import cli
from voxport.runtime.contract import LengthTemperature, Rejection
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.frontend.presets import profile
from voxport.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxport.train.data import Corpus, CorpusOptions, open_corpus, split_utterances
from voxport.train.data.collation import WholeUtterances
from voxport.train.evaluation import lengths
from voxport.train.evaluation.conditions import fit_temperature
from voxport.train.evaluation.evaluate import EvaluateOptions, evaluate
from voxport.train.evaluation.inference import answer_whole
from voxport.train.evaluation.lengths import Pieces, calibration_error, fit_temperatures, normalised, ways
from voxport.train.evaluation.unseen import UnseenOptions, evaluate_unseen
from voxport.train.evaluation.verification import Trials, adaptive_s_norm
from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import ModelOptions, Recipe, TrainOptions


def opened(path: Path, frontend: str = "psf_fbank40") -> Corpus:
    return open_corpus(path, CorpusOptions(profile(frontend), cache=path.parent / "cache", progress=False, jobs=1))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    write_homework(tmp_path / "corpus", speakers=8)
    for path in (tmp_path / "corpus").glob("uttr-*.pt"):  # as psf_fbank40 leaves them
        features = torch.load(path, weights_only=True)
        torch.save(3 * (features - features.mean(dim=0)), path)
    return opened(tmp_path / "corpus")


@pytest.fixture
def sounds(tmp_path: Path) -> Corpus:
    generator = np.random.default_rng(3)
    for speaker in range(3):
        folder = tmp_path / "sounds" / f"stranger{speaker}"
        folder.mkdir(parents=True)
        for utterance in range(4):
            samples = generator.normal(0, 0.05 * (1 + speaker), 16000 + 1600 * utterance)
            soundfile.write(folder / f"{utterance}.wav", samples.clip(-1, 1), 16000, subtype="FLOAT")
    return opened(tmp_path / "sounds")


@pytest.fixture
def checkpoint(corpus: Corpus) -> Checkpoint:
    torch.manual_seed(1)
    model = ModelOptions(1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=5)
    recipe = Recipe("tiny", "for tests", model, TrainOptions(crop_frames=32))
    network = build_network(model, 40, len(corpus.labels))
    split = split_utterances(corpus, 0.5, seed=0)
    return Checkpoint(
        recipe, corpus.frontend, corpus.labels, network.state_dict(), split, 1, {}, data=str(corpus.path.resolve())
    )


def test_a_piece_of_a_sound_is_what_its_samples_alone_give(sounds: Corpus) -> None:
    features, frontend = sounds.features(0), sounds.frontend
    alone, cut = (Pieces(sounds, 40, 5, heard)(0) for heard in ("alone", "cut"))
    start = int(np.random.default_rng([5, 0]).integers(len(features) - 40 + 1))
    samples = sounds.samples(0, 16000)[start * 160 :][: min_samples(frontend, 40)]
    np.testing.assert_array_equal(alone, compute_features(samples, frontend))
    np.testing.assert_array_equal(cut, features[start : start + 40])
    assert len(alone) == 40
    assert np.abs(alone - cut).max() > 0.1  # another mean was taken


def test_draws_cut_elsewhere(corpus: Corpus) -> None:
    pieces = [Pieces(corpus, 25, 5, "cut", draw)(1) for draw in range(4)]
    features = corpus.features(1)
    starts = {next(k for k in range(len(features)) if np.array_equal(features[k : k + 25], piece)) for piece in pieces}
    assert len(starts) > 1


def test_stored_features_are_brought_to_the_mean_of_the_piece(corpus: Corpus) -> None:
    alone, cut = (Pieces(corpus, 25, 5, heard)(1) for heard in ("alone", "cut"))
    np.testing.assert_allclose(alone, cut - cut.mean(axis=0, dtype=np.float64), atol=1e-4)
    assert Pieces(corpus, 10_000, 5, "alone")(1).shape == corpus.features(1).shape


def test_normalisation_is_that_of_the_frontend() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    for name in ("psf_fbank40", "nemo_mel40", "homework_mel40"):
        features = compute_features(samples, profile(name))
        np.testing.assert_allclose(normalised(features, profile(name)), features, atol=2e-3)
        assert ways(profile(name)) == (("alone",) if name == "homework_mel40" else ("alone", "cut"))


def test_rows_equal_counting_one_by_one(corpus: Corpus, checkpoint: Checkpoint) -> None:
    evaluation, _ = evaluate(checkpoint, corpus, EvaluateOptions(lengths=(24, 31), draws=2))
    assert [(row.frames, row.heard) for row in evaluation.pieces] == [
        (24, "alone"), (24, "cut"), (31, "alone"), (31, "cut"), (None, "whole"),
    ]  # fmt: skip
    network, indices = checkpoint.network(), corpus.indices(checkpoint.split.valid).tolist()
    for row in evaluation.pieces[:4]:
        assert row.frames is not None
        accuracies, errors = [], []
        for draw in range(2):
            right, embeddings = 0, []
            for i in indices:
                piece = Pieces(corpus, row.frames, checkpoint.recipe.train.seed, row.heard, draw)(i)
                with torch.inference_mode():
                    embedding = network.embed(torch.from_numpy(np.array(piece))[None])
                    right += int(network.scores(embedding).argmax()) == corpus.utterances[i].speaker
                embeddings.append(torch.nn.functional.normalize(embedding, dim=1)[0].numpy())
            accuracies.append(right / len(indices))
            errors.append(_eer(np.array(embeddings), corpus.speakers[indices]))
        assert row.draws == 2
        assert row.accuracy == pytest.approx(np.mean(accuracies))
        assert row.accuracy_range == pytest.approx((min(accuracies), max(accuracies)))
        assert row.eer == pytest.approx(np.mean(errors), abs=1e-6)
        assert row.eer_range == pytest.approx((min(errors), max(errors)), abs=1e-6)
    assert evaluation.pieces[-1].accuracy == evaluation.accuracy_whole
    assert evaluation.verification is not None
    assert evaluation.pieces[-1].eer == evaluation.verification.eer


def _eer(embeddings: np.ndarray, speakers: np.ndarray) -> float:
    left, right = np.triu_indices(len(speakers), 1)
    cosines = (embeddings[left] * embeddings[right]).sum(axis=1)
    accepted, caught, _ = roc_curve(speakers[left] == speakers[right], cosines, drop_intermediate=False)
    difference = 1 - caught - accepted
    after = int(np.argmax(difference <= 0))
    share = difference[after - 1] / (difference[after - 1] - difference[after])
    return float(accepted[after - 1] + share * (accepted[after] - accepted[after - 1]))


def test_score_normalisation_by_the_textbook() -> None:
    generator = np.random.default_rng(0)
    cohort = generator.normal(0, 1, (5, 7)).astype(np.float32)
    trials = Trials(np.array([0, 1, 4]), np.array([2, 3, 0]), np.array([True, False, False]), 3)
    scores = np.array([0.5, 0.1, -0.2], np.float32)
    found = adaptive_s_norm(scores, trials, cohort, 3)
    for k in range(3):
        halves = []
        for side in (trials.left[k], trials.right[k]):
            top = sorted(cohort[side].tolist())[-3:]
            halves.append((float(scores[k]) - np.mean(top)) / np.std(top))
        assert found[k] == pytest.approx(sum(halves) / 2, rel=1e-5)
    with pytest.raises(VoxportError, match="two speakers"):
        adaptive_s_norm(scores, trials, cohort, 1)


def test_strangers_are_compared_by_length(sounds: Corpus, checkpoint: Checkpoint) -> None:
    strict = dataclasses.replace(checkpoint, rejection=Rejection(0.1, 0.05))
    found = evaluate_unseen(strict, sounds, UnseenOptions(lengths=(40,), as_norm=4))
    assert (found.speakers, found.utterances, found.trials, found.target_trials) == (3, 12, 66, 18)
    whole = found.rows[-1]
    assert whole.accuracy is None
    network = checkpoint.network()
    with torch.inference_mode():
        raw = [network.embed(torch.from_numpy(np.array(sounds.features(i)))[None]) for i in range(12)]
        best = [float(network.scores(each).max()) / checkpoint.recipe.model.am_scale for each in raw]
    embeddings = torch.nn.functional.normalize(torch.cat(raw), dim=1).numpy()
    assert whole.eer == pytest.approx(_eer(embeddings, sounds.speakers), abs=1e-5)
    assert whole.accepted == pytest.approx(np.mean(np.array(best) >= 0.1))
    assert all(row.eer_as_norm is not None for row in found.rows)


def test_a_trial_list_names_what_is_compared(sounds: Corpus, checkpoint: Checkpoint, tmp_path: Path) -> None:
    keys = [utterance.key for utterance in sounds.utterances]
    listing = tmp_path / "trials.txt"
    listing.write_text(f"1 {keys[0]} {keys[1]}\n0 {keys[0]} {keys[5]}\n", encoding="utf-8")
    found = evaluate_unseen(checkpoint, sounds, UnseenOptions(listing, lengths=()))
    assert (found.utterances, found.trials, found.target_trials, found.source) == (3, 2, 1, str(listing))
    listing.write_text(f"1 {keys[0]} {keys[1]}\n0 {keys[0]} nobody\n", encoding="utf-8")
    with pytest.raises(VoxportError, match="write keys as the corpus has them"):
        evaluate_unseen(checkpoint, sounds, UnseenOptions(listing))


def test_known_speakers_are_no_strangers(corpus: Corpus, checkpoint: Checkpoint) -> None:
    with pytest.raises(VoxportError, match="names of speakers that the network was trained on"):
        evaluate_unseen(checkpoint, corpus)


def test_the_command_shows_both(sounds: Corpus, checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(checkpoint, tmp_path / "model.pt")
    command = ["train", "evaluate", str(tmp_path / "model.pt"), "--cache", str(tmp_path / "cache"), "--lengths", "24"]
    options = ["--unseen", str(sounds.path), "--as-norm", "4", "--out", str(tmp_path / "report")]
    result = CliRunner().invoke(cli, [*command, *options])
    assert result.exit_code == 0, result.output
    assert "Pieces of each length" in result.output
    assert "Voices that it never heard: 66 trials (18 of one speaker) of 3 speakers" in result.output
    assert {"pieces.png", "unseen.json"} <= {path.name for path in (tmp_path / "report").iterdir()}
    refused = CliRunner().invoke(cli, [*command, "--as-norm", "4"])
    assert refused.exit_code == 2
    assert "--unseen DATA" in refused.output


def test_temperatures_are_fitted_to_pieces_heard_alone(corpus: Corpus, checkpoint: Checkpoint) -> None:
    indices = corpus.indices(checkpoint.split.valid).tolist()
    labels, device = corpus.speakers[indices], "cpu"
    source = WholeUtterances(corpus.features, indices, [corpus.utterances[i].frames for i in indices])
    whole = answer_whole(checkpoint, source, device)
    (point,) = fit_temperatures(checkpoint, corpus, indices, labels, whole)  # no utterance is longer than 64
    middle = int(np.median([corpus.utterances[i].frames for i in indices]))
    assert point.seconds == pytest.approx(0.01 * middle)
    assert point.temperature == fit_temperature(whole.scores, labels)
    warmer = dataclasses.replace(checkpoint, temperature=1e3)
    assert fit_temperatures(warmer, corpus, indices, labels, whole)[0].temperature == 1e3
    told = dataclasses.replace(checkpoint, temperature_by_length=(point,))
    evaluation, _ = evaluate(told, corpus, EvaluateOptions(lengths=()))
    expected = calibration_error(whole.scores, labels, point.temperature)
    assert evaluation.pieces[-1].calibration_error == pytest.approx(expected, abs=1e-6)


def test_a_temperature_is_fitted_to_other_pieces_than_those_that_are_judged(
    corpus: Corpus, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lengths, "LENGTHS", (24,))
    indices = corpus.indices(checkpoint.split.valid).tolist()
    labels, frames = corpus.speakers[indices], [min(corpus.utterances[i].frames, 24) for i in indices]
    source = WholeUtterances(corpus.features, indices, [corpus.utterances[i].frames for i in indices])
    cold = dataclasses.replace(checkpoint, temperature=1e-3)
    point, _ = fit_temperatures(cold, corpus, indices, labels, answer_whole(checkpoint, source))
    scores = [
        answer_whole(checkpoint, WholeUtterances(Pieces(corpus, 24, 87, "alone", draw), indices, frames)).scores
        for draw in (4, 5, 6, 7)
    ]
    assert point.temperature == pytest.approx(fit_temperature(np.concatenate(scores), np.tile(labels, 4)))


def test_a_checkpoint_keeps_its_temperatures(checkpoint: Checkpoint, tmp_path: Path) -> None:
    points = (LengthTemperature(0.5, 6.0), LengthTemperature(2.0, 1.5))
    save_checkpoint(dataclasses.replace(checkpoint, temperature_by_length=points), tmp_path / "model.pt")
    loaded = load_checkpoint(tmp_path / "model.pt")
    assert loaded.temperature_by_length == points
    assert loaded.temperature_for(1.0) == pytest.approx(3.0)
