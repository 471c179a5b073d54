"""Sound corpora: a folder per speaker and manifests, in every format, and all that may lie among the files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from voxport.runtime.audio.decode import read_audio
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile
from voxport.train.data import Corpus, CorpusError, CorpusOptions, open_corpus

FRONTEND = profile("homework_mel40")


def tone(path: Path, pitch: float, rate: int = 16000, channels: int = 1, seconds: float = 0.5) -> Path:
    """A sound file of harmonics of `pitch`, with a different level per channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(rate * seconds)) / rate
    mono = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in (1, 2, 3))
    soundfile.write(path, np.stack([0.2 / (c + 1) * mono for c in range(channels)], axis=1), rate)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three speakers of three files each, and company that is no error."""
    folder = tmp_path / "corpus"
    for s, speaker in enumerate(("carol", "alice", "bob")):
        for u in range(3):
            tone(folder / speaker / f"{u}.wav", 100 + 50 * s + 7 * u)
    (folder / "LICENSE.TXT").write_text("free")
    (folder / "README").write_text("read me")
    (folder / ".DS_Store").write_bytes(b"\0")
    (folder / ".git").mkdir()
    (folder / "bob" / ".hidden.wav").write_bytes(b"no sound")
    (folder / "bob" / "bob.trans.txt").write_text("0 HELLO")
    return folder


@pytest.fixture
def open_(tmp_path: Path) -> Callable[..., Corpus]:
    def open_it(path: Path, **changes: Any) -> Corpus:
        options = {"frontend": FRONTEND, "cache": tmp_path / "cache", "progress": False, **changes}
        return open_corpus(path, CorpusOptions(**options))

    return open_it


def test_a_folder_per_speaker(data: Path, open_: Callable[..., Corpus]) -> None:
    corpus = open_(data)
    assert (corpus.kind, corpus.labels, corpus.problems, corpus.test) == ("folder", ("alice", "bob", "carol"), (), ())
    assert [utterance.key for utterance in corpus.utterances[:4]] == [
        "alice/0.wav",
        "alice/1.wav",
        "alice/2.wav",
        "bob/0.wav",
    ]
    for i, utterance in enumerate(corpus.utterances):
        assert utterance.key.split("/")[0] == corpus.labels[utterance.speaker]
        expected = compute_features(read_audio(data / utterance.key, 16000), FRONTEND)
        np.testing.assert_array_equal(corpus.features(i), expected)


def test_formats_rates_channels_and_depth(tmp_path: Path, open_: Callable[..., Corpus]) -> None:
    data = tmp_path / "many"
    tone(data / "a" / "plain.wav", 200)
    tone(data / "a" / "Stereo.WAV", 210, rate=44100, channels=2)
    tone(data / "a" / "chapter" / "deep.flac", 220, rate=8000)
    tone(data / "b" / "six.flac", 230, rate=48000, channels=6)
    tone(data / "b" / "vorbis.ogg", 240, rate=22050)
    tone(data / "b" / "layer3.mp3", 250, rate=32000, channels=2)
    corpus = open_(data)
    assert {u.key for u in corpus.utterances} == {
        "a/plain.wav",
        "a/Stereo.WAV",
        "a/chapter/deep.flac",
        "b/six.flac",
        "b/vorbis.ogg",
        "b/layer3.mp3",
    }
    for utterance in corpus.utterances:
        # Half a second at a hop of 10 ms; mp3 adds the padding of its frames.
        assert 51 <= utterance.frames <= (60 if utterance.key.endswith("mp3") else 51), utterance


def test_another_frontend_gives_other_features(data: Path, open_: Callable[..., Corpus]) -> None:
    kaldi = profile("kaldi_fbank80")
    assert open_(data).features(0).shape[1] == 40
    corpus = open_(data, frontend=kaldi)
    expected = compute_features(read_audio(data / "alice/0.wav", 16000), kaldi)
    np.testing.assert_array_equal(corpus.features(0), expected)


def test_worker_processes_give_what_one_process_gives(tmp_path: Path, open_: Callable[..., Corpus]) -> None:
    for i in range(26):
        tone(tmp_path / "big" / f"s{i % 2}" / f"{i}.wav", 100 + 5 * i, seconds=0.25)
    (tmp_path / "big" / "s0" / "bad.wav").write_bytes(b"RIFF, but no sound")
    parallel = open_(tmp_path / "big", jobs=2, cache=tmp_path / "parallel", skip_bad=True)
    alone = open_(tmp_path / "big", jobs=1, skip_bad=True)
    assert parallel.utterances == alone.utterances
    assert parallel.problems == alone.problems
    assert [problem.key for problem in alone.problems] == ["s0/bad.wav"]
    np.testing.assert_array_equal(parallel.pack.rows, alone.pack.rows)


def _text(path: Path) -> None:
    path.write_text("not a sound")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def _short(path: Path) -> None:
    tone(path, 100, seconds=0.1)


def _tiny(path: Path) -> None:
    tone(path, 100, seconds=0.005)


def _nan(path: Path) -> None:
    samples = np.zeros(8000, dtype=np.float32)
    samples[77] = np.nan
    soundfile.write(path, samples, 16000, subtype="FLOAT")


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.wav")


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (_text, "unreadable"),
        (_cut, "unreadable"),
        (lambda path: path.write_bytes(b""), "unreadable"),
        (_short, "short"),
        (_tiny, "short"),
        (_nan, "not-finite"),
        (_dangling, "missing"),
    ],
)
def test_a_damaged_sound_file_is_named(
    data: Path, open_: Callable[..., Corpus], damage: Callable[[Path], Any], kind: str
) -> None:
    damage(data / "bob" / "1.wav")
    with pytest.raises(CorpusError, match=rf"1 unusable entry \(1 {kind}\)\n  bob/1\.wav: {kind}: "):
        open_(data)
    corpus = open_(data, skip_bad=True)
    assert [(problem.key, problem.kind) for problem in corpus.problems] == [("bob/1.wav", kind)]
    assert len(corpus.utterances) == 8


def test_the_same_sound_in_two_files_is_a_duplicate(data: Path, open_: Callable[..., Corpus]) -> None:
    samples, rate = soundfile.read(data / "alice" / "0.wav", dtype="int16")
    soundfile.write(data / "carol" / "same.flac", samples, rate)  # other bytes, equal sound
    with pytest.raises(CorpusError, match=r"alice/0\.wav: duplicate: the same content as carol/same\.flac"):
        open_(data)
    assert len(open_(data, skip_bad=True).utterances) == 8


def test_a_speaker_without_sound_is_named(data: Path, open_: Callable[..., Corpus]) -> None:
    (data / "dave").mkdir()
    with pytest.raises(CorpusError, match="dave: empty-speaker: a folder without a sound file"):
        open_(data)
    assert open_(data, skip_bad=True).labels == ("alice", "bob", "carol")


def test_folders_that_are_no_corpus(tmp_path: Path, open_: Callable[..., Corpus]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"empty: no sound file in a speaker's folder; expected SPEAKER/FILE\.wav"):
        open_(tmp_path / "empty")
    tone(tmp_path / "flat" / "a.wav", 100)
    with pytest.raises(CorpusError, match="found 1 sound files directly in it"):
        open_(tmp_path / "flat")
    tone(tmp_path / "one" / "alice" / "a.wav", 100)
    with pytest.raises(CorpusError, match="at least two"):
        open_(tmp_path / "one")


def write_manifest(path: Path, lines: list[dict[str, Any]]) -> Path:
    if path.suffix.lower() == ".csv":
        rows = [",".join(lines[0]), *(",".join(str(value) for value in line.values()) for line in lines)]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8-sig")  # as spreadsheets write it
    else:
        path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return path


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl", "LIST.CSV"])
def test_a_manifest_mixes_sound_and_features(data: Path, open_: Callable[..., Corpus], name: str) -> None:
    features = compute_features(read_audio(data / "carol" / "2.wav", 16000), FRONTEND)
    (data / "stored").mkdir()
    np.save(data / "stored" / "c.npy", features)
    torch.save(torch.from_numpy(features + 1).half(), data / "stored" / "d.pt")
    lines: list[dict[str, Any]] = [
        {"path": "./bob/0.wav", "speaker": "Zoë", "text": "ignored"},
        {"path": str(data / "bob" / "1.wav"), "speaker": "Zoë", "text": ""},
        {"path": "stored/c.npy", "speaker": "7", "text": ""},
        {"path": "stored/d.pt", "speaker": 7 if name.endswith("jsonl") else "7", "text": ""},
    ]
    corpus = open_(write_manifest(data / name, lines))
    assert (corpus.kind, corpus.labels) == ("manifest", ("7", "Zoë"))
    assert [utterance.speaker for utterance in corpus.utterances] == [1, 1, 0, 0]
    assert [u.key for u in corpus.utterances][::2] == ["bob/0.wav", "stored/c.npy"]
    np.testing.assert_array_equal(corpus.features(0), compute_features(read_audio(data / "bob/0.wav", 16000), FRONTEND))
    np.testing.assert_array_equal(corpus.features(2), features)
    np.testing.assert_array_equal(corpus.features(3), (features + 1).astype(np.float16))


def test_every_bad_line_of_a_manifest_is_named(data: Path, open_: Callable[..., Corpus]) -> None:
    good = [{"path": f"{name}/{i}.wav", "speaker": name} for name in ("alice", "bob") for i in range(2)]
    lines = [json.dumps(line) for line in good]
    lines += ["{broken", '["path"]', '{"path": "x.wav"}', '{"path": "", "speaker": "a"}']
    lines += ['{"path": "x.txt", "speaker": "a"}', '{"path": "gone.wav", "speaker": "bob"}', lines[0]]
    (data / "list.jsonl").write_text("\n".join(lines))
    with pytest.raises(CorpusError, match=r"7 unusable entries \(5 malformed, 1 duplicate, 1 missing\)"):
        open_(data / "list.jsonl")
    corpus = open_(data / "list.jsonl", skip_bad=True)
    assert [problem.key for problem in corpus.problems][:5] == [f"line {number}" for number in range(5, 10)]
    assert len(corpus.utterances) == 4


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "file,speaker\nx.wav,bob\n", "no column path; .* this one has file, speaker"),
        ("a.csv", "path:speaker\nx.wav:bob\n", "no column path and no column speaker"),
        ("a.csv", "", "this one has none"),
        ("a.csv", "path,speaker\n", "lists no utterance"),
        ("a.csv", 'path,speaker\n"x.wav,bob\n', "not CSV"),
        ("a.jsonl", '{"file": "x.wav", "speaker": "bob"}', "no column path"),
        ("a.jsonl", "", "lists no utterance"),
        ("a.csv", b"\xff\xfe\x00", "expected a text file in UTF-8"),
    ],
)
def test_manifests_that_are_none(
    tmp_path: Path, open_: Callable[..., Corpus], name: str, text: str | bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CorpusError, match=message):
        open_(tmp_path / name)
