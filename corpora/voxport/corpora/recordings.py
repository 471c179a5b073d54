"""Sounds that are to be scored: a corpus of which nothing need tell whose they are."""

from dataclasses import replace
from pathlib import Path

from voxport.corpora.channels import list_utterances, with_channels
from voxport.corpora.errors import CorpusError
from voxport.corpora.layouts.base import Entry, LayoutOptions, Listing, labels_of
from voxport.corpora.layouts.homework import MAPPING, METADATA
from voxport.corpora.layouts.manifest import list_manifest
from voxport.corpora.layouts.recognition import is_sure, recognize
from voxport.corpora.layouts.tables import is_parquet_list, list_parquet_files
from voxport.corpora.layouts.tree import Tree, walk
from voxport.corpora.layouts.webdataset import list_shards

FOLDER = "sounds"  # the layout of a folder that tells nobody's name


def list_recordings(path: Path, options: LayoutOptions) -> Listing:
    """What `list_utterances` lists; where nothing tells whose the sounds are, every sound without a speaker.

    `path` is a folder of sounds at any depth, a table or list of them, or a tar shard; a Parquet file either holds
    sounds, as Hugging Face writes them, or names files in a column `path`. Folders' names count as speakers only where
    they can be nothing else.

    Raises:
        CorpusError: there is no sound, or a table or an archive is damaged.
        BackendError: what the corpus needs is not installed.
        OSError: a folder cannot be read.
    """
    listing = _unlabelled(path, options) if options.layout is None and path.exists() else None
    if listing is None:
        return list_utterances(path, options)
    return with_channels(listing, options.channel)


def _unlabelled(path: Path, options: LayoutOptions) -> Listing | None:
    """The listing of a corpus that may be without speakers; None for those that tell them by their layout."""
    suffix = path.suffix.lower()
    if path.is_dir():
        return None if (path / METADATA).exists() or (path / MAPPING).exists() else _of_folder(walk(path), options)
    if suffix == ".parquet":
        if is_parquet_list(path):
            return list_manifest(path, options, labelled=False)
        return replace(list_parquet_files(path.parent, [path.name], options, labelled=False), path=path)
    if suffix == ".tar":
        return replace(list_shards(path.parent, [path.name], options, labelled=False), path=path)
    return list_manifest(path, options, labelled=False) if suffix in (".csv", ".tsv", ".jsonl", ".json") else None


def _of_folder(tree: Tree, options: LayoutOptions) -> Listing | None:
    if not tree.sounds:
        if shards := [name for name in tree.tables if name.endswith(".tar")]:
            return list_shards(tree.root, shards, options, labelled=False)
        parquet = [name for name in tree.tables if name.endswith(".parquet")]
        if parquet and all(is_parquet_list(tree.root / name) for name in parquet):
            return _of_lists(tree, parquet, options)
        return list_parquet_files(tree.root, parquet, options, labelled=False) if parquet else None
    if is_sure(tree):
        return None
    try:
        layout, reason = recognize(tree)
        found = layout.read(tree, options)
        if len(found.entries) == len(tree.sounds):
            return replace(found, layout=layout.name, notes=(reason, *found.notes), passed=tree.passed)
        reason = "some sounds lie in no speaker's folder"
    except CorpusError as problem:
        reason = str(problem).splitlines()[0].removeprefix(f"{tree.root}: ")
    entries = tuple(Entry(name, tree.root / name, None) for name in tree.sounds)
    notes = (f"nobody's name is told ({reason})",)
    return Listing("folder", tree.root, (), entries, layout=FOLDER, notes=notes, passed=tree.passed)


def _of_lists(tree: Tree, names: list[str], options: LayoutOptions) -> Listing:
    parts = [list_manifest(tree.root / name, options, prefix=name.rpartition("/")[0], labelled=False) for name in names]
    entries = tuple(entry for part in parts for entry in part.entries)
    problems = tuple(problem for part in parts for problem in part.problems)
    return replace(parts[0], path=tree.root, labels=labels_of(entries), entries=entries, problems=problems)
