"""Channels of a sound: one voice in all, a voice in each, silence, and channels that cancel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.tiny_models import TinyModel, tone
from tests.runtime.tone_speakers import RATE, ToneScorer, spoken
from voxport.cli.root import cli
from voxport.runtime import (
    AudioError,
    ChannelError,
    SpeakerIdentifier,
    Stream,
    StreamOptions,
    Timeline,
    TimelineOptions,
)
from voxport.runtime.audio.channels import ChannelMeter, Channels, compare_channels, parse_channel
from voxport.runtime.audio.decode import audio_channels, read_audio, read_piece

Floats = npt.NDArray[np.float32]


def voice(seconds: float, seed: int, level: float = 0.1) -> Floats:
    """Noise that comes and goes four times a second, as syllables do."""
    generator = np.random.default_rng(seed)
    syllables = np.repeat(generator.uniform(0, 1, round(seconds * 8)) ** 2, RATE // 8)
    return (level * syllables * generator.standard_normal(len(syllables))).astype(np.float32)


def stereo(left: Floats, right: Floats) -> Floats:
    return np.stack([left, right], axis=1)


A, B = voice(4, 1), voice(4, 2)
NOTHING = np.zeros_like(A)
CALL = stereo(np.concatenate([A, NOTHING]), np.concatenate([NOTHING, B]))


@pytest.mark.parametrize(
    ("sound", "usual", "cancel"),
    [
        (stereo(A, A), ("mix",), False),
        (stereo(A, 0.1 * A), ("mix",), False),
        (stereo(np.roll(A, 40), A), ("mix",), False),  # two microphones, 2.5 ms apart
        (stereo(A, -A), (1,), True),
        (stereo(-0.5 * A, A), (2,), True),  # (0.5 / 2)² against (0.25 + 1) / 2: 10 dB less
        (stereo(-0.1 * A, A), ("mix",), False),  # (0.9 / 2)² against (0.01 + 1) / 2: 4 dB less
        (stereo(NOTHING, A), (2,), False),
        (stereo(A, B), (1, 2), False),
        (CALL, (1, 2), False),
        (stereo(CALL[:, 0], 0.1 * CALL[:, 1]), (1, 2), False),
        (stereo(NOTHING, NOTHING), ("mix",), False),
        (np.stack([A, A, B], axis=1), (1, 2, 3), False),
        (np.stack([A, NOTHING, -A, NOTHING], axis=1), (1,), True),
    ],
)
def test_what_is_heard_without_a_choice(sound: Floats, usual: tuple[Any, ...], cancel: bool) -> None:
    found = compare_channels(sound, RATE)
    assert found.usual == usual
    assert found.cancel is cancel
    assert found.differ is (len(usual) > 1)


def test_levels_are_those_of_the_samples() -> None:
    sound = stereo(tone(1, hertz=400), 0.1 * tone(1, hertz=400)) + np.float32(0.2)  # a DC offset is no level
    found = compare_channels(sound, RATE)
    assert found.levels_db == pytest.approx((-9.03, -29.03), abs=0.01)  # amplitude 0.5: 20 lg(0.5 / √2)
    assert found.mix_db == pytest.approx(-9.03 + 20 * np.log10(1.1 / 2), abs=0.01)


def test_a_pause_does_not_lower_the_level() -> None:
    sound = np.concatenate([stereo(A, B), np.zeros((5 * RATE, 2), np.float32)])
    assert compare_channels(sound, RATE).levels_db == pytest.approx(
        compare_channels(stereo(A, B), RATE).levels_db, abs=1e-6
    )


@given(st.lists(st.integers(1, 3000), max_size=20))
def test_blocks_of_any_size_give_the_same(sizes: list[int]) -> None:
    sound = CALL[::4]
    meter = ChannelMeter(RATE)
    for block in np.split(sound, np.cumsum(sizes)):
        meter.push(block)
    assert meter.finish() == compare_channels(sound, RATE)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "left", "", "true"])
def test_what_is_no_channel(text: str) -> None:
    with pytest.raises(AudioError, match="from 1 on, mix or each"):
        parse_channel(text)


def test_a_file_gives_the_channel_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    soundfile.write(path, CALL, RATE, subtype="FLOAT")
    for number in (1, 2):
        np.testing.assert_array_equal(read_audio(path, RATE, channel=number), CALL[:, number - 1])
        np.testing.assert_array_equal(read_piece(path, RATE, 1, 2, channel=number), CALL[RATE : 2 * RATE, number - 1])
    np.testing.assert_array_equal(read_audio(path, RATE), CALL.mean(axis=1, dtype=np.float64).astype(np.float32))
    assert audio_channels(path) == compare_channels(CALL, RATE)
    assert audio_channels(path, 0, 3) != audio_channels(path)
    soundfile.write(path, A, RATE)
    assert audio_channels(path) is None
    with pytest.raises(AudioError, match=r"call\.wav: has no channel 2; there is 1"):
        read_audio(path, RATE, channel=2)


# --------------------------------------------------------------------------------------- the identifier


SHORT = CALL[3 * RATE + 12800 : 4 * RATE + 3200]  # 0.4 s, half of it of each party


@pytest.fixture
def identifier(either: TinyModel) -> SpeakerIdentifier:
    return SpeakerIdentifier.load(either.path, threads=1)


def test_one_answer_is_not_given_for_two_sounds(identifier: SpeakerIdentifier) -> None:
    for ask in (identifier.identify, identifier.scores, identifier.embed):
        with pytest.raises(ChannelError, match="channels 1 and 2 hold different sounds; choose one with --channel N"):
            ask(SHORT, RATE)
    with pytest.raises(ChannelError, match="sound 1: channels"):
        identifier.identify_batch([SHORT[:, 0], SHORT], RATE)
    with pytest.raises(AudioError, match="each channel has its own"):
        identifier.identify(SHORT, RATE, channel="each")  # type: ignore[arg-type]


def test_each_channel_is_answered_as_by_itself(identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    soundfile.write(path, SHORT, RATE, subtype="FLOAT")
    alone = [identifier.identify(SHORT[:, i], RATE) for i in (0, 1)]
    for answers in (identifier.identify_channels(SHORT, RATE), identifier.identify_channels(path)):
        assert [answer.channel for answer in answers] == [1, 2]
        for answer, expected in zip(answers, alone, strict=True):
            assert answer.speaker == expected.speaker
            assert answer.best.score == pytest.approx(expected.best.score, abs=1e-4)
    voices = identifier.voices(path)
    np.testing.assert_allclose(voices[1].embedding, identifier.embed(SHORT[:, 1], RATE), atol=1e-5)
    assert identifier.identify(path, channel=2).best.score == pytest.approx(alone[1].best.score, abs=1e-4)
    mixed = identifier.identify(path, channel="mix")
    assert mixed.channel is None
    assert mixed.best.score == pytest.approx(identifier.identify(SHORT.mean(axis=1), RATE).best.score, abs=1e-3)


def test_channels_that_cancel_are_heard_in_the_loudest_and_it_is_said(identifier: SpeakerIdentifier) -> None:
    left = tone(0.4, hertz=300)
    answer = identifier.identify(stereo(-0.9 * left, left), RATE)
    assert answer.channel == 2
    assert answer.ranked == identifier.identify(left, RATE).ranked
    (note,) = answer.notes
    assert note.code == "channels"
    assert "cancel each other" in note.text
    assert "channel 2 is heard" in note.text
    # Whoever asks for the average gets it, and two strangers are then alike: that is theirs to say.
    assert identifier.identify(stereo(-0.9 * left, left), RATE, channel="mix").notes == ()
    assert identifier.identify(stereo(left, left), RATE).notes == ()


# --------------------------------------------------------------------------------------- who speaks when


TURNS = stereo(
    spoken(("low", 4), (None, 4), ("low", 3), (None, 3)),
    spoken((None, 4), ("high", 4), (None, 3), ("high", 3)),
)


def test_a_timeline_divides_each_channel(tiny_waveform: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(tiny_waveform.path, threads=1)
    told: list[float] = []
    timeline = Timeline(identifier, TimelineOptions(window_s=0.5), scorer=ToneScorer())
    found = timeline.segments(TURNS, RATE, progress=told.append)
    assert [(each.channel, each.speaker) for each in found] == [(1, "low"), (2, "high"), (1, "low"), (2, "high")]
    assert [each.start_s for each in found] == pytest.approx([0, 4, 8, 11], abs=0.03)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(14)
    (one, *rest) = timeline.segments(TURNS, RATE, channel=2)
    assert (one.channel, one.speaker, len(rest)) == (2, "high", 1)
    mixed = timeline.segments(TURNS, RATE, channel="mix")
    assert [(each.channel, each.speaker) for each in mixed] == [(None, name) for name in ("low", "high") * 2]
    with pytest.raises(AudioError, match="once only"):
        timeline.segments(iter([TURNS]), RATE, channel="each")


def test_a_stream_hears_one_channel(tiny_waveform: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(tiny_waveform.path, threads=1)
    options = StreamOptions(window_s=0.5)
    for number, speaker in ((1, "low"), (2, "high")):
        stream = Stream(identifier, RATE, options, scorer=ToneScorer(), channel=number)
        decisions = [*stream.push(TURNS), *stream.close()]
        assert {each.channel for each in decisions} == {number}
        assert {each.speaker for each in decisions} == {speaker}
    with pytest.raises(AudioError, match="each channel has its own"):
        Stream(identifier, RATE, channel="each")  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------- commands


def run(*arguments: object, code: int = 0, sound: bytes = b"") -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)), input=sound)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def call(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "call.wav", SHORT, RATE, subtype="FLOAT")
    return tmp_path / "call.wav"


@pytest.fixture
def cancelling(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "anti.wav", stereo(tone(0.4), -tone(0.4)), RATE)
    return tmp_path / "anti.wav"


def test_identify_and_embed_answer_each_channel(tiny: TinyModel, call: Path) -> None:
    report = json.loads(run("identify", tiny.path, call, "--json").stdout)
    assert [(each["file"], each["channel"]) for each in report["results"]] == [(str(call), 1), (str(call), 2)]
    assert all(each["speaker"] == each["ranked"][0]["speaker"] for each in report["results"])
    report = json.loads(run("identify", tiny.path, call, "--channel", 2, "--json").stdout)
    assert [each["channel"] for each in report["results"]] == [2]
    report = json.loads(run("embed", tiny.path, call, "--json").stdout)
    assert [each["channel"] for each in report["results"]] == [1, 2]
    assert "call.wav, channel 2" in run("identify", tiny.path, call).stdout
    assert "no channel 3; there are 2" in run("identify", tiny.path, call, "--channel", 3, code=1).stderr
    assert "from 1 on, mix or each" in run("identify", tiny.path, call, "--channel", "left", code=2).stderr


def test_enroll_and_verify_ask_which_channel(tiny: TinyModel, call: Path, cancelling: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "people.gallery"
    refused = run("enroll", gallery, "--model", tiny.path, "Ada", call, code=1)
    assert "choose one with --channel N" in refused.stderr
    assert not gallery.exists()
    run("enroll", gallery, "--model", tiny.path, "Ada", call, "--channel", 1)
    told = run("enroll", tmp_path / "others.gallery", "--model", tiny.path, "Bob", cancelling)
    assert f"note: {cancelling}, channel 1: its channels cancel each other" in told.stderr
    refused = run("verify", gallery, "--model", tiny.path, "Ada", call, "--threshold", 0.9, code=1)
    assert "choose one with --channel N" in refused.stderr
    report = json.loads(
        run(
            *("verify", gallery, "--model", tiny.path, "Ada", call, "--threshold", 0.9999, "--channel", "1", "--json"),
        ).stdout
    )
    assert report["results"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    assert report["results"][0]["channel"] == 1


def test_stream_plays_channels_side_by_side_and_warns_of_an_average(tiny: TinyModel, tmp_path: Path) -> None:
    long = CALL[2 * RATE : 6 * RATE]
    soundfile.write(tmp_path / "call.wav", long, RATE, subtype="FLOAT")
    lines = [json.loads(line) for line in run("stream", tiny.path, tmp_path / "call.wav", "--json").stdout.splitlines()]
    assert {line["channel"] for line in lines} == {1, 2}
    assert all(line["end_s"] <= 2.61 for line in lines if line["channel"] == 1)
    assert all(line["end_s"] >= 2 for line in lines if line["channel"] == 2)
    raw = ("stream", tiny.path, "--channels", 2, "--format", "f32", "--json")
    told = run(*raw, sound=long.tobytes())
    assert "2 channels are averaged" in told.stderr
    assert "hold different sounds" in told.stderr
    assert "cancel each other" in run(*raw, sound=stereo(A, -A).tobytes()).stderr
    quiet = run(*raw, "--channel", "each", sound=long.tobytes())
    assert quiet.stderr == ""
    assert {json.loads(line)["channel"] for line in quiet.stdout.splitlines()} == {1, 2}
    assert "has no channel 3" in run(*raw, "--channel", 3, sound=long.tobytes(), code=1).output


def test_a_comparison_is_a_value() -> None:
    assert Channels((-20.0, -30.0), -25.0, (1, 2), False, False).loudest == 1
