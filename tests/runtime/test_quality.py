"""Notes on recordings: each fault is told, clean speech gets none, and enrolment asks before it keeps them."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from click.testing import CliRunner, Result

from tests.runtime.test_speech import RATE, RULE, SPEECH, Floats, noise, talk
from tests.runtime.tiny_models import make_tiny
from voxport.cli.root import cli
from voxport.runtime import Note, SpeakerIdentifier
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.quality import highest_frequency, quality_notes
from voxport.runtime.speech import find_speech


def notes(sound: Floats, f_max: float = 8000.0) -> tuple[Note, ...]:
    return quality_notes(sound, RATE, f_max, find_speech(sound, RATE, RULE))


def codes(sound: Floats, f_max: float = 8000.0) -> list[str]:
    return [note.code for note in notes(sound, f_max)]


def telephone(sound: Floats) -> Floats:
    return np.asarray(soxr.resample(soxr.resample(sound, RATE, 8000), 8000, RATE), np.float32)


VOICE = talk(4)


def noisy(sound: Floats, ratio_db: float) -> Floats:
    level = 10 ** (find_speech(sound, RATE, RULE).level_db / 20)
    return sound + noise(len(sound) / RATE, level * 10 ** (-ratio_db / 20))[: len(sound)]


@pytest.mark.parametrize(
    ("sound", "expected"),
    [
        (VOICE, []),
        (VOICE * np.float32(0.05), []),
        (telephone(VOICE), ["band"]),
        (noisy(VOICE, 20), []),
        (noisy(VOICE, 6), ["noise"]),
        (np.clip(VOICE * 10, -0.9, 0.9), ["clipping"]),
        (VOICE * np.float32(1e-3), ["level"]),
        (np.clip(telephone(VOICE) * 10, -1, 1) * np.float32(1e-3), ["clipping", "level"]),  # clipping widens the band
    ],
)
def test_each_fault_is_told(sound: Floats, expected: list[str]) -> None:
    assert codes(sound) == expected


def test_a_model_that_listens_less_far_misses_less() -> None:
    assert codes(telephone(VOICE), f_max=4000.0) == []


@pytest.mark.parametrize("hertz", [1000, 3000, 5000])
def test_the_highest_frequency_is_that_of_the_sound(hertz: int) -> None:
    spectrum = np.fft.rfft(noise(2))
    spectrum[np.fft.rfftfreq(2 * RATE, 1 / RATE) > hertz] = 0
    frames = np.fft.irfft(spectrum).astype(np.float32).reshape(-1, 320)
    found = highest_frequency(frames, np.square(frames).mean(axis=1))
    assert hertz - 400 < found <= hertz + 400


def test_what_is_told_is_measured() -> None:
    (note,) = notes(noisy(VOICE, 6))
    assert "7 dB above the noise" in note.text or "6 dB above the noise" in note.text
    (note,) = notes(VOICE * np.float32(1e-3))
    assert f"({find_speech(VOICE, RATE, RULE).level_db - 60:.0f} dB relative to full scale)" in note.text
    (note,) = notes(telephone(VOICE))
    assert "ends at about 3,200 Hz, and the model listens up to 8,000 Hz" in note.text


@pytest.mark.skipif(not SPEECH.is_dir(), reason="needs real speech")
def test_real_speech_gets_no_note_and_real_faults_do() -> None:
    for path in sorted(SPEECH.glob("*/*.flac"))[::10]:
        sound = read_audio(path, RATE)
        assert codes(sound) == [], path
        assert codes(telephone(sound)) == ["band"], path
        assert "noise" in codes(noisy(sound, 5)), path
        assert "clipping" in codes(np.clip(sound * (10 / np.abs(sound).max()), -1, 1)), path


# --------------------------------------------------------------------------------------- what follows


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def test_answers_carry_notes_and_enroll_refuses(tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "model.onnx", "waveform", max_frames=1000, speech=RULE).path
    identifier = SpeakerIdentifier.load(model, threads=1)
    assert [note.code for note in identifier.identify(telephone(VOICE), RATE).notes] == ["band"]
    assert identifier.identify(VOICE, RATE).notes == ()
    assert [note.code for note in identifier.voices(telephone(VOICE), RATE)[0].notes] == ["band"]
    call, clean, gallery = tmp_path / "call.wav", tmp_path / "clean.wav", tmp_path / "people.gallery"
    soundfile.write(call, 0.5 * soxr.resample(VOICE, RATE, 8000), 8000)  # to the model another voice than the clean one
    soundfile.write(clean, VOICE, RATE)
    told = run("identify", model, call, clean, "--json")
    first, second = json.loads(told.stdout)["results"]
    assert [note["code"] for note in first["notes"]] == ["band"]
    assert second["notes"] == []
    assert f"note: {call}: its spectrum ends at about 3,200 Hz" in told.stderr
    refused = run("enroll", gallery, "--model", model, "Ada", clean, call, code=1)
    assert f"error: {call}: its spectrum ends" in refused.stderr
    assert "give --accept-anyway" in refused.stderr
    assert not gallery.exists()
    told = run("enroll", gallery, "--model", model, "Ada", clean, call, "--accept-anyway")
    assert "utterances: 2" in told.stdout
    assert f"note: {call}: its spectrum ends" in told.stderr
    run("enroll", tmp_path / "others.gallery", "--model", model, "Bob", clean)
    verified = run("verify", gallery, "--model", model, "Ada", call, "--threshold", -1, "--json")
    assert [note["code"] for note in json.loads(verified.stdout)["results"][0]["notes"]] == ["band"]
