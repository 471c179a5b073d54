"""What all layouts of corpora have in common before anything is read: a list of entries."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.members import ParquetCell, TarMember
from voxport.runtime.audio.channels import Channel, parse_channel
from voxport.runtime.audio.media import MEDIA_SUFFIXES
from voxport.runtime.errors import AudioError

CorpusKind = Literal["homework", "folder", "manifest"]

SOUND_SUFFIXES = MEDIA_SUFFIXES | {
    *(".wav", ".flac", ".ogg", ".mp3", ".opus", ".aif", ".aiff", ".aifc", ".au", ".caf", ".sph", ".w64", ".rf64")
}
FEATURE_SUFFIXES = frozenset({".pt", ".npy"})


@dataclass(frozen=True)
class Span:
    """The piece of a sound file from `start` to `end` (None: its end), in seconds or in samples at the file's rate."""

    start: float
    end: float | None = None
    unit: Literal["s", "samples"] = "s"

    def __str__(self) -> str:
        end = "" if self.end is None else f"{self.end:.10g}"
        return f"{'t' if self.unit == 's' else 'samples'}={self.start:.10g},{end}"


@dataclass(frozen=True)
class Entry:
    """One utterance as the corpus lists it.

    `key` is its stable, relative name; `speaker` is None for a test utterance, whose speaker is not
    told; `frames` is the length that the corpus declares, if it does. With `span` it is a piece of the
    file, and with `member` it lies inside the archive or table `path`. `channel` is the one that is heard of a
    sound; None: all, where they are of one sound.
    """

    key: str
    path: Path
    speaker: str | None
    frames: int | None = None
    span: Span | None = None
    member: TarMember | ParquetCell | None = None
    channel: Channel | None = None

    @property
    def is_sound(self) -> bool:
        return self.member is not None or self.path.suffix.lower() not in FEATURE_SUFFIXES

    @property
    def suffix(self) -> str:
        """What the sound's own name ends in, in small letters."""
        return Path(self.path if self.member is None else self.member.name).suffix.lower()


@dataclass(frozen=True)
class Listing:
    """A corpus before its files are read. `labels` are the speakers, in the order of their indices.

    `layout` is the name of the layout that it was read as. `notes` are sentences about what was passed over
    or decided, and `passed` counts what systems left among the files.
    """

    kind: CorpusKind
    path: Path
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()
    n_mels: int | None = None  # what the corpus declares for its stored features
    layout: str = ""
    notes: tuple[str, ...] = ()
    passed: Mapping[str, int] = field(default_factory=dict)


def labels_of(entries: Sequence[Entry]) -> tuple[str, ...]:
    """The speakers of `entries`, sorted."""
    return tuple(sorted({entry.speaker for entry in entries if entry.speaker is not None}))


def piece_key(key: str, span: Span | None) -> str:
    """The key of a piece of the file `key`: `talk.wav#t=1.5,3.2`, as media fragments are written."""
    return key if span is None else f"{key}#{span}"


@dataclass(frozen=True)
class LayoutOptions:
    """What the user decides about the reading of a corpus; None: what the corpus itself says.

    `layout` is a name of `voxport.corpora.layouts.recognition.LAYOUTS`, `speaker_column` the column of a table
    that holds the speaker, `encoding` that of a text file that is not UTF-8, by its Python name. `channel` is the
    channel of every sound, as text: its number from 1, `mix` for the average, or `each`, which makes every channel an
    utterance of its own; None compares a sound's channels and refuses those that differ.
    """

    layout: str | None = None
    speaker_column: str | None = None
    encoding: str | None = None
    channel: str | None = None

    def __post_init__(self) -> None:
        if self.channel is not None:
            try:
                parse_channel(self.channel)
            except AudioError as problem:
                raise CorpusError(str(problem)) from problem
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except LookupError as problem:
                raise CorpusError(
                    f"no encoding {self.encoding!r}; known are utf-8, cp1252, cp949, shift_jis, gb18030 and others"
                ) from problem


AS_FOUND = LayoutOptions()  # nothing decided: the corpus itself must say


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
