"""Opening a corpus: find its kind, list it, read and check every entry, pack the features."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.corpora.channels import list_utterances
from voxport.corpora.errors import CorpusError, EntryError, Problem, refusal
from voxport.corpora.layouts.base import Entry, LayoutOptions, Listing, find_repeats
from voxport.corpora.layouts.recognition import listing_lines
from voxport.runtime.frontend.presets import PROFILES
from voxport.runtime.frontend.spec import Frontend
from voxport.train.data.corpus import Corpus, CorpusOptions, Utterance
from voxport.train.data.feature_store import (
    PACK_VERSION,
    Pack,
    PackIndex,
    cache_folder,
    read_pack,
    write_index,
    write_rows,
)
from voxport.train.data.features import SoundResult, compute_all, load_cached
from voxport.train.data.frontend_check import Appearance, appearance, as_stored, check_frontend
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
        self.implausible = check_frontend(self._listing.path, as_stored(options.frontend), seen)

    def _stored(self, entry: Entry) -> npt.NDArray[np.float32]:
        return read_stored(entry.path, self._options.frontend.n_mels, entry.frames)

    def _sound(self, result: SoundResult) -> npt.NDArray[np.float32]:
        if result.cached is None:
            raise result.unusable or EntryError("unreadable", "no features")
        features = load_cached(result.cached, self._options.frontend.n_mels)
        if features is None:
            raise CorpusError(f"{result.cached}: the cached features vanished while they were read; run it again")
        return np.ascontiguousarray(features)


def open_corpus(
    path: str | os.PathLike[str], options: CorpusOptions, on_listed: Callable[[Listing], None] = lambda _: None
) -> Corpus:
    """Open the corpus at `path`, checking every entry.

    `path` is a directory or a file in one of the layouts that `list_corpus` recognises, or in the one that
    `options.layout` names. The first opening reads every file and packs the features into one file of the
    cache; a later one only compares each file's size and modification time with those of the first, so a
    file changed without either changing is not noticed. `on_listed` sees the listing before a file is read,
    and may refuse it.

    Raises:
        CorpusError: there is no such corpus; it has unusable entries and `skip_bad` is off; fewer than
            two speakers remain; the frontend cannot have made its stored features; or the cache cannot
            be written.
        BackendError: sound files, and soundfile or soxr is not installed.
    """
    path = Path(os.path.abspath(Path(path).expanduser()))
    try:
        listing = list_utterances(path, options.layout)
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be listed ({problem})") from problem
    _check_n_mels(listing, options.frontend)
    announce = options.announce or (lambda line: None)
    for line in listing_lines(listing):
        announce(line)
    on_listed(listing)
    folder = cache_folder(options.cache) / "packs"
    key, stamp = _pack_key(listing, options), _stamp(listing.entries)
    found = read_pack(folder, key, stamp, options.frontend.n_mels)
    if found is None:
        _build(listing, options, folder, key, stamp)
        found = read_pack(folder, key, stamp, options.frontend.n_mels)
        if found is None:
            raise CorpusError(f"{path}: the cache {folder} changed while the corpus was packed; run the command again")
    index, pack = found
    if index.problems and not options.skip_bad:
        raise refusal(path, index.problems)
    if len(index.labels) < 2:
        raise CorpusError(
            f"{path}: {len(index.labels)} speakers with usable utterances ({index.labelled} utterances, "
            f"{len(index.problems)} left out); telling speakers apart needs at least two"
        )
    corpus = _corpus(listing, options.frontend, index, pack)
    figures = corpus.describe()
    left = f", {len(index.problems):,} left out" if index.problems else ""
    announce(f"  usable: {figures.speakers:,} speakers, {figures.utterances:,} utterances, {figures.hours:.2f} h{left}")
    return corpus


def holds_sounds(path: str | os.PathLike[str], layout: LayoutOptions) -> bool:
    """Whether the corpus at `path` is of sound files alone; reads its listing, not the files.

    Raises:
        CorpusError: there is no such corpus.
    """
    entries = list_utterances(Path(os.path.abspath(Path(path).expanduser())), layout).entries
    return bool(entries) and all(entry.is_sound for entry in entries)


def _corpus(listing: Listing, frontend: Frontend, index: PackIndex, pack: Pack) -> Corpus:
    utterances = tuple(map(Utterance, index.keys, index.speakers, index.frames))
    return Corpus(
        kind=listing.kind,
        path=listing.path,
        frontend=frontend,
        labels=index.labels,
        utterances=utterances[: index.labelled],
        test=utterances[index.labelled :],
        problems=index.problems,
        pack=pack,
        layout=listing.layout,
        entries={entry.key: entry for entry in listing.entries},
    )


def _check_n_mels(listing: Listing, frontend: Frontend) -> None:
    if listing.n_mels in (None, frontend.n_mels):
        return
    fitting = [name for name, each in PROFILES.items() if each.n_mels == listing.n_mels]
    raise CorpusError(
        f"{listing.path}: features with {listing.n_mels} bands, but frontend {frontend.name} has {frontend.n_mels}; "
        + (f"pass one of {', '.join(fitting)}" if fitting else "no known frontend has as many")
    )


def _pack_key(listing: Listing, options: CorpusOptions) -> str:
    """What decides the packed features, but for the content of the files."""
    entries = [_entry_facts(entry) for entry in listing.entries]
    problems = [(problem.key, problem.kind, problem.reason) for problem in listing.problems]
    sounds = any(entry.is_sound for entry in listing.entries)
    frontend = options.frontend if sounds else as_stored(options.frontend)  # a level changes no stored features
    facts = (PACK_VERSION, listing.kind, str(listing.path), frontend.digest, options.min_frames)
    return hashlib.sha256(json.dumps([facts, listing.labels, entries, problems]).encode()).hexdigest()[:32]


def _entry_facts(entry: Entry) -> tuple[str | int | None, ...]:
    facts = (entry.key, str(entry.path), entry.speaker, entry.frames)
    # Whole files have the key that they always had, so that packs of earlier versions are found.
    plain = entry.span is None and entry.member is None and entry.channel is None
    return facts if plain else (*facts, str(entry.span), str(entry.member), str(entry.channel))


def _stamp(entries: Sequence[Entry]) -> str:
    """A hash of every entry's size and modification time."""
    digest = hashlib.sha256()
    known: dict[Path, bytes] = {}
    for entry in entries:
        if entry.path not in known:
            try:
                status = os.stat(entry.path)
                known[entry.path] = b"%d %d;" % (status.st_size, status.st_mtime_ns)
            except OSError:
                known[entry.path] = b"-;"
        digest.update(known[entry.path])
    return digest.hexdigest()[:16]


