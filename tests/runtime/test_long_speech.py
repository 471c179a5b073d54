"""Channels, speech and notes of sounds longer than the model takes: as those of short ones, wherever they are asked."""

import asyncio
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.runtime.test_speech import RATE, noise, talk, tones
from tests.runtime.tiny_models import LABELS, SIZE, TinyModel, make_tiny
from voxport.cli.root import cli
from voxport.runtime import Answer, AudioError, Batcher, ChannelError, Identification, SpeakerIdentifier, Windowing
from voxport.runtime.audio.pieces import PIECE_SECONDS
from voxport.runtime.length_range import LengthRange
from voxport.runtime.speech import USUAL_RULE, find_speech
from voxport.runtime.windowing.cutting import SpokenWindows, sound_windows

Floats = npt.NDArray[np.float32]

SIZE_S = 2.0  # seconds that the model takes at once
LONG = 60.0  # seconds, of patience


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    path = tmp_path_factory.mktemp("long") / "model.onnx"
    return make_tiny(path, "waveform", max_frames=round(SIZE_S * 100), speech=USUAL_RULE)


@pytest.fixture(scope="module")
def identifier(model: TinyModel) -> SpeakerIdentifier:
    return SpeakerIdentifier.load(model.path, threads=1)


def stereo(left: Floats, right: Floats) -> Floats:
    return np.stack([left, right], axis=1)


def written(path: Path, sound: Floats) -> Path:
    soundfile.write(path, sound, RATE, subtype="FLOAT")
    return path


ONE, OTHER, QUIET = talk(7, 1), talk(7, 2), noise(7, 0.003)


def same(one: Identification, other: Identification) -> None:
    assert [each.speaker for each in one.ranked] == [each.speaker for each in other.ranked]
    np.testing.assert_allclose(
        [each.score for each in one.ranked], [each.score for each in other.ranked], atol=1e-3, rtol=0
    )
    assert (one.windows, one.duration_s, one.known) == (other.windows, other.duration_s, other.known)


@pytest.mark.parametrize(
    ("sound", "lacks"), [(noise(7), "steady"), (tones(7, 50, 100), "steady"), (np.zeros(7 * RATE, "f4"), "silence")]
)
def test_a_long_sound_without_speech_is_nobodys(
    identifier: SpeakerIdentifier, tmp_path: Path, sound: Floats, lacks: str
) -> None:
    for source, rate in ((sound, RATE), (written(tmp_path / "long.wav", sound), None)):
        answer = identifier.identify(source, rate)
        assert (answer.speaker, answer.ranked, answer.known, answer.notes) == (None, (), False, ())
        assert answer.speech is not None
        assert answer.speech.lacks == lacks
        assert answer.duration_s == pytest.approx(7)
        voice = identifier.voice(source, rate)
        assert voice.speech == answer.speech
        assert np.linalg.norm(voice.embedding) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("at", [0, 2, 3, 4.9, 5.5])
def test_speech_anywhere_in_a_long_sound_is_speech(identifier: SpeakerIdentifier, at: float) -> None:
    sound = QUIET.copy()
    start = round(at * RATE)
    word = talk(1.2)
    sound[start : start + len(word)] += word
    answer = identifier.identify(sound, RATE)
    assert answer.speech is not None
    assert answer.speech.found
    assert answer.speaker == answer.best.speaker


def test_windows_without_speech_count_for_nothing(tmp_path: Path) -> None:
    """Speech, then three times as much of a noise that the gate lets pass; files that state no such rule count all."""
    plain = make_tiny(tmp_path / "plain.onnx", "waveform", max_frames=200, speech=USUAL_RULE)
    rule = Windowing(speech_only=True)
    model = make_tiny(tmp_path / "model.onnx", "waveform", max_frames=200, speech=USUAL_RULE, windowing=rule)
    sound = np.concatenate([talk(5, 1), noise(15, 0.02)])
    allowed = LengthRange.of_sound(model.contract)
    every = list(sound_windows(model.contract.frontend, allowed, rule, iter([sound])))
    spoken = [(part, weight) for part, weight in every if find_speech(part, RATE, USUAL_RULE).found]
    assert 3 < len(spoken) < len(every) / 2
    for given, windows in ((model, spoken), (plain, every)):
        total = sum(weight * given.embedding(part) for part, weight in windows)
        identifier = SpeakerIdentifier.load(given.path, threads=1)
        voice = identifier.voice(sound, RATE)
        np.testing.assert_allclose(voice.embedding, total / np.linalg.norm(total), atol=1e-4)
        assert voice.windows == identifier.identify(sound, RATE).windows == len(windows)
        with Batcher(identifier) as batcher:
            assert batcher.submit(sound, RATE).result(LONG).windows == len(windows)


