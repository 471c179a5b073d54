"""What the three kinds of corpus have in common before anything is read: a list of entries."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxport.train.data.problems import Problem

CorpusKind = Literal["homework", "folder", "manifest"]

SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3"})
FEATURE_SUFFIXES = frozenset({".pt", ".npy"})


@dataclass(frozen=True)
class Entry:
    """One utterance as the corpus lists it.

    `key` is its stable, relative name; `speaker` is None for a test utterance, whose speaker is not
    told; `frames` is the length that the corpus declares, if it does.
    """

    key: str
    path: Path
    speaker: str | None
    frames: int | None = None

    @property
    def is_sound(self) -> bool:
        return self.path.suffix.lower() in SOUND_SUFFIXES


@dataclass(frozen=True)
class Listing:
    """A corpus before its files are read. `labels` are the speakers, in the order of their indices."""

    kind: CorpusKind
    path: Path
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()
    n_mels: int | None = None  # what the corpus declares for its stored features


def find_repeats(entries: Sequence[Entry], identities: Sequence[Hashable], what: str) -> dict[int, Problem]:
    """Find entries that share an identity (a path, or a hash of the content); position → problem.

    Of repeats under one speaker the first stays. Under two speakers none stays, because nobody can
    tell whose it is. What is a test utterance too is taken out of the labelled ones, and stays a test.
    `what` completes the sentence "{what} KEY".
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for position, identity in enumerate(identities):
        groups[identity].append(position)
    found: dict[int, Problem] = {}
    for group in groups.values():
        if len(group) == 1:
            continue
        speakers = {entries[i].speaker for i in group}
        keep = group[0] if len(speakers) == 1 else next((i for i in group if entries[i].speaker is None), None)
        for i in group:
            if i != keep:
                twin = entries[next(j for j in group if j != i)] if keep is None else entries[keep]
                found[i] = Problem(entries[i].key, "duplicate", f"{what} {twin.key}{_whose(entries[i], twin)}")
    return found


def _whose(entry: Entry, twin: Entry) -> str:
    if entry.speaker == twin.speaker:
        return ""
    if twin.speaker is None:
        return f" among the test utterances, here under speaker {entry.speaker}"
    return f" of speaker {twin.speaker}, here under speaker {entry.speaker}"
