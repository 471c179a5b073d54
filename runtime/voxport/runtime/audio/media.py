"""Sound of phones, browsers and cameras: m4a, mp4, WebM, AMR, WMA, G.722 and others, decoded by FFmpeg in PyAV.

Only containers and codecs of files are let in. FFmpeg also knows playlists, which name other files and addresses,
devices and streams from the network: none of these is opened, and the file is given to it as bytes without a name.
PyAV is imported when the first such file is opened.
"""

import contextlib
import importlib.util
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.media_boxes import check_boxes, has_boxes
from voxport.runtime.errors import BackendError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# What phones, browsers and cameras write, and libsndfile does not read.
MEDIA_SUFFIXES = frozenset(
    {
        *(".m4a", ".m4b", ".aac", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".webm", ".mkv", ".mka"),
        *(".amr", ".awb", ".wma", ".asf", ".g722", ".flv", ".avi", ".ac3", ".wv"),
    }
)
MEDIA_COMMAND = 'pip install "voxport[media]"'

_FORMATS = "matroska,aac,amr,asf,g722,flv,avi,ac3,eac3,wv,ogg,flac,mp3,wav"
_CODECS = frozenset(
    {
        *("aac", "aac_latm", "alac", "ac3", "eac3", "mp1float", "mp2float", "mp3float", "mp2", "mp3"),
        *(
            "amrnb",
            "amrwb",
            "libopencore_amrnb",
            "libopencore_amrwb",
            "opus",
            "libopus",
            "vorbis",
            "libvorbis",
            "speex",
        ),
        *("libspeex", "flac", "wavpack", "wmav1", "wmav2", "wmapro", "wmavoice", "wmalossless"),
        *("g722", "g726", "g726le", "gsm", "gsm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_ms", "qcelp", "evrc"),
        *("pcm_alaw", "pcm_mulaw", "pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"),
        *("pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be"),
    }
)
# Of these FFmpeg knows a length that the header claims; of others it estimates one from the bit rate.
_CLAIMS = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf"})
_TYPES = {"u8p": "u1", "s16p": "i2", "s32p": "i4", "fltp": "f4", "dblp": "f8"}  # of samples in planes
_MAX_CHANNELS = 8
_SLACK = 0.5  # seconds by which a sound may be shorter than claimed: priming, and times in milliseconds
_GAP = 0.1  # seconds without packets that are silence: a recorder that sends nothing while nobody speaks
_MAX_GAP, _MAX_FILLED = 60.0, 3600.0
_MAGIC = (b"\x1aE\xdf\xa3", b"#!AMR", b"0&\xb2u\x8ef\xcf\x11", b"FLV\x01", b"wvpk", b"\xff\xf1", b"\xff\xf9", b"\x0bw")

Block = npt.NDArray[np.float32]


class MediaError(RuntimeError):
    """FFmpeg cannot go on with a file; the message says why, without its name."""


def has_media() -> bool:
    """Whether the extra `media` is installed. Nothing is imported."""
    return importlib.util.find_spec("av") is not None


def is_media(name: str) -> bool:
    """Whether the file `name` looks like one for FFmpeg, by its suffix or its first bytes."""
    if os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES:
        return True
    with open(name, "rb") as file:
        head = file.read(12)
    return head.startswith(_MAGIC) or head[4:8] == b"ftyp"


