"""Layouts of corpora: each as its documentation describes it, the speakers that it has, and what is refused."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from voxport.cli.root import cli
from voxport.corpora.layouts.base import Listing
from voxport.corpora.layouts.recognition import LAYOUTS, list_corpus, listing_lines
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile
from voxport.train.data import Corpus, CorpusError, CorpusOptions, LayoutOptions, open_corpus
from voxport.train.data.survey import survey

FRONTEND = profile("homework_mel40")


def sound(path: Path, seed: int, seconds: float = 0.5, rate: int = 16000, **options: str) -> Path:
    """Noise that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(int(rate * seconds)), rate, **options)
    return path


def tree(root: Path, *names: str) -> Path:
    """Sound files of these names; each name says the format."""
    for seed, name in enumerate(names):
        flac = name.endswith("flac")
        sound(root / name, seed, format="FLAC" if flac else "WAV")
    return root


def read(path: Path, **options: str) -> Listing:
    return list_corpus(path, LayoutOptions(**options))


def speakers(listing: Listing) -> dict[str, int]:
    return dict(Counter(str(entry.speaker) for entry in listing.entries))


LIBRISPEECH = (
    "train-clean-100/103/1240/103-1240-0000.flac",
    "train-clean-100/103/1241/103-1241-0000.flac",
    "train-clean-100/26/495/26-495-0001.flac",
    "dev-clean/84/121123/84-121123-0000.flac",
)
VOXCELEB1 = (
    "dev/wav/id10001/1zcIwhmdeo4/00001.wav",
    "dev/wav/id10001/7gWzIy6yIIk/00001.wav",
    "dev/wav/id10002/0_laIeN-Q44/00003.wav",
    "test/wav/id10270/5r0dWxy17C8/00001.wav",
)
TIMIT = ("TRAIN/DR1/FCJF0/SA1.WAV", "TRAIN/DR1/FCJF0/SX37.WAV", "TEST/DR3/MKCH0/SI1428.WAV")
VCTK = ("wav48_silence_trimmed/p225/p225_001_mic1.flac", "wav48_silence_trimmed/p225/p225_001_mic2.flac")


@pytest.mark.parametrize(
    ("names", "layout", "expected"),
    [
        (LIBRISPEECH, "librispeech", {"103": 2, "26": 1, "84": 1}),
        # The corpus's own parent folder, and one split of it.
        (tuple(f"LibriSpeech/{name}" for name in LIBRISPEECH), "librispeech", {"103": 2, "26": 1, "84": 1}),
        (tuple(name.partition("/")[2] for name in LIBRISPEECH), "librispeech", {"103": 2, "26": 1, "84": 1}),
        (("train-clean-100/103/1241/103_1241_000000_000001.wav", "dev-clean/84/1/84_1_0_1.wav"), "librispeech", {}),
        (VOXCELEB1, "voxceleb", {"id10001": 2, "id10002": 1, "id10270": 1}),
        (("dev/aac/id00012/21Uxsk56VDQ/00001.m4a", "dev/aac/id00015/a/00002.m4a"), "voxceleb", {}),
        (TIMIT, "timit", {"FCJF0": 2, "MKCH0": 1}),
        (tuple(name.lower() for name in TIMIT), "timit", {"FCJF0": 2, "MKCH0": 1}),
        ((*TIMIT, *(f"{name}.wav" for name in TIMIT)), "timit", {"FCJF0": 2, "MKCH0": 1}),
        ((*VCTK, "wav48_silence_trimmed/s5/s5_003_mic2.flac"), "vctk", {"p225": 1, "s5": 1}),
        (("wav48/p225/p225_001.wav", "wav48/p226/p226_001.wav", "wav48/p226/p226_002.wav"), "vctk", {}),
        (
            (
                "data/id00010/singing-01-002.flac",
                "data/id00011/live_broadcast-02-001.flac",
                "eval/enroll/id00800-enroll.flac",
                "eval/test/id00800-singing-01-005.flac",
            ),
            "cnceleb",
            {"id00010": 1, "id00011": 1, "id00800": 2},
        ),
        (("alice/a.wav", "alice/deep/down/b.wav", "bob/c.wav"), "speaker-folders", {"alice": 2, "bob": 1}),
        (("train/alice/a.wav", "train/bob/b.wav", "test/alice/c.wav"), "split-folders", {"alice": 2, "bob": 1}),
    ],
)
def test_the_speakers_of_known_layouts(
    tmp_path: Path, names: tuple[str, ...], layout: str, expected: dict[str, int]
) -> None:
    listing = read(tree(tmp_path / "corpus", *names))
    assert listing.layout == layout
    found = speakers(listing)
    assert found == (expected or found)
    assert len(found) == 2 if not expected else True
    assert listing.problems == ()


