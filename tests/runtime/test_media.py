"""Files of phones and browsers: read as what they hold, refused where they are not whole, bounded where they lie."""

import json
import os
import random
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.runtime.media_files import KINDS, Media, av, claim, encode, film, packets, remux, voice
from tests.runtime.tiny_models import TinyModel
from voxport.cli.root import cli
from voxport.runtime import AudioError, BackendError, SpeakerIdentifier
from voxport.runtime.audio.decode import audio_blocks, audio_rate, audio_seconds, read_audio, read_piece
from voxport.runtime.audio.samples import resample

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
SURE = [KINDS[name] for name in ("phone", "apple lossless", "mp4", "chrome", "matroska", "3gp", "adts", "voice memo")]


def made(folder: Path, kind: Media, seconds: float = 2.0) -> Path:
    return encode(folder / f"sound{kind.suffix}", voice(kind.rate, seconds), kind)


def delay(found: np.ndarray, expected: np.ndarray) -> int:
    """By how many samples `found` comes later than `expected`."""
    size = len(found) + len(expected)
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size)))
    best = int(np.argmax(product))
    return best - len(product) if best > len(product) // 2 else best


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    """The correlation of the two where both are, the later one moved to the earlier."""
    by = delay(found, expected)
    found, expected = found[max(by, 0) :], expected[max(-by, 0) :]
    n = min(len(found), len(expected))
    return float(np.corrcoef(found[:n], expected[:n])[0, 1])


def envelope(samples: np.ndarray) -> np.ndarray:
    """The energy from 200 Hz to 3 kHz in bands of 200 Hz and pieces of 20 ms, in dB above a floor, flattened."""
    pieces = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    energy = np.abs(np.fft.rfft(pieces * np.hanning(320)))[:, 4:60].reshape(len(pieces), -1, 4) ** 2
    return np.asarray(10 * np.log10(energy.sum(axis=2) + 0.01).ravel())


# --------------------------------------------------------------------------------------- what is taken


@kinds
def test_each_kind_gives_the_sound_that_was_encoded(tmp_path: Path, kind: Media) -> None:
    path = made(tmp_path, kind)
    found, expected = read_audio(path, 16000), resample(voice(kind.rate), kind.rate, 16000)
    assert found.dtype == np.float32
    assert len(found) == pytest.approx(32000, abs=0.12 * 16000)  # an encoder's last block is filled up
    assert abs(delay(found, expected)) <= 0.07 * 16000
    if kind.alike == 1.0 and kind.rate == 16000:
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, atol=1 / 16384)
    else:
        assert likeness(found, expected) > min(kind.alike, 0.999)
    assert likeness(envelope(found), envelope(expected)) > 0.97
    assert float(np.std(found)) == pytest.approx(float(np.std(expected)), rel=0.1 if kind.alike else 0.3)
    assert audio_rate(path) == kind.rate


@pytest.mark.skipif(av.__version__.startswith("14."), reason="PyAV 14 spoils the header of a stream that it copies")
def test_opus_of_a_browser_is_what_libsndfile_decodes_from_the_same_packets(tmp_path: Path) -> None:
    path = made(tmp_path, KINDS["chrome"])
    ogg = remux(path, tmp_path / "same.ogg", "ogg")
    assert packets(path) == packets(ogg)
    expected, rate = soundfile.read(ogg, dtype="float32")
    assert (soundfile.info(ogg).subtype, rate) == ("OPUS", 48000)
    found = read_audio(path, 48000)
    assert abs(delay(found, expected)) <= 1
    assert likeness(found, expected) > 0.99999


def test_mpeg_of_a_camera_is_what_libsndfile_decodes_from_the_same_packets(tmp_path: Path) -> None:
    path = made(tmp_path, KINDS["camera"])
    (tmp_path / "same.mp3").write_bytes(b"".join(packets(path)))
    expected, _ = soundfile.read(tmp_path / "same.mp3", dtype="float32")
    assert likeness(read_audio(path, 44100), expected) > 0.9999