class _Bytes(io.FileIO):
    """A file whose `seek` answers -1 to what cannot be: PyAV would print the exception and go on."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:  # before the beginning, from wherever it was counted
            return -1


class MediaFile:
    """A file as FFmpeg decodes it, with the attributes of `soundfile.SoundFile` that voxport reads.

    `samplerate` (Hz) and `channels` are those of the first decoded frame: a header may tell half of the rate, as
    that of HE-AAC does. `frames` is the length that the header claims, 0 where it claims none, and `slack` by how
    many frames the sound may be shorter. Times without packets are silence, as a player shows them.

    Raises:
        BackendError: PyAV is not installed, or does not load.
        MediaError: it is no such file, holds no sound, or its first sound is damaged.
    """

    extra_info = ""

    def __init__(self, name: str) -> None:
        package = _package(name)
        self._closing = contextlib.ExitStack()
        self._error: type[Exception] = package.FFmpegError
        try:
            self._container = self._open(package, name)
            self._stream = _sound_of(self._container)
            self._frames = self._decoded_frames()
            first = next(self._frames, None)
            if first is None:
                raise MediaError("holds no sound that can be decoded")
        except (MediaError, OSError, ValueError, self._error) as problem:
            self.close()
            raise problem if isinstance(problem, MediaError) else MediaError(_reason(problem)) from problem
        self.samplerate = first.sample_rate
        self.channels = first.layout.nb_channels
        self.format = f"media {self._container.format.name}"
        self.frames = self._claimed()
        self.slack = round(_SLACK * self.samplerate)
        self._start = first.time
        self._given = 0  # frames, with the silence among them
        self._filled = 0.0  # seconds of silence so far
        self._silence = 0  # frames still to give before `_left`
        self._left = np.empty((0, self.channels), np.float32)
        # Its samples wait until somebody reads them, who has looked at the number of channels before.
        self._frames = itertools.chain((first,), self._frames)

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file and of the decoder."""
        self._closing.close()

    def buffer_read_into(self, buffer: Block, dtype: str) -> int:
        """Fill `buffer`, float32 (n, channels), as far as there is sound; how many frames it holds then.

        Raises:
            MediaError: the sound is damaged, cut short, or changes its rate or channels.
        """
        count = 0
        try:
            while count < len(buffer) and self._more():
                room = len(buffer) - count
                taken = min(self._silence or len(self._left), room)
                if self._silence:
                    buffer[count : count + taken] = 0.0
                    self._silence -= taken
                else:
                    buffer[count : count + taken] = self._left[:taken]
                    self._left = self._left[taken:]
                count += taken
        except (OSError, ValueError, self._error) as problem:
            raise MediaError(_reason(problem)) from problem
        return count

    def _more(self) -> bool:
        """Whether there is sound left to give; decodes the next frame where the last one is used up."""
        if self._silence or len(self._left):
            return True
        frame = next(self._frames, None)
        if frame is None:
            return False
        self._left = self._samples(frame)
        return True

    def _open(self, package: Any, name: str) -> "InputContainer":
        # As an open file: FFmpeg would read a name as an address ("http:", "concat:", "subfile,,…").
        file = self._closing.enter_context(_Bytes(name))
        formats = _FORMATS
        if has_boxes(file.read(8)):
            formats += ",mov"
            check_boxes(file)
        file.seek(0)
        options = {
            "format_whitelist": formats,
            "codec_whitelist": ",".join(sorted(_CODECS)),
            "protocol_whitelist": "none",
        }
        # G.722 has no header at all: its name is all that tells it.
        kind = "g722" if name.lower().endswith(".g722") else None
        # PyAV 19 replaces what is no text in a file's titles by itself, and knows the option no more.
        titles = {"metadata_errors": "replace"} if int(package.__version__.split(".")[0]) < 19 else {}
        container = package.open(file, format=kind, container_options=options, **titles)
        self._closing.enter_context(container)
        return container  # type: ignore[no-any-return]

    def _decoded_frames(self) -> Iterator["AudioFrame"]:
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt:
                raise MediaError("a packet is not whole")
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise MediaError("a frame is damaged")
                if frame.samples:
                    yield frame

    def _samples(self, frame: "AudioFrame") -> Block:
        """The samples of `frame`, (n, channels), after noting the silence that lies before it."""
        channels = frame.layout.nb_channels
        if (frame.sample_rate, channels) != (self.samplerate, self.channels):
            was, now = (self.samplerate, self.channels), (frame.sample_rate, channels)
            raise MediaError(f"changes from {was[0]} Hz and {was[1]} channels to {now[0]} Hz and {now[1]}")
        samples = _floats(_array(frame, channels))
        if frame.time is not None and self._start is not None:
            gap = frame.time - self._start - self._given / self.samplerate
            if gap > _MAX_GAP:
                raise MediaError(f"holds no sound for {gap:.0f} s")
            if gap > _GAP:
                self._silence = round(gap * self.samplerate)
                self._filled += gap
                if self._filled > _MAX_FILLED:
                    raise MediaError(f"holds no sound for {self._filled:.0f} s in all")
        self._given += self._silence + len(samples)
        return samples

    def _claimed(self) -> int:
        """The length that the header claims, in frames; 0 where it claims none for the sound alone."""
        container, stream = self._container, self._stream
        if container.format.name not in _CLAIMS:
            return 0
        if stream.duration and stream.time_base:
            return max(0, round(stream.duration * stream.time_base * self.samplerate))
        if container.duration and len(container.streams) == 1:  # pictures may be longer than their sound
            return max(0, round(container.duration / 1e6 * self.samplerate))
        return 0


