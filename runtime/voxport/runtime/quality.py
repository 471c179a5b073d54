"""What is wrong with a recording of speech: band, noise, clipping, level. Each is a note beside the answer.

Measured on the samples at the model's rate, in frames of 20 ms. Clean speech (LibriSpeech, espeak-ng) lies far from
every limit here: its spectrum reaches 8 kHz, it stands 15 dB and more above its quietest frames, and less than 0.01 %
of its samples lie at the peak.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.notes import Note, NoteCode
from voxport.runtime.speech import FRAME_SECONDS, Speech

BAND_SHARE = 0.75  # of the model's highest frequency, below which the spectrum may not end
BAND_DB = 55.0  # a band of 400 Hz that is so far below the strongest one is empty
SNR_DB = 12.0  # level of active speech over the mean of the quietest tenth of the frames
CLIPPED_SHARE = 0.002  # of samples within 1 % of the peak
LEVEL_DB = -60.0  # of active speech; 16 bits then hold 6 of it

# What `enroll` refuses: a voice that is kept should not be that of a telephone or of a room full of noise.
SPOILING: tuple[NoteCode, ...] = ("band", "noise", "clipping", "level")

_LOOKS = 24  # frames whose spectra are averaged
_BIN, _STEP = 50, 8  # Hz of a bin of frames of 20 ms; bins of a band of 400 Hz


def quality_notes(
    samples: npt.NDArray[np.floating[Any]], sample_rate: int, f_max: float, speech: Speech
) -> tuple[Note, ...]:
    """Notes on `samples` (n,) in which `speech` was found, for a model that listens up to `f_max` Hz."""
    size = max(1, round(sample_rate * FRAME_SECONDS))
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    sparse = frames[:, ::2]
    powers = np.einsum("ij,ij->i", sparse, sparse) / sparse.shape[1] + 1e-12
    notes = []
    top = highest_frequency(frames, powers)
    if top < BAND_SHARE * f_max:
        notes.append(
            Note("band", f"its spectrum ends at about {top:,.0f} Hz, and the model listens up to {f_max:,.0f} Hz")
        )
    order = np.sort(powers)
    tenth = order[: max(1, len(order) // 10)]
    snr = speech.level_db - 10 * math.log10(float(np.add.reduce(tenth)) / len(tenth))
    if snr < SNR_DB:
        notes.append(Note("noise", f"its speech stands only {snr:.0f} dB above the noise"))
    sizes = np.abs(samples)
    clipped = int(np.count_nonzero(sizes >= 0.99 * sizes.max())) / len(samples)
    if clipped > CLIPPED_SHARE:
        notes.append(Note("clipping", f"it is clipped: {clipped:.1%} of its samples lie at the peak"))
    if speech.level_db < LEVEL_DB:
        notes.append(Note("level", f"its speech is very quiet ({speech.level_db:.0f} dB relative to full scale)"))
    return tuple(notes)


def highest_frequency(frames: npt.NDArray[Any], powers: npt.NDArray[Any]) -> float:
    """The upper edge in Hz of the highest band of 400 Hz that is not empty in the louder `frames` (n, samples)."""
    (loud,) = np.nonzero(powers >= np.add.reduce(powers) / len(powers))
    looks = loud[np.arange(_LOOKS) * len(loud) // _LOOKS] if len(loud) > _LOOKS else loud
    bins = np.fft.rfft(frames[looks] * _window(frames.shape[1]))[:, 1:]
    mean = np.add.reduce(bins.real**2 + bins.imag**2, axis=0)
    bands = np.add.reduceat(mean, np.arange(0, len(mean) - _STEP + 1, _STEP))
    (full,) = np.nonzero(bands > bands.max() * 10 ** (-BAND_DB / 10))
    return float((full[-1] + 1) * _STEP * _BIN) if len(full) else 0.0


@lru_cache(maxsize=8)
def _window(size: int) -> npt.NDArray[np.float32]:
    return np.asarray(0.5 - 0.5 * np.cos(2 * np.pi / size * np.arange(size)), np.float32)
