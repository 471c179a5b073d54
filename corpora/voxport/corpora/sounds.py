"""The sound of an utterance of a corpus: a file's, a piece of one, or a member of an archive or a table."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.corpora.errors import CorpusError
from voxport.corpora.layouts.base import Entry, Span
from voxport.runtime.audio.channels import Channel, refuse_several
from voxport.runtime.audio.decode import audio_channels, read_audio, read_piece


def read_sound(entry: Entry, sample_rate: int) -> npt.NDArray[np.float32]:
    """The samples of `entry`, shape (n,), at `sample_rate`: its file's, a piece of it, or those of a member.

    Raises:
        AudioError: what `read_audio` and `read_piece` refuse, and channels that hold different sounds.
        CorpusError: the archive or table that it lies in cannot be read.
    """
    span = entry.span
    with sound_file(entry) as path:
        channel = _usual_channel(path, span) if entry.channel is None else entry.channel
        if span is None:
            return read_audio(path, sample_rate, channel=channel)
        return read_piece(path, sample_rate, span.start, span.end, in_samples=span.unit == "samples", channel=channel)


def _usual_channel(path: Path, span: Span | None) -> Channel:
    """The channel to hear where the user named none; ChannelError where they hold different sounds."""
    if span is None:
        found = audio_channels(path)
    else:
        found = audio_channels(path, span.start, span.end, in_samples=span.unit == "samples")
    if found is None:
        return "mix"
    if len(found.usual) > 1:
        raise refuse_several(found, str(path))
    return found.usual[0]


@contextlib.contextmanager
def sound_file(entry: Entry) -> Iterator[Path]:
    """The file that holds the sound of `entry`: its own, or a copy of the member that vanishes after the block.

    Raises:
        CorpusError: the archive or table that it lies in cannot be read.
    """
    if entry.member is None:
        yield entry.path
        return
    # libsndfile and FFmpeg read files; the format is told by the content, and where it cannot be by the suffix.
    with tempfile.TemporaryDirectory(prefix="voxport-") as folder:
        path = Path(folder, f"sound{entry.suffix}")
        try:
            path.write_bytes(entry.member.read(entry.path))
        except (OSError, ValueError) as problem:
            raise CorpusError(f"{entry.path}: {entry.key} in it cannot be read ({problem})") from problem
        yield path
