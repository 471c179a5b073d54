"""Is there speech in a sound: what is refused and why, what is not, and what follows from it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.runtime.tiny_models import TinyModel, make_tiny
from voxport.cli.root import cli
from voxport.runtime import (
    ChannelError,
    Contract,
    SpeakerIdentifier,
    Stream,
    StreamOptions,
    Timeline,
    TimelineOptions,
    VoxportError,
)
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.audio.preprocess import prepare_sound
from voxport.runtime.speech import USUAL_RULE, _is_clear, find_speech

Floats = npt.NDArray[np.float32]

SPEECH = Path(__file__).parents[3] / "shared/data/librispeech10"
RATE = 16000
RULE = USUAL_RULE


def time(seconds: float) -> npt.NDArray[np.float64]:
    return np.arange(round(seconds * RATE)) / RATE


def tones(seconds: float, *hertz: float) -> Floats:
    return np.asarray(sum(0.3 * np.sin(2 * np.pi * each * time(seconds)) for each in hertz), np.float32)


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> Floats:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def talk(seconds: float, seed: int = 1) -> Floats:
    """Syllables of a hiss and a buzz of 120 Hz each, which swell and die away."""
    generator = np.random.default_rng(seed)
    pieces: list[Floats] = []
    while sum(map(len, pieces)) < seconds * RATE:
        for is_voiced, length in ((False, 0.06), (True, generator.uniform(0.1, 0.2))):
            swell = np.sin(np.pi * time(length) / length) ** 1.5
            buzz = sum(np.sin(2 * np.pi * 120 * k * time(length)) / k for k in range(1, 25))
            hiss = np.diff(generator.standard_normal(len(swell) + 1))
            pieces.append((0.1 * generator.uniform(0.3, 1) * swell * (buzz if is_voiced else 0.3 * hiss)).astype("f4"))
        pieces.append(noise(generator.uniform(0.02, 0.1), 1e-4, seed))
    return np.concatenate(pieces)[: round(seconds * RATE)]


def melody(seconds: float) -> Floats:
    """Notes that are plucked and die away, three at a time."""
    notes = []
    for step in np.random.default_rng(5).integers(0, 24, round(seconds / 0.25)):
        chord = tones(0.25, *(220 * 2 ** ((step + k) / 12) for k in (0, 4, 7)))
        notes.append(chord * np.exp(-6 * time(0.25)).astype(np.float32))
    return np.concatenate(notes)


NOTHING = np.zeros(10 * RATE, np.float32)


@pytest.mark.parametrize(
    ("sound", "lacks"),
    [
        (NOTHING, "silence"),
        (noise(4, 2e-5), "silence"),  # the last bit of 16
        (tones(4, 350, 440), "steady"),  # a dial tone
        (tones(4, 480, 620) * (time(4) % 1 < 0.5), "steady"),  # busy
        (tones(4, 440, 480) * (time(4) % 4 < 2), "steady"),  # ringing
        (noise(4), "steady"),
        (noise(4) + np.float32(0.3), "steady"),
        (noise(0.6), "steady"),
        (tones(4, *(50 * k for k in range(1, 9))), "steady"),
        (noise(4) * (0.02 + np.sin(np.pi * time(4)) ** 2).astype(np.float32), "uniform"),  # the sea
        (melody(4), "tonal"),
        (np.concatenate([NOTHING[: 5 * RATE], talk(0.3), NOTHING[: 5 * RATE]]), "brief"),
        (np.zeros(10, np.float32), "brief"),
    ],
)
def test_what_is_no_speech(sound: Floats, lacks: str) -> None:
    found = find_speech(np.asarray(sound, np.float32), RATE, RULE)
    assert found.lacks == lacks
    assert not found.found
    assert found.text.startswith("holds no speech: ")


@pytest.mark.parametrize(
    "sound",
    [
        talk(4),
        talk(0.5),
        talk(4) * np.float32(0.01),
        np.clip(talk(4) * 10, -1, 1),
        np.concatenate([talk(2), NOTHING]),  # one side of a call
        np.concatenate([NOTHING, talk(1), NOTHING]),
        talk(4) + np.float32(0.2),
        talk(4) + noise(4, float(np.std(talk(4))) / 10**0.5),  # 10 dB
    ],
)
def test_what_is_speech(sound: Floats) -> None:
    found = find_speech(sound, RATE, RULE)
    assert found.lacks is None, found
    assert found.text == ""


def test_loudness_decides_nothing_and_figures_are_those_of_the_sound() -> None:
    sound = talk(4)
    loud, quiet = (find_speech(sound * np.float32(gain), RATE, RULE) for gain in (1, 0.01))
    assert loud.level_db - quiet.level_db == pytest.approx(40, abs=0.01)
    assert (loud.seconds, loud.swing_db) == pytest.approx((quiet.seconds, quiet.swing_db), abs=0.02)
    assert loud.flatness_db == pytest.approx(quiet.flatness_db, abs=0.01)
    assert find_speech(tones(2, 400), RATE, RULE).level_db == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.05)
    doubled = np.concatenate([sound, np.zeros_like(sound)])
    assert find_speech(doubled, RATE, RULE).seconds == pytest.approx(loud.seconds, abs=0.021)


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs real speech")
@pytest.mark.parametrize("change", ["clean", "white", "quiet"])
def test_real_speech_is_not_refused(change: str) -> None:
    for number, path in enumerate(sorted(SPEECH.glob("*/*.flac"))[::5]):
        sound = read_audio(path, RATE)
        if change == "white":
            sound = sound + noise(len(sound) / RATE, float(np.std(sound)) / 10**0.5, number)[: len(sound)]
        if change == "quiet":
            sound = (np.round(sound * 0.01 * 32768) / 32768).astype(np.float32)
        assert find_speech(sound, RATE, RULE).lacks is None, path


# --------------------------------------------------------------------------------------- the contract


def test_the_rule_is_the_contracts(tiny: TinyModel) -> None:
    usual = tiny.contract.replace(speech=RULE)
    assert "speech" not in json.loads(usual.to_json())  # readers from before it read it too
    assert Contract.from_json(usual.to_json(), "m").speech == RULE  # and so are files from before it
    strict = tiny.contract.replace(speech=replace(RULE, swing_db=9.0))
    assert json.loads(strict.to_json())["speech"]["swing_db"] == 9.0
    assert Contract.from_json(strict.to_json(), "m") == strict
    assert Contract.from_json(tiny.contract.to_json(), "m").speech is None
    assert prepare_sound(strict, talk(0.5), RATE).speech.lacks == "steady"  # type: ignore[union-attr]
    assert prepare_sound(tiny.contract, noise(0.5), RATE).speech is None
    with pytest.raises(ValueError, match="range_db"):
        replace(RULE, range_db=0)


# --------------------------------------------------------------------------------------- what follows


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that checks, of sounds up to 10 s."""
    path = tmp_path_factory.mktemp("checked") / "model.onnx"
    return make_tiny(path, "waveform", max_frames=1000, speech=RULE).path


