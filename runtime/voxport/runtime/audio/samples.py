"""Arrays of samples, checked, mixed to one channel and resampled. See `decode` for files.

Samples are float32, mono, shape (n,), full scale [-1, 1]; rates are in Hz. libsoxr (soxr, quality HQ) resamples, so
that n samples become round(n · to / from). The package is imported when it is first needed.
"""

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel, ChannelMeter, Channels, pick
from voxport.runtime.errors import AudioError, BackendError

MIN_RATE, MAX_RATE = 4000, 192000  # Hz
MAX_CHANNELS = 8
MAX_SECONDS = 3600.0

# Float sound may exceed full scale a little; ten times full scale is int16 values that nobody divided.
PEAK_LIMIT = 10.0

BLOCK = 1 << 16  # frames decoded at a time

Samples = npt.NDArray[np.float32]


def resample(samples: npt.ArrayLike, from_rate: int, to_rate: int) -> Samples:
    """`samples` of shape (n,) or (n, channels) as check_samples takes them, from one rate to another.

    Raises:
        AudioError: what check_samples refuses, a rate outside 4 to 192 kHz, or too few samples to keep one.
        BackendError: soxr is not installed.
    """
    check_rate(from_rate, "from_rate")
    check_rate(to_rate, "to_rate")
    mono = check_samples(samples)
    result = np.concatenate(list(resampled(iter([mono]), from_rate, to_rate)))
    if len(result) == 0:
        raise AudioError(f"samples: {len(mono)} samples at {from_rate} Hz are less than one at {to_rate} Hz")
    return result


def sample_blocks(
    samples: npt.NDArray[Any], from_rate: int, to_rate: int, name: str = "samples", channel: Channel = "mix"
) -> Generator[Samples, None, None]:
    """What `resample` gives of one channel, or of the average, block by block: as little is copied, however long it is.

    Raises as `resample` does, and AudioError where there is no such channel.
    """
    layout = check_layout(samples, name)
    pieces = (check_samples(layout[start : start + BLOCK], name, channel) for start in range(0, len(layout), BLOCK))
    yield from (block for block in resampled(pieces, from_rate, to_rate) if len(block))


def sample_channels(samples: npt.NDArray[Any], sample_rate: int, name: str = "samples") -> Channels | None:
    """What `audio_channels` tells of a file, of an array (n, channels) at `sample_rate` Hz; None where there is one.

    At most MAX_SECONDS of it are looked at, block by block. Raises as `check_samples` does.
    """
    layout = check_layout(samples, name)
    if layout.ndim == 1 or layout.shape[1] == 1:
        return None
    check_rate(sample_rate, "sample_rate")
    meter = ChannelMeter(sample_rate)
    layout = layout[: round(MAX_SECONDS * sample_rate)]
    for start in range(0, len(layout), BLOCK):
        meter.push(check_values(layout[start : start + BLOCK], name))
    return meter.finish(name)


def check_samples(samples: npt.ArrayLike, name: str = "samples", channel: Channel = "mix") -> Samples:
    """`samples` as mono float32 of shape (n,); `name` is what messages call them.

    Takes float16, float32 and float64 in [-1, 1], and int16 and int32, which are divided by their full
    scale (32768 and 2³¹). Shape (n,), or (n, channels) with at most 8 channels, of which `channel` is taken or
    all are averaged.

    Raises:
        AudioError: another type or shape, no samples, no such channel, NaN or infinity, or floats far beyond [-1, 1].
    """
    return np.ascontiguousarray(pick(check_values(samples, name), channel, name), dtype=np.float32)


def check_values(samples: npt.ArrayLike, name: str = "samples") -> npt.NDArray[np.floating]:
    """The samples that `check_samples` checks, as floats, with all their channels. Raises as it does."""
    array = check_layout(samples, name)
    if array.dtype.kind == "i":
        array = array / float(-np.iinfo(array.dtype).min)
    if not np.isfinite(array).all():
        raise AudioError(f"{name}: holds NaN or infinite samples; every sample must be a finite number")
    peak = float(np.abs(array).max())
    if peak > PEAK_LIMIT:
        raise AudioError(f"{name}: samples reach {peak:.6g}, expected [-1, 1]; divide 16-bit values by 32768")
    return array


def check_layout(samples: npt.ArrayLike, name: str = "samples") -> npt.NDArray[Any]:
    """The part of `check_samples` that looks at no sample: type and shape, at no cost. Raises as it does."""
    array = np.asarray(samples)
    if array.dtype.newbyteorder("=") not in (np.float16, np.float32, np.float64, np.int16, np.int32):
        raise AudioError(f"{name}: expected floats in [-1, 1], or int16 or int32 samples, found {array.dtype}")
    if array.size == 0:
        raise AudioError(f"{name}: holds no samples (shape {array.shape}); at least one is needed")
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] > MAX_CHANNELS):
        hint = "; pass the transpose" if array.ndim == 2 and array.shape[0] <= MAX_CHANNELS else ""
        expected = f"(n,) or (n, channels) with at most {MAX_CHANNELS} channels"
        raise AudioError(f"{name}: expected shape {expected}, found {array.shape}{hint}")
    return array


def check_rate(rate: int, name: str) -> None:
    """Raise AudioError unless `rate` is one that voxport takes; `name` is what the message calls it."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(f"{name}: {rate} Hz is outside the {MIN_RATE} to {MAX_RATE} Hz that voxport takes")


def resampled(blocks: Iterator[Samples], from_rate: int, to_rate: int) -> Iterator[Samples]:
    """Mono blocks at another rate; as they are where the rates are one."""
    if from_rate == to_rate:
        yield from blocks
        return
    stream = audio_package("soxr").ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def audio_package(package: str) -> Any:
    """The package soundfile or soxr, imported when needed. Raises BackendError where it is not installed."""
    try:
        if package == "soundfile":
            import soundfile

            return soundfile
        import soxr

        return soxr
    except (ImportError, OSError) as problem:  # OSError: the package is there, but not the system's library
        raise BackendError(f'sound files need {package} ({problem}): pip install "voxport[audio]"') from problem
