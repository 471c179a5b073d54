"""Public corpora in which every file's path tells the speaker: LibriSpeech, VoxCeleb, TIMIT, VCTK, CN-Celeb.

The patterns are those of the corpora's own documentation (OpenSLR 12, 60 and 82, VoxCeleb's and the LDC's
read-me files, Edinburgh DataShare 10283/3443), at any depth below the directory that was given.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import Entry, LayoutOptions, Listing, labels_of
from voxport.corpora.layouts.tree import Tree

_MOST = 0.95  # of the sound files must fit; the others are then named as problems


@dataclass(frozen=True)
class PublicCorpus:
    """A corpus whose paths match `pattern`, whose group `speaker` is the speaker.

    `twin` is the pattern of what a path must be without to name the same speech as another one: of several only
    one is kept, the first of `prefer` first. `twins` says in words what was left out.
    """

    name: str
    title: str
    shape: str
    pattern: re.Pattern[str]
    twin: re.Pattern[str] | None = None
    twins: str = ""
    label: Callable[[str], str] = str

    def evidence(self, tree: Tree) -> str | None:
        """Why `tree` is this corpus, or None."""
        fitting = sum(self.pattern.search(name) is not None for name in tree.sounds)
        if not fitting or fitting < _MOST * len(tree.sounds):
            return None
        return f"{fitting} of {len(tree.sounds)} sound files are named {self.shape}"

    def read(self, tree: Tree, options: LayoutOptions) -> Listing:
        """List the files that fit; the others are problems.

        Raises:
            CorpusError: none fits.
        """
        named = f"{self.shape}, as {self.title} names its files"
        entries: list[Entry] = []
        problems: list[Problem] = []
        for name in tree.sounds:
            if found := self.pattern.search(name):
                entries.append(Entry(name, tree.root / name, self.label(found["speaker"])))
            else:
                problems.append(Problem(name, "malformed", f"is not named {named}"))
        if not entries:
            raise CorpusError(f"{tree.root}: no sound file is named {named}")
        kept = self._without_twins(entries)
        left = len(entries) - len(kept)
        notes = (f"{left} {self.twins} were passed over",) if left else ()
        return Listing("folder", tree.root, labels_of(kept), tuple(kept), tuple(problems), notes=notes)

    def _without_twins(self, entries: list[Entry]) -> list[Entry]:
        if self.twin is None:
            return entries
        first: dict[str, Entry] = {}
        for entry in entries:  # in the order of their names: _mic1 comes before _mic2
            first.setdefault(self.twin.sub("", entry.key), entry)
        return list(first.values())


def _corpus(
    name: str, title: str, shape: str, pattern: str, twin: str | None = None, twins: str = "", upper: bool = False
) -> PublicCorpus:
    return PublicCorpus(
        name,
        title,
        shape,
        re.compile(rf"(?:^|/){pattern}\.\w+$", re.IGNORECASE),
        re.compile(twin, re.IGNORECASE) if twin else None,
        twins,
        str.upper if upper else str,
    )


PUBLIC_CORPORA = (
    _corpus(
        "librispeech",
        "LibriSpeech or LibriTTS",
        "SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac",
        r"(?P<speaker>\d+)/\d+/(?P=speaker)([-_]\d+){2,3}",
    ),
    _corpus(
        "voxceleb",
        "VoxCeleb",
        "idNNNNN/VIDEO/NNNNN.wav (or .m4a)",
        r"(?P<speaker>id\d{5})/[^/]+/\d{5}",
    ),
    _corpus(
        "timit",
        "TIMIT",
        "TRAIN/DR1/SPEAKER/SA1.WAV",
        r"(train|test)/dr[1-8]/(?P<speaker>[fm][a-z]{3}\d)/s[aix]\d+(\.wav)?",
        twin=r"(\.wav)?\.\w+$",  # a copy of TIMIT that is passed around holds SA1.WAV and SA1.WAV.wav
        twins="second copies in another format (SA1.WAV.wav)",
        upper=True,
    ),
    _corpus(
        "vctk",
        "VCTK",
        "SPEAKER/SPEAKER_NNN.wav (or _mic1.flac)",
        r"(?P<speaker>[ps]\d{1,3})/(?P=speaker)_\d{3}(_mic[12])?",
        twin=r"_mic[12](?=\.\w+$)",
        twins="recordings of the second microphone (_mic2) of the same sentences",
    ),
    _corpus(
        "cnceleb",
        "CN-Celeb",
        "data/idNNNNN/GENRE-NN-NNN.flac (and eval/enroll, eval/test)",
        r"(?P<speaker>id\d{5})(/[a-z_]+-\d+-\d+|-enroll|-[a-z_]+-\d+-\d+)",
    ),
)
