"""Changes of stored features, in the power domain of their mel bands: what can be had without the sound.

Features have shape (frames, bands), as a frontend made them; energies are their powers before the logarithm.
Where a frontend subtracts the mean, a band that has been on the floor still shows how much that was. Where one has
not, the long-term spectrum of speech stands in for the bands' levels (Byrne et al.: "An international comparison of
long-term average speech spectra", JASA 1994).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from voxport.runtime.frontend.log_mel import hz_to_mel, mel_filterbank, mel_to_hz, speech_level, window
from voxport.runtime.frontend.spec import Frontend
from voxport.train.effects import draws
from voxport.train.effects.options import AugmentOptions
from voxport.train.effects.signals import fitted_rows

Energies = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Voices = Callable[[int, np.random.Generator], Sequence[Energies]]

_BANDS_HZ = (63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630, 800, 1000, 1250, 1600, 2000, 2500, 3150, 4000, 5000,
             6300, 8000, 10000, 12500, 16000)  # fmt: skip
_SPEECH_DB = (38.6, 43.5, 54.4, 57.7, 56.8, 60.2, 60.3, 59.0, 62.1, 62.1, 60.5, 56.8, 53.7, 53.0, 52.0, 48.7, 48.1,
              46.8, 45.6, 44.5, 44.3, 43.7, 43.4, 41.3, 40.7)  # fmt: skip
_SPEECH_RMS = 0.05  # of full scale
_PAUSES = 10 ** (-13.5 / 10)  # mean of the logarithm against logarithm of the mean; measured on LibriSpeech
_EFFECTS = ("speed", "tempo", "room", "noise", "babble", "gain", "tilt", "band")
_ON_FLOOR = 3  # frames of a band with its lowest value, so that this is the floor
_NEAR_FLOOR = 1.02  # times the floor, which float16 rounds by up to 1 %
_ROUNDING = 1e-3  # relative; float16, in which features are stored, rounds by half of that
_HUM_DB = (-65.0, -40.0)  # what a device's own noise is below speech, once its band is limited


def energies_of(features: Features, frontend: Frontend) -> Energies:
    """Energies (frames, bands) of features, up to what the frontend's normalisation took.

    Raises:
        ValueError: the frontend divides by the standard deviation, which takes too much.
    """
    if frontend.normalize == "mean_std":
        raise ValueError(f"frontend {frontend.name} divides by each band's deviation, which cannot be undone")
    exact = exact_energies(features, frontend)
    return _exp(features.astype(np.float64), frontend) * _speech(frontend) if exact is None else exact


def exact_energies(features: Features, frontend: Frontend) -> Energies | None:
    """Energies (frames, bands), the floor's among them, or None where the frontend's normalisation took their scale.

    With the mean subtracted that is where a band has not been on the floor, which several equal lowest values show.
    """
    values = features.astype(np.float64)
    if frontend.normalize == "none":
        return _exp(values, frontend)
    if frontend.normalize == "mean_std":
        return None
    lowest = values.min(axis=0)
    low = values <= lowest + _ROUNDING * np.maximum(np.abs(lowest), 1.0)
    if (low.sum(axis=0) < _ON_FLOOR).any():
        return None
    return np.where(low, frontend.floor, frontend.floor * _exp(values - lowest, frontend))


def audible(energies: Energies, frontend: Frontend) -> Energies:
    """`energies`, in which what lies on the floor is nothing: it was below, and no gain may lift the floor."""
    return np.where(energies <= frontend.floor * _NEAR_FLOOR, 0.0, energies)


def features_of(energies: Energies, frontend: Frontend, exact: bool) -> Features:
    """Features (frames, bands) of energies, as the frontend ends: level, floor, logarithm, mean.

    Where the energies are not `exact` the floor's place among them is not known: there is none.
    """
    if frontend.level is not None:
        energies = energies * (frontend.level / max(speech_level(energies), frontend.quietest))
    floored = np.maximum(energies, frontend.floor if exact else np.finfo(np.float64).tiny)
    values = np.log(floored) if frontend.log == "ln" else 20 * np.log10(floored)
    if frontend.normalize == "mean":
        values -= values.mean(axis=0)
    return values.astype(np.float32)


def _exp(values: Energies, frontend: Frontend) -> Energies:
    return np.asarray(np.exp(values) if frontend.log == "ln" else 10 ** (values / 20))


def change_energies(
    energies: Energies, options: AugmentOptions, frontend: Frontend, voices: Voices, generator: np.random.Generator
) -> Energies:
    """A changed copy of `energies` (frames, bands); other speeds give another length.

    `voices` gives at most so many other speakers' energies. As in `chain.change`, every decision draws a number.
    """
    wanted = dict(zip(_EFFECTS, generator.random(len(_EFFECTS)), strict=True))
    if wanted["speed"] < options.speed:
        energies = faster(energies, draws.between(options.speed_factors, generator), frontend)
    if wanted["tempo"] < options.tempo:
        energies = _stretched(energies, draws.between(options.tempo_factors, generator))
    if wanted["room"] < options.room + options.playback:
        t60, direct_db = draws.between(options.room_t60_s, generator), generator.uniform(-9, 9)
        energies = reverberant(energies, t60, direct_db, frontend.hop_length / frontend.sample_rate)
    if wanted["noise"] < options.noise:
        noise = noise_energies(len(energies), generator.uniform(-2, 0.3), frontend, generator)
        energies = mixed(energies, noise, draws.between(options.noise_snr_db, generator))
    if wanted["babble"] < options.babble:
        low, high = options.talkers
        talk = voices(int(generator.integers(int(low), int(high) + 1)), generator)
        energies = babbled(energies, talk, options.babble_snr_db, generator)
    if wanted["gain"] < options.gain:
        energies = energies * 10 ** (draws.between(options.gain_db, generator) / 10)
    if wanted["tilt"] < options.tilt:
        energies = tilted(energies, draws.between(options.tilt_db, generator))
    if wanted["band"] < options.band + options.codec:
        low, high = draws.between(options.band_low_hz, generator), draws.between(options.band_high_hz, generator)
        energies = with_hum(limited(energies, low, high, frontend), frontend, generator)
    return energies


def faster(energies: Energies, factor: float, frontend: Frontend) -> Energies:
    """As if the sound were played `factor` times as fast: fewer frames, and every band's content higher up."""
    centres = _centres(frontend)
    places = np.interp(hz_to_mel(centres / factor, frontend), hz_to_mel(centres, frontend), np.arange(len(centres)))
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, len(centres) - 1)
    share = places - below
    return _stretched(energies[:, below] * (1 - share) + energies[:, above] * share, factor)