def test_where_no_window_holds_speech_the_first_one_gives_the_numbers(tmp_path: Path) -> None:
    rule = Windowing(speech_only=True)
    model = make_tiny(tmp_path / "model.onnx", "waveform", max_frames=200, speech=USUAL_RULE, windowing=rule)
    identifier = SpeakerIdentifier.load(model.path, threads=1)
    sound = noise(7)
    voice = identifier.voice(sound, RATE)
    first = model.embedding(sound[: LengthRange.of_sound(model.contract).longest])
    np.testing.assert_allclose(voice.embedding, first, atol=1e-4)
    answer = identifier.identify(sound, RATE)
    assert (answer.speaker, answer.known, answer.windows, voice.windows) == (None, False, 1, 1)
    # The sound holds speech, but no window does: half of the word is in each. It is nobody's all the same.
    halves = SpokenWindows(iter([(noise(2), 9), (noise(2, seed=1), 9)]), RATE, USUAL_RULE)
    assert [weight for _, weight in halves] == [1]
    assert halves.lacking is not None
    assert halves.lacking.lacks == "steady"


def test_windows_may_be_shorter_than_what_is_heard_whole(tmp_path: Path) -> None:
    rule = Windowing(speech_only=True, max_frames=100)
    model = make_tiny(tmp_path / "model.onnx", "waveform", max_frames=200, speech=USUAL_RULE, windowing=rule)
    identifier = SpeakerIdentifier.load(model.path, threads=1)
    longest = LengthRange.of_sound(model.contract).longest
    whole = identifier.voice(ONE[:longest], RATE)
    np.testing.assert_allclose(whole.embedding, model.embedding(ONE[:longest]), atol=1e-4)
    shorter = LengthRange.of_windows(model.contract)
    assert shorter.longest == LengthRange.of_sound(model.contract.replace(max_frames=100)).longest
    parts = list(sound_windows(model.contract.frontend, shorter, rule, iter([ONE])))
    total = sum(weight * model.embedding(part) for part, weight in parts)
    long = identifier.voice(ONE, RATE)
    assert (whole.windows, long.windows) == (1, len(parts))
    np.testing.assert_allclose(long.embedding, total / np.linalg.norm(total), atol=1e-4)


def test_the_seconds_of_all_stretches_are_told(identifier: SpeakerIdentifier) -> None:
    answer = identifier.identify(ONE, RATE)
    assert answer.windows > 1
    assert answer.speech is not None
    size = LengthRange.of_sound(identifier.contract).longest
    parts = [find_speech(ONE[start : start + size], RATE, USUAL_RULE) for start in range(0, 3 * size, size)]
    last = find_speech(ONE[-size:], RATE, USUAL_RULE)  # a part of it is in the stretch before
    new = (len(ONE) - 3 * size) / size
    assert all(each.found for each in (*parts, last))
    assert answer.speech.seconds == pytest.approx(sum(each.seconds for each in parts) + new * last.seconds)
    most = max((*parts, last), key=lambda each: each.seconds)
    assert answer.speech.swing_db == pytest.approx(most.swing_db, abs=1e-4)


