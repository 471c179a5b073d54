"""WebDataset shards: tar archives in which the files of one sample share a name up to its first dot.

The sound is `KEY.flac` (or another format), and the speaker `KEY.spk`, `KEY.speaker` or `KEY.cls`, or a key of
`KEY.json`. Shards are read where they lie, and not unpacked.
"""

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import SOUND_SUFFIXES, Entry, LayoutOptions, Listing, labels_of
from voxport.corpora.layouts.manifest import SPEAKER_COLUMNS
from voxport.corpora.layouts.members import MAX_BYTES, TarMember
from voxport.corpora.layouts.tree import Tree

_TEXTS = ("spk", "speaker", "cls")
_MOST = 1 << 20  # bytes of a text beside a sound


def webdataset_evidence(tree: Tree) -> str | None:
    """Why `tree` is a set of shards, or None."""
    found = _shards(tree)
    return f"it holds {len(found)} tar archives and no sound file" if found and not tree.sounds else None


def list_webdataset(tree: Tree, options: LayoutOptions) -> Listing:
    """List the sounds of every shard of the directory. Raises as `list_shards` does."""
    return list_shards(tree.root, _shards(tree), options)


def list_shards(root: Path, names: Iterable[str], options: LayoutOptions, *, labelled: bool = True) -> Listing:
    """List the sounds of the shards `names` in `root`. Keys are `SHARD.tar/KEY.flac`.

    Where they need not be `labelled`, a sample may do without a speaker.

    Raises:
        CorpusError: a shard is no plain tar archive, or tells a sample's speaker twice and differently.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    for name in names:
        try:
            samples = _samples(root / name)
        except (tarfile.TarError, OSError, ValueError) as problem:
            raise CorpusError(
                f"{root / name}: not a readable tar archive ({problem}); shards must be complete and not compressed"
            ) from problem
        for key, sample in samples.items():
            found = _entry(root, name, key, sample, options, labelled)
            (entries if isinstance(found, Entry) else problems).append(found)  # type: ignore[arg-type]
    if not entries:
        told = " has a speaker; expected KEY.flac with KEY.json or KEY.spk" if labelled else "; expected KEY.flac"
        raise CorpusError(f"{root}: no sound in its shards{told}")
    labels = labels_of(entries)
    return Listing("manifest", root, labels, tuple(entries), tuple(problems), layout="webdataset")


def _shards(tree: Tree) -> list[str]:
    return [name for name in tree.tables if name.endswith(".tar")]


def _samples(path: Path) -> dict[str, dict[str, Any]]:
    """Key → suffix → a TarMember for a sound, bytes for a text."""
    samples: dict[str, dict[str, Any]] = {}
    with tarfile.open(path, "r:") as archive:
        for info in archive:
            folder, _, base = info.name.rpartition("/")
            stem, _, suffix = base.partition(".")
            if not info.isreg() or not stem or base.startswith("._"):
                continue
            sample = samples.setdefault(f"{folder}/{stem}".lstrip("/"), {})
            if f".{suffix.lower().rpartition('.')[2]}" in SOUND_SUFFIXES:
                sample[suffix] = TarMember(info.name, info.offset_data, info.size)
            elif suffix in (*_TEXTS, "json") and info.size <= _MOST and (file := archive.extractfile(info)):
                sample[suffix] = file.read()
    return samples


def _entry(
    root: Path, shard: str, key: str, sample: dict[str, Any], options: LayoutOptions, labelled: bool
) -> Entry | Problem:
    where = f"{shard}/{key}"
    sounds = {suffix: each for suffix, each in sample.items() if isinstance(each, TarMember)}
    if len(sounds) != 1:
        return Problem(where, "malformed", f"{len(sounds)} sounds in one sample; expected one")
    ((suffix, member),) = sounds.items()
    if member.size > MAX_BYTES:
        return Problem(where, "unreadable", f"a sound of {member.size} bytes; at most {MAX_BYTES} are read")
    try:
        told = _told(sample, options)
    except ValueError as problem:
        return Problem(where, "malformed", f"its json cannot be read ({problem})")
    if len(set(told.values())) > 1:
        ways = " or ".join(f"--speaker-column {each}" for each in told)
        raise CorpusError(f"{root / shard}: {key} has different speakers in {' and '.join(told)}; choose with {ways}")
    if not told and labelled:
        return Problem(where, "malformed", "no speaker; expected .spk, .cls, or a speaker in its .json")
    return Entry(f"{where}.{suffix}", root / shard, next(iter(told.values()), None), member=member)


def _told(sample: dict[str, Any], options: LayoutOptions) -> dict[str, str]:
    """Where the sample tells its speaker, and whom."""
    texts = {each: sample[each].decode("utf-8").strip() for each in _TEXTS if each in sample}
    content = json.loads(sample["json"]) if "json" in sample else {}
    if not isinstance(content, dict):
        raise ValueError("no object")
    wanted = SPEAKER_COLUMNS if options.speaker_column is None else (options.speaker_column,)
    columns = {each: str(content[each]).strip() for each in wanted if content.get(each) is not None}
    found = columns | {each: text for each, text in texts.items() if options.speaker_column in (None, each)}
    return {name: speaker for name, speaker in found.items() if speaker}
