"""What a corpus holds, told from its listing and its files' headers: nothing is decoded, and nothing is trained."""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxport.corpora.channels import list_utterances
from voxport.corpora.errors import CorpusError, Problem, count_kinds
from voxport.corpora.layouts.base import Entry, LayoutOptions, Listing
from voxport.corpora.layouts.recognition import TITLES
from voxport.corpora.sounds import sound_file
from voxport.runtime.audio.decode import audio_rate, audio_seconds
from voxport.runtime.errors import AudioError
from voxport.runtime.frontend.spec import Frontend
from voxport.train.progress import track

# Seconds: crops of training are 1.3 to 4 s, and utterances beyond a minute are rare.
_LENGTHS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_THREADS = 8


@dataclass(frozen=True)
class Bin:
    """How many values lie from `low` on and below `high` (None: no bound)."""

    low: float
    high: float | None
    count: int


@dataclass(frozen=True)
class SpeakerFigures:
    """One speaker: utterances, and the seconds of those whose length is known."""

    speaker: str
    utterances: int
    seconds: float


@dataclass(frozen=True)
class Survey:
    """A corpus in figures, as it was recognised. `hours` are of the `known_lengths` utterances."""

    path: str
    layout: str
    title: str
    notes: tuple[str, ...]
    passed: dict[str, int]
    speakers: int
    utterances: int
    test_utterances: int
    hours: float
    known_lengths: int
    lengths: tuple[Bin, ...]  # seconds
    utterances_per_speaker: tuple[Bin, ...]
    per_speaker: tuple[SpeakerFigures, ...]
    problems: dict[str, int]  # kind → count
    first_problems: tuple[Problem, ...]


def survey(path: Path, options: LayoutOptions, frontend: Frontend, progress: bool = False) -> Survey:
    """List the corpus at `path` and read the lengths that its files' headers claim.

    `frontend` tells how many frames of stored features are a second. Files whose header cannot be read are counted
    as problems; what only decoding would show is not.

    Raises:
        CorpusError: no layout fits, or two do.
        BackendError: soundfile, or what an archive needs, is not installed.
    """
    path = Path(os.path.abspath(path.expanduser()))
    try:
        listing = list_utterances(path, options)
    except OSError as problem:
        raise CorpusError(f"{path}: cannot be listed ({problem})") from problem
    entries = [entry for entry in listing.entries if entry.speaker is not None]
    seconds, problems = _all_seconds(entries, frontend, progress)
    return _figures(listing, entries, seconds, [*listing.problems, *problems])


def _figures(
    listing: Listing, entries: Sequence[Entry], seconds: Sequence[float | None], problems: Sequence[Problem]
) -> Survey:
    counts: Counter[str] = Counter()
    lengths: dict[str, float] = defaultdict(float)
    for entry, length in zip(entries, seconds, strict=True):
        speaker = str(entry.speaker)
        counts[speaker] += 1
        lengths[speaker] += length or 0.0
    known = [length for length in seconds if length is not None]
    return Survey(
        path=str(listing.path),
        layout=listing.layout,
        title=TITLES.get(listing.layout, listing.layout),
        notes=listing.notes,
        passed=dict(listing.passed),
        speakers=len(listing.labels),
        utterances=len(entries),
        test_utterances=len(listing.entries) - len(entries),
        hours=sum(known) / 3600,
        known_lengths=len(known),
        lengths=_bins(known, _LENGTHS),
        utterances_per_speaker=_bins(list(counts.values()), _COUNTS),
        per_speaker=tuple(SpeakerFigures(label, counts[label], lengths[label]) for label in listing.labels),
        problems=count_kinds(problems),
        first_problems=tuple(problems[:10]),
    )


def _all_seconds(
    entries: Sequence[Entry], frontend: Frontend, progress: bool
) -> tuple[list[float | None], list[Problem]]:
    seconds: list[float | None] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda entry: _seconds(entry, frontend), entries)
        for answer in track(found, "Reading headers", len(entries), progress):
            if isinstance(answer, Problem):
                problems.append(answer)
            seconds.append(None if isinstance(answer, Problem) else answer)
    return seconds, problems


def _seconds(entry: Entry, frontend: Frontend) -> float | Problem | None:
    """The length of `entry` in seconds, None where nobody says it, or what is wrong with its file."""
    if not entry.is_sound:
        if not entry.path.is_file():
            return Problem(entry.key, "missing", "no such file")
        frame = frontend.hop_length / frontend.sample_rate
        return None if entry.frames is None else entry.frames * frame
    try:
        with sound_file(entry) as path:
            whole = audio_seconds(path)
            span = entry.span
            if span is None:
                return whole
            scale = 1.0 if span.unit == "s" else 1.0 / audio_rate(path)
    except AudioError as problem:
        gone = entry.member is None and not entry.path.exists()
        return Problem(entry.key, "missing" if gone else "unreadable", str(problem))
    except CorpusError as problem:
        return Problem(entry.key, "unreadable", str(problem))
    start = span.start * scale
    ends = [end for end in (whole, None if span.end is None else span.end * scale) if end is not None]
    if ends and min(ends) <= start:
        return Problem(entry.key, "unreadable", f"the piece from {start:g} s on lies behind the sound ({whole:g} s)")
    return min(ends) - start if ends else None


def _bins(values: Sequence[float], edges: Sequence[float]) -> tuple[Bin, ...]:
    """`values` counted between `edges`, without the empty bins at both ends."""
    bounds = np.array([*edges, np.inf])
    counts = np.histogram(values, bounds)[0] if len(values) else np.zeros(len(edges), dtype=int)
    bins = [
        Bin(low, None if i + 1 == len(edges) else edges[i + 1], int(count))
        for i, (low, count) in enumerate(zip(edges, counts, strict=True))
    ]
    filled = [i for i, each in enumerate(bins) if each.count]
    return tuple(bins[filled[0] : filled[-1] + 1]) if filled else ()