def test_librispeech_trains_on_its_speakers_and_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    data = tree(tmp_path / "corpus", *LIBRISPEECH)
    (data / "SPEAKERS.TXT").write_text("; see the corpus")
    corpus = open_corpus(data, CorpusOptions(FRONTEND, cache=tmp_path / "cache", progress=False, announce=told.append))
    assert (corpus.labels, corpus.layout, corpus.kind) == (("103", "26", "84"), "librispeech", "folder")
    assert f"{data}: read as LibriSpeech or LibriTTS: 3 speakers, 4 utterances" in told[0]
    assert told[-1] == "  usable: 3 speakers, 4 utterances, 0.00 h"
    np.testing.assert_array_equal(corpus.samples(0, 16000), read_audio(data / corpus.utterances[0].key, 16000))


def test_a_file_that_is_named_otherwise_is_a_problem(tmp_path: Path) -> None:
    names = [f"dev/84/1/84-1-{i:04}.flac" for i in range(30)]
    listing = read(tree(tmp_path, *names, "dev/notes/take.wav"))
    assert (listing.layout, speakers(listing)) == ("librispeech", {"84": 30})
    assert [(problem.key, problem.kind) for problem in listing.problems] == [("dev/notes/take.wav", "malformed")]


def test_vctk_counts_a_sentence_once_though_two_microphones_heard_it(tmp_path: Path) -> None:
    listing = read(tree(tmp_path, *VCTK, "wav48_silence_trimmed/p226/p226_001_mic1.flac"))
    assert listing.entries[0].key == VCTK[0]
    assert "1 recordings of the second microphone (_mic2) of the same sentences were passed over" in listing.notes


@pytest.mark.parametrize(
    "names",
    [
        ("wav/alice/a.wav", "wav/bob/b.wav"),
        ("male/bob/a.wav", "female/alice/b.wav"),
        ("train/alice/a.wav", "carol/x/b.wav"),
        tuple(f"{group}/{group}{i}/a.wav" for group in ("north", "south") for i in range(6)),
        ("train/m/bob/a.wav", "test/f/alice/b.wav"),
        ("TRAIN/DR1/FCJF0/first.wav", "TEST/DR2/MABW0/first.wav"),  # TIMIT, but for its files' names
        tuple(f"train/{group}/{group}{i}/a.wav" for group in ("north", "south") for i in range(6)),
    ],
)
def test_what_fits_two_readings_is_refused_and_the_option_decides(tmp_path: Path, names: tuple[str, ...]) -> None:
    tree(tmp_path, *names)
    with pytest.raises(CorpusError, match=r"(?s)two ways.*--layout speaker-folders.*--layout split-folders"):
        read(tmp_path)
    firsts = {name.split("/")[0] for name in names}
    assert set(speakers(read(tmp_path, layout="speaker-folders"))) == firsts
    assert set(speakers(read(tmp_path, layout="split-folders"))) == {name.split("/")[1] for name in names}


def test_two_layouts_that_are_both_certain_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, *VOXCELEB1)
    (tmp_path / "wav.scp").write_text("a dev/wav/id10001/1zcIwhmdeo4/00001.wav\n")
    (tmp_path / "utt2spk").write_text("a somebody\n")
    with pytest.raises(CorpusError, match=r"(?s)fits 2 layouts.*--layout voxceleb.*--layout kaldi"):
        read(tmp_path)
    assert speakers(read(tmp_path, layout="kaldi")) == {"somebody": 1}


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no layout 'libri'; known are audiofolder, cnceleb"):
        read(tree(tmp_path, "a/a.wav"), layout="libri")
    assert {"librispeech", "nemo", "webdataset", "homework"} <= set(LAYOUTS)


