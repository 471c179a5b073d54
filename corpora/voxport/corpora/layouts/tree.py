"""The files of a corpus's directory, walked once: sounds, tables, shards, and what systems left there."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from voxport.corpora.layouts.base import SOUND_SUFFIXES
from voxport.runtime.audio.media import MEDIA_COMMAND, MEDIA_SUFFIXES, has_media

# Folders and files that operating systems, network drives and archivers make.
_SYSTEM_FOLDERS = frozenset(
    {
        *("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle", "#snapshot"),
        *(".AppleDouble", ".Trashes", ".Spotlight-V100", ".fseventsd", ".Trash-1000", ".ipynb_checkpoints"),
    }
)
_SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini", ".DS_Store"})
_TABLES = frozenset({".csv", ".tsv", ".jsonl", ".parquet", ".tar"})
_KALDI = frozenset({"wav.scp", "utt2spk", "spk2utt", "segments", "feats.scp"})


@dataclass(frozen=True)
class Tree:
    """A directory's content. Paths are relative, with forward slashes, in the order of their parts.

    `sounds` are the sound files by their suffix, `tables` other files that a layout may consist of, `tops` the
    folders directly in `root`. `passed` counts what was passed over, by its name.
    """

    root: Path
    sounds: tuple[str, ...]
    tables: tuple[str, ...]
    tops: tuple[str, ...]
    passed: Mapping[str, int]


def walk(root: Path) -> Tree:
    """Walk `root`. Symbolic links to folders are followed, but no folder is entered twice; real ones come first.

    Of `talk.wav` and `talk.m4a` in one folder the first is taken: the second is the download that it was made from.
    Without the extra `media` none of its formats is taken. Both are counted.

    Raises:
        OSError: a folder cannot be read.
    """
    passed: Counter[str] = Counter()
    seen = {_identity(root)}
    sounds: list[str] = []
    tables: list[str] = []
    tops: set[str] = set()
    folders, links = [""], list[str]()
    while folders or links:
        # Links wait until all real folders were entered, so that a link never takes a real folder's place.
        here = folders.pop() if folders else links.pop(0)
        if here and (identity := _identity(root / here)) in seen:
            passed["links to folders that were walked already"] += 1
            tops.discard(here)
            continue
        if here:
            seen.add(identity)
        for item in sorted(os.scandir(root / here), key=lambda each: each.name):
            name = f"{here}/{item.name}" if here else item.name
            if reason := _system(item):
                passed[reason] += 1
            elif item.name.startswith("."):
                continue
            elif item.is_dir():
                (links if item.is_symlink() else folders).append(name)
                if not here:
                    tops.add(name)
            elif os.path.splitext(item.name)[1].lower() in SOUND_SUFFIXES:
                sounds.append(name)
            elif item.name in _KALDI or os.path.splitext(item.name)[1].lower() in _TABLES:
                tables.append(name)
    sounds = _readable(sounds, passed)
    return Tree(root, _sorted(sounds), _sorted(tables), tuple(sorted(tops)), dict(sorted(passed.items())))


def _sorted(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: name.split("/")))


def _readable(sounds: list[str], passed: Counter[str]) -> list[str]:
    media = [name for name in sounds if os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES]
    if not media:
        return sounds
    kept = set(sounds).difference(media)
    if not has_media():
        for name in media:
            passed[f"*{os.path.splitext(name)[1].lower()}, which needs {MEDIA_COMMAND}"] += 1
        return [name for name in sounds if name in kept]
    twins = {os.path.splitext(name)[0] for name in kept}
    for name in media:
        stem, suffix = os.path.splitext(name)
        if stem in twins:
            passed[f"*{suffix.lower()} beside a sound of the same name"] += 1
        else:
            kept.add(name)
    return [name for name in sounds if name in kept]


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _system(item: "os.DirEntry[str]") -> str | None:
    """What to count `item` as where a system made it."""
    if item.name in _SYSTEM_FOLDERS and item.is_dir():
        return item.name
    if item.name.startswith("._"):
        return "._*"
    return item.name if item.name in _SYSTEM_FILES else None