def test_channels_are_averaged(tmp_path: Path) -> None:
    both = np.stack([voice(16000), np.zeros(32000)])
    path = encode(tmp_path / "a.m4a", both, KINDS["apple lossless"])
    np.testing.assert_allclose(read_audio(path, 16000), both.mean(axis=0), atol=1 / 16384)


@pytest.mark.parametrize("name", ["mp4", "chrome", "wavpack"])
def test_surround_sound_gives_each_of_its_eight_channels(tmp_path: Path, name: str) -> None:
    kind = replace(KINDS[name], bit_rate=512_000)
    pitches = np.array([200, 300, 430, 100, 560, 690, 820, 950])  # the fourth is for low frequencies alone
    sound = 0.1 * np.sin(2 * np.pi * pitches[:, None] * np.arange(kind.rate) / kind.rate)
    path = encode(tmp_path / f"film{kind.suffix}", sound, kind)
    for number, pitch in enumerate(pitches, 1):
        found = read_audio(path, 16000, channel=number)[4000:12000]
        assert np.abs(np.fft.rfft(found)).argmax() == pitch // 2  # half a second: 2 Hz a bin


def test_more_channels_than_are_taken(tmp_path: Path) -> None:
    path = encode(tmp_path / "stadium.wv", np.tile(voice(16000, 0.3), (16, 1)), KINDS["wavpack"])
    for read in (lambda: read_audio(path, 16000), lambda: audio_seconds(path), lambda: read_piece(path, 16000, 0.1)):
        with pytest.raises(AudioError, match="16 channels, at most 8 are taken; mix it down first"):
            read()