def test_what_systems_left_is_counted_and_links_are_followed_once(tmp_path: Path) -> None:
    data = tree(tmp_path / "corpus", "alice/a.wav", "bob/b.wav", "bob/@eaDir/b.wav", "__MACOSX/alice/a.wav")
    (data / "alice" / "._a.wav").write_bytes(b"\0")
    tree(tmp_path / "elsewhere", "c.wav")
    (data / "carol").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (data / "aa_bob").symlink_to(data / "bob", target_is_directory=True)  # sorted before what it leads to
    (data / "bob" / "up").symlink_to(data, target_is_directory=True)
    listing = read(data)
    assert speakers(listing) == {"alice": 1, "bob": 1, "carol": 1}
    again = "links to folders that were walked already"
    assert dict(listing.passed) == {"._*": 1, "@eaDir": 1, "__MACOSX": 1, again: 2}
    assert listing.problems == ()
    assert listing_lines(listing)[-1] == f"  passed over: ._* (1), @eaDir (1), __MACOSX (1), {again} (2)"


def kaldi(folder: Path) -> Path:
    """Two recordings of two seconds; three segments of two people."""
    sound(folder / "wavs" / "one.wav", 1, 2.0)
    sound(folder / "wavs" / "two.wav", 2, 2.0, rate=8000)
    data = folder / "data" / "train"
    data.mkdir(parents=True)
    (data / "wav.scp").write_text("rec1 wavs/one.wav\nrec2 wavs/two.wav\n")
    (data / "segments").write_text("ann-1 rec1 0.25 1.0\nben-1 rec1 1.0 -1\nann-2 rec2 0 1.5\n")
    (data / "utt2spk").write_text("ann-1 ann\nben-1 ben\nann-2 ann\n")
    return data


def test_kaldi_segments_are_the_pieces_that_are_trained_on(tmp_path: Path) -> None:
    data = kaldi(tmp_path)  # the paths are relative to where Kaldi ran, two folders above
    corpus = open_corpus(data, CorpusOptions(FRONTEND, cache=tmp_path / "cache", progress=False))
    assert (corpus.labels, corpus.layout) == (("ann", "ben"), "kaldi")
    keys = ["wavs/one.wav#t=0.25,1", "wavs/one.wav#t=1,", "wavs/two.wav#t=0,1.5"]
    assert [utterance.key for utterance in corpus.utterances] == keys
    whole, _ = soundfile.read(tmp_path / "wavs" / "one.wav", dtype="float32")
    for i, piece in enumerate((whole[4000:16000], whole[16000:])):
        np.testing.assert_array_equal(corpus.features(i), compute_features(piece, FRONTEND))
    assert corpus.samples(2, 16000).shape == (24000,)
    figures = survey(data, LayoutOptions(), FRONTEND)
    assert figures.hours * 3600 == pytest.approx(0.75 + 1.0 + 1.5)
    assert {each.speaker: each.utterances for each in figures.per_speaker} == {"ann": 2, "ben": 1}
    assert {each.speaker: each.seconds for each in figures.per_speaker} == pytest.approx({"ann": 2.25, "ben": 1.0})


def test_kaldi_without_segments_and_with_spk2utt(tmp_path: Path) -> None:
    tree(tmp_path, "a.wav", "b.wav", "c.wav")
    (tmp_path / "wav.scp").write_text(f"a {tmp_path / 'a.wav'}\nb b.wav\nc c.wav\n")
    (tmp_path / "spk2utt").write_text("ann a c\nben b\n")
    assert speakers(read(tmp_path)) == {"ann": 2, "ben": 1}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("wav.scp", "rec1 sph2pipe -f wav x.sph |\n", "rec1 is a command .*are not run"),
        ("wav.scp", "rec1 /x/wav.ark:17\n", "lies in a Kaldi archive"),
        ("wav.scp", "rec1\n", "'rec1' stands alone"),
        ("utt2spk", "ann-1 ann\nann-1 ben\n", "ann-1 has two speakers, ann and ben"),
    ],
)
def test_kaldi_directories_that_are_refused(tmp_path: Path, file: str, text: str, message: str) -> None:
    data = kaldi(tmp_path)
    (data / file).write_text(text)
    with pytest.raises(CorpusError, match=message):
        read(data)


