"""Which channels of a corpus's sounds are its utterances."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from voxport.corpora.errors import CorpusError
from voxport.corpora.layouts.base import Entry, LayoutOptions, Listing
from voxport.corpora.layouts.recognition import list_corpus
from voxport.corpora.sounds import sound_file
from voxport.runtime.audio.channels import parse_channel
from voxport.runtime.audio.decode import audio_channel_count
from voxport.runtime.errors import AudioError

_THREADS = 8  # headers that are read at once


def list_utterances(path: Path, options: LayoutOptions) -> Listing:
    """What `list_corpus` lists, with the user's channels; raises as it does."""
    return with_channels(list_corpus(path, options), options.channel)


def with_channels(listing: Listing, channel: str | None) -> Listing:
    """`listing` with the user's `channel` (see `LayoutOptions`) in each of its sounds; None leaves it as it is.

    With `each`, a sound of several channels becomes an utterance a channel, called `KEY#channel=1` and so on. For that
    every header is read; a file whose header cannot be read stays one utterance, which is refused when it is decoded.
    """
    if channel is None:
        return listing
    choice = parse_channel(channel)
    if choice != "each":
        entries = [replace(entry, channel=choice) if entry.is_sound else entry for entry in listing.entries]
    else:
        with ThreadPoolExecutor(_THREADS) as pool:
            counts = pool.map(_count, listing.entries)
            entries = [
                part for entry, count in zip(listing.entries, counts, strict=True) for part in _parts(entry, count)
            ]
    return replace(listing, entries=tuple(entries), notes=(*listing.notes, f"--channel {channel} says which channels"))


def _parts(entry: Entry, count: int) -> Iterator[Entry]:
    if count == 1:
        yield entry
        return
    for number in range(1, count + 1):
        yield replace(entry, key=f"{entry.key}#channel={number}", channel=number)


def _count(entry: Entry) -> int:
    if not entry.is_sound:
        return 1
    try:
        with sound_file(entry) as path:
            return audio_channel_count(path)
    except (AudioError, CorpusError):
        return 1