@pytest.fixture(scope="module")
def identifier(checked: Path) -> SpeakerIdentifier:
    return SpeakerIdentifier.load(checked, threads=1)


def test_nobody_is_named_where_nobody_speaks(identifier: SpeakerIdentifier) -> None:
    answer = identifier.identify(noise(2), RATE)
    assert (answer.speaker, answer.known, answer.ranked) == (None, False, ())
    assert answer.speech is not None
    assert answer.speech.lacks == "steady"
    with pytest.raises(VoxportError, match="holds no speech: its level hardly moves"):
        _ = answer.best
    spoken = identifier.identify(talk(2), RATE)
    assert spoken.speaker == spoken.best.speaker
    several = identifier.identify_batch([noise(2), talk(2), NOTHING[:RATE]], RATE)
    assert [each.speaker for each in several] == [None, spoken.speaker, None]
    assert np.isfinite(identifier.scores(noise(2), RATE)).all()  # numbers are there for any sound


def test_one_side_of_a_call_is_heard(identifier: SpeakerIdentifier) -> None:
    line = np.stack([noise(2, 0.003), talk(2)], axis=1)
    answer = identifier.identify(line, RATE)
    assert (answer.channel, [note.code for note in answer.notes]) == (2, ["channels"])
    assert answer.best.score == pytest.approx(identifier.identify(talk(2), RATE).best.score, abs=1e-4)
    assert [each.speaker for each in identifier.identify_channels(line, RATE)] == [None, answer.speaker]
    with pytest.raises(ChannelError):
        identifier.identify(np.stack([talk(2, 1), talk(2, 2)], axis=1), RATE)


