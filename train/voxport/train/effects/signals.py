"""Level, noise, bands, clipping and speed of samples (n,) float32."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

_SILENCE = 1e-9  # RMS below which a sound has no level to speak of; full scale is 1


def gain(samples: Samples, decibels: float) -> Samples:
    """Louder by `decibels`, without clipping."""
    return np.asarray(samples * np.float32(10 ** (decibels / 20)))


def clip(samples: Samples, factor: float) -> Samples:
    """`factor` times as loud, cut off at full scale, as a recorder does whose level is set too high."""
    return np.asarray(np.clip(samples * np.float32(factor), -1, 1), np.float32)


def add(samples: Samples, noise: Samples, snr_db: float) -> Samples:
    """`samples` with `noise` (as long) at a ratio of their mean powers over the whole sound; silence stays as it is."""
    speech_rms, noise_rms = _rms(samples), _rms(noise)
    if min(speech_rms, noise_rms) < _SILENCE:
        return samples
    return np.asarray(samples + noise * np.float32(speech_rms / noise_rms * 10 ** (-snr_db / 20)), np.float32)


def coloured_noise(count: int, slope: float, generator: np.random.Generator) -> Samples:
    """Gaussian noise (count,) whose power goes with frequency ** `slope`: 0 is white, -1 pink, -2 brown."""
    from scipy.fft import irfft, next_fast_len, rfft

    if slope == 0:
        return generator.standard_normal(count).astype(np.float32)
    length = next_fast_len(count, real=True)  # of a large prime, a transform takes several times as long
    spectrum = rfft(generator.standard_normal(length))
    bins = np.arange(len(spectrum), dtype=np.float64)
    bins[0] = 1.0
    noise = irfft(spectrum * bins ** (slope / 2), length)[:count]
    return np.asarray(noise / max(_rms(noise), _SILENCE), np.float32)


def babble(count: int, voices: Sequence[Samples], generator: np.random.Generator) -> Samples:
    """`voices` (at least one, none empty) talking at once: each from a random moment on, round and round, as loud."""
    total = np.zeros(count, np.float32)
    for voice in voices:
        level = _rms(voice)
        if level >= _SILENCE:
            total += fitted(voice, count, generator) / np.float32(level)
    return total


def fitted(sound: Samples, count: int, generator: np.random.Generator) -> Samples:
    """`count` samples of `sound` from a random one on; a shorter sound goes round and round."""
    start = int(generator.integers(max(1, len(sound) - count + 1) if len(sound) >= count else len(sound)))
    return np.asarray(np.take(sound, np.arange(start, start + count), mode="wrap"))


def fitted_rows(rows: npt.NDArray[np.float64], count: int, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """`count` rows of `rows` (n, …) from a random one on; fewer go round and round."""
    start = int(generator.integers(max(1, len(rows) - count + 1) if len(rows) >= count else len(rows)))
    return np.asarray(np.take(rows, np.arange(start, start + count), axis=0, mode="wrap"))


def band(samples: Samples, sample_rate: int, low: float, high: float) -> Samples:
    """Only what lies from `low` to `high` Hz: a Butterworth filter of fourth order, forwards in time.

    An edge at or below 0, or within a hundredth of half the rate, is left open.
    """
    from scipy.signal import butter, sosfilt

    top = sample_rate / 2
    has_low, has_high = low > 0, high < 0.99 * top
    if not has_low and not has_high:
        return samples
    edges, kind = (
        ((low, high), "bandpass") if has_low and has_high else ((low, "highpass") if has_low else (high, "lowpass"))
    )
    return np.asarray(sosfilt(butter(4, edges, kind, fs=sample_rate, output="sos"), samples), np.float32)


def speed(samples: Samples, factor: float) -> Samples:
    """Played `factor` times as fast, so that pitch and formants move too: n samples become round(n / factor)."""
    import soxr

    return np.asarray(soxr.resample(samples, factor, 1.0), np.float32)


def soft_clip(samples: Samples, drive: float) -> Samples:
    """The curve of an overdriven loudspeaker: tanh, where `drive` is what the sound's peak is brought to."""
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < _SILENCE:
        return samples
    return np.asarray(np.tanh(samples * np.float32(drive / peak)) * np.float32(peak / np.tanh(drive)), np.float32)


def _rms(samples: npt.NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
