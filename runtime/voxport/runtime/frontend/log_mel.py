"""Log-mel features in NumPy, from the one definition that training uses too.

Conventions: samples are floats in [-1, 1] at the frontend's sample rate, mono, shape (n,); features
have shape (frames, n_mels). Lengths count samples unless a name says frames or seconds.

Everything is computed in float64: it costs little more than float32, gives the same numbers with any
NumPy (before 2.0 its FFT knew float64 alone), and keeps the digits that pre-emphasis takes from the
lowest bands.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import AudioError, LengthError
from voxport.runtime.frontend.spec import Frontend

# normalize == "mean_std" divides by sqrt(max(variance, VARIANCE_FLOOR)) + STD_OFFSET, with the
# variance over all frames (not frames - 1), as NeMo's and sherpa-onnx's `per_feature` do.
VARIANCE_FLOOR = 1e-5
STD_OFFSET = 1e-5

_BLOCK = 32  # frames per block: bounds the memory of long recordings and stays in the cache

Floats = npt.NDArray[np.floating[Any]]


def compute_features(
    samples: Floats, frontend: Frontend, dtype: type[np.float32] | type[np.float64] = np.float32
) -> Floats:
    """Features of one utterance, shape (frames, n_mels), computed in float64 and returned as `dtype`.

    `samples` has shape (n,), in [-1, 1] at `frontend.sample_rate`.

    Raises:
        AudioError: `samples` is not a 1-D array of finite floats.
        LengthError: too few samples for one frame.
    """
    _check(samples, frontend)
    tables = _tables(frontend)
    frames = frame_signal(samples, frontend)
    energies = np.empty((len(frames), frontend.n_mels))
    for start in range(0, len(frames), _BLOCK):
        block = _condition(frames[start : start + _BLOCK].astype(np.float64), frontend)
        spectrum = np.fft.rfft(block * tables.window, frontend.n_fft)
        power = spectrum.real**2 + spectrum.imag**2
        if frontend.power != 2.0:
            power **= frontend.power / 2
        # Not a matrix product: BLAS would start threads for it, which on a busy machine costs milliseconds.
        weighted = power[:, tables.bins] * tables.weights
        np.add.reduceat(weighted, tables.starts, axis=1, out=energies[start : start + _BLOCK])
    if frontend.level is not None:
        energies *= frontend.level / max(speech_level(energies), frontend.quietest)
    return _normalize(_log(energies, frontend), frontend).astype(dtype, copy=False)


def speech_level(energies: Floats) -> float:
    """The level of an utterance's louder frames, in the units of `energies`, shape (frames, bands); 0 for silence.

    The contraharmonic mean of the frames' amplitudes, squared: (Σ e / Σ √e)², e being a frame's energy.
    """
    frames = energies.sum(axis=1)
    amplitudes = float(np.sqrt(frames).sum())
    return (float(frames.sum()) / amplitudes) ** 2 if amplitudes > 0 else 0.0


def num_frames(frontend: Frontend, num_samples: int) -> int:
    """How many frames `num_samples` samples give; 0 where they are too few."""
    window, hop = frontend.win_length, frontend.hop_length
    if num_samples < 1:
        return 0
    if frontend.framing == "center_reflect":
        half = frontend.n_fft // 2
        # Reflection repeats no sample twice on one side, so it needs more samples than it adds.
        return 1 + (num_samples + 2 * half - frontend.n_fft) // hop if num_samples > half else 0
    if frontend.framing == "mirror_edges":
        return (num_samples + hop // 2) // hop
    if frontend.framing == "pad_end":
        return 1 + max(0, -((window - num_samples) // hop))
    return 1 + (num_samples - window) // hop if num_samples >= window else 0


def min_samples(frontend: Frontend, frames: int) -> int:
    """The fewest samples that give at least `frames` frames.

    Raises:
        ValueError: `frames` is not positive.
    """
    if frames < 1:
        raise ValueError(f"frames must be positive, found {frames}")
    window, hop = frontend.win_length, frontend.hop_length
    if frontend.framing == "center_reflect":
        half = frontend.n_fft // 2
        return max(half + 1, (frames - 1) * hop + frontend.n_fft - 2 * half)
    if frontend.framing == "mirror_edges":
        return frames * hop - hop // 2
    if frontend.framing == "pad_end":
        return 1 if frames == 1 else window + (frames - 2) * hop + 1
    return window + (frames - 1) * hop


def pad_value(frontend: Frontend) -> float:
    """What a padded frame holds: silence, or the mean where the mean is subtracted (0)."""
    if frontend.normalize != "none":
        return 0.0
    return math.log(frontend.floor) if frontend.log == "ln" else 20 * math.log10(frontend.floor)


def window(frontend: Frontend) -> npt.NDArray[np.float64]:
    """The analysis window, shape (win_length,)."""
    length = frontend.win_length
    if frontend.window == "rectangular" or length == 1:
        return np.ones(length)
    period = length if frontend.window == "hann_periodic" else length - 1
    cosine = np.cos(2 * np.pi * np.arange(length) / period)
    if frontend.window == "hamming":
        return 0.54 - 0.46 * cosine
    hann = 0.5 - 0.5 * cosine
    # Povey's window, of Kaldi: near Hamming, but zero at its ends.
    return hann**0.85 if frontend.window == "povey" else hann


def mel_filterbank(frontend: Frontend) -> npt.NDArray[np.float64]:
    """Triangular filters over the FFT's bins, shape (n_fft // 2 + 1, n_mels)."""
    limits = hz_to_mel(np.array([frontend.f_min, frontend.f_max]), frontend)
    mel_points = np.linspace(limits[0], limits[1], frontend.n_mels + 2)
    hz_points = mel_to_hz(mel_points, frontend)
    index = np.arange(frontend.n_fft // 2 + 1, dtype=np.float64)
    hz = index * frontend.sample_rate / frontend.n_fft
    if frontend.mel_edges == "hz":
        filters = _triangles(hz, hz_points)
    elif frontend.mel_edges == "mel":
        filters = _triangles(hz_to_mel(hz, frontend), mel_points)
    else:
        filters = _triangles(index, np.floor((frontend.n_fft + 1) * hz_points / frontend.sample_rate))
    if frontend.mel_norm == "slaney":
        filters *= 2.0 / (hz_points[2:] - hz_points[:-2])
    if not frontend.nyquist_bin and frontend.n_fft % 2 == 0:
        filters[-1] = 0.0
    return filters


def hz_to_mel(hz: npt.NDArray[np.float64], frontend: Frontend) -> npt.NDArray[np.float64]:
    """Frequencies in Hz on the frontend's mel scale.

    `htk` is O'Shaughnessy's formula (HTK, Kaldi); `slaney` is that of Slaney's Auditory Toolbox: linear
    below 1 kHz, above it 27 steps per factor 6.4.
    """
    if frontend.mel_scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) * 27.0 / math.log(6.4)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, above)


