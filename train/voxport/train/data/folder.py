"""A folder per speaker: the folder's name is the speaker's, and the sound files in it are theirs."""

import os
from collections.abc import Iterator
from pathlib import Path

from voxport.train.data.entries import SOUND_SUFFIXES, Entry, Listing
from voxport.train.data.problems import CorpusError, Problem


def list_folder(path: Path) -> Listing:
    """List the corpus in `path`, whose folders are the speakers, at any depth below each.

    Hidden files and folders, and files that are no sound (notes, licences, transcripts), are passed
    over. Keys are `speaker/…/file`, with forward slashes.

    Raises:
        CorpusError: no speaker's folder holds a sound file.
        OSError: a folder cannot be read.
    """
    speakers = sorted(item.name for item in os.scandir(path) if item.is_dir() and not item.name.startswith("."))
    entries: list[Entry] = []
    problems: list[Problem] = []
    for speaker in speakers:
        found = [
            Entry(file.relative_to(path).as_posix(), file, speaker) for file in sorted(_sound_files(path / speaker))
        ]
        entries += found
        if not found:
            problems.append(Problem(speaker, "empty-speaker", "a folder without a sound file"))
    if not entries:
        raise CorpusError(
            f"{path}: no sound file in a speaker's folder; expected SPEAKER/FILE.wav (or {_others()}), or "
            f"metadata.json of the homework's layout, or the path of a CSV or JSONL manifest{_seen(path)}"
        )
    labels = tuple(sorted({entry.speaker for entry in entries if entry.speaker is not None}))
    return Listing("folder", path, labels, tuple(entries), tuple(problems))


def _sound_files(folder: Path) -> Iterator[Path]:
    for top, folders, files in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SOUND_SUFFIXES:
                yield Path(top, name)


def _stop(problem: OSError) -> None:
    raise problem  # os.walk would pass over a folder that it may not read


def _others() -> str:
    return ", ".join(sorted(SOUND_SUFFIXES - {".wav"}))


def _seen(path: Path) -> str:
    """What lies directly in `path`, as a hint at what went wrong."""
    suffixes = [item.suffix.lower() for item in path.iterdir() if item.is_file() and not item.name.startswith(".")]
    if sounds := sum(suffix in SOUND_SUFFIXES for suffix in suffixes):
        return f"; found {sounds} sound files directly in it: put each speaker's into a folder of its own"
    if tensors := suffixes.count(".pt"):
        return f"; found {tensors} .pt files but no metadata.json"
    return ""