def test_segments_that_say_nothing_usable_are_named(tmp_path: Path) -> None:
    data = kaldi(tmp_path)
    (data / "segments").write_text("ann-1 rec1 1.0 0.5\nann-2 rec9 0 1\nben-1 rec1 x 1\nzoe-1 rec1 0 1 A\n")
    kinds = [(problem.key, problem.kind) for problem in read(data).problems]
    assert kinds == [
        ("ann-1", "malformed"),
        ("ann-2", "malformed"),
        ("ben-1", "malformed"),
        ("zoe-1", "malformed"),
        ("ann", "empty-speaker"),
        ("ben", "empty-speaker"),
    ]


def test_several_kaldi_directories_are_refused(tmp_path: Path) -> None:
    kaldi(tmp_path / "a")
    kaldi(tmp_path / "b")
    with pytest.raises(CorpusError, match=r"holds 2 Kaldi directories \(a/data/train, b/data/train\); pass one"):
        read(tmp_path)


def common_voice(folder: Path) -> Path:
    for i in range(4):
        sound(folder / "clips" / f"common_voice_en_{i}.mp3", i, format="MP3")
    header = "client_id\tpath\tsentence\tup_votes\tgender\n"
    rows = ['aa\tcommon_voice_en_0.mp3\tShe said "no\t2\t\n', "aa\tcommon_voice_en_1.mp3\tx\t2\t\n"]
    (folder / "train.tsv").write_text(header + "".join(rows))
    (folder / "dev.tsv").write_text(header + "bb\tcommon_voice_en_2.mp3\tx\t2\tfemale_feminine\n")
    return folder


def test_common_voice(tmp_path: Path) -> None:
    data = common_voice(tmp_path / "en")
    listing = read(data)
    assert (listing.layout, speakers(listing)) == ("common-voice", {"aa": 2, "bb": 1})
    assert listing.entries[0].path == data / "clips" / "common_voice_en_0.mp3"
    assert speakers(read(data / "dev.tsv")) == {"bb": 1}
    header = (data / "train.tsv").read_text().splitlines()[0]
    (data / "validated.tsv").write_text(f"{header}\ncc\tcommon_voice_en_3.mp3\t\t2\t\n")
    assert speakers(read(data)) == {"cc": 1}, "validated.tsv holds train, dev and test"
    common_voice(tmp_path / "de")
    with pytest.raises(CorpusError, match=r"holds 2 languages \(de, en\)"):
        read(tmp_path)


def test_an_audiofolder_with_metadata(tmp_path: Path) -> None:
    tree(tmp_path, "train/0.wav", "train/1.wav", "test/0.wav")
    (tmp_path / "train" / "metadata.csv").write_text("file_name,speaker_id,text\n0.wav,7,x\n1.wav,8,y\n")
    (tmp_path / "test" / "metadata.jsonl").write_text('{"file_name": "0.wav", "speaker_id": 7}\n')
    listing = read(tmp_path)
    assert (listing.layout, speakers(listing)) == ("audiofolder", {"7": 2, "8": 1})
    assert {entry.key for entry in listing.entries} == {"train/0.wav", "train/1.wav", "test/0.wav"}
    assert "columns passed over: text" in listing.notes


def test_the_speaker_column_is_asked_for_where_two_differ(tmp_path: Path) -> None:
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,speaker,label\na.wav,ann,yes\nb.wav,ben,yes\n")
    tree(tmp_path, "a.wav", "b.wav")
    with pytest.raises(
        CorpusError, match=r"speaker and label differ.*--speaker-column speaker or --speaker-column label"
    ):
        read(tmp_path)
    assert speakers(read(tmp_path, speaker_column="speaker")) == {"ann": 1, "ben": 1}
    table.write_text("file_name,who\na.wav,ann\n")
    with pytest.raises(CorpusError, match="--speaker-column"):
        read(tmp_path)
    assert speakers(read(tmp_path, speaker_column="who")) == {"ann": 1}