def _stretched(energies: Energies, factor: float) -> Energies:
    count = max(1, round(len(energies) / factor))
    places = np.linspace(0, len(energies) - 1, count)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, len(energies) - 1)
    share = (places - below)[:, None]
    return np.asarray(energies[below] * (1 - share) + energies[above] * share)


def reverberant(energies: Energies, t60: float, direct_db: float, hop_s: float) -> Energies:
    """Energies in a room: each frame decays by 60 dB in `t60` seconds, the tail `direct_db` below the direct sound."""
    from scipy.signal import lfilter

    decay = 10 ** (-6 * hop_s / t60)
    tail = lfilter([0, 1 - decay], [1, -decay], energies, axis=0)
    return np.asarray(energies + tail * 10 ** (-direct_db / 10))


def noise_energies(count: int, slope: float, frontend: Frontend, generator: np.random.Generator) -> Energies:
    """Energies (count, bands) of Gaussian noise whose power goes with frequency ** `slope`, of any level.

    A band's energy is a sum over its FFT bins, each exponentially distributed: a gamma distribution.
    """
    bins = np.maximum((mel_filterbank(frontend) > 0).sum(axis=0), 1)
    return generator.gamma(bins, 1 / bins, (count, frontend.n_mels)) * _shape(frontend, slope)


