"""A Kaldi data directory: wav.scp, utt2spk (or spk2utt) and perhaps segments.

The format is that of https://kaldi-asr.org/doc/data_prep.html. Times in segments are seconds, an end of -1 is the
recording's end. A wav.scp may hold commands (`sph2pipe … |`), which Kaldi runs in a shell; they are refused.
"""

from pathlib import Path

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import Entry, LayoutOptions, Listing, Span, labels_of, piece_key
from voxport.corpora.layouts.manifest import make_span
from voxport.corpora.layouts.text import read_text
from voxport.corpora.layouts.tree import Tree

_UP = 4  # folders above, from which the paths in wav.scp may be meant: Kaldi's are relative to where it ran


def kaldi_evidence(tree: Tree) -> str | None:
    """Why `tree` is one or more Kaldi data directories, or None."""
    found = _folders(tree)
    return f"{_shown(found[0])}wav.scp and {_shown(found[0])}utt2spk are there" if found else None


def list_kaldi(tree: Tree, options: LayoutOptions) -> Listing:
    """List the utterances of the directory. Keys are `wav.scp`'s paths, with the times of a segment.

    Raises:
        CorpusError: there are several such directories, a file is damaged, or wav.scp holds commands.
    """
    found = _folders(tree)
    if not found:
        raise CorpusError(f"{tree.root}: no wav.scp with utt2spk beside it, as a Kaldi data directory has")
    if len(found) > 1:
        raise CorpusError(f"{tree.root}: holds {len(found)} Kaldi directories ({', '.join(found)}); pass one of them")
    folder = tree.root / found[0]
    recordings = _recordings(folder, options)
    speakers = _speakers(folder, options)
    base, notes = _base(folder, list(recordings.values()))
    entries: list[Entry] = []
    problems: list[Problem] = []
    for utterance, recording, span in _utterances(folder, options, recordings):
        if utterance not in speakers:
            problems.append(Problem(utterance, "malformed", "utt2spk does not say whose it is"))
        elif recording not in recordings:
            problems.append(Problem(utterance, "malformed", f"wav.scp has no recording {recording}"))
        elif isinstance(span, str):
            problems.append(Problem(utterance, "malformed", span))
        else:
            name = recordings[recording]
            entries.append(Entry(piece_key(name, span), base / name, speakers[utterance], span=span))
    listed = {entry.speaker for entry in entries}
    lost = sorted(set(speakers.values()) - listed)
    problems += [
        Problem(speaker, "empty-speaker", "utt2spk names them, and no utterance is theirs") for speaker in lost
    ]
    return Listing("manifest", tree.root, labels_of(entries), tuple(entries), tuple(problems), notes=notes)


def _folders(tree: Tree) -> list[str]:
    names = set(tree.tables)
    found = [name.removesuffix("wav.scp").rstrip("/") for name in tree.tables if name.split("/")[-1] == "wav.scp"]
    return [each for each in found if {f"{_shown(each)}utt2spk", f"{_shown(each)}spk2utt"} & names]


def _shown(folder: str) -> str:
    return f"{folder}/" if folder else ""


def _lines(path: Path, options: LayoutOptions) -> list[list[str]]:
    """Every line's first word and the rest of it."""
    lines = [line.split(maxsplit=1) for line in read_text(path, options.encoding).split("\n") if line.strip()]
    short = next((line for line in lines if len(line) < 2), None)
    if short is not None:
        raise CorpusError(f"{path}: {short[0]!r} stands alone in its line; expected a name and what belongs to it")
    return [[key, rest.strip()] for key, rest in lines]


def _recordings(folder: Path, options: LayoutOptions) -> dict[str, str]:
    path = folder / "wav.scp"
    recordings: dict[str, str] = {}
    for key, name in _lines(path, options):
        if name.endswith("|") or name.startswith("|"):
            raise CorpusError(
                f"{path}: {key} is a command ({name:.60}), and commands of a corpus are not run; write the sounds to "
                "files (Kaldi's wav-copy does) and name those"
            )
        if ".ark:" in name:
            raise CorpusError(f"{path}: {key} lies in a Kaldi archive ({name:.60}); write the sounds to files")
        if recordings.setdefault(key, name) != name:
            raise CorpusError(f"{path}: two files for the recording {key}")
    return recordings


def _speakers(folder: Path, options: LayoutOptions) -> dict[str, str]:
    """Utterance → speaker."""
    if (folder / "utt2spk").is_file():
        pairs = [(utterance, speaker) for utterance, speaker in _lines(folder / "utt2spk", options)]
    else:
        pairs = [(each, speaker) for speaker, rest in _lines(folder / "spk2utt", options) for each in rest.split()]
    speakers: dict[str, str] = {}
    for utterance, speaker in pairs:
        if speakers.setdefault(utterance, speaker) != speaker:
            raise CorpusError(f"{folder}: {utterance} has two speakers, {speakers[utterance]} and {speaker}")
    return speakers


def _utterances(
    folder: Path, options: LayoutOptions, recordings: dict[str, str]
) -> list[tuple[str, str, Span | str | None]]:
    """Every utterance, its recording, and its piece of that (None: all) or what is wrong with it."""
    if not (folder / "segments").is_file():
        return [(key, key, None) for key in recordings]
    found: list[tuple[str, str, Span | str | None]] = []
    for utterance, rest in _lines(folder / "segments", options):
        words = rest.split()
        try:
            start, end = float(words[1]), float(words[2])
        except (IndexError, ValueError):
            found.append((utterance, words[0], f"segments says {rest!r}; expected a recording, a start and an end"))
            continue
        if len(words) > 3:
            found.append((utterance, words[0], f"segments names a channel ({words[3]}); write it to a file of its own"))
            continue
        found.append((utterance, words[0], make_span(start, None if end == -1 else end, "s")))
    return found


def _base(folder: Path, names: list[str]) -> tuple[Path, tuple[str, ...]]:
    """The folder from which the paths of wav.scp are meant."""
    first = next((name for name in names if not Path(name).is_absolute()), None)
    if first is None:
        return folder, ()
    for each in (folder, *folder.parents[:_UP]):
        if (each / first).is_file():
            return each, (() if each == folder else (f"paths in wav.scp are relative to {each}",))
    return folder, ()