@pytest.mark.parametrize("name", ["phone", "mp4", "chrome"])
def test_a_call_gives_the_channel_that_is_asked_for(tiny: TinyModel, tmp_path: Path, name: str) -> None:
    kind = replace(KINDS[name], bit_rate=192_000)
    left = voice(kind.rate)
    right = np.concatenate([left[len(left) // 2 :: -1], np.zeros(len(left) // 4)])  # another sound, then nothing
    parties = np.stack([left, np.pad(right, (0, len(left) - len(right)))])
    path = encode(tmp_path / f"call{kind.suffix}", parties, kind)
    wanted = [resample(each.astype(np.float32), kind.rate, 16000) for each in parties]
    for number, (mine, other) in enumerate(zip(wanted, wanted[::-1], strict=True), 1):
        found = read_audio(path, 16000, channel=number)
        assert likeness(found, mine) > 0.98
        assert likeness(found, other) < 0.5
    assert likeness(read_audio(path, 16000, channel="mix"), np.sum(wanted, axis=0)) > 0.98

    identifier = SpeakerIdentifier.load(tiny.path)
    vectors = [identifier.embed(each, 16000) for each in wanted]
    for option, channels in (("1", [1]), ("2", [2]), ("each", [1, 2]), (None, [1, 2]), ("mix", [None])):
        asked = ["--channel", option] if option else []
        done = CliRunner().invoke(cli, ["embed", str(tiny.path), str(path), "--json", *asked])
        assert done.exit_code == 0, done.output
        results = json.loads(done.stdout)["results"]
        assert [each["channel"] for each in results] == channels
        for each in results:
            if each["channel"]:
                near = [float(np.dot(each["embedding"], vector)) for vector in vectors]
                assert int(np.argmax(near)) + 1 == each["channel"]
                assert max(near) > 0.99


@pytest.mark.parametrize("kind", [KINDS["apple lossless"], KINDS["chrome"]])
def test_content_counts_not_the_extension(tmp_path: Path, kind: Media) -> None:
    path = made(tmp_path, kind)
    expected = read_audio(path, 16000)
    for name in ("upload", "a.wav", "a.raw"):
        path = path.rename(tmp_path / name)
        np.testing.assert_array_equal(read_audio(path, 16000), expected)


def test_a_piece_is_cut_where_it_lies(tmp_path: Path) -> None:
    path = made(tmp_path, KINDS["apple lossless"])
    np.testing.assert_array_equal(read_piece(path, 16000, 0.5, 1.25), read_audio(path, 16000)[8000:20000])
    with pytest.raises(AudioError, match="lies behind the sound, which ends at 2 s"):
        read_piece(path, 16000, 3.0, 4.0)


def test_a_pause_of_the_recorder_stays_a_pause(tmp_path: Path) -> None:
    """Packets that were not sent while nobody spoke: their time is silence, and what follows stays in its place."""
    kind = KINDS["matroska"]
    path = encode(tmp_path / "a.mka", voice(16000), kind, pause=(7, 1500))
    size = 1152 * 7  # samples of seven packets
    found, whole = read_audio(path, 16000), voice(16000)
    assert len(found) == pytest.approx(32000 + 24000, abs=16)  # Matroska's times are milliseconds
    np.testing.assert_allclose(found[:size], whole[:size], atol=1 / 16384)
    assert not found[size : size + 23900].any()
    np.testing.assert_allclose(found[-(32000 - size) :], whole[size:], atol=1 / 16384)


@pytest.mark.parametrize(("name", "claimed"), [("phone", 2.0), ("chrome", 2.0), ("windows", 2.0), ("voice memo", None)])
def test_the_length_that_the_header_claims(tmp_path: Path, name: str, claimed: float | None) -> None:
    seconds = audio_seconds(made(tmp_path, KINDS[name]))
    assert seconds == (None if claimed is None else pytest.approx(claimed, abs=0.05))


def test_the_identifier_answers_as_for_the_same_samples(either: TinyModel, tmp_path: Path) -> None:
    path = made(tmp_path, KINDS["phone"], 0.4)
    identifier = SpeakerIdentifier.load(either.path)
    samples = read_audio(path, 16000)
    assert identifier.identify(path) == identifier.identify(samples, 16000)
    result = CliRunner().invoke(cli, ["identify", str(either.path), str(path), "--json"])
    assert result.exit_code == 0, result.output
    (answer,) = json.loads(result.stdout)["results"]
    assert answer["ranked"][0]["speaker"] == identifier.identify(samples, 16000).best.speaker


# -------------------------------------------------------------------------------------- what is refused


def refuse(path: Path, reason: str) -> str:
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path, 16000)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("part", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("kind", SURE, ids=lambda kind: f"{kind.codec}{kind.suffix}")
def test_a_file_that_was_cut(tmp_path: Path, kind: Media, part: float) -> None:
    path = made(tmp_path, kind, 6.0)
    size = int(part * path.stat().st_size)
    os.truncate(path, size + 3 if kind.suffix == ".amr" and (size - 6) % 32 == 0 else size)  # not between frames
    refuse(path, "cut short|not a sound file")


def test_a_film_for_streaming_that_was_cut(tmp_path: Path) -> None:
    """Its header comes first, so that it opens."""
    path = encode(tmp_path / "a.mp4", voice(48000, 6.0), KINDS["mp4"], {"movflags": "faststart"})
    os.truncate(path, path.stat().st_size // 2)
    refuse(path, "cut short")


@pytest.mark.parametrize("name", ["voxceleb", "apple lossless", "chrome", "matroska", "adts", "voice memo"])
def test_a_damaged_file(tmp_path: Path, name: str) -> None:
    path = made(tmp_path, KINDS[name], 4.0)
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + 400] = bytes(255 - byte for byte in data[third : third + 400])
    path.write_bytes(data)
    refuse(path, "damaged")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nsound.m4a\n#EXT-X-ENDLIST\n", "list.m4a"),
        ("ffconcat version 1.0\nfile sound.m4a\n", "list.webm"),
        ("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n", "call.aac"),
    ],
)
def test_a_list_of_other_files_opens_none(tmp_path: Path, text: str, name: str) -> None:
    made(tmp_path, KINDS["voxceleb"])
    (tmp_path / name).write_text(text)
    refuse(tmp_path / name, "not a sound file")


def test_a_name_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = made(tmp_path, KINDS["voxceleb"])
    monkeypatch.chdir(tmp_path)
    for name in (f"concat:{sound.name}", f"subfile,,start,0,end,0,,:{sound.name}", "http:sound.m4a"):
        with pytest.raises(AudioError, match="No such file"):
            read_audio(name, 16000)
        os.link(sound, name)  # a file may be called so
        assert len(read_audio(name, 16000)) == len(read_audio(sound, 16000))


def test_a_film_without_sound(tmp_path: Path) -> None:
    refuse(film(tmp_path / "a.mov"), "holds no sound")


def test_what_is_no_sound_at_all(tmp_path: Path) -> None:
    for name in ("a.m4a", "a.webm", "a.amr", "a.wma"):
        (tmp_path / name).write_bytes(b"no sound at all " * 100)
        refuse(tmp_path / name, "not a sound file that libsndfile or FFmpeg can read.*convert it to wav")


def test_a_file_that_is_too_long(tmp_path: Path) -> None:
    path = made(tmp_path, KINDS["voxceleb"])
    with pytest.raises(AudioError, match=r"longer than 1\.5 s"):
        read_audio(path, 16000, max_seconds=1.5)
    assert sum(map(len, audio_blocks(path, 16000))) == len(read_audio(path, 16000))


@pytest.mark.parametrize("box", [b"stsz", b"trun"])
def test_tables_that_claim_more_than_the_file_can_hold(tmp_path: Path, box: bytes) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"} if box == b"trun" else {}
    path = encode(tmp_path / "a.mp4", voice(16000), KINDS["voxceleb"], options)
    assert len(read_audio(path, 16000)) >= 32000
    refuse(claim(path, box, 200_000), "its tables claim 200,000 samples in")


def test_a_table_with_fewer_bytes_than_entries(tmp_path: Path) -> None:
    path = made(tmp_path, KINDS["voxceleb"])
    data = bytearray(path.read_bytes())
    at = data.index(b"stco")
    data[at + 8 : at + 12] = (500_000).to_bytes(4, "big")
    path.write_bytes(data)
    refuse(path, "its stco box claims 500,000 entries, more than it holds")


def one_sentence(path: Path) -> np.ndarray:
    """The sound, or an AudioError in one line that begins with the file's name."""
    try:
        return read_audio(path, 16000, max_seconds=60)
    except AudioError as problem:
        if not str(problem).startswith(f"{path}: ") or "\n" in str(problem):
            raise RuntimeError(f"not one sentence about the file: {problem}") from problem
        raise


@pytest.mark.parametrize("name", ["voxceleb", "chrome", "voice memo", "windows", "matroska"])
def test_damage_anywhere_gives_the_sound_or_one_sentence(tmp_path: Path, name: str) -> None:
    path = made(tmp_path, KINDS[name], 0.5)
    whole = path.read_bytes()
    chance = random.Random(17)
    read = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 4, 16))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice((len(data), chance.randrange(1, len(data))))])
        with suppress(AudioError):
            read += len(one_sentence(path)) > 0
    assert read < 60


# ------------------------------------------------------------------------------------ without the extra


def test_without_the_extra_one_sentence_names_it(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path, KINDS["phone"], 0.4)
    bare = tmp_path / "upload"
    bare.write_bytes(path.read_bytes())
    monkeypatch.setitem(sys.modules, "av", None)
    for name in (path, bare):
        with pytest.raises(BackendError, match=r'PyAV reads such files.*: pip install "voxport\[media\]"'):
            read_audio(name, 16000)
    result = CliRunner().invoke(cli, ["identify", str(tiny.path), str(path)])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0].startswith(f"error: {path}: ")
    assert 'pip install "voxport[media]"' in result.stderr
    assert "Traceback" not in result.stderr


def test_the_runtime_imports_pyav_only_for_such_a_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(16000), 16000)
    path = made(tmp_path, KINDS["voxceleb"])
    code = (
        "import sys, voxport.runtime; from voxport.runtime.audio.decode import read_audio\n"
        f"read_audio({str(tmp_path / 'a.wav')!r}, 16000); assert 'av' not in sys.modules\n"
        f"read_audio({str(path)!r}, 16000); assert 'av' in sys.modules; print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
