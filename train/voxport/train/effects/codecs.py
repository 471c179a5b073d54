"""Codecs, coded and decoded in memory by libsndfile (through soundfile), or by FFmpeg where libsndfile has none."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import BackendError
from voxport.train.effects import media_codecs
from voxport.train.effects.media_codecs import MEDIA_CODECS, MediaCodec

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Codec:
    """How libsndfile writes it: container, coding, rate in Hz, and compression from 0 (most bits) to 1 (fewest)."""

    container: str
    coding: str
    sample_rate: int
    compression: float | None = None


# Speech codecs of telephones at 8 kHz; the others at 16 kHz.
CODECS: dict[str, Codec] = {
    "mu_law": Codec("WAV", "ULAW", 8000),
    "a_law": Codec("WAV", "ALAW", 8000),
    "gsm": Codec("WAV", "GSM610", 8000),
    "adpcm": Codec("WAV", "IMA_ADPCM", 8000),
    "mp3_lowest": Codec("MP3", "MPEG_LAYER_III", 16000, 0.99),  # 8 kbit/s; libsndfile refuses 1,
    "mp3_low": Codec("MP3", "MPEG_LAYER_III", 16000, 0.95),
    "opus_lowest": Codec("OGG", "OPUS", 16000, 1.0),
    "opus_low": Codec("OGG", "OPUS", 16000, 0.95),
    "vorbis_lowest": Codec("OGG", "VORBIS", 16000, 1.0),
}
NAMES = (*CODECS, *MEDIA_CODECS)
_BLOCK = 16_000  # libsndfile's Ogg encoders have overrun the stack where much was written at once


def check(names: Iterable[str]) -> None:
    """Try those of `names` that not every installation has.

    Raises:
        BackendError: PyAV is not installed, or its FFmpeg lacks an encoder.
    """
    for name in dict.fromkeys(names):
        if name in MEDIA_CODECS:
            media_codecs.code(np.zeros(1, np.float32), MEDIA_CODECS[name])


def code(samples: Samples, sample_rate: int, name: str) -> Samples:
    """`samples` (n,) after the codec `name` of NAMES: as long as before, at the rate that they had.

    Full scale is the codec's as well: what lies beyond [-1, 1] is cut off.

    Raises:
        BackendError: soundfile's libsndfile is too old for this codec, or PyAV is missing or lacks its encoder.
        KeyError: no such codec.
    """
    import soxr

    codec = MEDIA_CODECS[name] if name in MEDIA_CODECS else CODECS[name]
    inside = np.clip(soxr.resample(samples, sample_rate, codec.sample_rate), -1, 1)
    decoded = media_codecs.code(inside, codec) if isinstance(codec, MediaCodec) else _by_libsndfile(inside, codec, name)
    back = soxr.resample(decoded, codec.sample_rate, sample_rate)[: len(samples)]
    return np.pad(back, (0, len(samples) - len(back))).astype(np.float32)


def _by_libsndfile(samples: Samples, codec: Codec, name: str) -> npt.NDArray[np.float32]:
    """`samples` in [-1, 1], at the codec's rate."""
    import soundfile

    options: dict[str, Any] = {} if codec.compression is None else {"compression_level": codec.compression}
    if codec.container == "MP3":
        options["bitrate_mode"] = "CONSTANT"
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(
            buffer, "w", codec.sample_rate, 1, codec.coding, format=codec.container, **options
        ) as file:
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
        buffer.seek(0)
        decoded, _ = soundfile.read(buffer, dtype="float32")
    except (soundfile.LibsndfileError, TypeError, ValueError) as problem:
        raise BackendError(
            f"libsndfile {soundfile.__libsndfile_version__} cannot code {name} ({problem}); "
            "install soundfile 0.13 or later"
        ) from problem
    return np.asarray(decoded, np.float32)
