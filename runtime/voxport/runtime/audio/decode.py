"""Sound files, made ready for a frontend.

Conventions: samples are float32, mono, shape (n,), full scale [-1, 1]. Rates are in Hz, durations in
seconds; a duration is samples / rate. libsndfile (soundfile) decodes wav, flac, ogg, mp3 and whatever
else it knows, by content and not by extension, and FFmpeg (PyAV, the extra `media`) what it does not;
channels are averaged, or one of them is taken (see `voxport.runtime.audio.channels`); `samples`
resamples them.

The packages are imported when first needed.
"""

import errno
import math
import os
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel, ChannelMeter, Channels, pick
from voxport.runtime.audio.media import MediaError, MediaFile, is_media
from voxport.runtime.audio.samples import (
    BLOCK,
    MAX_CHANNELS,
    MAX_SECONDS,
    Samples,
    audio_package,
    check_rate,
    check_values,
    resampled,
)
from voxport.runtime.errors import AudioError

if TYPE_CHECKING:
    import soundfile

_OVERSHOOT = 0.5  # seconds by which a piece may end behind its sound, as in Kaldi's extract-segments
_EXACT = frozenset({"WAV", "WAVEX", "FLAC", "AIFF", "AU", "W64", "RF64", "CAF", "NIST"})  # seeking finds the sample
_MP3_SLACK = 2304  # two MPEG frames: an mp3 without a Xing header says its length only about
_UNKNOWN_FRAMES = 1 << 60  # libsndfile's "nobody knows" is near 2⁶³
_UNKNOWN_SIZE = 0x7FFF0000  # a WAV written to a pipe claims a size from here on: "until the end"

PathName = str | os.PathLike[str]
SoundFile = Union["soundfile.SoundFile", MediaFile]


def read_audio(
    path: PathName,
    sample_rate: int,
    *,
    max_seconds: float | None = MAX_SECONDS,
    enough: int | None = None,
    channel: Channel = "mix",
) -> Samples:
    """The sound of a file, shape (n,), float32, mono, in [-1, 1] at `sample_rate`.

    The file may have 1 to 8 channels, of which `channel` is taken, or the average of all, and a rate of 4 to 192 kHz.
    It is decoded in blocks and refused once it is longer than `max_seconds` (None: any length). A file that is cut
    short is refused where its format tells: wav, flac, ogg, and mp3 with a Xing header, as all encoders write it.
    (libsndfile guesses the length of an mp3 of variable bit rate without that header.)

    With `enough`, decoding stops at the block in which there come to be more samples than that: what lies
    behind is neither decoded nor checked.

    Raises:
        AudioError: missing, empty, damaged, truncated, too long, not a sound file, or not finite numbers.
        BackendError: soundfile or soxr is not installed, or PyAV, which a file of this format needs.
    """
    blocks: list[Samples] = []
    count = 0
    with closing(audio_blocks(path, sample_rate, max_seconds=max_seconds, channel=channel)) as found:
        for block in found:
            blocks.append(block)
            count += len(block)
            if enough is not None and count > enough:
                break
    if not blocks:
        raise AudioError(f"{os.fspath(path)}: holds no samples; a sound file with at least one frame is needed")
    return np.concatenate(blocks)


def audio_blocks(
    path: PathName, sample_rate: int, *, max_seconds: float | None = None, channel: Channel = "mix"
) -> Generator[Samples, None, None]:
    """The sound of `read_audio` block by block, none of them empty: in constant memory, however long it is.

    Raises as `read_audio` does, but where the fault is reached; a file without samples gives no block.
    """
    name = os.fspath(path)
    check_rate(sample_rate, "sample_rate")
    with _open(name) as file:
        _check_header(file, name)
        mono = (_mono(block, channel, name) for block in _channel_blocks(file, name, max_seconds))
        blocks = resampled(mono, file.samplerate, sample_rate)
        yield from (block for block in blocks if len(block))


def audio_seconds(path: PathName) -> float | None:
    """The length of a sound file as its header claims it; None where it does not say. Raises as `read_audio`."""
    name = os.fspath(path)
    with _open(name) as file:
        _check_header(file, name)
        return file.frames / file.samplerate if 0 < file.frames < _UNKNOWN_FRAMES else None


