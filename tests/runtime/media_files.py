"""Files of phones and browsers, written by the encoders that PyAV carries."""

import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.optional_packages import import_or_skip

av = import_or_skip("av")


@dataclass(frozen=True)
class Media:
    """A kind of file: its suffix, FFmpeg's names for container and encoder, the encoder's rate, and what it loses.

    `alike` is the least correlation with what was encoded: 1.0 where the codec loses nothing, 0.0 where it keeps
    the spectrum and not the wave.
    """

    suffix: str
    container: str
    codec: str
    rate: int
    alike: float
    bit_rate: int = 64000


KINDS = {
    "phone": Media(".m4a", "ipod", "aac", 44100, 0.99),
    "voxceleb": Media(".m4a", "ipod", "aac", 16000, 0.99),
    "apple lossless": Media(".m4a", "ipod", "alac", 16000, 1.0),
    "mp4": Media(".mp4", "mp4", "aac", 48000, 0.98),
    "quicktime": Media(".mov", "mov", "pcm_s16le", 48000, 1.0),
    "adts": Media(".aac", "adts", "aac", 16000, 0.99),
    "chrome": Media(".webm", "webm", "libopus", 48000, 0.99),
    "matroska": Media(".mka", "matroska", "flac", 16000, 1.0),
    "voice memo": Media(".amr", "amr", "libopencore_amrnb", 8000, 0.0, 12200),
    "3gp": Media(".3gp", "3gp", "libopencore_amrnb", 8000, 0.0, 12200),
    "windows": Media(".wma", "asf", "wmav2", 16000, 0.99),
    "telephone": Media(".g722", "g722", "g722", 16000, 0.99),
    "wavpack": Media(".wv", "wv", "wavpack", 16000, 0.998),
    "camera": Media(".avi", "avi", "mp2", 44100, 0.99),
}


def voice(rate: int, seconds: float = 2.0) -> np.ndarray:
    """Harmonics of a gliding voice, below 3 kHz and swelling, shape (n,): every moment of it is like no other."""
    time = np.arange(round(rate * seconds)) / rate
    pitch = 2 * np.pi * (110 * time + 30 * time**2 + 2 * np.sin(3 * time))
    harmonics = sum(np.sin(k * pitch) / k for k in range(1, 13))
    return np.asarray(0.1 * harmonics * (0.6 + 0.4 * np.sin(2 * np.pi * 1.7 * time)))


def encode(
    path: Path,
    samples: np.ndarray,
    kind: Media,
    options: dict[str, str] | None = None,
    pause: tuple[int, int] = (0, 0),
) -> Path:
    """Write `samples`, shape (n,) or (channels, n), to `path`.

    `pause` is the number of a packet, and how many milliseconds later it and those behind it are to come.
    """
    if kind.codec not in av.codecs_available:
        pytest.skip(f"PyAV {av.__version__} carries no encoder {kind.codec}")
    samples = np.atleast_2d(samples)
    layout = {1: "mono", 2: "stereo", 8: "7.1", 16: "hexadecagonal"}[len(samples)]
    with av.open(str(path), "w", format=kind.container, options=options or {}) as container:
        stream = container.add_stream(kind.codec, rate=kind.rate, layout=layout)
        stream.bit_rate = kind.bit_rate
        context = stream.codec_context
        # Not "fltp": PyAV 18.1 takes no planes of eight channels.
        interleaved = np.ascontiguousarray(samples.T, dtype=np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, "flt", layout)
        frame.sample_rate, frame.pts, frame.time_base = kind.rate, 0, Fraction(1, kind.rate)
        context.open()
        shaped = av.AudioResampler(context.format.name, layout, kind.rate, frame_size=context.frame_size or None)
        number = 0
        for piece in [*shaped.resample(frame), *shaped.resample(None), None]:
            for packet in stream.encode(piece):
                if pause[1] and number >= pause[0] and packet.pts is not None:
                    packet.pts += round(pause[1] / 1000 / packet.time_base)
                    packet.dts = packet.pts
                container.mux(packet)
                number += 1
    return path


def packets(path: Path) -> list[bytes]:
    """The coded packets of the sound in `path`."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def remux(source: Path, target: Path, container: str) -> Path:
    """The same packets in another container."""
    with av.open(str(source)) as given, av.open(str(target), "w", format=container) as made:
        stream = made.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return target


def film(path: Path) -> Path:
    """A film without sound."""
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def claim(path: Path, box: bytes, samples: int) -> Path:
    """Make the first table `box` of an MP4 file claim so many samples without a byte of its own for any of them."""
    data = bytearray(path.read_bytes())
    at = data.index(box)
    if box == b"stsz":
        data[at + 8 : at + 16] = struct.pack(">II", 7, samples)
    else:  # a shorter `trun` without fields of each sample, and the rest of it free
        (size,) = struct.unpack(">I", data[at - 4 : at])
        short = struct.pack(">I4sIIi", 20, b"trun", 1, samples, 100)
        data[at - 4 : at + 24] = short + struct.pack(">I4s", size - 20, b"free")
    path.write_bytes(data)
    return path