def _build(listing: Listing, options: CorpusOptions, folder: Path, key: str, stamp: str) -> None:
    """Read and check every entry, and write the pack and its index."""
    places = [(os.path.abspath(entry.path), entry.span, entry.member, entry.channel) for entry in listing.entries]
    path_repeats = find_repeats(listing.entries, places, "the same file as")
    entries = [entry for i, entry in enumerate(listing.entries) if i not in path_repeats]
    reader = Reader(listing, options, folder.parent)
    rows = write_rows(folder, key, stamp, reader.read(entries))
    labelled = [i for i, entry in enumerate(reader.kept) if entry.speaker is not None]
    content_repeats = find_repeats(
        [reader.kept[i] for i in labelled], [reader.digests[i] for i in labelled], "the same content as"
    )
    # Keys are unique among the entries that were read, though not among those that repeat a path.
    bad = {problem.key for problem in (*reader.implausible, *content_repeats.values())}
    usable = [i for i, entry in enumerate(reader.kept) if entry.key not in bad]
    problems = [*listing.problems, *path_repeats.values(), *reader.problems, *reader.implausible]
    problems += content_repeats.values()
    problems += _empty_speakers(listing, {reader.kept[i].speaker for i in usable}, problems)
    write_index(folder, key, _index(listing, reader, usable, tuple(problems), stamp, rows))


def _index(
    listing: Listing, reader: Reader, usable: Sequence[int], problems: tuple[Problem, ...], stamp: str, rows: int
) -> PackIndex:
    entries = [reader.kept[i] for i in usable]
    present = {entry.speaker for entry in entries}
    labels = tuple(label for label in listing.labels if label in present)
    number = {label: i for i, label in enumerate(labels)}
    return PackIndex(
        stamp=stamp,
        rows=rows,
        labels=labels,
        keys=tuple(entry.key for entry in entries),
        speakers=tuple(-1 if entry.speaker is None else number[entry.speaker] for entry in entries),
        offsets=tuple(reader.offsets[i] for i in usable),
        frames=tuple(reader.offsets[i + 1] - reader.offsets[i] for i in usable),
        labelled=sum(entry.speaker is not None for entry in entries),
        problems=problems,
    )


def _empty_speakers(listing: Listing, present: set[str | None], problems: Sequence[Problem]) -> list[Problem]:
    told = {problem.key for problem in problems if problem.kind == "empty-speaker"}
    missing = [label for label in listing.labels if label not in present and label not in told]
    return [Problem(label, "empty-speaker", "no usable utterance of this speaker") for label in missing]
