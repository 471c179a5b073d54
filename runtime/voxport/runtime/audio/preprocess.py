"""A sound or its features → the array that a model's graph takes."""

import os
import stat
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.decode import audio_seconds, check_layout, check_rate, check_samples, read_audio, resample
from voxport.runtime.contract import Contract
from voxport.runtime.errors import AudioError, VoxportError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.length_range import LengthRange

Sound = str | os.PathLike[str] | npt.NDArray[np.floating] | npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Prepared:
    """One input of the graph: float32 (frames, n_mels) or (samples,), and its seconds of sound."""

    values: npt.NDArray[np.float32]
    seconds: float


def prepare_sound(contract: Contract, sound: Sound, sample_rate: int | None, name: str = "the sound") -> Prepared:
    """Decode or check a sound, bring it to the frontend's rate, check its length, compute features.

    A sound that is too long is refused as soon as that is known: a file is decoded no further than the
    model can hear, an array is neither checked nor resampled.

    Raises:
        AudioError: it cannot be decoded or holds no usable samples.
        LengthError: it gives too few or too many frames; said before any feature is computed.
    """
    rate, allowed = contract.frontend.sample_rate, LengthRange.of_sound(contract)
    if isinstance(sound, (str, os.PathLike)):
        name = os.fspath(sound)
        samples = _decoded(sound, rate, allowed)
    else:
        given_rate = _whole_rate(sample_rate, name)
        samples = _checked(_array(sound, name), given_rate, rate, allowed, name)
    allowed.check(np.array([samples.size]), (name,))
    if contract.input_kind == "features":
        return Prepared(compute_features(samples, contract.frontend), samples.size / rate)
    return Prepared(samples, samples.size / rate)


def _decoded(sound: str | os.PathLike[str], rate: int, allowed: LengthRange) -> npt.NDArray[np.float32]:
    samples = read_audio(sound, rate, enough=allowed.longest)
    if samples.size > allowed.longest:
        # The header says how long it is in all; where it says nothing, or less, what was decoded is true.
        claimed = round((audio_seconds(sound) or 0.0) * rate)
        allowed.check(np.array([max(samples.size, claimed)]), (os.fspath(sound),))
    return samples


def _checked(
    array: npt.NDArray[Any], given_rate: int, rate: int, allowed: LengthRange, name: str
) -> npt.NDArray[np.float32]:
    layout = check_layout(array, name)
    if given_rate != rate:
        check_rate(given_rate, "sample_rate")
    coming = round(len(layout) * rate / given_rate)
    if coming > allowed.longest + 1:  # the resampler may round by one sample
        allowed.check(np.array([coming]), (name,))
    samples = check_samples(layout, name)
    return samples if given_rate == rate else resample(samples, given_rate, rate)


def prepare_features(contract: Contract, features: npt.ArrayLike, name: str = "the features") -> Prepared:
    """Check features (frames, n_mels) that were computed elsewhere with the contract's frontend.

    Raises:
        VoxportError: the model takes samples, or a wrong type, shape or value.
        LengthError: too few or too many frames.
    """
    if contract.input_kind != "features":
        raise VoxportError(f"{name}: this model takes sound, not features; pass samples or a sound file")
    values = _array(features, name)
    n_mels = contract.frontend.n_mels
    if values.ndim != 2 or values.shape[1] != n_mels or not np.issubdtype(values.dtype, np.floating):
        raise VoxportError(
            f"{name}: expected floating-point features of shape (frames, {n_mels}), "
            f"found {values.dtype} of shape {values.shape}"
        )
    allowed = LengthRange.of_features(contract)
    allowed.check(np.array([len(values)]), (name,))
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
        values = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(values).all():
        raise VoxportError(f"{name}: the features hold NaN or infinite values")
    return Prepared(values, allowed.seconds(len(values)))


def read_features(path: str | os.PathLike[str]) -> npt.NDArray[np.float32]:
    """The array of a `.npy` file, mapped, not read: its size is checked before it costs memory.

    Raises:
        VoxportError: no such file, damaged, or not an array of plain numbers.
    """
    try:
        # A pipe would wait for ever and a device has no end, so the kind is asked before the file is opened.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise VoxportError(f"{os.fspath(path)}: is no regular file; expected a NumPy array of features (.npy)")
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as problem:
        raise VoxportError(f"{os.fspath(path)}: cannot be read ({problem.strerror or problem})") from problem
    except (ValueError, OverflowError) as problem:  # Python objects are among them: they are never unpickled
        raise VoxportError(
            f"{os.fspath(path)}: no NumPy array of features ({problem}); write it with numpy.save"
        ) from problem


def _whole_rate(sample_rate: int | None, name: str) -> int:
    if sample_rate is None:
        raise AudioError(f"{name}: samples need their sample rate; pass sample_rate in Hz")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, np.integer)):
        raise AudioError(f"{name}: sample_rate must be a whole number of Hz, found {sample_rate!r:.60}")
    return int(sample_rate)


def _array(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as problem:  # ragged lists, objects that refuse
        raise VoxportError(f"{name}: expected an array of numbers ({problem})") from problem
