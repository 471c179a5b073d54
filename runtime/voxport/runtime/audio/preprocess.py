"""A sound or its features → the array that a model's graph takes."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import (
    Channel,
    ChannelChoice,
    Channels,
    cancel_text,
    check_channel,
    check_one_channel,
    choose_channels,
    refuse_several,
)
from voxport.runtime.audio.decode import audio_channels, audio_seconds, read_audio
from voxport.runtime.audio.samples import check_layout, check_rate, check_samples, resample, sample_channels
from voxport.runtime.contract import Contract
from voxport.runtime.errors import AudioError, VoxportError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.length_range import LengthRange
from voxport.runtime.notes import Described, Note
from voxport.runtime.quality import quality_notes
from voxport.runtime.speech import Speech, find_speech

Sound = str | os.PathLike[str] | npt.NDArray[np.floating] | npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Prepared:
    """One input of the graph: float32 (frames, n_mels) or (samples,), and its seconds of sound.

    `channel` is the number of the channel that it comes from; None where there is one, or all were averaged. `speech`
    is what the contract's rule found; None without a rule, and of features.
    """

    values: npt.NDArray[np.float32]
    seconds: float
    channel: int | None = None
    notes: tuple[Note, ...] = ()
    speech: Speech | None = None


def prepare_sound(
    contract: Contract,
    sound: Sound,
    sample_rate: int | None,
    name: str = "the sound",
    channel: Channel | None = None,
) -> Prepared:
    """Decode or check a sound, bring it to the frontend's rate, check its length, compute features.

    A sound that is too long is refused as soon as that is known: a file is decoded no further than the
    model can hear, an array is neither checked nor resampled. `channel` is the one to hear, or "mix" for the
    average; None compares the channels first (see `voxport.runtime.audio.channels`).

    Raises:
        AudioError: it cannot be decoded or holds no usable samples, or its channels hold different sounds.
        LengthError: it gives too few or too many frames; said before any feature is computed.
    """
    check_one_channel(channel)
    chosen = ChosenChannels.of(sound, sample_rate, name, channel)
    prepared = [chosen.prepare(contract, each) for each in chosen.channels]
    if len(prepared) == 1:
        return prepared[0]
    only, note = chosen.only(prepared)
    return replace(only, notes=(note, *only.notes))


def heard_channels(
    sound: str | os.PathLike[str] | npt.NDArray[Any], sample_rate: int | None, name: str, channel: ChannelChoice | None
) -> tuple[Channels | None, tuple[Channel, ...]]:
    """The channels of a sound that are to be heard where `channel` is wanted, and the comparison that says so.

    The comparison is None where the sound has one channel, or where the user's choice needs none.

    Raises:
        AudioError: the sound cannot be read, or has no such channel.
    """
    check_channel(channel)
    found = None
    if channel in (None, "each"):
        if isinstance(sound, (str, os.PathLike)):
            found = audio_channels(sound)
        elif sound.ndim == 2 and sound.shape[1] > 1:
            found = sample_channels(sound, _whole_rate(sample_rate, name), name)
    if found is not None:
        return found, choose_channels(found, channel, name)
    return None, ("mix" if channel is None or channel == "each" else channel,)


S = TypeVar("S", bound=Described)


@dataclass(frozen=True, eq=False)
class ChosenChannels:
    """A sound, and which `channels` of it are to be heard. `found` is None where they were not compared."""

    sound: str | os.PathLike[str] | npt.NDArray[Any]
    sample_rate: int | None
    name: str
    found: Channels | None
    channels: tuple[Channel, ...]

    @classmethod
    def of(cls, sound: Sound, sample_rate: int | None, name: str, channel: ChannelChoice | None) -> "ChosenChannels":
        """Compare the channels where that is asked for. Raises as `heard_channels` does."""
        if isinstance(sound, (str, os.PathLike)):
            name = os.fspath(sound)
        else:
            sound = _array(sound, name)
        return cls(sound, sample_rate, name, *heard_channels(sound, sample_rate, name, channel))

    def only(self, opened: Sequence[S]) -> tuple[S, Note]:
        """Of the channels, which hold different sounds, the one that holds speech, and a note that says so.

        Raises:
            ChannelError: several do, or none.
        """
        spoken = [each for each in opened if each.speech is not None and each.speech.found]
        if len(spoken) != 1:
            assert self.found is not None, "channels differ only where they were compared"
            raise refuse_several(self.found, self.name)
        text = f"only channel {spoken[0].channel} holds speech, and is heard; choose with --channel"
        return spoken[0], Note("channels", text)

    @property
    def notes(self) -> tuple[Note, ...]:
        """What the comparison says of the one channel that is heard."""
        if self.found is not None and self.found.cancel and len(self.channels) == 1:
            return (Note("channels", cancel_text(self.found, self.channels[0])),)
        return ()

    def prepare(self, contract: Contract, channel: Channel) -> Prepared:
        """One of the channels as the graph takes it; raises as `prepare_sound` does."""
        rate, allowed = contract.frontend.sample_rate, LengthRange.of_sound(contract)
        if isinstance(self.sound, (str, os.PathLike)):
            samples = _decoded(self.sound, rate, allowed, channel)
        else:
            samples = _checked(self.sound, _whole_rate(self.sample_rate, self.name), rate, allowed, self.name, channel)
        allowed.check(np.array([samples.size]), (self.name,))
        seconds, number, notes = samples.size / rate, None if channel == "mix" else channel, self.notes
        speech = None if contract.speech is None else find_speech(samples, rate, contract.speech)
        if speech is not None and speech.found:
            notes += quality_notes(samples, rate, contract.frontend.f_max, speech)
        if contract.input_kind == "features":
            samples = compute_features(samples, contract.frontend)
        return Prepared(samples, seconds, number, notes, speech)


def _decoded(
    sound: str | os.PathLike[str], rate: int, allowed: LengthRange, channel: Channel
) -> npt.NDArray[np.float32]:
    samples = read_audio(sound, rate, enough=allowed.longest, channel=channel)
    if samples.size > allowed.longest:
        # The header says how long it is in all; where it says nothing, or less, what was decoded is true.
        claimed = round((audio_seconds(sound) or 0.0) * rate)
        allowed.check(np.array([max(samples.size, claimed)]), (os.fspath(sound),))
    return samples


def _checked(
    array: npt.NDArray[Any], given_rate: int, rate: int, allowed: LengthRange, name: str, channel: Channel
) -> npt.NDArray[np.float32]:
    layout = check_layout(array, name)
    if given_rate != rate:
        check_rate(given_rate, "sample_rate")
    coming = round(len(layout) * rate / given_rate)
    if coming > allowed.longest + 1:  # the resampler may round by one sample
        allowed.check(np.array([coming]), (name,))
    samples = check_samples(layout, name, channel)
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
    except VoxportError:
        raise
    except Exception as problem:  # Python objects, never unpickled; and NumPy reads a damaged head as Python's text
        reason = " ".join(str(problem)[:200].split()) if isinstance(problem, ValueError) else type(problem).__name__
        raise VoxportError(
            f"{os.fspath(path)}: no NumPy array of features ({reason}); write it with numpy.save"
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
