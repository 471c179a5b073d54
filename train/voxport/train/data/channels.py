"""Which channels of a corpus's sounds are its utterances."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from voxport.runtime.audio import audio_channel_count
from voxport.runtime.channels import parse_channel
from voxport.runtime.errors import AudioError
from voxport.train.data.entries import Entry, Listing
from voxport.train.data.problems import CorpusError
from voxport.train.data.sound import sound_file

_THREADS = 8  # headers that are read at once


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