def _package(name: str) -> Any:
    try:
        import av
    except (ImportError, OSError) as problem:
        raise BackendError(
            f"{name}: PyAV reads such files, and it is not there ({problem}): {MEDIA_COMMAND}, or convert it to wav"
        ) from problem
    return av


def _sound_of(container: "InputContainer") -> "AudioStream":
    """The stream of `container` that a player would play."""
    stream = container.streams.best("audio")
    if stream is None:
        raise MediaError("holds no sound")
    if stream.codec_context is None:
        raise MediaError("its sound is coded in a way that FFmpeg does not know")
    codec = stream.codec_context.name
    if codec not in _CODECS:
        raise MediaError(f"its sound is coded as {codec}, which is not read")
    stream.codec_context.thread_count = 1  # callers have threads of their own
    stream.codec_context.options = {"err_detect": "crccheck+explode"}
    return stream  # type: ignore[return-value]


def _array(frame: "AudioFrame", channels: int) -> npt.NDArray[Any]:
    """The samples of `frame`, (n, channels), as they were decoded.

    PyAV looks for planes beyond the last one where there are 8 or more. What it finds it takes for memory (to 18.1;
    `to_ndarray` then ends the process) or refuses with all the others (19.0). So the planes of 8 channels are
    interleaved by FFmpeg first, and more are not asked for.
    """
    if channels > _MAX_CHANNELS:
        raise MediaError(f"{channels} channels, at most {_MAX_CHANNELS} are taken")
    if frame.format.is_planar and channels == _MAX_CHANNELS:
        frame = _interleaved(frame)
    if not frame.format.is_planar:
        return np.asarray(frame.to_ndarray().reshape(-1, channels))
    kind = _TYPES.get(frame.format.name)
    if kind is None:
        raise MediaError(f"its samples are {frame.format.name}, which is not read")
    planes: Sequence[Any] = frame.planes[:channels]
    return np.stack([np.frombuffer(plane, kind, frame.samples) for plane in planes], axis=1)


def _interleaved(frame: "AudioFrame") -> "AudioFrame":
    """The same samples in one plane."""
    from av import AudioResampler

    frames = AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate).resample(frame)
    if len(frames) != 1:
        raise MediaError("FFmpeg does not interleave its channels")
    return frames[0]


def _floats(array: npt.NDArray[Any]) -> Block:
    """`array` as float32 in [-1, 1]."""
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    middle = 128 if array.dtype == np.uint8 else 0
    samples: Block = ((array.astype(np.float64) - middle) / 2 ** (8 * array.dtype.itemsize - 1)).astype(np.float32)
    return samples


def _reason(problem: Exception) -> str:
    """FFmpeg's own words, without the number and the name of the function that failed."""
    return str(getattr(problem, "strerror", None) or problem)
