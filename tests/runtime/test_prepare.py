"""A sound that is too long for one run is told so before the work, with the words that it would be told with after."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.tiny_models import TinyModel
from voxport.runtime import AudioError, LengthError
from voxport.runtime.audio import decode as audio
from voxport.runtime.audio import preprocess as prepare
from voxport.runtime.audio import samples
from voxport.runtime.audio.preprocess import prepare_sound
from voxport.runtime.length_range import LengthRange

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def late_words(model: TinyModel, samples: int, name: str) -> str:
    """What the length check says of so many samples at the model's rate."""
    with pytest.raises(LengthError) as caught:
        LengthRange.of_sound(model.contract).check(np.array([samples]), (name,))
    return str(caught.value)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all blocks that were decoded."""
    sizes: list[int] = []
    mono_blocks = audio._channel_blocks

    def counted(*arguments: object) -> Iterator[samples.Samples]:
        for block in mono_blocks(*arguments):  # type: ignore[arg-type]
            sizes.append(len(block))
            yield block

    monkeypatch.setattr(audio, "_channel_blocks", counted)
    return sizes


@pytest.mark.parametrize(("extension", "rate"), [("wav", 16000), ("flac", 8000), ("wav", 48000)])
def test_a_long_file_is_hardly_decoded(
    either: TinyModel, tmp_path: Path, decoded: list[int], extension: str, rate: int
) -> None:
    path = tmp_path / f"long.{extension}"
    soundfile.write(path, np.zeros(300 * rate, np.int16), rate)  # five minutes
    with pytest.raises(LengthError) as caught:
        prepare_sound(either.contract, path, None)
    assert str(caught.value) == late_words(either, 300 * 16000, str(path))
    assert "(300.00 s) is too long" in str(caught.value)
    assert sum(decoded) <= 2 * samples.BLOCK


def test_what_the_header_does_not_say_is_counted(
    either: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(16000 * 30, np.int16), 16000)
    monkeypatch.setattr(prepare, "audio_seconds", lambda path: None)
    with pytest.raises(LengthError) as caught:
        prepare_sound(either.contract, path, None)
    assert str(caught.value) == late_words(either, samples.BLOCK, str(path))


def test_a_file_that_is_cut_short_is_still_told_so(either: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16000 * 60), 16000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 150])  # less than the model's longest, of a header that claims a minute
    with pytest.raises(AudioError, match="cut short"):
        prepare_sound(either.contract, path, None)


@pytest.mark.parametrize("rate", [4000, 16000, 44100])
def test_a_long_array_is_neither_checked_nor_resampled(
    either: TinyModel, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("the array was looked at")

    monkeypatch.setattr(prepare, "check_samples", refuse)
    monkeypatch.setattr(prepare, "resample", refuse)
    sound = np.broadcast_to(np.float32(0), 600 * rate)  # ten minutes in four bytes
    with pytest.raises(LengthError) as caught:
        prepare_sound(either.contract, sound, rate)
    assert str(caught.value) == late_words(either, 600 * 16000, "the sound")


@pytest.mark.parametrize(
    ("sound", "rate", "words"),
    [
        (np.zeros((2, 10**6), np.float32), 16000, "pass the transpose"),
        (np.zeros(10**6, np.uint8), 16000, "int16 or int32"),
        (np.zeros(10**6, np.float32), 3999, "sample_rate: 3999 Hz is outside"),
        (np.zeros((0, 2), np.float32), 8000, "holds no samples"),
    ],
)
def test_what_is_wrong_besides_the_length_is_told_first(
    either: TinyModel, sound: np.ndarray, rate: int, words: str
) -> None:
    with pytest.raises(AudioError, match=words):
        prepare_sound(either.contract, sound, rate)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
def test_the_longest_sound_is_taken_and_one_more_is_not(either: TinyModel, tmp_path: Path, rate: int) -> None:
    """At every rate the early refusal agrees with the exact one, sample for sample."""
    longest = LengthRange.of_sound(either.contract).longest
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, longest * rate // 16000 + 9).astype(np.float32)
    for count in range(longest * rate // 16000 - 3, len(noise)):
        fits = len(samples.resample(noise[:count], rate, 16000)) <= longest
        for sound in (noise[:count], tmp_path / "edge.wav"):
            soundfile.write(tmp_path / "edge.wav", noise[:count], rate, "FLOAT")
            if fits:
                assert 0 < prepare_sound(either.contract, sound, rate).seconds * 16000 <= longest
            else:
                with pytest.raises(LengthError, match="too long"):
                    prepare_sound(either.contract, sound, rate)
