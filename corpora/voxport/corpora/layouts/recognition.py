"""Which layout a corpus has: recognised from what lies there, never guessed between two that fit."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from voxport.corpora.errors import CorpusError
from voxport.corpora.layouts.base import LayoutOptions, Listing
from voxport.corpora.layouts.homework import MAPPING, METADATA, list_homework
from voxport.corpora.layouts.kaldi import kaldi_evidence, list_kaldi
from voxport.corpora.layouts.manifest import DIALECTS, list_manifest
from voxport.corpora.layouts.public import PUBLIC_CORPORA
from voxport.corpora.layouts.speaker_folders import (
    folder_doubt,
    list_folder,
    list_splits,
    no_corpus,
    split_doubt,
    split_evidence,
)
from voxport.corpora.layouts.tables import (
    audiofolder_evidence,
    common_voice_evidence,
    is_parquet_list,
    list_audiofolder,
    list_common_voice,
    list_parquet,
    list_parquet_files,
    parquet_evidence,
)
from voxport.corpora.layouts.tree import Tree, walk
from voxport.corpora.layouts.webdataset import list_shards, list_webdataset, webdataset_evidence


@dataclass(frozen=True)
class Layout:
    """A layout of directories: `evidence` says why a directory has it, or None; `read` lists its utterances."""

    name: str
    title: str
    evidence: Callable[[Tree], str | None]
    read: Callable[[Tree, LayoutOptions], Listing]


# These tell themselves by more than the names of two folders.
_SURE = (
    *(Layout(each.name, each.title, each.evidence, each.read) for each in PUBLIC_CORPORA),
    Layout("kaldi", "a Kaldi data directory", kaldi_evidence, list_kaldi),
    Layout("common-voice", "Common Voice", common_voice_evidence, list_common_voice),
    Layout("audiofolder", "a Hugging Face audiofolder", audiofolder_evidence, list_audiofolder),
    Layout("parquet", "Parquet files of Hugging Face", parquet_evidence, list_parquet),
    Layout("webdataset", "WebDataset shards", webdataset_evidence, list_webdataset),
)
_SPLITS = Layout("split-folders", "SPLIT/SPEAKER/…/FILE", split_evidence, list_splits)
_FOLDERS = Layout("speaker-folders", "SPEAKER/…/FILE", lambda tree: None, list_folder)
_DIRECTORIES = {each.name: each for each in (*_SURE, _SPLITS, _FOLDERS)}
_FILES = {each.name: each.title for each in DIALECTS} | {
    "parquet": "Parquet files of Hugging Face",
    "webdataset": "WebDataset shards",
}

TITLES = {each.name: each.title for each in _DIRECTORIES.values()} | {
    **{name: title for name, title in _FILES.items() if name not in _DIRECTORIES},
    "homework": "the homework's directory",
}
LAYOUTS = tuple(sorted(TITLES))


def list_corpus(path: Path, options: LayoutOptions) -> Listing:
    """List the corpus at `path`, a directory or a file, in the layout that it has or that `options` names.

    Raises:
        CorpusError: there is none, no layout fits, or two do.
        OSError: a folder cannot be read.
    """
    if options.layout is not None and options.layout not in TITLES:
        raise CorpusError(f"no layout {options.layout!r}; known are {', '.join(LAYOUTS)}")
    if path.is_file():
        return _list_file(path, options)
    if not path.exists():
        raise CorpusError(f"{path}: no such directory or manifest")
    if options.layout == "homework" or (
        options.layout is None and ((path / METADATA).exists() or (path / MAPPING).exists())
    ):
        return replace(list_homework(path), layout="homework", notes=(f"{METADATA} is there",))
    tree = walk(path)
    if options.layout is not None:
        if options.layout not in _DIRECTORIES:
            raise CorpusError(f"{path}: is a directory, and {TITLES[options.layout]} is a file; pass that")
        layout, reason = _DIRECTORIES[options.layout], f"--layout {options.layout} says so"
    else:
        layout, reason = recognize(tree)
    listing = layout.read(tree, options)
    return replace(listing, layout=layout.name, notes=(reason, *listing.notes), passed=tree.passed)


def is_sure(tree: Tree) -> bool:
    """Whether a directory tells its layout by more than the names of folders."""
    return any(layout.evidence(tree) for layout in _SURE)


def recognize(tree: Tree) -> tuple[Layout, str]:
    """The layout of `tree`, and why it is that one.

    Raises:
        CorpusError: none fits, or two do; the message names the option that decides.
    """
    sure = [(layout, reason) for layout in _SURE if (reason := layout.evidence(tree))]
    if len(sure) > 1:
        lines = [f"  --layout {layout.name}: {layout.title}; {reason}" for layout, reason in sure]
        raise CorpusError("\n".join([f"{tree.root}: fits {len(sure)} layouts; choose one of them:", *lines]))
    if sure:
        return sure[0]
    if reason := split_evidence(tree):
        if doubt := split_doubt(tree):
            raise CorpusError(_two_readings(tree, f"{reason}, but in them {doubt}"))
        return _SPLITS, reason
    if not any("/" in name for name in tree.sounds):
        raise CorpusError(no_corpus(tree))
    if doubt := folder_doubt(tree):
        raise CorpusError(_two_readings(tree, doubt))
    return _FOLDERS, "one folder a speaker"


def _two_readings(tree: Tree, doubt: str) -> str:
    """The refusal of a directory of folders, with the speakers that each reading would give."""
    lines = [f"{tree.root}: whose sounds these are can be read in two ways: {doubt}"]
    for layout, depth in ((_FOLDERS, 0), (_SPLITS, 1)):
        names = sorted({name.split("/")[depth] for name in tree.sounds if name.count("/") > depth})
        if names:
            shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            lines.append(f"  --layout {layout.name}: {layout.title}, {len(names)} speakers ({shown})")
    advice = (
        "Pass the option that is right, the folder that holds the speakers' folders, or a manifest of path and speaker"
    )
    return "\n".join([*lines, f"{advice}."])


def _list_file(path: Path, options: LayoutOptions) -> Listing:
    suffix = path.suffix.lower()
    if path.name in (METADATA, MAPPING):
        raise CorpusError(f"{path}: pass the directory that holds it, {path.parent}")
    if options.layout is not None and options.layout not in _FILES:
        raise CorpusError(f"{path}: is a file, and {TITLES[options.layout]} is a directory; pass that")
    if suffix == ".parquet" and options.layout in (None, "manifest") and is_parquet_list(path):
        return list_manifest(path, options)
    if suffix == ".parquet" or options.layout == "parquet":
        return replace(list_parquet_files(path.parent, [path.name], options), path=path)
    if suffix == ".tar" or options.layout == "webdataset":
        return replace(list_shards(path.parent, [path.name], options), path=path)
    if suffix not in (".csv", ".tsv", ".jsonl", ".json", ".txt", ".lst", ".manifest", "") and options.layout is None:
        raise CorpusError(
            f"{path}: not a corpus; a file must be a manifest (.csv, .tsv, .jsonl or .json), a .parquet table "
            "or a .tar shard"
        )
    return list_manifest(path, options)


def listing_lines(listing: Listing) -> list[str]:
    """What was recognised, in sentences for a person: the layout, its figures, and what was passed over."""
    labelled = sum(entry.speaker is not None for entry in listing.entries)
    title = TITLES.get(listing.layout, listing.layout)
    lines = [f"{listing.path}: read as {title}: {len(listing.labels):,} speakers, {labelled:,} utterances"]
    lines += [f"  {note}" for note in listing.notes]
    if listing.passed:
        lines.append("  passed over: " + ", ".join(f"{name} ({count:,})" for name, count in listing.passed.items()))
    return lines