def test_hugging_face_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    files = [sound(tmp_path / "raw" / f"{i}.flac", i, format="FLAC") for i in range(3)]
    rows = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    table = pyarrow.table({"audio": rows, "speaker": [0, 1, 0], "text": ["", "", ""]})
    names = {"info": {"features": {"speaker": {"names": ["ann", "ben"], "_type": "ClassLabel"}}}}
    (tmp_path / "data").mkdir()
    parquet.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(names)}),
        tmp_path / "data" / "train-00000-of-00001.parquet",
        row_group_size=2,
    )
    corpus = open_corpus(tmp_path / "data", CorpusOptions(FRONTEND, cache=tmp_path / "cache", progress=False))
    assert (corpus.layout, corpus.labels) == ("parquet", ("ann", "ben"))
    assert [corpus.labels[utterance.speaker] for utterance in corpus.utterances] == ["ann", "ben", "ann"]
    for i, file in enumerate(files):
        np.testing.assert_array_equal(corpus.features(i), compute_features(read_audio(file, 16000), FRONTEND))
        np.testing.assert_array_equal(corpus.samples(i, 16000), read_audio(file, 16000))


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_webdataset_shards(tmp_path: Path) -> None:
    files = [sound(tmp_path / "raw" / f"{i}.flac", i, format="FLAC") for i in range(4)]
    content = [file.read_bytes() for file in files]
    (tmp_path / "shards").mkdir()
    ann = json.dumps({"speaker_id": "ann"}).encode()
    shard(tmp_path / "shards" / "a-000.tar", {"x/0.flac": content[0], "x/0.json": ann, "x/1.flac": content[1]})
    shard(
        tmp_path / "shards" / "a-001.tar",
        {"2.flac": content[2], "2.spk": b"ben\n", "3.cls": b"ann", "3.flac": content[3]},
    )
    options = CorpusOptions(FRONTEND, cache=tmp_path / "cache", progress=False, skip_bad=True)
    corpus = open_corpus(tmp_path / "shards", options)
    assert (corpus.layout, corpus.labels) == ("webdataset", ("ann", "ben"))
    assert [u.key for u in corpus.utterances] == ["a-000.tar/x/0.flac", "a-001.tar/2.flac", "a-001.tar/3.flac"]
    assert [problem.key for problem in corpus.problems] == ["a-000.tar/x/1"]
    np.testing.assert_array_equal(corpus.samples(1, 16000), read_audio(files[2], 16000))
    found = survey(tmp_path / "shards", LayoutOptions(), FRONTEND)
    assert found.utterances == 3
    assert found.hours * 3600 == pytest.approx(1.5)
    both = shard(tmp_path / "both.tar", {"0.flac": content[0], "0.spk": b"ann", "0.json": b'{"speaker": "ben"}'})
    with pytest.raises(CorpusError, match="different speakers in speaker and spk"):
        read(both)
    assert speakers(read(both, speaker_column="spk")) == {"ann": 1}
    (tmp_path / "no.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(CorpusError, match="not a readable tar archive"):
        read(tmp_path / "no.tar")


def talks(folder: Path) -> Path:
    """Two people, one after the other, in a recording at 8 kHz: three seconds of one, one of the other."""
    return sound(folder / "talks" / "a.wav", 5, 4.0, rate=8000)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ours.csv", "path,start,end,speaker\ntalks/a.wav,0,3,ann\ntalks/a.wav,3,4,ben\n"),
        ("open.csv", "path,start,end,speaker\ntalks/a.wav,,3,ann\ntalks/a.wav,3,,ben\n"),
        ("length.csv", "path;speaker;offset;duration\ntalks/a.wav;ann;0;3\ntalks/a.wav;ben;3;1\n"),
        ("samples.csv", "path,speaker,start_sample,end_sample\ntalks/a.wav,ann,0,24000\ntalks/a.wav,ben,24000,32000\n"),
        (
            "brain.csv",
            "ID,duration,wav,start,stop,spk_id\n1,3,talks/a.wav,0,24000,ann\n2,1,talks/a.wav,24000,32000,ben\n",
        ),
        (
            "nemo.json",
            '{"audio_filepath": "talks/a.wav", "offset": 0, "duration": 3, "label": "ann", "text": "-"}\n'
            '{"audio_filepath": "talks/a.wav", "offset": 3, "duration": 1, "label": "ben", "text": "-"}\n',
        ),
        ("windows.csv", "path,start,end,speaker\r\ntalks\\a.wav,0,3,ann\r\ntalks\\a.wav,3,4,ben\r\n"),
        ("tabs.tsv", "path\tstart\tend\tspeaker\ntalks/a.wav\t0\t3\tann\ntalks/a.wav\t3\t4\tben\n"),
    ],
)
def test_times_cut_the_pieces_that_they_say(tmp_path: Path, name: str, text: str) -> None:
    whole, rate = soundfile.read(talks(tmp_path), dtype="float32")
    (tmp_path / name).write_bytes(text.encode())
    corpus = open_corpus(tmp_path / name, CorpusOptions(FRONTEND, cache=tmp_path / "cache", progress=False))
    assert [corpus.labels[utterance.speaker] for utterance in corpus.utterances] == ["ann", "ben"]
    for i, piece in enumerate((whole[: 3 * rate], whole[3 * rate :])):
        soundfile.write(tmp_path / "piece.wav", piece, rate, subtype="FLOAT")
        expected = read_audio(tmp_path / "piece.wav", 16000)
        np.testing.assert_allclose(corpus.samples(i, 16000), expected, atol=1e-6)
        np.testing.assert_allclose(corpus.features(i), compute_features(expected, FRONTEND), atol=1e-3)
    assert survey(tmp_path / name, LayoutOptions(), FRONTEND).hours * 3600 == pytest.approx(4)


