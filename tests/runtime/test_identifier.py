"""SpeakerIdentifier: sound in, speakers out; one by one, in batches, from threads; and what it refuses."""

import dataclasses
import math
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.tiny_models import (
    FRONTEND,
    LABELS,
    SCALE,
    SIZE,
    TinyModel,
    features,
    make_tiny,
    save,
    tiny_graph,
    tone,
)
from voxport.runtime import Answer, Candidate, Identification, LengthError, SpeakerIdentifier, VoxportError
from voxport.runtime.audio.preprocess import read_features
from voxport.runtime.audio.samples import resample
from voxport.runtime.backends.batching import MAX_ROWS, MAX_SECONDS, group_by_length
from voxport.runtime.contract import Rejection
from voxport.runtime.errors import AudioError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.results import rank, softmax


def graph_input(model: TinyModel, samples: Any) -> Any:
    return compute_features(samples, FRONTEND) if model.contract.input_kind == "features" else samples


def noise(seconds: float, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * 16000)).astype(np.float32)


@pytest.fixture
def identifier(either: TinyModel) -> SpeakerIdentifier:
    return SpeakerIdentifier.load(either.path)


# --- one sound ----------------------------------------------------------------------------------------


def test_the_ranking_is_that_of_the_scores(either: TinyModel, identifier: SpeakerIdentifier) -> None:
    samples = noise(0.4)
    expected = either.scores(graph_input(either, samples))
    found = identifier.identify(samples, 16000, top=5)
    assert [candidate.speaker for candidate in found.ranked] == [LABELS[i] for i in np.argsort(-expected)]
    np.testing.assert_allclose([candidate.score for candidate in found.ranked], np.sort(expected)[::-1], atol=1e-3)
    shares = [math.exp(score) for score in expected]
    wanted = sorted((share / sum(shares) for share in shares), reverse=True)
    np.testing.assert_allclose([candidate.probability for candidate in found.ranked], wanted, atol=1e-4)
    assert found.best == found.ranked[0]
    assert found.duration_s == pytest.approx(0.4)


def test_scores_and_embedding_are_the_models(either: TinyModel, identifier: SpeakerIdentifier) -> None:
    samples = noise(0.3)
    values = graph_input(either, samples)
    scores, embedding = identifier.scores(samples, 16000), identifier.embed(samples, 16000)
    assert scores.shape == (len(LABELS),)
    assert embedding.shape == (SIZE,)
    assert scores.dtype == embedding.dtype == np.float32
    np.testing.assert_allclose(scores, either.scores(values), atol=1e-3)
    np.testing.assert_allclose(embedding, either.embedding(values), atol=1e-4)
    assert np.linalg.norm(embedding) == pytest.approx(1)