def mixed(energies: Energies, noise: Energies, snr_db: float) -> Energies:
    """Sum at a ratio of mean energies. Different sounds' phases are independent, so that energies add up."""
    loud = float(noise.mean())
    return energies + noise * (float(energies.mean()) / loud * 10 ** (-snr_db / 10)) if loud > 0 else energies


def babbled(
    energies: Energies, talk: Sequence[Energies], snr_db: Sequence[float], generator: np.random.Generator
) -> Energies:
    """Among other voices, all as loud, which together lie below by a ratio drawn from `snr_db`; alone without any."""
    if not talk:
        return energies
    rows = [fitted_rows(voice, len(energies), generator) / max(float(voice.mean()), 1e-30) for voice in talk]
    return mixed(energies, np.sum(rows, axis=0), draws.between(snr_db, generator))


def tilted(energies: Energies, tilt_db: float) -> Energies:
    """Bands raised evenly, from nothing at the lowest to `tilt_db` at the highest."""
    return np.asarray(energies * 10 ** (np.linspace(0, tilt_db, energies.shape[1]) / 10))


def with_hum(energies: Energies, frontend: Frontend, generator: np.random.Generator) -> Energies:
    """With a device's own noise, far below the speech."""
    hum = noise_energies(len(energies), generator.uniform(-1, 0), frontend, generator)
    return mixed(energies, hum, -draws.between(_HUM_DB, generator))


def limited(energies: Energies, low: float, high: float, frontend: Frontend) -> Energies:
    """Only the bands from `low` to `high` Hz, with the slopes of a Butterworth filter of fourth order."""
    centres = _centres(frontend)
    lower = (centres / max(low, 1e-3)) ** 8
    return np.asarray(energies * (lower / (1 + lower)) / (1 + (centres / high) ** 8))


def _centres(frontend: Frontend) -> Energies:
    limits = hz_to_mel(np.array([frontend.f_min, frontend.f_max]), frontend)
    return mel_to_hz(np.linspace(limits[0], limits[1], frontend.n_mels + 2)[1:-1], frontend)


@lru_cache(maxsize=256)
def _shape(frontend: Frontend, slope: float) -> Energies:
    """Mean energies (bands,) of noise with this slope."""
    hz = np.arange(frontend.n_fft // 2 + 1) * frontend.sample_rate / frontend.n_fft
    return _through(frontend, np.maximum(hz, hz[1]) ** slope)


@lru_cache(maxsize=16)
def _speech(frontend: Frontend) -> Energies:
    """The energies (bands,) whose logarithm is taken for the mean over an utterance of speech."""
    hz = np.maximum(np.arange(frontend.n_fft // 2 + 1) * frontend.sample_rate / frontend.n_fft, _BANDS_HZ[0])
    # Levels of third octaves, whose width grows with frequency, as a density.
    density = 10 ** (np.interp(np.log(hz), np.log(_BANDS_HZ), _SPEECH_DB) / 10) / hz
    power = (_SPEECH_RMS * frontend.sample_scale) ** 2 * float(np.square(window(frontend)).sum())
    return np.asarray(np.maximum(_through(frontend, density / density.mean() * power) * _PAUSES, frontend.floor))


def _through(frontend: Frontend, spectrum: Energies) -> Energies:
    """Energies (bands,) of a power spectrum (bins,), with the frontend's pre-emphasis."""
    angle = np.pi * np.arange(len(spectrum)) / (len(spectrum) - 1)
    emphasis = np.abs(1 - frontend.preemphasis * np.exp(-1j * angle)) ** 2
    powers = (spectrum * emphasis) ** (frontend.power / 2) * frontend.spectrum_scale
    return np.asarray(np.maximum(powers @ mel_filterbank(frontend), 1e-300))