def test_pieces_of_one_row_a_file_are_cut_too(tmp_path: Path) -> None:
    for i, name in enumerate("ab"):
        sound(tmp_path / f"{name}.wav", i, 2.0)
    (tmp_path / "list.csv").write_text("path,speaker,start,end\na.wav,ann,0.5,1\nb.wav,ben,1,2\n")
    corpus = open_corpus(tmp_path / "list.csv", CorpusOptions(FRONTEND, cache=tmp_path / "cache", progress=False))
    assert [len(corpus.samples(i, 16000)) for i in (0, 1)] == [8000, 16000]
    # A change of the times is another corpus, though the files are the same.
    (tmp_path / "list.csv").write_text("path,speaker,start,end\na.wav,ann,0.5,1.5\nb.wav,ben,1,2\n")
    corpus = open_corpus(tmp_path / "list.csv", CorpusOptions(FRONTEND, cache=tmp_path / "cache", progress=False))
    assert len(corpus.samples(0, 16000)) == 16000
    assert corpus.utterances[0].frames == corpus.utterances[1].frames == 101


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "flac"])
def test_a_piece_is_the_same_whether_sought_or_decoded_up_to(tmp_path: Path, suffix: str) -> None:
    from voxport.runtime.audio.decode import read_piece

    path = sound(tmp_path / f"a.{suffix}", 3, 10.0)
    whole = read_audio(path, 16000)
    np.testing.assert_allclose(read_piece(path, 16000, 6.5, 8.25), whole[104000:132000], atol=1e-6)
    np.testing.assert_allclose(read_piece(path, 16000, 100, None, in_samples=True), whole[100:], atol=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "kind", "reason"),
    [
        ("5", "6", "unreadable", "lies behind the sound, which ends at 4 s"),
        ("0", "4.6", "unreadable", "lies behind the sound"),
        ("24000", "32000", "unreadable", "are these samples, and not seconds?"),
        ("3", "2", "malformed", "a piece from 3 to 2 is none"),
        ("-1", "2", "malformed", "is none"),
        ("zero", "2", "malformed", "start and end must be numbers, found 'zero' and '2'"),
        ("nan", "2", "malformed", "must be numbers"),
    ],
)
def test_times_that_cannot_be_are_named(tmp_path: Path, start: str, end: str, kind: str, reason: str) -> None:
    talks(tmp_path)
    rows = ["talks/a.wav,0,2,ann", "talks/a.wav,2,3,ben", "talks/a.wav,3,4.4,ben", f"talks/a.wav,{start},{end},ben"]
    (tmp_path / "list.csv").write_text("\n".join(["path,start,end,speaker", *rows]))
    options: dict[str, Any] = {"cache": tmp_path / "cache", "progress": False, "skip_bad": True}
    corpus: Corpus = open_corpus(tmp_path / "list.csv", CorpusOptions(FRONTEND, **options))
    assert len(corpus.utterances) == 3, "a piece may end up to half a second behind its sound"
    assert [problem.kind for problem in corpus.problems] == [kind]
    assert reason in corpus.problems[0].reason


