"""What read_audio, resample and check_samples take, and what they refuse."""

import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxport.runtime.audio.decode import read_audio
from voxport.runtime.audio.samples import check_samples, resample
from voxport.runtime.errors import AudioError, BackendError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

FORMATS = ["wav", "flac", "ogg", "mp3"]


def tone(rate: int, seconds: float = 0.5, hz: float = 440.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def write(path: Path, samples: np.ndarray, rate: int = 16000, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def level(samples: np.ndarray, rate: int, hz: float) -> float:
    """The amplitude of the tone of `hz` in the middle half of `samples`."""
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)
    phase = np.exp(-2j * np.pi * hz * np.arange(len(middle)) / rate) * np.hanning(len(middle))
    return float(2 * np.abs(middle @ phase) / np.hanning(len(middle)).sum())


# --------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("rate", [16000, 44100])
def test_every_format_gives_the_sound(tmp_path: Path, extension: str, rate: int) -> None:
    samples = read_audio(write(tmp_path / f"a.{extension}", tone(rate), rate), 16000)
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == 8000
    assert level(samples, 16000, 440.0) == pytest.approx(0.3, rel=0.03)


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 48000, 96000, 192000])
def test_every_rate_is_resampled(tmp_path: Path, rate: int) -> None:
    samples = read_audio(write(tmp_path / "a.wav", tone(rate), rate, "FLOAT"), 16000)
    assert len(samples) == pytest.approx(8000, abs=1)
    assert level(samples, 16000, 440.0) == pytest.approx(0.3, rel=1e-3)


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    folded = resample(tone(48000, hz=15000.0), 48000, 16000)  # would fold to 1 kHz
    assert level(folded, 16000, 1000.0) < 1e-4


@pytest.mark.parametrize(
    ("subtype", "step"),
    [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("PCM_32", 2**-24), ("FLOAT", 1e-7), ("DOUBLE", 1e-7)],
)
def test_every_sample_type_has_the_same_full_scale(tmp_path: Path, subtype: str, step: float) -> None:
    expected = tone(16000)
    samples = read_audio(write(tmp_path / "a.wav", expected, 16000, subtype), 16000)
    np.testing.assert_allclose(samples, expected, atol=1.01 * step)


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    parts = np.random.default_rng(channels).uniform(-0.5, 0.5, (3000, channels))
    samples = read_audio(write(tmp_path / "a.wav", parts, 16000, "FLOAT"), 16000)
    np.testing.assert_allclose(samples, parts.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("extension", FORMATS)
def test_blocks_leave_no_seam(tmp_path: Path, extension: str, rate: int) -> None:
    sound = 0.1 * np.random.default_rng(5).standard_normal((200_000, 2))
    path = write(tmp_path / f"a.{extension}", sound, rate)
    whole, _ = soundfile.read(path)
    np.testing.assert_allclose(read_audio(path, 16000), resample(whole, rate, 16000), atol=1e-6)


@pytest.mark.parametrize("extension", FORMATS)
def test_content_counts_not_the_extension(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path / f"a.{extension}", tone(16000))
    wrong = path.rename(tmp_path / ("a.flac" if extension == "wav" else "a.wav"))
    assert len(read_audio(wrong, 16000)) == 8000
    for name in ("no extension", "a.txt", "a.raw", "a.RAW", "a.npy"):
        wrong = wrong.rename(tmp_path / name)
        assert len(read_audio(str(wrong), 16000)) == 8000


def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "piped.wav", tone(16000), 16000, "PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(read_audio(path, 16000)) == 8000


def test_one_sample_is_a_sound(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_audio(write(tmp_path / "a.wav", np.array([0.5])), 16000), [0.5])


# -------------------------------------------------------------------------------------- what is refused


def refuse(path: Path, reason: str, **options: Any) -> None:
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path, 16000, **options)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    refuse(tmp_path / "gone.wav", "No such file")


def test_folder(tmp_path: Path) -> None:
    refuse(tmp_path, "no regular file")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.touch()
    refuse(path, "is empty")


@pytest.mark.parametrize("extension", ["wav", "aiff"])  # libsndfile writes an empty flac as 0 bytes
def test_file_without_samples(tmp_path: Path, extension: str) -> None:
    refuse(write(tmp_path / f"a.{extension}", np.zeros(0)), "holds no samples")


