"""Reading the entries of a corpus one after the other, and noting what is wrong with them."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.train.data.corpus import CorpusOptions
from voxport.train.data.errors import CorpusError, EntryError, Problem
from voxport.train.data.features import SoundResult, compute_all, load_cached
from voxport.train.data.frontend_check import Appearance, appearance, check_frontend
from voxport.train.data.layouts.base import Entry, Listing
from voxport.train.data.stored_features import read_stored
from voxport.train.progress import track


class Reader:
    """Reads entries one by one, collecting what is known about those that can be used.

    `kept`, `digests` and `offsets` go together: the entries that were read, a hash of each one's
    features, and where they begin in the packed rows (with one more offset, the end).
    """

    def __init__(self, listing: Listing, options: CorpusOptions, cache: Path) -> None:
        self._listing = listing
        self._options = options
        self._cache = cache
        self.kept: list[Entry] = []
        self.digests: list[bytes] = []
        self.offsets: list[int] = [0]
        self.problems: list[Problem] = []
        self.implausible: list[Problem] = []  # of kept entries whose features another frontend made

    def read(self, entries: Sequence[Entry]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the features (frames, n_mels) of every entry that can be read and is long enough.

        Raises:
            CorpusError: the frontend cannot have made them; at the end, before the pack is finished.
        """
        options = self._options
        sounds = [entry for entry in entries if entry.is_sound]
        seen: list[Appearance] = []
        results = compute_all(sounds, options.frontend, self._cache, options.jobs)
        for entry in track(entries, f"Reading {self._listing.path.name}", len(entries), options.progress):
            try:
                features = self._sound(next(results)) if entry.is_sound else self._stored(entry)
                if len(features) < options.min_frames:
                    raise EntryError("short", f"{len(features)} frames, at least {options.min_frames} are needed")
            except EntryError as problem:
                self.problems.append(Problem(entry.key, problem.kind, problem.reason))
                continue
            if not entry.is_sound:
                seen.append(appearance(entry.key, features))
            self.kept.append(entry)
            self.digests.append(hashlib.sha256(features.data).digest())
            self.offsets.append(self.offsets[-1] + len(features))
            yield features
        self.implausible = check_frontend(self._listing.path, options.frontend, seen)

    def _stored(self, entry: Entry) -> npt.NDArray[np.float32]:
        return read_stored(entry.path, self._options.frontend.n_mels, entry.frames)

    def _sound(self, result: SoundResult) -> npt.NDArray[np.float32]:
        if result.cached is None:
            raise result.unusable or EntryError("unreadable", "no features")
        features = load_cached(result.cached, self._options.frontend.n_mels)
        if features is None:
            raise CorpusError(f"{result.cached}: the cached features vanished while they were read; run it again")
        return np.ascontiguousarray(features)