def test_columns_that_are_not_used_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "a.wav", "b.wav")
    (tmp_path / "list.csv").write_text("path,speaker,mood,duration\na.wav,ann,happy,9\nb.wav,ben,sad,9\n")
    assert read(tmp_path / "list.csv").notes == ("columns passed over: mood, duration",)


def test_two_columns_of_starts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,speaker,start,end,offset\na.wav,ann,0,1,0\n")
    with pytest.raises(CorpusError, match="start and offset both say where a piece starts"):
        read(tmp_path / "list.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_encodings_and_delimiters_that_are_certain(tmp_path: Path, encoding: str, mark: str) -> None:
    rows = [["path", "speaker", "age"], ["a.wav", "Zoë", "3,5"], ["b.wav", "김", "4"]]
    if mark == ",":
        rows[1][2] = '"3,5"'
    text = "\r\n".join(mark.join(row) for row in rows)
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    assert speakers(read(tmp_path / "list.csv")) == {"Zoë": 1, "김": 1}


def test_an_encoding_that_is_not_certain_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes("path,speaker\na.wav,Zoë\n".encode("cp1252"))
    with pytest.raises(CorpusError, match=r"(?s)line 2 is none; it could be 'a.wav,Zoë' in cp1252.*--encoding"):
        read(path)
    assert speakers(read(path, encoding="cp1252")) == {"Zoë": 1}
    with pytest.raises(CorpusError, match="no encoding 'latin-99'"):
        read(path, encoding="latin-99")


def test_a_comma_that_moves_the_columns_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,speaker,text\na.wav,ann,x\nb,1.wav,ben,y\n")
    listing = read(tmp_path / "list.csv")
    assert [(problem.key, problem.reason) for problem in listing.problems] == [
        ("line 3", "4 fields, and the header has 3")
    ]


def test_the_histograms(tmp_path: Path) -> None:
    for i, seconds in enumerate((0.3, 0.7, 0.7, 3.0)):
        sound(tmp_path / ("ann" if i < 3 else "ben") / f"{i}.wav", i, seconds)
    (tmp_path / "ben" / "bad.wav").write_bytes(b"no sound")
    found = survey(tmp_path, LayoutOptions(), FRONTEND)
    assert [(each.low, each.high, each.count) for each in found.lengths] == [
        (0.0, 0.5, 1),
        (0.5, 1.0, 2),
        (1.0, 2.0, 0),
        (2.0, 4.0, 1),
    ]
    assert [(each.low, each.high, each.count) for each in found.utterances_per_speaker] == [(2, 5, 2)]
    assert (found.utterances, found.known_lengths, found.problems) == (5, 4, {"unreadable": 1})
    assert found.hours * 3600 == pytest.approx(4.7)


def voxport(line: str) -> Result:
    return CliRunner().invoke(cli, line.split())


def test_the_command_shows_what_it_took_the_corpus_for(tmp_path: Path) -> None:
    tree(tmp_path / "corpus", *VOXCELEB1)
    shown = voxport(f"train corpus {tmp_path / 'corpus'} --no-progress")
    assert "VoxCeleb (--layout voxceleb)" in shown.stdout
    assert "Utterances a speaker" in shown.stdout
    report = json.loads(voxport(f"train corpus {tmp_path / 'corpus'} --json").stdout)
    assert (report["layout"], report["speakers"], report["utterances"]) == ("voxceleb", 3, 4)
    assert report["hours"] * 3600 == pytest.approx(2.0)
    tree(tmp_path / "doubt", "wav/ann/a.wav", "wav/ben/b.wav")
    refused = voxport(f"train corpus {tmp_path / 'doubt'}")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--layout split-folders" in refused.stderr