def test_features_give_what_their_sound_gives(tiny: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(tiny.path)
    samples = noise(0.35)
    values = compute_features(samples, FRONTEND)
    assert identifier.identify_features(values).ranked == identifier.identify(samples, 16000).ranked
    np.testing.assert_array_equal(identifier.scores_features(values), identifier.scores(samples, 16000))
    assert identifier.identify_features(values).duration_s == pytest.approx(0.35, abs=0.01)


def test_a_file_gives_what_its_samples_give(identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    samples = noise(0.4)
    path = tmp_path / "who.wav"
    soundfile.write(path, samples, 16000, subtype="FLOAT")
    assert identifier.identify(path) == identifier.identify(samples, 16000)
    assert identifier.identify(str(path)) == identifier.identify(samples, 16000)


def test_another_rate_is_resampled(identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    samples = noise(0.4)[:3528]
    path = tmp_path / "who.wav"
    soundfile.write(path, samples, 8000, subtype="FLOAT")
    expected = identifier.identify(resample(samples, 8000, 16000), 16000)
    for found in (identifier.identify(samples, 8000), identifier.identify(path)):
        assert found.duration_s == pytest.approx(3528 / 8000)
        np.testing.assert_allclose(
            [each.score for each in found.ranked], [each.score for each in expected.ranked], atol=1e-3
        )


def test_integers_stereo_strides_and_read_only_arrays_are_taken(identifier: SpeakerIdentifier) -> None:
    ints = (noise(0.4) * 32768).astype(np.int16)
    mono = (ints / 32768).astype(np.float32)
    expected = identifier.scores(mono, 16000)
    frozen = mono.copy()
    frozen.flags.writeable = False
    for same in (ints, np.stack([mono, mono], axis=1), np.repeat(mono, 2)[::2], frozen, mono.astype(np.float64)):
        np.testing.assert_allclose(identifier.scores(same, 16000), expected, atol=1e-3)


@pytest.mark.parametrize("samples", [np.zeros(6400, np.float32), tone(0.4), np.full(6400, 0.25, np.float32)])
def test_silence_a_tone_and_a_constant_are_answered(identifier: SpeakerIdentifier, samples: Any) -> None:
    found = identifier.identify(samples, 16000)
    assert sum(each.probability for each in found.ranked) == pytest.approx(1)


# --- ranking ------------------------------------------------------------------------------------------


def test_top_says_how_many(tiny: TinyModel) -> None:
    scores = np.array([1, 5, 2, 4, 3], np.float32)
    assert [each.speaker for each in rank(scores, tiny.contract, 2, 1.0).ranked] == [LABELS[1], LABELS[3]]
    assert len(rank(scores, tiny.contract, 99, 1.0).ranked) == 5
    for top in (0, -1):
        with pytest.raises(VoxportError, match="top must be at least 1"):
            rank(scores, tiny.contract, top, 1.0)


def test_equal_scores_keep_the_order_of_the_labels(tiny: TinyModel) -> None:
    ranked = rank(np.array([1, 2, 2, 1, 2], np.float32), tiny.contract, 5, 1.0).ranked
    assert [each.speaker for each in ranked] == [LABELS[i] for i in (1, 2, 4, 0, 3)]


@given(st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=50))
def test_probabilities_are_shares_at_any_scale(scores: list[float]) -> None:
    shares = softmax(np.array(scores, np.float32))
    assert shares.dtype == np.float64
    assert shares.sum() == pytest.approx(1)
    assert ((shares >= 0) & (shares <= 1)).all()


def test_probabilities_are_those_of_another_library() -> None:
    special = pytest.importorskip("scipy.special")
    scores = np.random.default_rng(0).normal(scale=20, size=600).astype(np.float32)
    np.testing.assert_allclose(softmax(scores), special.softmax(scores.astype(np.float64)), rtol=1e-12)


@pytest.mark.parametrize(("threshold", "known"), [(0.30, True), (0.50, True), (0.51, False)])
def test_a_threshold_says_whether_the_speaker_is_known(tiny: TinyModel, threshold: float, known: bool) -> None:
    scores = np.array([0, 15, 3, -9, 1], np.float32)  # the best cosine is 15 / 30
    contract = tiny.contract.replace(rejection=Rejection(threshold, 0.01))
    assert rank(scores, contract, 1, 1.0).known is known
    assert rank(scores, tiny.contract, 1, 1.0).known is None


def test_results_are_frozen() -> None:
    candidate = Candidate("Anna", 1.0, 0.5)
    for frozen, name in ((candidate, "score"), (Identification((candidate,), 1.0, None), "known")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, name, 0)


def test_a_model_that_answers_nan_is_an_error_not_an_answer(model_path: Path) -> None:
    tiny = make_tiny(model_path)
    broken = np.full_like(tiny.classes, math.nan)
    save(model_path, tiny_graph("features", tiny.project, broken), tiny.contract.to_json())
    with pytest.raises(VoxportError, match="NaN"):
        SpeakerIdentifier.load(model_path, verify=False).identify_features(features(9))


# --- many sounds --------------------------------------------------------------------------------------


def test_a_batch_of_all_lengths_equals_one_by_one(identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    sounds: list[Any] = [noise(0.05 + 0.07 * (i * 5 % 8), seed=i) for i in range(20)]
    soundfile.write(tmp_path / "a.wav", noise(0.2, seed=99), 16000, subtype="FLOAT")
    sounds.insert(7, tmp_path / "a.wav")
    alone = [identifier.identify(sound, 16000) for sound in sounds]
    together = identifier.identify_batch((sound for sound in sounds), 16000)
    assert [each.duration_s for each in together] == [each.duration_s for each in alone]
    for one, other in zip(alone, together, strict=True):
        assert [each.speaker for each in one.ranked] == [each.speaker for each in other.ranked]
        np.testing.assert_allclose(
            [each.score for each in one.ranked], [each.score for each in other.ranked], atol=1e-4
        )
    scores, embedding = identifier.scores_batch(sounds, 16000), identifier.embed_batch(sounds, 16000)
    np.testing.assert_allclose(scores, [identifier.scores(sound, 16000) for sound in sounds], atol=1e-4)
    np.testing.assert_allclose(embedding, [identifier.embed(sound, 16000) for sound in sounds], atol=1e-5)


def test_no_sounds_give_no_answers(identifier: SpeakerIdentifier) -> None:
    assert identifier.identify_batch([], 16000) == []
    assert identifier.scores_batch([], 16000).shape == (0, len(LABELS))
    assert identifier.embed_batch([], 16000).shape == (0, SIZE)


def test_a_bad_sound_in_a_batch_is_named(identifier: SpeakerIdentifier) -> None:
    with pytest.raises(LengthError, match="sound 2: "):
        identifier.identify_batch([noise(0.2), noise(0.2), noise(0.01)], 16000)


@pytest.mark.parametrize("one", ["who.wav", Path("who.wav")])
def test_one_path_is_no_batch(identifier: SpeakerIdentifier, one: Any) -> None:
    with pytest.raises(VoxportError, match=r"who\.wav: expected several sounds"):
        identifier.scores_batch(one)


class Counting:
    """A backend that remembers what it was asked, and answers zeros."""

    def __init__(self, model: TinyModel) -> None:
        self.contract = model.contract
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: Any, lengths: Any) -> Answer:
        self.shapes.append(inputs.shape)
        rows = len(inputs)
        return Answer(np.zeros((rows, len(LABELS)), np.float32), np.zeros((rows, SIZE), np.float32))


def test_a_long_stream_of_sounds_is_answered_in_bounded_batches(tiny_waveform: TinyModel) -> None:
    backend = Counting(tiny_waveform)
    drawn = 0
    most_ahead = 0

    def sounds() -> Any:
        nonlocal drawn, most_ahead
        for _ in range(300):
            drawn += 1
            most_ahead = max(most_ahead, drawn - sum(shape[0] for shape in backend.shapes))
            yield noise(0.1)

    assert len(SpeakerIdentifier(backend).identify_batch(sounds(), 16000)) == 300
    assert most_ahead <= 64
    assert max(shape[0] for shape in backend.shapes) == MAX_ROWS


@given(st.lists(st.floats(0.01, 200), max_size=100))
def test_groups_hold_every_index_once_within_bounds(seconds: list[float]) -> None:
    groups = group_by_length(seconds)
    assert sorted(index for group in groups for index in group) == list(range(len(seconds)))
    for group in groups:
        longest = max(seconds[index] for index in group)
        assert len(group) <= MAX_ROWS
        assert len(group) == 1 or len(group) * longest <= MAX_SECONDS


# --- what is refused ----------------------------------------------------------------------------------


def test_too_short_is_said_in_frames_and_seconds(identifier: SpeakerIdentifier) -> None:
    with pytest.raises(LengthError, match=r"the sound: 4 frames \(0\.03 s\) is too short .* 5 frames \(0\.04 s\)"):
        identifier.identify(noise(0.03), 16000)


def test_a_file_of_a_wrong_length_is_named(identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "brief.wav", noise(0.02), 16000)
    with pytest.raises(LengthError, match=r"brief\.wav: 3 frames \(0\.02 s\)"):
        identifier.identify(tmp_path / "brief.wav")


def test_one_sample_is_too_short_not_a_crash(identifier: SpeakerIdentifier) -> None:
    with pytest.raises(LengthError, match=r"0 frames \(0\.00 s\)"):
        identifier.identify(np.zeros(1, np.float32), 16000)


@pytest.mark.parametrize(
    ("sound", "rate"),
    [
        (noise(0.2), None),
        (noise(0.2), 0),
        (noise(0.2), -16000),
        (noise(0.2), 16000.5),
        (noise(0.2), True),
        (noise(0.2), "16000"),
        (np.zeros(0, np.float32), 16000),
        (np.full(6400, np.nan, np.float32), 16000),
        (np.full(6400, np.inf, np.float32), 16000),
        (np.zeros((10, 10, 10), np.float32), 16000),
        (np.zeros(6400, np.complex64), 16000),
        (np.array([None] * 6400), 16000),
        (["a"], 16000),
        ([[0.1], [0.1, 0.2]], 16000),
        (None, 16000),
        (b"sound.wav", 16000),
        ({"a": 1}, 16000),
        ("no such file.wav", None),
        (".", None),
        ("", None),
        ("a\0b", None),
    ],
)
def test_what_is_no_sound_is_refused(identifier: SpeakerIdentifier, sound: Any, rate: Any) -> None:
    with pytest.raises(VoxportError):
        identifier.identify(sound, rate)


def test_a_whole_rate_of_numpy_is_a_rate(identifier: SpeakerIdentifier) -> None:
    rate: Any = np.int64(16000)
    assert identifier.identify(noise(0.2), rate) == identifier.identify(noise(0.2), 16000)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((20, 39)),
        np.zeros((1, 20, 40)),
        np.zeros(40),
        np.zeros((20, 40), np.int64),
        np.full((20, 40), np.nan),
        np.full((20, 40), 1e300),
        np.full((20, 40), None),
        [[1.0], [1.0, 2.0]],
        None,
        "features",
    ],
)
def test_what_is_no_features_is_refused(tiny: TinyModel, values: Any) -> None:
    with pytest.raises(VoxportError, match="the features: "):
        SpeakerIdentifier.load(tiny.path).identify_features(values)


