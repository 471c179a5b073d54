"""Sounds to be scored: with speakers where the corpus tells them, and without where it does not."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxport.corpora.errors import CorpusError
from voxport.corpora.layouts.base import LayoutOptions
from voxport.corpora.recordings import list_recordings


def sound(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(4000), 16000)
    return path


def keys(path: Path, **options: str) -> dict[str, str | None]:
    listing = list_recordings(path, LayoutOptions(**options))
    assert listing.problems == ()
    for entry in listing.entries:
        assert entry.path.is_file()
    return {entry.key: entry.speaker for entry in listing.entries}


@pytest.mark.parametrize("name", ["a.wav", "deep/er/a.wav", "wav/a.wav"])
def test_a_folder_that_tells_nobodys_name_is_taken_whole(tmp_path: Path, name: str) -> None:
    sound(tmp_path / name)
    sound(tmp_path / "b.wav", 1)
    assert keys(tmp_path) == {name: None, "b.wav": None}


def test_folders_of_speakers_tell_them(tmp_path: Path) -> None:
    for name in ("ada/1.wav", "ada/2.wav", "bo/1.wav"):
        sound(tmp_path / name)
    assert keys(tmp_path) == {"ada/1.wav": "ada", "ada/2.wav": "ada", "bo/1.wav": "bo"}


def test_folders_that_can_be_read_in_two_ways_name_nobody(tmp_path: Path) -> None:
    for name in ("train/ada/1.wav", "train/bo/1.wav", "other/cy/1.wav"):
        sound(tmp_path / name)
    assert set(keys(tmp_path).values()) == {None}
    assert set(keys(tmp_path, layout="split-folders").values()) == {"ada", "bo", "cy"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.csv", "path\na.wav\nb.wav\n"),
        ("list.csv", "path,text\na.wav,hello\nb.wav,\n"),
        ("list.jsonl", '{"path": "a.wav"}\n{"path": "b.wav"}\n'),
        ("list.json", '{"audio_filepath": "a.wav"}\n{"audio_filepath": "b.wav"}\n'),
        ("list.csv", "path,speaker\na.wav,\nb.wav,\n"),
    ],
)
def test_a_list_may_do_without_speakers(tmp_path: Path, name: str, text: str) -> None:
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav", 1)
    (tmp_path / name).write_text(text)
    assert keys(tmp_path / name) == {"a.wav": None, "b.wav": None}


def test_a_parquet_list_names_files_pieces_and_perhaps_speakers(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    sound(tmp_path / "a.wav")
    sound(tmp_path / "b.wav", 1)
    columns = {"path": ["a.wav", "b.wav"], "speaker": ["ada", None], "start": [0.0, None], "end": [0.1, None]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")
    assert keys(tmp_path / "list.parquet") == {"a.wav#t=0,0.1": "ada", "b.wav": None}
    (tmp_path / "lists").mkdir()
    parquet.write_table(pyarrow.table({"path": ["../a.wav"]}), tmp_path / "lists" / "one.parquet")
    parquet.write_table(pyarrow.table({"path": ["../b.wav"]}), tmp_path / "lists" / "two.parquet")
    assert set(keys(tmp_path / "lists").values()) == {None}
    assert len(keys(tmp_path / "lists")) == 2


def test_parquet_files_that_hold_sounds_may_do_without_speakers(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    content = sound(tmp_path / "a.wav").read_bytes()
    cells = [{"bytes": content, "path": "a.wav"}]
    parquet.write_table(pyarrow.table({"audio": cells}), tmp_path / "sounds.parquet")
    assert keys(tmp_path / "sounds.parquet") == {"sounds.parquet#row=0": None}


def test_shards_may_do_without_speakers(tmp_path: Path) -> None:
    content = sound(tmp_path / "sound.wav").read_bytes()
    shards = tmp_path / "shards"
    shards.mkdir()
    with tarfile.open(shards / "000.tar", "w") as archive:
        for name, data in (("one.wav", content), ("two.wav", content), ("two.cls", b"ada")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert keys(shards) == keys(shards / "000.tar") == {"000.tar/one.wav": None, "000.tar/two.wav": "ada"}


def test_a_folder_without_sounds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no sound file"):
        list_recordings(tmp_path, LayoutOptions())
    with pytest.raises(CorpusError, match="no such directory"):
        list_recordings(tmp_path / "nowhere", LayoutOptions())