def test_notes_are_those_of_the_speech(identifier: SpeakerIdentifier) -> None:
    def codes(sound: Floats) -> list[str]:
        return [note.code for note in identifier.identify(sound, RATE).notes]

    assert "clipping" in codes(np.clip(20 * ONE, -1, 1))
    assert "noise" in codes((ONE + noise(7, 0.025)).astype(np.float32))
    shouted = np.clip(20 * ONE[: round(0.8 * RATE)], -1, 1)
    assert "clipping" in codes(np.concatenate([shouted, QUIET]))
    assert "clipping" not in codes(np.concatenate([shouted, QUIET[: 2 * RATE], ONE]))  # most of the speech is not
    assert not {"noise", "clipping", "level"} & set(codes(ONE))


def test_channels_of_long_sounds(identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    call = stereo(ONE, OTHER)
    alone = [identifier.identify(each, RATE) for each in (ONE, OTHER)]
    for source, rate in ((call, RATE), (written(tmp_path / "call.wav", call), None)):
        with pytest.raises(ChannelError, match="channels 1 and 2 hold different sounds"):
            identifier.identify(source, rate)
        answers = identifier.identify_channels(source, rate)
        assert [each.channel for each in answers] == [1, 2]
        for answer, expected in zip(answers, alone, strict=True):
            same(answer, expected)
            assert answer.speech == expected.speech
        same(identifier.identify(source, rate, channel=2), alone[1])
        (batched,) = identifier.identify_batch([source], rate, channel=1)
        same(batched, alone[0])
        mixed = identifier.identify(source, rate, channel="mix")
        assert mixed.channel is None
        same(mixed, identifier.identify(call.mean(axis=1, dtype=np.float64).astype(np.float32), RATE))
        voices = identifier.voices(source, rate, pieces=PIECE_SECONDS)
        for voice, sound in zip(voices, (ONE, OTHER), strict=True):
            whole = identifier.voice(sound, RATE, pieces=PIECE_SECONDS)
            np.testing.assert_allclose(voice.embedding, whole.embedding, atol=1e-5)
            assert len(voice.pieces) == len(whole.pieces) > 0
            np.testing.assert_allclose(voice.pieces[0].embedding, whole.pieces[0].embedding, atol=1e-5)
        with pytest.raises(AudioError, match="has no channel 3"):
            identifier.identify(source, rate, channel=3)


def test_one_side_of_a_long_call_is_heard_and_cancelling_channels_are_told(identifier: SpeakerIdentifier) -> None:
    answer = identifier.identify(stereo(QUIET, ONE), RATE)
    assert answer.channel == 2
    assert answer.notes[0].code == "channels"
    assert "only channel 2 holds speech" in answer.notes[0].text
    same(answer, identifier.identify(ONE, RATE))
    cancelled = identifier.identify(stereo(-0.9 * ONE, ONE), RATE)
    assert cancelled.channel == 2
    assert cancelled.notes[0].code == "channels"
    assert "cancel each other" in cancelled.notes[0].text
    same(cancelled, identifier.identify(ONE, RATE))


def test_batches_and_batchers_answer_as_one_by_one(identifier: SpeakerIdentifier) -> None:
    sounds: list[Any] = [ONE, noise(7), talk(1), stereo(QUIET, ONE), noise(1)]
    expected = [identifier.identify(sound, RATE) for sound in sounds]
    batch = identifier.identify_batch(sounds, RATE)
    with Batcher(identifier) as batcher:
        futures = [batcher.submit(sound, RATE) for sound in sounds]
        queued = [future.result(LONG) for future in futures]
        chosen = batcher.submit(stereo(ONE, OTHER), RATE, channel=2).result(LONG)
        short = batcher.submit(stereo(ONE, OTHER)[:RATE], RATE, channel=2).result(LONG)
        vector = batcher.submit_embed(stereo(ONE, OTHER), RATE, channel=1).result(LONG)
        awaited = asyncio.run(batcher.identify(stereo(ONE, OTHER), RATE, channel=2))
        with pytest.raises(ChannelError):
            batcher.submit(stereo(ONE, OTHER), RATE).result(LONG)
    for answers in (batch, queued):
        for answer, alone in zip(answers, expected, strict=True):
            same(answer, alone)
            assert (answer.channel, answer.notes, answer.speech) == (alone.channel, alone.notes, alone.speech)
    assert [each.speaker is None for each in expected] == [False, True, False, False, True]
    same(chosen, identifier.identify(OTHER, RATE))
    same(awaited, chosen)
    same(short, identifier.identify(OTHER[:RATE], RATE))
    np.testing.assert_allclose(vector, identifier.embed(ONE, RATE), atol=1e-5)


def test_memory_does_not_grow_with_channels_and_speech(model: TinyModel) -> None:
    class Longer:
        contract = model.contract.replace(max_frames=3000)

        def run(self, inputs: Any, lengths: Any) -> Answer:
            return Answer(np.ones((1, len(LABELS)), np.float32), np.eye(1, SIZE, dtype=np.float32))

    sound = np.tile((talk(60) * 32767).astype(np.int16), 20)  # 20 min; made before it is counted
    call = stereo(sound, sound)  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        answer = SpeakerIdentifier(Longer()).identify(call, RATE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.speaker is not None
    assert peak < 50_000_000  # as floats the sound alone would take 154 MB


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_commands_answer_long_calls_channel_by_channel(model: TinyModel, tmp_path: Path) -> None:
    call, hum = written(tmp_path / "call.wav", stereo(ONE, OTHER)), written(tmp_path / "hum.wav", tones(7, 50, 100))
    gallery, vectors = tmp_path / "people.gallery", tmp_path / "voices.npz"
    told = run("identify", model.path, call, hum, "--json")
    results = json.loads(told.stdout)["results"]
    assert [each["channel"] for each in results] == [1, 2, None]
    assert all(each["windows"] > 1 for each in results[:2])
    assert [each["speech"]["lacks"] for each in results] == [None, None, "steady"]
    assert results[2]["speaker"] is None
    assert f"note: {hum}: holds no speech" in told.stderr

    embedded = json.loads(run("embed", model.path, call, "-o", vectors, "--json").stdout)["results"]
    assert [(each["channel"], each["duration_s"]) for each in embedded] == [(1, 7.0), (2, 7.0)]
    with np.load(vectors) as file:
        assert list(file["files"]) == [f"{call}, channel 1", f"{call}, channel 2"]
        assert len(file["pieces"]) == 2  # of 0.75 s; 2 s are too little for one of 1.5 s

    assert "hold different sounds" in run("enroll", model.path, gallery, "Ada", call, code=1).stderr
    assert "holds no speech" in run("enroll", model.path, gallery, "Ada", hum, "--accept-anyway", code=1).stderr
    assert not gallery.exists()
    enrolled = json.loads(run("enroll", model.path, gallery, "Ada", call, "--channel", 1, "--json").stdout)
    (file,) = enrolled["files"]
    assert (file["channel"], file["duration_s"]) == (1, 7.0)
    verified = run("verify", model.path, gallery, "Ada", call, "--channel", 1, "--threshold", 0.99, "--json")
    (result,) = json.loads(verified.stdout)["results"]
    assert result["accepted"] is True
    assert result["channel"] == 1
    assert result["windows"] > 1
    among = json.loads(run("identify", model.path, hum, call, "--gallery", gallery, "--json").stdout)["results"]
    assert [each["speaker"] for each in among] == [None, "Ada", "Ada"]
    assert [each["known"] for each in among] == [False, None, None]


def test_accept_anyway_serves_spoiled_recordings_and_misfits(model: TinyModel, tmp_path: Path) -> None:
    clipped = written(tmp_path / "clipped.wav", np.clip(20 * ONE, -1, 1))
    gallery = tmp_path / "people.gallery"
    refused = run("enroll", model.path, gallery, "Ada", clipped, code=1)
    assert "it is clipped" in refused.stderr
    assert not gallery.exists()
    taken = run("enroll", model.path, gallery, "Ada", clipped, "--accept-anyway")
    assert f"note: {clipped}: it is clipped" in taken.stderr
    again = written(tmp_path / "again.wav", np.clip(21 * ONE, -1, 1))
    double = run("enroll", model.path, gallery, "Bob", again, "--accept-anyway")
    assert f"warning: {again}" in double.stderr  # Ada's voice is enrolled already
    assert "--accept-anyway" in run("enroll", model.path, gallery, "Eve", again, code=1).stderr