def mel_to_hz(mel: npt.NDArray[np.float64], frontend: Frontend) -> npt.NDArray[np.float64]:
    """The inverse of `hz_to_mel`."""
    if frontend.mel_scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = 1000.0 * np.exp((np.maximum(mel, 15.0) - 15.0) * math.log(6.4) / 27.0)
    return np.where(mel < 15.0, mel * 200.0 / 3.0, above)


def first_sample(frontend: Frontend) -> int:
    """The index of the first sample of frame 0; negative where the edge is reflected."""
    if frontend.framing == "center_reflect":
        # The window stands in the middle of an n_fft-long frame that is centred on sample 0.
        return (frontend.n_fft - frontend.win_length) // 2 - frontend.n_fft // 2
    if frontend.framing == "mirror_edges":
        return frontend.hop_length // 2 - frontend.win_length // 2
    return 0


def frame_signal(samples: Floats, frontend: Frontend) -> Floats:
    """Overlapping frames as a read-only view, shape (frames, win_length), after signal pre-emphasis.

    Frames hold win_length samples; where they stand in an n_fft-long frame shifts only the phase.
    """
    if frontend.preemphasis and frontend.preemphasis_over == "signal":
        samples = _preemphasised(samples, frontend.preemphasis)
    start = first_sample(frontend)
    stop = start + (num_frames(frontend, len(samples)) - 1) * frontend.hop_length + frontend.win_length
    width = (max(0, -start), max(0, stop - len(samples)))
    if frontend.framing == "center_reflect":
        samples = np.pad(samples, width, mode="reflect")
    elif frontend.framing == "mirror_edges":
        samples = np.pad(samples, width, mode="symmetric")
    else:
        samples = np.pad(samples, width)
    samples = samples[max(0, start) : stop + width[0]]
    return np.lib.stride_tricks.sliding_window_view(samples, frontend.win_length)[:: frontend.hop_length]