def test_features_of_a_wrong_length_are_refused(tiny: TinyModel) -> None:
    with pytest.raises(LengthError, match=r"the features: 4 frames \(0\.03 s\) is too short"):
        SpeakerIdentifier.load(tiny.path).identify_features(features(4))


def test_a_model_that_takes_sound_refuses_features(tiny_waveform: TinyModel) -> None:
    with pytest.raises(VoxportError, match="takes sound, not features"):
        SpeakerIdentifier.load(tiny_waveform.path).identify_features(features(20))


def test_a_sound_in_an_unknown_format_is_an_audio_error(identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("hello")
    with pytest.raises(AudioError, match=r"notes\.wav"):
        identifier.identify(tmp_path / "notes.wav")


def test_a_pickle_in_a_npy_file_is_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    np.save(tmp_path / "bomb.npy", np.array([Bomb()]), allow_pickle=True)
    with pytest.raises(VoxportError, match=r"bomb\.npy"):
        read_features(tmp_path / "bomb.npy")
    assert not (tmp_path / "ran").exists()


def test_a_npy_file_that_claims_terabytes_costs_nothing(tmp_path: Path) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 40)}
    with (tmp_path / "huge.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(VoxportError, match=r"huge\.npy"):
        read_features(tmp_path / "huge.npy")


@pytest.mark.skipif(os.name != "posix", reason="named pipes are a POSIX matter")
def test_a_pipe_a_device_and_a_folder_called_npy_are_refused_at_once(tmp_path: Path) -> None:
    """Opening a pipe without a writer waits for ever."""
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path / "pipe.npy", tmp_path, Path("/dev/zero")):
        with pytest.raises(VoxportError, match="is no regular file; expected a NumPy array"):
            read_features(path)
    with pytest.raises(VoxportError, match=r"absent\.npy: cannot be read"):
        read_features(tmp_path / "absent.npy")
    with pytest.raises(VoxportError, match="embedded null"):
        read_features("a\0b.npy")