@pytest.mark.parametrize("rate", [16000, 48000])
def test_sound_shorter_than_one_sample(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", np.zeros(0 if rate == 16000 else 1), rate)
    refuse(path, "holds no samples")


@pytest.mark.parametrize("extension", ["wav", "mp3", "raw", "txt"])
def test_not_a_sound_file(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    path.write_text("this is no sound\n" * 100)
    refuse(path, "not a sound file.*ffmpeg")


@pytest.mark.parametrize("part", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("extension", FORMATS)
def test_truncated_file(tmp_path: Path, extension: str, part: float) -> None:
    noise = 0.1 * np.random.default_rng(6).standard_normal(48000)
    path = write(tmp_path / f"a.{extension}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    refuse(path, "cut short")


@pytest.mark.parametrize("extension", ["flac", "ogg"])
def test_damaged_file(tmp_path: Path, extension: str) -> None:
    path = write(tmp_path / f"a.{extension}", 0.1 * np.random.default_rng(6).standard_normal(48000))
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + 2000] = bytes(255 - byte for byte in data[third : third + 2000])
    path.write_bytes(data)
    refuse(path, "damaged")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_file_with_samples_that_are_no_numbers(tmp_path: Path, bad: float) -> None:
    samples = tone(16000)
    samples[100] = bad
    refuse(write(tmp_path / "a.wav", samples, 16000, "FLOAT"), "NaN or infinite")


def test_float_file_with_16_bit_values(tmp_path: Path) -> None:
    refuse(write(tmp_path / "a.wav", 20000 * tone(16000), 16000, "FLOAT"), "divide 16-bit values by 32768")


@pytest.mark.parametrize("rate", [1000, 384000])
def test_file_of_an_odd_rate(tmp_path: Path, rate: int) -> None:
    refuse(write(tmp_path / "a.wav", tone(rate), rate), f"{rate} Hz is outside the 4000 to 192000 Hz")


def test_file_of_too_many_channels(tmp_path: Path) -> None:
    refuse(write(tmp_path / "a.wav", np.zeros((100, 9))), "9 channels, at most 8")


def test_file_that_is_too_long(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(16000, seconds=2.0))
    refuse(path, "longer than 1.5 s.*max_seconds", max_seconds=1.5)
    assert len(read_audio(path, 16000, max_seconds=2.0)) == 32000
    assert len(read_audio(path, 16000, max_seconds=None)) == 32000


def test_header_that_promises_an_hour_is_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(16000), 16000, "PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", 16000 * 2 * 3600)
    path.write_bytes(data)
    refuse(path, "cut short: 16000 of 115200000 bytes")


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_a_missing_package_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    path = write(tmp_path / "a.wav", tone(8000), 8000)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError, match=rf'{package}.*pip install "voxport\[audio\]"'):
        read_audio(path, 16000)


# ------------------------------------------------------------------------------------------ check_samples


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_floats_stay_as_they_are(dtype: str) -> None:
    checked = check_samples(tone(16000).astype(dtype))
    assert checked.dtype == np.float32
    np.testing.assert_allclose(checked, tone(16000), atol=1e-7)


def test_a_list_of_floats_is_taken() -> None:
    np.testing.assert_array_equal(check_samples([0.5, -1.0]), np.array([0.5, -1.0], np.float32))


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_integers_are_divided_by_their_full_scale(dtype: type[np.integer]) -> None:
    limits = np.iinfo(dtype)
    checked = check_samples(np.array([limits.min, 0, limits.max // 2 + 1], dtype))
    np.testing.assert_array_equal(checked, np.array([-1.0, 0.0, 0.5], np.float32))


def test_channels_of_an_array_are_averaged() -> None:
    stereo = np.stack([tone(16000), np.zeros(8000)], axis=1)
    np.testing.assert_allclose(check_samples(stereo), 0.5 * tone(16000), atol=1e-7)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(0, np.float32), "holds no samples"),
        (np.zeros((0, 2)), "holds no samples"),
        (np.zeros(100, np.uint8), "found uint8"),
        (np.zeros(100, np.int64), "found int64"),
        (np.zeros(100, bool), "found bool"),
        (np.zeros(100, complex), "found complex128"),
        (np.array(["a"]), "found <U1"),
        (np.array([None]), "found object"),
        (np.zeros((2, 16000)), r"found \(2, 16000\); pass the transpose"),
        (np.zeros((16000, 9)), r"found \(16000, 9\)$"),
        (np.zeros((1, 100, 2)), r"found \(1, 100, 2\)"),
        (np.array(0.5), r"found \(\)"),
        (np.array([0.0, np.nan]), "NaN or infinite"),
        (np.array([0.0, -np.inf]), "NaN or infinite"),
        (np.array([0.0, 30000.0]), "samples reach 30000, expected"),
    ],
)
def test_other_arrays_are_refused(samples: np.ndarray, reason: str) -> None:
    with pytest.raises(AudioError, match=reason):
        check_samples(samples)


def test_resample_keeps_samples_at_their_own_rate() -> None:
    np.testing.assert_array_equal(resample(tone(16000), 16000, 16000), tone(16000).astype(np.float32))


def test_resample_refuses_what_leaves_no_sample() -> None:
    with pytest.raises(AudioError, match="1 samples at 192000 Hz are less than one at 16000 Hz"):
        resample(np.zeros(1), 192000, 16000)


@pytest.mark.parametrize(("from_rate", "to_rate", "name"), [(0, 16000, "from_rate"), (16000, -1, "to_rate")])
def test_resample_refuses_odd_rates(from_rate: int, to_rate: int, name: str) -> None:
    with pytest.raises(AudioError, match=f"{name}: .* Hz is outside"):
        resample(np.zeros(100), from_rate, to_rate)


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
@pytest.mark.parametrize("name", [b"voil\xe0.wav", b"\xff\xfe.RAW"])
def test_a_name_of_another_encoding_is_a_name(tmp_path: Path, name: bytes) -> None:
    """As older systems wrote them: not UTF-8, and what Python makes of it cannot be encoded."""
    soundfile.write(tmp_path / "sound.wav", tone(16000, 0.1), 16000)
    path = os.path.join(os.fsencode(tmp_path), name)
    try:
        os.rename(tmp_path / "sound.wav", path)
    except OSError:
        pytest.skip("this file system has UTF-8 names alone")
    found = read_audio(os.fsdecode(path), 16000)
    np.testing.assert_allclose(found, tone(16000, 0.1), atol=1e-4)
    with open(path, "wb") as file:
        file.write(b"no sound")
    with pytest.raises(AudioError, match="not a sound file"):
        read_audio(os.fsdecode(path), 16000)
