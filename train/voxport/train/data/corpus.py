"""A corpus that has been checked: its speakers, its utterances and their features."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.corpora.errors import CorpusError, Problem, count_kinds
from voxport.corpora.layouts.base import AS_FOUND, CorpusKind, Entry, LayoutOptions
from voxport.corpora.sounds import read_sound
from voxport.runtime.frontend.spec import Frontend
from voxport.train.data.feature_store import Pack


@dataclass(frozen=True)
class CorpusOptions:
    """How a corpus is opened.

    `frontend` computes the features of sound files and says what stored features are. With `skip_bad`
    unusable entries are left out and recorded; without it they are an error. `cache` is the folder of
    computed features (default: $VOXPORT_CACHE, else ~/.cache/voxport). `jobs` processes compute
    features (default: one per CPU). Utterances below `min_frames` frames are unusable: 20 frames are
    0.2 s at the usual hop of 10 ms, less than a syllable. `progress` shows bars on stderr. `layout` is what
    the user decided about the corpus's layout. `announce` is told, in lines for a person, what was recognised.
    """

    frontend: Frontend
    skip_bad: bool = False
    cache: Path | None = None
    jobs: int | None = None
    min_frames: int = 20
    progress: bool = True
    layout: LayoutOptions = AS_FOUND
    announce: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if self.min_frames < 1:
            raise CorpusError(f"min_frames must be at least 1, found {self.min_frames}")
        if self.jobs is not None and self.jobs < 1:
            raise CorpusError(f"jobs must be at least 1, found {self.jobs}")


@dataclass(frozen=True)
class Utterance:
    """One usable utterance. `speaker` is an index into the corpus's labels, or -1 where unknown."""

    key: str
    speaker: int
    frames: int


@dataclass(frozen=True)
class Description:
    """A corpus in figures. Lengths are in frames; `hours` are of speech, over the labelled utterances."""

    kind: CorpusKind
    path: str
    speakers: int
    utterances: int
    utterances_per_speaker: tuple[int, ...]  # fewest, median, most
    frames: int
    frames_per_utterance: tuple[int, ...]  # shortest, median, 95th percentile, longest
    hours: float
    test_utterances: int
    problems: dict[str, int]  # kind → count
    layout: str = ""


@dataclass(frozen=True)
class Corpus:
    """Speakers, utterances, and features as views of one memory-mapped file.

    `labels` are in the mapping's order for the homework and sorted otherwise; `test` are the
    homework's unlabelled utterances, in the order of testdata.json; `problems` are the entries that
    were left out. `pack` holds first the features of `utterances`, then those of `test`. `entries` say where
    each utterance lies, by its key; `layout` is the name of the layout that was recognised.
    """

    kind: CorpusKind
    path: Path
    frontend: Frontend
    labels: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    problems: tuple[Problem, ...]
    pack: Pack
    layout: str = ""
    entries: Mapping[str, Entry] = field(default_factory=dict, repr=False, compare=False)

    def samples(self, i: int, sample_rate: int) -> npt.NDArray[np.float32]:
        """The sound of utterance `i`: float32, shape (n,), mono, in [-1, 1] at `sample_rate` Hz.

        Raises:
            CorpusError: the corpus holds features of it, and no sound, or the archive that it lies in is damaged.
            AudioError: the sound cannot be read (any more).
        """
        if not self.has_sound(i):
            raise CorpusError(f"{self.path}: holds features of {self.utterances[i].key}, and no sound")
        return read_sound(self.entries[self.utterances[i].key], sample_rate)

    def has_sound(self, i: int) -> bool:
        """Whether utterance `i` is a sound, and not stored features."""
        entry = self.entries.get(self.utterances[_checked(i, len(self.utterances))].key)
        return entry is not None and entry.is_sound

    def features(self, i: int) -> npt.NDArray[np.float32]:
        """Features of utterance `i`: float32, shape (frames, n_mels), a read-only view of the file."""
        return self.pack.features(_checked(i, len(self.utterances)))

    def test_features(self, i: int) -> npt.NDArray[np.float32]:
        """Features of test utterance `i`: float32, shape (frames, n_mels), a read-only view."""
        return self.pack.features(len(self.utterances) + _checked(i, len(self.test)))

    @cached_property
    def speakers(self) -> npt.NDArray[np.int64]:
        """Speaker indices of the utterances, shape (utterances,)."""
        return np.array([utterance.speaker for utterance in self.utterances], dtype=np.int64)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {utterance.key: i for i, utterance in enumerate(self.utterances)}

    def indices(self, keys: Iterable[str]) -> npt.NDArray[np.int64]:
        """Positions in `utterances` of the utterances named by `keys`, in their order.

        Raises:
            CorpusError: a key that this corpus has not, as when the corpus changed since a split.
        """
        keys = tuple(keys)
        unknown = [key for key in keys if key not in self._positions]
        if unknown:
            raise CorpusError(
                f"{self.path}: {len(unknown)} of {len(keys)} utterances of the split are not in this corpus, "
                f"first {unknown[0]}; the corpus has changed, or it is another one"
            )
        return np.array([self._positions[key] for key in keys], dtype=np.int64)

    def describe(self) -> Description:
        """The corpus in figures: speakers, utterances, lengths and problems."""
        lengths = self.pack.frames[: len(self.utterances)]
        counts = np.bincount(self.speakers, minlength=len(self.labels))
        total = int(lengths.sum())
        return Description(
            kind=self.kind,
            path=str(self.path),
            speakers=len(self.labels),
            utterances=len(self.utterances),
            utterances_per_speaker=tuple(round(float(value)) for value in np.quantile(counts, [0, 0.5, 1])),
            frames=total,
            frames_per_utterance=tuple(round(float(value)) for value in np.quantile(lengths, [0, 0.5, 0.95, 1])),
            hours=total * self.frontend.hop_length / self.frontend.sample_rate / 3600,
            test_utterances=len(self.test),
            problems=count_kinds(self.problems),
            layout=self.layout,
        )


def _checked(i: int, count: int) -> int:
    if not 0 <= i < count:
        raise IndexError(f"utterance {i} of {count}")
    return i