def _preemphasised(samples: Floats, factor: float) -> Floats:
    """`samples[t] - factor · samples[t-1]` in float64; the caller's samples stay as they are."""
    # Into one new array: fresh memory for each step took ten times as long as the arithmetic.
    result = np.empty(len(samples))
    result[:1] = samples[:1]
    np.multiply(samples[:-1], -factor, out=result[1:], dtype=np.float64)
    result[1:] += samples[1:]
    return result


@dataclass(frozen=True)
class _Tables:
    """The window, and the filterbank's non-zero part: filter k is weights[starts[k]:starts[k + 1]]."""

    window: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    bins: npt.NDArray[np.intp]  # the FFT bin of each weight
    starts: npt.NDArray[np.intp]


@lru_cache(maxsize=16)
def _tables(frontend: Frontend) -> _Tables:
    # Both scales are folded into the tables: everything before the window is linear.
    filters = mel_filterbank(frontend) * frontend.spectrum_scale
    support = filters != 0
    support[0] |= ~support.any(axis=0)  # reduceat has no empty sums: a filter between two bins sums one zero
    band, bins = np.nonzero(support.T)
    starts = np.searchsorted(band, np.arange(frontend.n_mels))
    return _Tables(window(frontend) * frontend.sample_scale, filters[bins, band], bins, starts)


def _check(samples: object, frontend: Frontend) -> None:
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype.kind != "f":
        found = f"{samples.dtype} of shape {samples.shape}" if isinstance(samples, np.ndarray) else type(samples)
        raise AudioError(f"samples: expected a 1-D array of floats in [-1, 1], found {found}; see check_samples")
    if not np.isfinite(samples).all():
        where = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise AudioError(f"samples: sample {where} is {samples[where]}; every sample must be a finite number")
    if num_frames(frontend, len(samples)) < 1:
        fewest = min_samples(frontend, 1)
        raise LengthError(
            f"{len(samples)} samples are too few for one frame of frontend {frontend.name}: "
            f"at least {fewest} ({fewest / frontend.sample_rate:.4f} s at {frontend.sample_rate} Hz) are needed"
        )


def _condition(frames: npt.NDArray[np.float64], frontend: Frontend) -> npt.NDArray[np.float64]:
    """Remove each frame's mean, then pre-emphasise within the frame, whose first sample is its own past."""
    if frontend.remove_dc:
        frames -= frames.mean(axis=1, keepdims=True)
    if frontend.preemphasis and frontend.preemphasis_over == "frame":
        frames[:, 1:] -= frontend.preemphasis * frames[:, :-1]
        frames[:, 0] *= 1 - frontend.preemphasis
    return frames


def _log(energies: npt.NDArray[np.float64], frontend: Frontend) -> npt.NDArray[np.float64]:
    floored = np.maximum(energies, frontend.floor)
    return np.log(floored) if frontend.log == "ln" else 20 * np.log10(floored)


def _normalize(features: npt.NDArray[np.float64], frontend: Frontend) -> npt.NDArray[np.float64]:
    if frontend.normalize == "none":
        return features
    features = features - features.mean(axis=0)
    if frontend.normalize == "mean_std":
        variance = np.square(features).mean(axis=0)
        features /= np.sqrt(np.maximum(variance, VARIANCE_FLOOR)) + STD_OFFSET
    return features


def _triangles(positions: npt.NDArray[np.float64], points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Triangles with corners at consecutive triples of `points`, shape (positions, len(points) - 2)."""
    x = positions[:, None]
    left, center, right = points[:-2], points[1:-1], points[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        # Whole-bin corners may coincide: such a side is a step, 1 from its left corner on, 0 from its right.
        rise = np.where(center > left, (x - left) / (center - left), np.where(x >= center, np.inf, 0.0))
        fall = np.where(right > center, (right - x) / (right - center), np.where(x < right, np.inf, 0.0))
    return np.clip(np.minimum(rise, fall), 0.0, 1.0)