# --- sharing ------------------------------------------------------------------------------------------


def test_threads_may_share_an_identifier(identifier: SpeakerIdentifier) -> None:
    sounds = [noise(0.1 + 0.05 * i, seed=i) for i in range(6)]
    expected = [identifier.identify(sound, 16000) for sound in sounds]
    wrong: list[int] = []

    def work(start: int) -> None:
        for turn in range(20):
            i = (start + turn) % len(sounds)
            if identifier.identify(sounds[i], 16000) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_two_models_live_side_by_side(tiny: TinyModel, model_path: Path) -> None:
    other = make_tiny(model_path, seed=7)
    values = features(20)
    first, second = SpeakerIdentifier.load(tiny.path), SpeakerIdentifier.load(other.path)
    np.testing.assert_allclose(first.scores_features(values), tiny.scores(values), atol=1e-3)
    np.testing.assert_allclose(second.scores_features(values), other.scores(values), atol=1e-3)
    assert first.contract.score_scale == SCALE


def test_threads_may_share_several_models_at_once(tiny: TinyModel, tiny_waveform: TinyModel, model_path: Path) -> None:
    """Every thread asks every model in an order of its own: no answer is another model's, or of another sound."""
    paths = [tiny.path, tiny_waveform.path, make_tiny(model_path, seed=7).path]
    models = [SpeakerIdentifier.load(path, threads=2) for path in paths]
    sounds = [noise(0.1 + 0.05 * i, seed=i) for i in range(4)]
    expected = {(m, s): models[m].scores(sounds[s], 16000) for m in range(len(models)) for s in range(len(sounds))}
    assert not np.allclose(expected[0, 0], expected[2, 0])

    def work(seed: int) -> bool:
        order = list(expected) * 5
        random.Random(seed).shuffle(order)
        return all(np.array_equal(models[m].scores(sounds[s], 16000), expected[m, s]) for m, s in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