def audio_channels(
    path: PathName, start: float = 0.0, end: float | None = None, *, in_samples: bool = False
) -> Channels | None:
    """What the channels of a sound file, or of the piece that `read_piece` takes, have to do with each other.

    None where there is only one. Reads it block by block, at most MAX_SECONDS of it. Raises as `read_audio`.
    """
    name = os.fspath(path)
    with _open(name) as file:
        _check_header(file, name)
        if file.channels == 1:
            return None
        scale = 1 if in_samples else file.samplerate
        first, last = round(start * scale), None if end is None else round(end * scale)
        meter, left = ChannelMeter(file.samplerate), round(MAX_SECONDS * file.samplerate)
        for block in (
            _channel_blocks(file, name, None) if (first, last) == (0, None) else _piece_blocks(file, name, first, last)
        ):
            meter.push(block[:left])
            left -= len(block)
            if left <= 0:
                break
        return meter.finish(name)


def audio_channel_count(path: PathName) -> int:
    """The number of channels of a sound file, as its header claims it. Raises as `read_audio`."""
    name = os.fspath(path)
    with _open(name) as file:
        _check_header(file, name)
        return int(file.channels)


def audio_rate(path: PathName) -> int:
    """The rate of a sound file, in Hz, as its header claims it. Raises as `read_audio`."""
    name = os.fspath(path)
    with _open(name) as file:
        _check_header(file, name)
        return int(file.samplerate)


def read_piece(
    path: PathName,
    sample_rate: int,
    start: float,
    end: float | None = None,
    *,
    in_samples: bool = False,
    channel: Channel = "mix",
) -> Samples:
    """The piece of a sound file from `start` to `end` (None: its end), shape (n,), float32, at `sample_rate`.

    In seconds, or with `in_samples` in samples at the file's own rate. It is cut first and resampled then. As in
    Kaldi, a piece may end up to half a second behind its sound, and is then shorter.

    Raises:
        AudioError: what `read_audio` refuses, a piece that lies behind the sound, or one of more than MAX_SECONDS.
        BackendError: soundfile or soxr is not installed.
    """
    name = os.fspath(path)
    check_rate(sample_rate, "sample_rate")
    with _open(name) as file:
        _check_header(file, name)
        rate = file.samplerate
        scale = 1 if in_samples else rate
        first, last = round(start * scale), None if end is None else round(end * scale)
        mono = (_mono(block, channel, name) for block in _piece_blocks(file, name, first, last))
        cut = list(resampled(mono, rate, sample_rate))
    samples = np.concatenate(cut) if cut else np.zeros(0, np.float32)
    if len(samples) == 0:
        raise AudioError(f"{name}: the piece from {first / rate:g} s on holds no sample at {sample_rate} Hz")
    return samples


def _open(name: str) -> SoundFile:
    soundfile = audio_package("soundfile")
    if not name:
        raise AudioError("the name of the sound file is empty; expected a sound file (wav, flac, ogg or mp3)")
    if not os.path.isfile(name):
        reason = "is no regular file" if os.path.exists(name) else os.strerror(errno.ENOENT)
        raise AudioError(f"{name}: {reason}; expected a sound file (wav, flac, ogg or mp3)")
    if not os.access(name, os.R_OK):
        raise AudioError(f"{name}: {os.strerror(errno.EACCES)}; allow reading it")
    if os.path.getsize(name) == 0:
        raise AudioError(f"{name}: is empty (0 bytes); expected a sound file (wav, flac, ogg or mp3)")
    # soundfile would take a file of such a name for samples without a header, and ask for their rate.
    is_raw = name.lower().endswith(".raw")
    # As bytes where names are bytes: soundfile cannot encode a name that is not UTF-8, as older systems wrote them.
    file: Any = name if os.name == "nt" else os.fsencode(name)
    if is_raw:
        file = os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    if name.lower().endswith(".g722"):  # without a header; libsndfile may take it for something else
        return _open_media(name, "")
    try:
        return soundfile.SoundFile(file)
    except RuntimeError as problem:
        if is_media(name):
            return _open_media(name, "libsndfile or ")
        options = "-f s16le -ar 16000 " if is_raw else ""
        raise AudioError(
            f"{name}: not a sound file that libsndfile can read ({getattr(problem, 'error_string', problem)}); "
            f'convert it, for example: ffmpeg {options}-i "{name}" sound.wav'
        ) from problem


