"""Directories that hold a table: Common Voice (clips/ and .tsv files), Hugging Face's audiofolder and Parquet."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import Entry, LayoutOptions, Listing, labels_of
from voxport.corpora.layouts.manifest import DIALECTS, SPEAKER_COLUMNS, choose_speaker, list_manifest
from voxport.corpora.layouts.members import ParquetCell, parquet_file
from voxport.corpora.layouts.tree import Tree

_METADATA = ("metadata.csv", "metadata.jsonl")
_PARTS = ("train.tsv", "dev.tsv", "test.tsv")


def common_voice_evidence(tree: Tree) -> str | None:
    """Why `tree` is a release of Common Voice, or None."""
    found = _releases(tree)
    return f"{found[0]}/clips and its .tsv files are there".removeprefix("/") if found else None


def list_common_voice(tree: Tree, options: LayoutOptions) -> Listing:
    """List validated.tsv, else train.tsv, dev.tsv and test.tsv. The speaker is `client_id`.

    Raises:
        CorpusError: there are several languages, or a table is damaged.
    """
    found = _releases(tree)
    if len(found) != 1:
        folders = f"holds {len(found)} languages ({', '.join(found)}); pass one of them"
        raise CorpusError(
            f"{tree.root}: {folders if found else 'no clips/ with a train.tsv or validated.tsv beside it'}"
        )
    prefix = f"{found[0]}/" if found[0] else ""
    names = [f"{prefix}validated.tsv"]
    if names[0] not in tree.tables:
        names = [f"{prefix}{part}" for part in _PARTS if f"{prefix}{part}" in tree.tables]
    return _tables(tree, names, options, "common-voice")


def audiofolder_evidence(tree: Tree) -> str | None:
    """Why `tree` is an audiofolder with metadata, or None."""
    found = _metadata(tree)
    return f"{found[0]} lists the sounds" if found else None


def list_audiofolder(tree: Tree, options: LayoutOptions) -> Listing:
    """List every metadata.csv or metadata.jsonl; `file_name` is relative to each.

    Raises:
        CorpusError: a table is damaged, or does not tell the speaker.
    """
    found = _metadata(tree)
    if not found:
        raise CorpusError(f"{tree.root}: no metadata.csv or metadata.jsonl, as an audiofolder has")
    return _tables(tree, found, options, "audiofolder")


def parquet_evidence(tree: Tree) -> str | None:
    """Why `tree` is a set of Parquet files, or None."""
    found = _parquet(tree)
    return f"it holds {len(found)} Parquet files and no sound file" if found and not tree.sounds else None


def list_parquet(tree: Tree, options: LayoutOptions) -> Listing:
    """List the rows of every Parquet file of the directory. Raises as `list_parquet_files` does."""
    return list_parquet_files(tree.root, _parquet(tree), options)


def list_parquet_files(root: Path, names: Iterable[str], options: LayoutOptions, *, labelled: bool = True) -> Listing:
    """List the rows of the Parquet files `names` in `root`, with sounds as Hugging Face's datasets stores them.

    A number in place of a speaker is turned into the name that the file's own description gives it. Where they need
    not be `labelled`, a file may do without speakers, and a row without one.

    Raises:
        CorpusError: a file is damaged, or has no column of sounds or of speakers.
        BackendError: pyarrow is not installed.
    """
    entries: list[Entry] = []
    problems: list[Problem] = []
    unused: set[str] = set()
    for name in names:
        path = root / name
        try:
            file = parquet_file(path)
            schema = file.schema_arrow
            sound = _sound_column(path, schema)
            found = [options.speaker_column] if options.speaker_column else [*SPEAKER_COLUMNS]
            present = [each for each in found if each in schema.names]
            table = file.read(columns=[*present, f"{sound}.path"]).to_pylist()
        except (OSError, ValueError) as problem:
            raise CorpusError(f"{path}: not a readable Parquet file ({problem!s:.200})") from problem
        speaker = choose_speaker(path, present, table, schema.names) if present or labelled else ""
        names_of = _class_names(schema, speaker)
        unused |= {*schema.names} - {sound, speaker}
        for number, row in enumerate(table):
            who = row.get(speaker)
            if isinstance(who, int) and names_of:
                who = names_of[who] if 0 <= who < len(names_of) else None
            who = str(who).strip() if who is not None else ""
            if not who and labelled:
                problems.append(Problem(f"{name}#row={number}", "malformed", f"no {speaker}"))
                continue
            inside = (row[sound] or {}).get("path") or ""
            member = ParquetCell(inside, number, sound)
            entries.append(Entry(f"{name}#row={number}", path, who or None, member=member))
    if not entries and not problems:
        raise CorpusError(f"{root}: its Parquet files hold no row")
    notes = (f"columns passed over: {', '.join(sorted(unused))}",) if unused else ()
    labels = labels_of(entries)
    return Listing("manifest", root, labels, tuple(entries), tuple(problems), layout="parquet", notes=notes)


def _tables(tree: Tree, names: Iterable[str], options: LayoutOptions, dialect: str) -> Listing:
    kind = next(each for each in DIALECTS if each.name == dialect)
    prefixes = {name: name.rpartition("/")[0] for name in names}
    parts = [list_manifest(tree.root / name, options, kind, prefix) for name, prefix in prefixes.items()]
    entries = [entry for part in parts for entry in part.entries]
    problems = [problem for part in parts for problem in part.problems]
    notes = (f"read {', '.join(prefixes)}", *dict.fromkeys(note for part in parts for note in part.notes))
    return Listing("manifest", tree.root, labels_of(entries), tuple(entries), tuple(problems), notes=notes)


def _releases(tree: Tree) -> list[str]:
    tables = {name.rpartition("/")[0] for name in tree.tables if name.split("/")[-1] in ("validated.tsv", *_PARTS)}
    clips = {name.rpartition("/")[0] for name in tree.sounds}
    return sorted(each for each in tables if f"{each}/clips".lstrip("/") in clips)


def _metadata(tree: Tree) -> list[str]:
    return [name for name in tree.tables if name.split("/")[-1] in _METADATA]


def _parquet(tree: Tree) -> list[str]:
    return [name for name in tree.tables if name.endswith(".parquet")]


def is_parquet_list(path: Path) -> bool:
    """Whether a Parquet file names sound files, and holds none. Raises CorpusError where it is damaged."""
    try:
        return not _sound_columns(parquet_file(path).schema_arrow)
    except (OSError, ValueError) as problem:
        raise CorpusError(f"{path}: not a readable Parquet file ({problem!s:.200})") from problem


def _sound_columns(schema: Any) -> list[str]:
    import pyarrow

    return [
        str(field.name)
        for field in schema
        if pyarrow.types.is_struct(field.type) and {"bytes", "path"} <= {part.name for part in field.type}
    ]


def _sound_column(path: Path, schema: Any) -> str:
    found = _sound_columns(schema)
    if len(found) != 1:
        what = f"{len(found)} columns of sounds ({', '.join(found)})" if found else "no column of sounds"
        raise CorpusError(f"{path}: {what}; expected one with the fields bytes and path, as Hugging Face writes it")
    return found[0]


def _class_names(schema: Any, column: str) -> list[str]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, ValueError, TypeError):
        return []
