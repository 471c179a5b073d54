"""Codecs, coded and decoded in memory by libsndfile (through soundfile)."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import BackendError

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Codec:
    """How libsndfile writes it: container, coding, rate in Hz, and compression from 0 (most bits) to 1 (fewest)."""

    container: str
    coding: str
    sample_rate: int
    compression: float | None = None


# Speech codecs of telephones at 8 kHz; the others at 16 kHz. libsndfile has neither G.722 nor AMR.
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
_BLOCK = 16_000  # libsndfile's Ogg encoders have overrun the stack where much was written at once


def code(samples: Samples, sample_rate: int, name: str) -> Samples:
    """`samples` (n,) after the codec `name` of CODECS: as long as before, at the rate that they had.

    Full scale is the codec's as well: what lies beyond [-1, 1] is cut off.

    Raises:
        BackendError: soundfile's libsndfile is too old for this codec.
        KeyError: no such codec.
    """
    import soundfile
    import soxr

    codec = CODECS[name]
    inside = np.clip(soxr.resample(samples, sample_rate, codec.sample_rate), -1, 1)
    options: dict[str, Any] = {} if codec.compression is None else {"compression_level": codec.compression}
    if codec.container == "MP3":
        options["bitrate_mode"] = "CONSTANT"
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(
            buffer, "w", codec.sample_rate, 1, codec.coding, format=codec.container, **options
        ) as file:
            for start in range(0, len(inside), _BLOCK):
                file.write(inside[start : start + _BLOCK])
        buffer.seek(0)
        decoded, _ = soundfile.read(buffer, dtype="float32")
    except (soundfile.LibsndfileError, TypeError, ValueError) as problem:
        raise BackendError(
            f"libsndfile {soundfile.__libsndfile_version__} cannot code {name} ({problem}); "
            "install soundfile 0.13 or later"
        ) from problem
    back = soxr.resample(decoded, codec.sample_rate, sample_rate)[: len(samples)]
    return np.pad(back, (0, len(samples) - len(back))).astype(np.float32)
