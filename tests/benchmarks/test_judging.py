"""Accuracy on a labelled set: the right utterances, the right labels, drops in points."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.tiny_models import FRONTEND
from voxport.benchmarks.core.protocol import Failed, Judge, Judged
from voxport.benchmarks.core.records import Accuracy
from voxport.benchmarks.core.settings import BackendSpec
from voxport.benchmarks.latency.extra_metrics import judged
from voxport.benchmarks.worker.server import Worker

torch = pytest.importorskip("torch")
pytest.importorskip("torchaudio")

from tests.train.corpora import write_homework  # noqa: E402
from voxport.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from voxport.train.data import Corpus, CorpusOptions, Split, open_corpus  # noqa: E402
from voxport.train.models.speaker_net import build_network  # noqa: E402
from voxport.train.recipe import ModelOptions, Recipe  # noqa: E402

SPEC = BackendSpec("model", "onnx", "", "candidate", "features", "cpu", 1)


class Knowing:
    """Knows every utterance by heart, and is wrong on purpose about every `wrong`-th that it is asked."""

    def __init__(self, corpus: Corpus, order: list[str], wrong: int) -> None:
        self.frontend, self.speakers, self.wrong, self.asked = FRONTEND, len(order), wrong, 0
        self.seen: list[int] = []
        self.labels = {
            np.asarray(corpus.features(i))[start : start + 20].tobytes(): order.index(corpus.labels[utterance.speaker])
            for i, utterance in enumerate(corpus.utterances)
            for start in range(utterance.frames - 19)
        }

    def run(self, inputs: Any, lengths: Any) -> Any:
        assert lengths.tolist() == [inputs.shape[1]]
        self.asked += 1
        self.seen.append(inputs.shape[1])
        label = self.labels[np.ascontiguousarray(inputs[0, :20]).tobytes()]
        shown = (label + (self.asked % self.wrong == 0)) % self.speakers
        return np.eye(self.speakers, dtype=np.float32)[[shown]]


@dataclasses.dataclass
class Scene:
    corpus: Corpus
    order: list[str]
    request: Judge
    valid: tuple[str, ...]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A corpus, and a checkpoint that numbers its speakers the other way round and kept six utterances apart."""
    folder = tmp_path_factory.mktemp("judging")
    corpus = open_corpus(write_homework(folder / "corpus"), CorpusOptions(FRONTEND, progress=False))
    order = sorted(corpus.labels, reverse=True)
    keys = [utterance.key for utterance in corpus.utterances]
    valid = tuple(keys[::4])
    recipe = Recipe("tiny", "for tests", ModelOptions(1, d_model=16, num_heads=2, ffn_dim=16, kernel_size=5))
    state = build_network(recipe.model, FRONTEND.n_mels, len(order)).state_dict()
    split = Split(tuple(key for key in keys if key not in valid), valid)
    checkpoint = Checkpoint(recipe, FRONTEND, tuple(order), state, split, 1, {})
    save_checkpoint(checkpoint, folder / "model.pt")
    request = Judge(SPEC, str(folder / "corpus"), str(folder / "model.pt"), None, 1, 40)
    return Scene(corpus, order, request, valid)


def answer(scene: Scene, request: Judge, wrong: int) -> tuple[Any, Knowing]:
    backend = Knowing(scene.corpus, scene.order, wrong)
    return Worker(lambda spec: backend).reply(request), backend  # type: ignore[arg-type, return-value]


def test_the_validation_part_is_judged(scene: Scene) -> None:
    found, backend = answer(scene, dataclasses.replace(scene.request, max_frames=5000), wrong=3)
    assert isinstance(found, Judged), found
    total = len(scene.valid)
    assert (found.accuracy.utterances, found.accuracy.correct) == (total, total - total // 3)
    assert found.accuracy.accuracy == pytest.approx(found.accuracy.correct / total)
    frames = [scene.corpus.utterances[i].frames for i in scene.corpus.indices(scene.valid)]
    assert backend.seen == frames
    assert found.accuracy.wrong == tuple(range(2, total, 3))
    assert "all that training has not seen, 0 heard in windows" in found.accuracy.note


def test_long_ones_are_heard_in_windows(scene: Scene) -> None:
    found, backend = answer(scene, scene.request, wrong=1000)
    assert isinstance(found, Judged), found
    frames = [scene.corpus.utterances[i].frames for i in scene.corpus.indices(scene.valid)]
    assert max(frames) > 60
    assert backend.seen == [40 if one > 40 else one for one in frames for _ in range(1 + max(0, -(-(one - 40) // 20)))]
    assert found.accuracy.accuracy == 1.0
    assert f"{sum(one > 40 for one in frames)} heard in windows of 40 frames" in found.accuracy.note


def test_a_limit_takes_fewer(scene: Scene) -> None:
    found, _ = answer(scene, dataclasses.replace(scene.request, limit=2), wrong=100)
    assert isinstance(found, Judged)
    assert (found.accuracy.utterances, found.accuracy.accuracy) == (2, 1.0)


def test_names_of_training_utterances_in_another_corpus_are_told(scene: Scene, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(scene.request.checkpoint)
    split = Split((*checkpoint.split.train, "elsewhere"), ())
    save_checkpoint(dataclasses.replace(checkpoint, split=split), tmp_path / "model.pt")
    found, _ = answer(scene, dataclasses.replace(scene.request, checkpoint=str(tmp_path / "model.pt")), wrong=100)
    assert isinstance(found, Judged)
    assert found.accuracy.utterances == len(scene.corpus.utterances)
    assert f"({len(checkpoint.split.train)} have names of training utterances" in found.accuracy.note


def test_nobody_known_is_an_error(scene: Scene) -> None:
    found, _ = answer(scene, dataclasses.replace(scene.request, min_frames=5000), wrong=100)
    assert isinstance(found, Failed)
    assert found.mistake
    assert "no utterance can judge the accuracy" in found.message


def test_a_missing_corpus_is_named(scene: Scene, tmp_path: Path) -> None:
    found, _ = answer(scene, dataclasses.replace(scene.request, data=str(tmp_path / "nowhere")), wrong=100)
    assert isinstance(found, Failed)
    assert "nowhere" in found.message


@pytest.mark.parametrize(
    ("wrong", "drop", "lost", "gained", "verdict"),
    [
        (range(10), 0.2, 2, 0, "passed"),
        (range(11), 0.3, 3, 0, "undecided"),  # 3 to none is a toss of coins in one case of 8
        (range(13), 0.5, 5, 0, "failed"),
        (range(5, 15), 0.2, 7, 5, "passed"),
        (range(19), 1.1, 11, 0, "failed"),
        (range(0), -0.8, 0, 8, "passed"),
    ],
)
def test_a_drop_is_in_points_and_judged_with_chance(
    wrong: range, drop: float, lost: int, gained: int, verdict: str
) -> None:
    baseline = Accuracy("eager", 1000, 992, 0.992, None, 0.0, None, "", tuple(range(8)))
    right = 1000 - len(wrong)
    seen = judged(Accuracy("m", 1000, right, right / 1000, None, 0.0, None, "", tuple(wrong)), baseline, max_drop=0.2)
    assert seen.drop == pytest.approx(drop)
    assert (seen.lost, seen.gained, seen.verdict) == (lost, gained, verdict)
    assert seen.passed is (verdict != "failed")
    unknown = judged(Accuracy("m", 0, 0, None, None, 0.0, None, "crashed"), baseline, max_drop=0.2)
    assert (unknown.passed, unknown.drop) == (None, None)