def test_streams_and_timelines_leave_tones_and_noise_out(identifier: SpeakerIdentifier) -> None:
    recording = np.concatenate([talk(4), tones(4, 350, 440), talk(3, 2)])
    segments = Timeline(identifier, TimelineOptions(window_s=1.0, hop_s=0.25)).segments(recording, RATE)
    assert segments
    assert not any(4.5 < segment.start_s < 7.5 or 4.5 < segment.end_s < 7.5 for segment in segments)
    stream = Stream(identifier, RATE, StreamOptions(window_s=1.0))
    assert stream.push(tones(4, 350, 440)) == ()
    assert len(stream.push(talk(4))) > 8


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_commands_say_it(checked: Path, tmp_path: Path) -> None:
    hum, voice, gallery = tmp_path / "hum.wav", tmp_path / "voice.wav", tmp_path / "people.gallery"
    soundfile.write(hum, tones(3, 50, 100, 150), RATE)
    soundfile.write(voice, talk(3), RATE)
    told = run("identify", checked, hum, voice, "--json")
    first, second = json.loads(told.stdout)["results"]
    assert (first["speaker"], first["ranked"], first["known"], first["speech"]["lacks"]) == (None, [], False, "steady")
    assert second["speaker"] == second["ranked"][0]["speaker"]
    assert f"note: {hum}: holds no speech" in told.stderr
    assert "(no speech)" in run("identify", checked, hum).stdout
    refused = run("enroll", gallery, "--model", checked, "Ada", hum, voice, code=1)
    assert f"error: {hum}: holds no speech" in refused.stderr
    assert not gallery.exists()
    run("enroll", gallery, "--model", checked, "Ada", voice)
    assert f"error: {hum}: holds no speech" in run(
        *("verify", gallery, "--model", checked, "Ada", hum, "--threshold", 0.1), code=1
    ).stderr  # fmt: skip
    (among,) = json.loads(run("identify", checked, hum, "--gallery", gallery, "--json").stdout)["results"]
    assert (among["speaker"], among["ranked"], among["known"]) == (None, [], False)
    assert "(no speech)" in run("identify", checked, hum, "--gallery", gallery).stdout
    assert "level moves by 2.5 dB" in run("inspect", checked).stdout


def test_half_of_the_looks_decides_only_what_the_other_half_cannot_change() -> None:
    generator = np.random.default_rng(5)
    decided = 0
    for _ in range(2000):
        middle, spread = generator.uniform(-70, 0), generator.uniform(0, 4)
        first = (middle + spread * generator.standard_normal(6)).tolist()
        if _is_clear(first, RULE):
            decided += 1
            for others in ([float(np.mean(first))] * 6, [-200.0] * 6):  # least variety; lowest median
                values = np.array(first + others)
                assert values.std() >= RULE.variety_db - 1e-9
                assert np.sort(values)[6] >= RULE.flatness_db
    assert 200 < decided < 1800
    assert not _is_clear([-10.0, -20.0, -15.0], RULE)  # of few frames all are looked at


def test_a_constant_offset_is_no_sound() -> None:
    plain = find_speech(talk(2.0), RATE, RULE)
    shifted = find_speech(talk(2.0) + np.float32(0.4), RATE, RULE)
    assert plain.found
    assert shifted.found
    assert shifted.level_db == pytest.approx(plain.level_db, abs=0.05)
    assert find_speech(np.full(RATE, 0.4, np.float32), RATE, RULE).lacks == "silence"