def _open_media(name: str, tried: str) -> MediaFile:
    try:
        return MediaFile(name)
    except MediaError as problem:
        raise AudioError(
            f"{name}: not a sound file that {tried}FFmpeg can read ({problem}); get it again, or convert it to wav"
        ) from problem


def _check_header(file: SoundFile, name: str) -> None:
    check_rate(file.samplerate, name)
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise AudioError(f"{name}: {file.channels} channels, at most {MAX_CHANNELS} are taken; mix it down first")
    # libsndfile reads what a cut file still has and says only in its log what is wrong.
    log = file.extra_info
    if file.format in ("WAV", "WAVEX"):
        sizes = re.search(r"^data\s*:\s*(\d+) \(should be (\d+)\)", log, re.MULTILINE)
        if sizes and int(sizes[2]) < int(sizes[1]) < _UNKNOWN_SIZE:
            raise AudioError(f"{name}: cut short: {sizes[2]} of {sizes[1]} bytes of sound; get the file again")
    if file.format == "OGG" and ("lacks an end-of-stream bit" in log or "Corrupted bitstream" in log):
        raise AudioError(f"{name}: the Ogg stream is damaged or cut short; get the file again, or convert it")


def _mono(block: npt.NDArray[np.floating], channel: Channel, name: str) -> Samples:
    """One channel, or the average, as an array of its own: the block's memory is decoded into again."""
    return np.asarray(pick(block, channel, name), np.float32)


def _channel_blocks(file: SoundFile, name: str, max_seconds: float | None) -> Iterator[npt.NDArray[np.floating]]:
    """Decode (n, channels) block by block, so that no header can make us allocate what the file does not hold.

    A block is valid until the next one is asked for.
    """
    limit = math.inf if max_seconds is None else max_seconds * file.samplerate
    buffer = np.empty((BLOCK, file.channels), np.float32)
    decoded = 0
    while count := _decode(file, buffer, name):
        decoded += count
        if decoded > limit:
            raise AudioError(f"{name}: longer than {max_seconds:g} s; cut it, or raise max_seconds")
        yield check_values(buffer[:count], name)
    slack = file.slack if isinstance(file, MediaFile) else _MP3_SLACK if file.format == "MP3" else 0
    if decoded + slack < file.frames:
        raise AudioError(f"{name}: cut short: {decoded} of {file.frames} samples; get the file again, or convert it")


def _piece_blocks(file: SoundFile, name: str, first: int, last: int | None) -> Iterator[npt.NDArray[np.floating]]:
    """The frames (n, channels) from `first` to `last`, block by block; decodes what lies before only where it must."""
    position = 0
    if first and not isinstance(file, MediaFile) and file.format in _EXACT and first <= file.frames < _UNKNOWN_FRAMES:
        file.seek(first)
        position = first
    buffer = np.empty((BLOCK, file.channels), np.float32)
    rate, found = file.samplerate, 0
    while (last is None or position < last) and (count := _decode(file, buffer, name)):
        begin, stop = max(first - position, 0), count if last is None else min(count, last - position)
        position += count
        if stop > begin:
            found += stop - begin
            if found > MAX_SECONDS * rate:
                raise AudioError(f"{name}: a piece of more than {MAX_SECONDS:g} s; cut it")
            yield check_values(buffer[begin:stop], name)
    if found == 0 or (last is not None and position < last - _OVERSHOOT * rate):
        end = "" if last is None else f" to {last / rate:g}"
        units = "; are these samples, and not seconds?" if first / rate > 10 * position / rate + 60 else ""
        behind = f"lies behind the sound, which ends at {position / rate:g} s{units}"
        raise AudioError(f"{name}: the piece from {first / rate:g}{end} s {behind}")


def _decode(file: SoundFile, buffer: Samples, name: str) -> int:
    try:
        # Not read(): it trusts the header's length, and allocates for it.
        return int(file.buffer_read_into(buffer, "float32"))
    except RuntimeError as problem:
        raise AudioError(f"{name}: damaged or cut short ({problem}); get the file again, or convert it") from problem
