"""Folders per speaker: SPEAKER/…/FILE, and SPLIT/SPEAKER/…/FILE."""

from collections import defaultdict
from collections.abc import Iterator

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import Entry, LayoutOptions, Listing, labels_of
from voxport.corpora.layouts.tree import Tree
from voxport.runtime.audio.media import MEDIA_COMMAND

# Names of folders that divide a corpus, and are nobody's name.
_SPLITS = frozenset(
    {
        *("train", "training", "dev", "devel", "development", "val", "valid", "validation", "test", "testing"),
        *("eval", "evaluation", "enroll", "enrol", "enrollment"),
    }
)
_GROUPS = frozenset(
    {
        *("wav", "wavs", "wav16", "wav48", "audio", "audios", "flac", "mp3", "opus", "aac", "m4a", "sounds", "clips"),
        *("data", "corpus", "dataset", "recordings", "speakers", "raw", "processed", "clean", "noisy", "other"),
        *("male", "female", "males", "females", "man", "woman", "men", "women", "boys", "girls", "m", "f"),
        *("english", "mandarin", "korean"),
        *(f"dr{region}" for region in range(1, 9)),  # TIMIT's, whose copies may name their files otherwise
    }
)
_FEW = 4  # folders that hold many others each look like groups of speakers rather than like speakers


def split_evidence(tree: Tree) -> str | None:
    """Why the folders of `tree` are splits with a folder per speaker in each, or None."""
    tops = _tops(tree)
    if tops and all(_is_split(top) for top in tops) and not _has_files(tree, depth=2):
        return f"its folders are splits ({', '.join(sorted(tops))})"
    return None


def folder_doubt(tree: Tree) -> str | None:
    """Why the folders of `tree` may be groups of speakers and no speakers, or None where nothing speaks for it."""
    return _doubt([name for name in tree.sounds if "/" in name])


def split_doubt(tree: Tree) -> str | None:
    """The same of the folders in the splits."""
    return _doubt([name.partition("/")[2] for name in tree.sounds])


def _doubt(sounds: list[str]) -> str | None:
    below: dict[str, set[str]] = defaultdict(set)  # the folders in each top folder
    for name in sounds:
        top, *rest = name.split("/")[:-1]
        below[top].update(rest[:1])
    named = [top for top in below if _is_split(top) or top.lower() in _GROUPS]
    if not any(below.values()):
        # wavs/a.wav, wavs/b.wav: no reading has more than one speaker a folder.
        return None if not named else f"{named[0]}/ holds sound files, and its name is no speaker's"
    if named:
        return f"{named[0]}/ has a name of a part of a corpus, and folders in it"
    apart = sum(map(len, below.values())) == len(set().union(*below.values()))
    if len(below) <= _FEW and apart and all(len(each) > _FEW for each in below.values()):
        count = min(map(len, below.values()))
        return f"{len(below)} folders hold {count} or more folders each, all of different names"
    return None


def list_folder(tree: Tree, options: LayoutOptions) -> Listing:
    """List SPEAKER/…/FILE: the top folder's name is the speaker's. Keys are the relative paths.

    Files that are no sound (notes, licences, transcripts) are passed over.

    Raises:
        CorpusError: no speaker's folder holds a sound file.
    """
    entries = [Entry(name, tree.root / name, name.split("/")[0]) for name in tree.sounds if "/" in name]
    if not entries:
        raise CorpusError(no_corpus(tree))
    found = {entry.speaker for entry in entries}
    problems = [Problem(top, "empty-speaker", "a folder without a sound file") for top in tree.tops if top not in found]
    loose = len(tree.sounds) - len(entries)
    notes = (f"{loose} sound files directly in the folder, of no speaker, were passed over",) if loose else ()
    return Listing("folder", tree.root, labels_of(entries), tuple(entries), tuple(problems), notes=notes)


def list_splits(tree: Tree, options: LayoutOptions) -> Listing:
    """List SPLIT/SPEAKER/…/FILE: the second folder's name is the speaker's, whichever split it stands in.

    Raises:
        CorpusError: no sound file lies that deep.
    """
    entries = [Entry(name, tree.root / name, name.split("/")[1]) for name in tree.sounds if name.count("/") > 1]
    if not entries:
        raise CorpusError(f"{tree.root}: no sound file in a folder of a folder; expected SPLIT/SPEAKER/FILE.wav")
    loose = [name for name in tree.sounds if name.count("/") <= 1]
    problems = [Problem(name, "malformed", "lies in no SPLIT/SPEAKER folder") for name in loose]
    return Listing("folder", tree.root, labels_of(entries), tuple(entries), tuple(problems))


def no_corpus(tree: Tree) -> str:
    """The message for a directory in which no layout was found."""
    flat = len(tree.sounds)
    seen = f"; found {flat} sound files directly in it: put each speaker's into a folder of its own" if flat else ""
    if needs := sum(count for name, count in tree.passed.items() if MEDIA_COMMAND in name):
        seen += f"; {needs} files need {MEDIA_COMMAND}"
    if not seen and (tensors := sum(item.suffix.lower() == ".pt" for item in tree.root.iterdir())):
        seen = f"; found {tensors} .pt files but no metadata.json"
    return (
        f"{tree.root}: no sound file in a speaker's folder; expected SPEAKER/FILE.wav (or .flac, .mp3, .ogg, .opus), "
        f"metadata.json of the homework's layout, a known corpus, or the path of a manifest{seen}"
    )


def _tops(tree: Tree) -> set[str]:
    return {name.split("/")[0] for name in tree.sounds if "/" in name}


def _has_files(tree: Tree, depth: int) -> int:
    """How many sounds lie less than `depth` folders deep."""
    return sum(1 for _ in _shallow(tree, depth))


def _shallow(tree: Tree, depth: int) -> Iterator[str]:
    return (name for name in tree.sounds if name.count("/") < depth)


def _is_split(name: str) -> bool:
    words = name.lower().replace("_", "-").split("-")
    return words[0] in _SPLITS and not (len(words) > 1 and len(words[0]) <= 3 and words[1] not in _GROUPS | {"clean"})
