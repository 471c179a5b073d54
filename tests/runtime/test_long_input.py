"""Sounds longer than the model takes: held against windows that plain NumPy cuts, judges and averages."""

import dataclasses
import itertools
import json
import tracemalloc
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.runtime.tiny_models import FRONTEND, LABELS, SCALE, SIZE, TinyModel, features, make_tiny, tone
from voxport.runtime import (
    Answer,
    AudioError,
    Batcher,
    BatcherClosedError,
    BatcherOptions,
    Contract,
    ContractError,
    Identification,
    LengthError,
    SpeakerIdentifier,
    VoxportError,
    Windowing,
)
from voxport.runtime.audio import samples as array_of
from voxport.runtime.contract import Array
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.length_range import LengthRange
from voxport.runtime.windowing.cutting import sound_windows, spans
from voxport.runtime.windowing.long_input import Pool

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

RATE = 16000
FRAME = 320  # samples of 20 ms
LONG = 60.0  # seconds, of patience


def talk(seconds: float, seed: int = 3) -> npt.NDArray[np.float32]:
    """Sound whose loud frames are all speech to the gate, and whose windows differ."""
    generator = np.random.default_rng(seed)
    steps = np.repeat(generator.uniform(0.1, 0.9, int(seconds * 10) + 1), RATE // 10)[: round(seconds * RATE)]
    return np.asarray(steps * generator.choice([-1.0, 1.0], len(steps)), dtype=np.float32)


def reference(model: TinyModel, sound: npt.NDArray[np.float32], speech: npt.NDArray[np.bool_]) -> tuple[Any, Any, int]:
    """Embedding, scores and number of windows by the rule; `speech` tells of each frame of 20 ms whether it is."""
    size = LengthRange.of_sound(model.contract).longest
    near = [bool(speech[max(0, i - 5) : i + 6].any()) for i in range(len(speech))]  # 0.1 s on either side
    kept = np.concatenate([sound[i * FRAME : (i + 1) * FRAME] for i in range(len(speech)) if near[i]])
    at = [0]
    if len(kept) > size:
        at = [*range(0, len(kept) - size, size // 2), len(kept) - size]
    borders = [0, *((one + two + size) // 2 for one, two in itertools.pairwise(at)), len(kept)]
    total = np.zeros(SIZE)
    for start, one, two in zip(at, borders, borders[1:], strict=False):
        window, kind = kept[start : start + size], model.contract.input_kind
        values = window if kind == "waveform" else compute_features(window, model.contract.frontend)
        total += (two - one) * model.embedding(values)
    embedding = total / np.linalg.norm(total)
    return embedding, SCALE * embedding @ model.classes.astype(np.float64), len(at)


def frames(sound: npt.NDArray[np.float32]) -> int:
    return -(-len(sound) // FRAME)


@pytest.mark.parametrize("seconds", [0.61, 0.9, 1.2, 2.0, 3.337])
def test_a_long_sound_is_the_average_of_its_windows(either: TinyModel, seconds: float) -> None:
    sound = talk(seconds)
    embedding, scores, used = reference(either, sound, np.ones(frames(sound), np.bool_))
    identifier = SpeakerIdentifier.load(either.path)
    voice = identifier.voice(sound, RATE)
    np.testing.assert_allclose(voice.embedding, embedding, atol=1e-4)
    np.testing.assert_allclose(identifier.scores(sound, RATE), scores, atol=3e-3)
    answer = identifier.identify(sound, RATE)
    assert answer.windows == voice.windows == used
    assert answer.duration_s == voice.duration_s == pytest.approx(len(sound) / RATE)
    assert answer.best.speaker == LABELS[int(np.argmax(scores))]


@pytest.mark.parametrize(
    "lengths",
    [[40, 150, 30, 120], [3, 60, 9, 1, 80], [0, 70, 5, 30, 2, 9, 50, 4, 2], [20, 11, 20, 10, 20, 9, 20], [0, 99, 8]],
)
def test_only_speech_is_heard(either: TinyModel, lengths: list[int]) -> None:
    """Speech and pauses in turn, in frames: pauses of more than twice the margin are cut down to it."""
    speech = np.repeat([i % 2 == 0 for i in range(len(lengths))], lengths)
    sound = np.where(np.repeat(speech, FRAME), talk(len(speech) * FRAME / RATE), np.float32(0)).astype(np.float32)
    embedding, scores, used = reference(either, sound, speech)
    identifier = SpeakerIdentifier.load(either.path)
    answer = identifier.identify(sound, RATE)
    assert answer.windows == used
    np.testing.assert_allclose(identifier.embed(sound, RATE), embedding, atol=1e-4)
    np.testing.assert_allclose(identifier.scores(sound, RATE), scores, atol=3e-3)


@pytest.mark.parametrize("block", [1, 100, 319, 320, 321, 5000, 10**6])
def test_windows_do_not_depend_on_how_the_sound_comes(tiny: TinyModel, block: int) -> None:
    speech = np.repeat([True, False, True, False, True], [40, 30, 33, 9, 61])
    sound = np.where(np.repeat(speech, FRAME), talk(len(speech) * FRAME / RATE), np.float32(0)).astype(np.float32)
    sound = np.concatenate([sound, sound[:123]])[: 12000 if block == 1 else None]
    allowed = LengthRange.of_sound(tiny.contract)
    whole = list(sound_windows(FRONTEND, allowed, Windowing(), iter([sound])))
    blocks = (sound[at : at + block] for at in range(0, len(sound), block))
    for one, two in zip(whole, sound_windows(FRONTEND, allowed, Windowing(), blocks), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1] == two[1]


def test_long_silence_is_answered_by_its_first_window(either: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(either.path)
    longest = LengthRange.of_sound(either.contract).longest
    answer = identifier.identify(np.zeros(5 * RATE, np.float32), RATE)
    assert answer.windows == 1
    assert answer.duration_s == 5.0
    assert answer.ranked == identifier.identify(np.zeros(longest, np.float32), RATE).ranked


def test_what_fits_is_heard_whole(either: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(either.path)
    longest = LengthRange.of_sound(either.contract).longest
    sound = talk(1.0)[:longest]
    values = sound if either.contract.input_kind == "waveform" else compute_features(sound, either.contract.frontend)
    direct = identifier.backend.run(values[None], [len(values)])
    np.testing.assert_array_equal(identifier.scores(sound, RATE), direct.scores[0])
    assert identifier.identify(sound, RATE).windows == 1
    longer = np.concatenate([sound, sound[-1:]])
    np.testing.assert_allclose(identifier.scores(longer, RATE), direct.scores[0], atol=0.2)  # a millisecond is no jump


@pytest.mark.parametrize(("rate", "suffix"), [(16000, "wav"), (8000, "flac"), (44100, "wav")])
def test_a_file_answers_as_its_samples_do(either: TinyModel, tmp_path: Path, rate: int, suffix: str) -> None:
    path = tmp_path / f"long.{suffix}"
    sound = (talk(4.3)[: int(4.3 * rate)] * 32000).astype(np.int16)
    soundfile.write(path, np.stack([sound, sound], axis=1), rate)
    identifier = SpeakerIdentifier.load(either.path)
    np.testing.assert_array_equal(identifier.scores(path), identifier.scores(sound, rate))
    stated = identifier.identify(path)
    assert stated.windows == identifier.identify(sound, rate).windows > 3
    assert stated.duration_s == pytest.approx(len(sound) / rate, abs=1e-3)


def test_features_are_windows_of_frames_each_of_which_counts(tiny: TinyModel) -> None:
    values = features(143) + 0.3
    starts, borders = (0, 30, 60, 83), (0, 45, 75, 101, 143)
    total = sum(
        (stop - start) * tiny.embedding(values[at : at + 60])
        for at, start, stop in zip(starts, borders, borders[1:], strict=False)
    )
    expected = total / np.linalg.norm(total)
    identifier = SpeakerIdentifier.load(tiny.path)
    np.testing.assert_allclose(identifier.embed_features(values), expected, atol=1e-4)
    np.testing.assert_allclose(identifier.scores_features(values), SCALE * expected @ tiny.classes, atol=1e-3)
    assert identifier.identify_features(values).windows == 4
    spoilt = values.copy()
    spoilt[140, 0] = np.nan
    with pytest.raises(VoxportError, match="NaN or infinite"):
        identifier.identify_features(spoilt)


@pytest.mark.parametrize("length", range(60, 300, 7))
def test_spans_cover_everything_once(length: int) -> None:
    found = spans(length, 60, 0.5)
    assert sum(weight for _, weight in found) == length
    assert found[0][0] == 0
    assert found[-1][0] == length - 60
    assert all(0 < two - one <= 30 for (one, _), (two, _) in itertools.pairwise(found))


@pytest.mark.parametrize("output", ["scores", "embedding"])
def test_a_model_of_one_output_averages_that(either: TinyModel, output: Any) -> None:
    """Without embeddings the scores' mean is lower by the length of the mean embedding; the order is the same."""

    class Half:
        contract = either.contract.replace(
            outputs=(output,), golden=dataclasses.replace(either.contract.golden, embedding=Array.of(np.ones(SIZE)))
        )

        def run(self, inputs: Any, lengths: Any) -> Answer:
            whole = backend.run(inputs, lengths)
            return Answer.of({output: getattr(whole, output)})

    full = SpeakerIdentifier.load(either.path)
    backend = full.backend
    half = SpeakerIdentifier(Half())
    sound = talk(3.0)
    if output == "embedding":
        np.testing.assert_array_equal(half.embed(sound, RATE), full.embed(sound, RATE))
        return
    expected, found = full.scores(sound, RATE), half.scores(sound, RATE)
    share = found / expected
    np.testing.assert_allclose(share, share[0], rtol=1e-3)
    assert 0.5 < share[0] < 1
    assert [c.speaker for c in half.identify(sound, RATE).ranked] == [
        c.speaker for c in full.identify(sound, RATE).ranked
    ]


def test_a_batch_takes_short_and_long_in_order(either: TinyModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", talk(2.2), RATE)
    sounds: list[Any] = [talk(0.3), tmp_path / "long.wav", talk(0.5, 9), talk(1.7, 5), tone(0.2)]
    identifier = SpeakerIdentifier.load(either.path)
    np.testing.assert_allclose(
        identifier.scores_batch(sounds, RATE), [identifier.scores(sound, RATE) for sound in sounds], atol=3e-3
    )
    np.testing.assert_allclose(
        identifier.embed_batch(sounds, RATE), [identifier.embed(sound, RATE) for sound in sounds], atol=1e-4
    )
    windows = [answer.windows for answer in identifier.identify_batch(sounds, RATE)]
    assert [count > 1 for count in windows] == [False, True, False, True, False]


def test_a_fault_far_inside_a_long_sound_is_told(either: TinyModel, tmp_path: Path) -> None:
    sound = talk(5.0)
    sound[70000] = np.nan
    identifier = SpeakerIdentifier.load(either.path)
    with pytest.raises(AudioError, match="sound 1: holds NaN"):
        identifier.identify_batch([talk(0.2), sound], RATE)
    soundfile.write(tmp_path / "cut.flac", talk(20.0), RATE)
    data = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"cut\.flac: .*cut short"):
        identifier.identify(tmp_path / "cut.flac")


def test_more_than_a_day_is_refused_at_once(either: TinyModel) -> None:
    year = np.broadcast_to(np.float32(0.1), 365 * 86400 * RATE)
    identifier = SpeakerIdentifier.load(either.path)
    with pytest.raises(LengthError, match=r"the sound: more than 86400 s .* voxport timeline"):
        identifier.identify(year, RATE)


def test_an_hour_takes_no_memory(tiny_waveform: TinyModel) -> None:
    class Longer:
        contract = tiny_waveform.contract.replace(max_frames=3000)
        runs = 0

        def run(self, inputs: Any, lengths: Any) -> Answer:
            self.runs += 1
            return Answer(np.ones((1, len(LABELS)), np.float32), np.eye(1, SIZE, dtype=np.float32))

    backend = Longer()
    hour = np.broadcast_to(np.float32(0.1), 3600 * RATE) * np.float32(1)  # made before it is counted
    hour[::2] *= -1
    tracemalloc.start()
    try:
        answer = SpeakerIdentifier(backend).identify(hour, RATE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.windows == backend.runs == 240
    assert peak < 30_000_000


def test_voices_that_cancel_each_other_out_are_no_voice(tiny: TinyModel) -> None:
    pool = Pool(tiny.contract)
    for sign in (1.0, -1.0):
        pool.add(Answer(np.ones((1, len(LABELS)), np.float32), np.float32(sign) * np.eye(1, SIZE, dtype=np.float32)), 7)
    with pytest.raises(VoxportError, match="cancel each other out"):
        pool.answer()


# --- batchers -----------------------------------------------------------------------------------------


def test_a_batcher_answers_long_sounds_among_short_ones(either: TinyModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", talk(3.0), RATE)
    identifier = SpeakerIdentifier.load(either.path)
    sounds: list[Any] = [talk(0.4), tmp_path / "long.wav", talk(2.5, 8), talk(0.5)]
    with Batcher(identifier, BatcherOptions(max_wait_ms=0)) as batcher:
        asked = [batcher.submit(sound, RATE) for sound in sounds]
        voices = [batcher.submit_embed(sound, RATE) for sound in sounds]
        changing = sounds[2].copy()
        late = batcher.submit_scores(changing, RATE)
        changing[:] = 0.0
        found = [future.result(LONG) for future in asked]
        assert batcher.waiting <= len(sounds) + 1
        for sound, answer, voice in zip(sounds, found, voices, strict=True):
            alone = identifier.identify(sound, RATE)
            assert (answer.windows, answer.best.speaker) == (alone.windows, alone.best.speaker)
            assert answer.best.score == pytest.approx(alone.best.score, abs=3e-3)
            np.testing.assert_allclose(voice.result(LONG), identifier.embed(sound, RATE), atol=1e-4)
        np.testing.assert_allclose(late.result(LONG), identifier.scores(sounds[2], RATE), atol=3e-3)
    assert batcher.waiting == 0


def test_a_long_request_needs_one_place_and_gives_it_back(either: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(either.path)
    options = BatcherOptions(max_batch=1, max_queue=1, max_wait_ms=0, max_seconds=100)
    with Batcher(identifier, options) as batcher:
        for _ in range(3):
            assert batcher.submit(talk(3.0), RATE).result(LONG).windows > 3
        spoilt = talk(3.0)
        spoilt[40000] = np.nan
        with pytest.raises(AudioError, match="NaN"):
            batcher.submit(spoilt, RATE).result(LONG)
        with pytest.raises(LengthError, match="more than 100 s"):
            batcher.submit(np.broadcast_to(np.float32(0.1), 101 * RATE), RATE).result(LONG)
        assert batcher.waiting == 0
    for seconds in (0, -1, float("nan"), 1e9):
        with pytest.raises(VoxportError, match="max_seconds"):
            BatcherOptions(max_seconds=seconds)


def test_a_long_request_ends_with_its_future_and_with_the_batcher(either: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(either.path)
    sounds = [talk(600.0, seed) for seed in range(2)]  # made first: the one would be answered before the other is there
    batcher = Batcher(identifier, BatcherOptions(max_wait_ms=0))
    futures: list[Future[Identification]] = [batcher.submit(sound, RATE) for sound in sounds]
    assert futures[0].cancel()
    assert batcher.waiting == 1  # its place is free at once
    batcher.close(drain=False)
    assert futures[0].cancelled()
    with pytest.raises(BatcherClosedError):
        futures[1].result(LONG)
    assert batcher.waiting == 0
    with Batcher(identifier) as batcher:  # whose end waits for what was asked
        last = batcher.submit(talk(2.0), RATE)
    assert last.result(0).windows > 2


# --- the contract -------------------------------------------------------------------------------------


def test_the_rule_stands_in_the_contract_and_older_files_read(model_path: Path) -> None:
    rule = Windowing(hop=0.25, floor_db=-50.0, range_db=20.0, margin_s=0.2)
    model = make_tiny(model_path, "waveform", windowing=rule)
    identifier = SpeakerIdentifier.load(model_path)
    assert identifier.contract.windowing == rule
    usual = make_tiny(model_path, "waveform")
    assert "windowing" not in json.loads(usual.contract.to_json())
    assert Contract.from_json(usual.contract.to_json(), "x").windowing == Windowing()
    assert (
        identifier.identify(talk(3.0), RATE).windows
        > 1.7 * SpeakerIdentifier.load(model_path).identify(talk(3.0), RATE).windows
    )
    for key, value in (
        ("hop", 0.0),
        ("hop", 1.5),
        ("floor_db", 1.0),
        ("range_db", 0.0),
        ("range_db", 1e9),
        ("margin_s", -1.0),
    ):
        text = json.loads(model.contract.to_json())
        text["windowing"][key] = value
        with pytest.raises(ContractError, match=f"windowing {key} must be from"):
            Contract.from_json(json.dumps(text), "x")


def test_the_blocks_of_an_array_are_what_resampling_it_gives() -> None:
    sound = np.stack([talk(5.0), talk(5.0, 4)], axis=1)
    for rate in (8000, 16000, 44100):
        blocks = list(array_of.sample_blocks(sound, rate, RATE))
        assert len(blocks) > 1
        np.testing.assert_allclose(np.concatenate(blocks), array_of.resample(sound, rate, RATE), atol=1e-6)
