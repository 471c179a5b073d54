"""Codecs of telephones and broadcasts that libsndfile lacks, coded and decoded in memory by FFmpeg (through PyAV)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import BackendError

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MediaCodec:
    """FFmpeg's encoder and decoder, the sample format that the encoder takes, rate in Hz, bits a second.

    What is decoded lags behind by `lag` samples, which the filters of the codec look ahead.
    """

    encoder: str
    decoder: str
    sample_format: str
    sample_rate: int
    bit_rate: int
    lag: int


# Wide-band telephony (ITU-T G.722), narrow-band mobile telephony (3GPP TS 26.071) at its lowest and highest rate, and
# AAC-LC at the lowest rate that FFmpeg's encoder takes at 16 kHz without remark.
MEDIA_CODECS: dict[str, MediaCodec] = {
    "g722": MediaCodec("g722", "g722", "s16", 16000, 64000, 22),
    "amr_lowest": MediaCodec("libopencore_amrnb", "amrnb", "s16", 8000, 4750, 40),
    "amr": MediaCodec("libopencore_amrnb", "amrnb", "s16", 8000, 12200, 40),
    "aac_low": MediaCodec("aac", "aac", "fltp", 16000, 16000, 1024),
}


def code(samples: Samples, codec: MediaCodec) -> Samples:
    """What is left of `samples` (n,), at the codec's own rate and in [-1, 1], after coding: (n,), in step with them.

    Raises:
        BackendError: PyAV is not installed, or its FFmpeg has no such encoder.
    """
    try:
        import av
    except ImportError as problem:
        raise BackendError(
            f'the codec {codec.encoder} needs FFmpeg: pip install "voxport[media]", or leave it out of codecs'
        ) from problem
    try:
        encoder: Any = av.CodecContext.create(codec.encoder, "w")
    except ValueError as problem:
        raise BackendError(
            f"the FFmpeg of PyAV {av.__version__} has no encoder {codec.encoder}; "
            "install another release of av, or leave it out of codecs"
        ) from problem
    encoder.sample_rate, encoder.layout, encoder.format = codec.sample_rate, "mono", codec.sample_format
    encoder.bit_rate = codec.bit_rate
    encoder.open()
    decoder: Any = av.CodecContext.create(codec.decoder, "r")
    decoder.sample_rate, decoder.layout = codec.sample_rate, "mono"
    if encoder.extradata:
        decoder.extradata = encoder.extradata
    size = encoder.frame_size or codec.sample_rate // 50
    whole = np.pad(samples, (0, -(len(samples) + codec.lag) % size + codec.lag + size))
    if codec.sample_format == "s16":
        whole = np.round(whole * 32767).astype(np.int16)
    found: list[npt.NDArray[Any]] = []
    for start in range(0, len(whole), size):
        frame = av.AudioFrame.from_ndarray(whole[None, start : start + size], format=codec.sample_format, layout="mono")
        frame.sample_rate, frame.pts = codec.sample_rate, start
        found += [each.to_ndarray() for packet in encoder.encode(frame) for each in decoder.decode(packet)]
    found += [each.to_ndarray() for packet in encoder.encode(None) for each in decoder.decode(packet)]
    decoded = np.concatenate(found, axis=1)[0]
    if decoded.dtype == np.int16:
        decoded = decoded / np.float32(32768)
    return np.asarray(decoded[codec.lag :][: len(samples)], np.float32)
