"""Utterances that are too long for one run: evaluation and prediction against windows that the test itself averages."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchaudio")
soundfile = pytest.importorskip("soundfile")

from tests.runtime.test_speech import talk  # noqa: E402
from tests.runtime.tiny_models import FRONTEND  # noqa: E402
from voxport.runtime.contract import Windowing  # noqa: E402
from voxport.runtime.frontend.log_mel import compute_features, min_samples  # noqa: E402
from voxport.runtime.length_range import LengthRange  # noqa: E402
from voxport.runtime.speech import USUAL_RULE, find_speech  # noqa: E402
from voxport.runtime.windowing.cutting import sound_windows  # noqa: E402
from voxport.train.checkpoint import Checkpoint  # noqa: E402
from voxport.train.data import Corpus, CorpusOptions, Split, open_corpus  # noqa: E402
from voxport.train.data.collation import WholeUtterances  # noqa: E402
from voxport.train.evaluation.evaluate import EvaluateOptions, evaluate  # noqa: E402
from voxport.train.evaluation.inference import answer_whole  # noqa: E402
from voxport.train.evaluation.long_utterances import corpus_windows  # noqa: E402
from voxport.train.models.speaker_net import build_network  # noqa: E402
from voxport.train.recipe import ModelOptions, Recipe  # noqa: E402

LIMIT = 100  # frames
ALLOWED = LengthRange("samples", 1, min_samples(FRONTEND, LIMIT + 1) - 1, FRONTEND)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Two speakers, of whom each has a short file and one of 4 s: speech, a pause of a window and more, and noise."""
    folder = tmp_path_factory.mktemp("long")
    generator = np.random.default_rng(0)
    for name, size in (("ada", 0.5), ("bob", 0.2)):
        (folder / name).mkdir()
        long = np.concatenate([size * talk(1.0), np.zeros(20000), 0.2 * size * generator.uniform(-1, 1, 28000)])
        soundfile.write(folder / name / "short.wav", size * generator.uniform(-1, 1, 8000), 16000)
        soundfile.write(folder / name / "long.wav", long, 16000)
    return open_corpus(folder, CorpusOptions(FRONTEND, progress=False, jobs=1))


@pytest.fixture(scope="module", params=["am_softmax", "mlp"])
def checkpoint(request: pytest.FixtureRequest, corpus: Corpus) -> Checkpoint:
    options = ModelOptions(1, d_model=16, num_heads=2, ffn_dim=16, kernel_size=5, head=request.param)
    torch.manual_seed(1)
    network = build_network(options, FRONTEND.n_mels, 2)
    keys = tuple(utterance.key for utterance in corpus.utterances)
    return Checkpoint(Recipe("t", "t", options), FRONTEND, corpus.labels, network.state_dict(), Split((), keys), 1, {})


def test_long_utterances_are_answered_in_windows(corpus: Corpus, checkpoint: Checkpoint) -> None:
    frames = [utterance.frames for utterance in corpus.utterances]
    whole = WholeUtterances(corpus.features, range(4), frames)
    found = answer_whole(checkpoint, whole, windows=corpus_windows(corpus, LIMIT), longest=LIMIT)
    network = checkpoint.network()
    with torch.inference_mode():
        for i, utterance in enumerate(corpus.utterances):
            sound = corpus.samples(i, 16000)
            parts = [(sound, 1)]
            if utterance.frames > LIMIT:
                parts = list(sound_windows(FRONTEND, ALLOWED, Windowing(), iter([sound])))
                assert {len(samples) for samples, _ in parts} == {ALLOWED.longest}
                assert sum(weight for _, weight in parts) == pytest.approx(64000 - 20000 + 3200, abs=640)
                spoken = [(part, weight) for part, weight in parts if find_speech(part, 16000, USUAL_RULE).found]
                assert 0 < len(spoken) < len(parts)  # windows of noise count for nothing
                parts = spoken
            total, scores, weights = torch.zeros(1, 16), torch.zeros(1, 2), 0
            for samples, weight in parts:
                embedded = network.embed(torch.from_numpy(compute_features(samples, FRONTEND))[None])
                total = total + weight * torch.nn.functional.normalize(embedded, dim=1)
                scores = scores + weight * network.scores(embedded)
                weights += weight
            unit = torch.nn.functional.normalize(total, dim=1)
            expected = network.scores(unit) if checkpoint.recipe.model.head == "am_softmax" else scores / weights
            np.testing.assert_allclose(found.embeddings[i], unit[0], atol=1e-5)
            np.testing.assert_allclose(found.scores[i], expected[0], atol=1e-3)


def test_evaluate_says_how_many_were_heard_in_windows(corpus: Corpus, checkpoint: Checkpoint) -> None:
    assert evaluate(checkpoint, corpus, EvaluateOptions(max_frames=LIMIT))[0].in_windows == 2
    assert evaluate(checkpoint, corpus, EvaluateOptions())[0].in_windows == 0


def test_stored_features_are_cut_into_windows_of_frames(checkpoint: Checkpoint) -> None:
    values = np.random.default_rng(2).normal(size=(230, 40)).astype(np.float32)
    found = answer_whole(checkpoint, WholeUtterances(lambda i: values, [0], [230]), longest=LIMIT)
    network = checkpoint.network()
    total = torch.zeros(1, 16)
    with torch.inference_mode():
        for start, weight in ((0, 75), (50, 50), (100, 40), (130, 65)):
            embedded = network.embed(torch.from_numpy(values[start : start + LIMIT])[None])
            total += weight * torch.nn.functional.normalize(embedded, dim=1)
    np.testing.assert_allclose(found.embeddings[0], torch.nn.functional.normalize(total, dim=1)[0], atol=1e-5)


def test_validation_while_training_hears_the_start_of_very_long_ones() -> None:
    values = [np.full((length, 2), length, np.float32) for length in (50, 400)]
    batches = list(WholeUtterances(lambda i: values[i], [0, 1], [50, 400], frames_per_batch=200, max_frames=LIMIT))
    assert [batch.lengths.tolist() for batch in batches] == [[50, 100]]


def test_a_corpus_with_a_long_file_trains(tmp_path: Path) -> None:
    """The sound of a minute beside short ones: an epoch, its validation and its evaluation."""
    pytest.importorskip("pytorch_lightning")
    from voxport.train.recipe import TrainOptions
    from voxport.train.training.fit import FitOptions, fit

    generator = np.random.default_rng(1)
    for name in ("ada", "bob"):
        (tmp_path / "corpus" / name).mkdir(parents=True)
        for number, seconds in enumerate((1, 1, 1, 60)):
            sound = generator.uniform(-0.5, 0.5, 16000 * seconds)
            soundfile.write(tmp_path / "corpus" / name / f"{number}.wav", sound, 16000)
    options = ModelOptions(1, d_model=16, num_heads=2, ffn_dim=16, kernel_size=5)
    recipe = Recipe("t", "t", options, TrainOptions(steps=2, batch_size=2, valid_fraction=0.5, warmup_steps=0))
    found = fit(
        tmp_path / "corpus", recipe, FitOptions(tmp_path / "run", CorpusOptions(FRONTEND, progress=False, jobs=1))
    )
    assert found.steps == 2
    assert found.model.is_file()
