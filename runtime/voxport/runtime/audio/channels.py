"""The channels of a sound: one voice in all of them, or a voice in each.

Averaging is right for a stereo recording of one voice. It is wrong for a call that has a party in each channel, and
where the channels cancel each other, as after a cable was wired wrongly, it leaves nothing. So the channels are
compared first, in frames of 20 ms:

- A channel's level is that of its active speech, the contraharmonic mean of the frames' amplitudes squared. A channel
  more than `SILENT_DB` below the loudest, or below `FLOOR_DB`, is silent and is left out.
- Two channels are of one sound where their samples correlate (|r| of at least `CORRELATED`) or their levels move
  together: over the frames in which one of them is within `ACTIVE_DB` of its level, the difference of their levels
  has a standard deviation of at most `STEADY_DB`. Otherwise they differ.
- Where no two differ they are averaged, unless the average is more than `CANCEL_DB` below the mean power of the
  channels: then they cancel, and the loudest stands for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import AudioError, ChannelError

FRAME_SECONDS = 0.02
SILENT_DB, FLOOR_DB = 30.0, -90.0  # below the loudest channel; below full scale
ACTIVE_DB, STEADY_DB = 20.0, 7.0
CORRELATED = 0.85
CANCEL_DB = 6.0

Channel = int | Literal["mix"]  # a channel by its number, of which 1 is the first; or the average of all
ChannelChoice = Channel | Literal["each"]

_QUIETEST = 1e-12  # a power of -120 dB; digital silence has no logarithm
_FARTHEST = 30.0  # dB; a larger difference of levels says no more


@dataclass(frozen=True)
class Channels:
    """What the channels of a sound have to do with each other.

    `levels_db` are their levels of active speech, and `mix_db` that of their average, in dB relative to full scale.
    `heard` are the numbers (from 1) of those that are not silent. `differ` says that two of these hold different
    sounds, `cancel` that averaging would take away most of the sound.
    """

    levels_db: tuple[float, ...]
    mix_db: float
    heard: tuple[int, ...]
    differ: bool
    cancel: bool

    @property
    def loudest(self) -> int:
        """The number of the channel with the highest level; of several within 0.1 dB (rounding), the first."""
        highest = max(self.levels_db)
        return next(number for number, level in enumerate(self.levels_db, 1) if level >= highest - 0.1)

    @property
    def usual(self) -> tuple[Channel, ...]:
        """What is heard where the user decided nothing: every voice once."""
        if self.differ:
            return self.heard
        if self.cancel or len(self.heard) == 1 < len(self.levels_db):
            return (self.loudest,)
        return ("mix",)


class ChannelMeter:
    """Compares channels of samples that come in blocks; its answer does not depend on the blocks' sizes."""

    def __init__(self, sample_rate: int) -> None:
        """Nothing heard yet, of samples at `sample_rate` Hz."""
        self._frame = max(1, round(sample_rate * FRAME_SECONDS))
        self._rest: npt.NDArray[np.float32] | None = None
        self._products: list[npt.NDArray[np.float32]] = []

    def push(self, samples: npt.NDArray[Any]) -> None:
        """Take the next samples (n, channels), full scale [-1, 1]."""
        joined = samples if self._rest is None else np.concatenate([self._rest, samples])
        whole = len(joined) // self._frame * self._frame
        self._measure(joined[:whole])
        self._rest = joined[whole:].astype(np.float32)

    def finish(self, name: str = "the sound") -> Channels:
        """The comparison of everything that was pushed; `name` is what a message calls it.

        Raises:
            AudioError: nothing was.
        """
        if self._rest is not None:
            self._measure(self._rest, len(self._rest))
        if not self._products:
            raise AudioError(f"{name}: holds no samples; a sound file with at least one frame is needed")
        return _compare(np.concatenate(self._products).astype(np.float64))

    def _measure(self, samples: npt.NDArray[Any], frame: int | None = None) -> None:
        frame = frame or self._frame
        if len(samples) == 0:
            return
        frames = samples.reshape(-1, frame, samples.shape[1]).astype(np.float64)
        frames -= frames.mean(axis=1, keepdims=True)  # a DC offset is no sound
        # The average is measured, and not computed from the products: where channels cancel, only rounding is left.
        frames = np.concatenate([frames, frames.mean(axis=2, keepdims=True)], axis=2)
        self._products.append((np.einsum("fsi,fsj->fij", frames, frames) / frame).astype(np.float32))


def compare_channels(samples: npt.NDArray[Any], sample_rate: int) -> Channels:
    """Compare the channels of `samples` (n, channels) at `sample_rate` Hz."""
    meter = ChannelMeter(sample_rate)
    meter.push(samples)
    return meter.finish()


def check_channel(channel: object, name: str = "channel") -> None:
    """Raise AudioError unless `channel` is a number from 1 on, "mix", "each" or None."""
    if channel is None or channel in ("mix", "each"):
        return
    if isinstance(channel, bool) or not isinstance(channel, (int, np.integer)) or channel < 1:
        raise AudioError(f"{name} must be a channel's number from 1 on, mix or each, found {channel!r:.60}")


def check_one_channel(channel: object) -> None:
    """Raise AudioError unless `channel` is a number from 1 on, "mix" or None."""
    check_channel(channel)
    if channel == "each":
        raise AudioError(
            "channel must be a number from 1 on or mix: one answer is asked for, and each channel has its own"
        )


def parse_channel(text: str) -> ChannelChoice:
    """What a user typed: a number, mix or each. Raises AudioError for anything else."""
    choice: object = int(text) if text.isascii() and text.isdigit() else text
    check_channel(choice)
    return choice  # type: ignore[return-value]


def choose_channels(found: Channels, wanted: ChannelChoice | None, name: str) -> tuple[Channel, ...]:
    """The channels to hear of the sound `name`: those that the user wants, else `Channels.usual`.

    Raises:
        AudioError: the sound has no such channel.
    """
    count = len(found.levels_db)
    if wanted is None:
        return found.usual
    if wanted == "each":
        return tuple(range(1, count + 1))
    if wanted != "mix" and wanted > count:
        raise AudioError(f"{name}: has no channel {wanted}; there {_are(count)}")
    return (wanted,)


def pick(samples: npt.NDArray[Any], channel: Channel, name: str) -> npt.NDArray[Any]:
    """One channel (n,) of `samples` (n,) or (n, channels), or their average.

    Raises:
        AudioError: there is no such channel.
    """
    count = 1 if samples.ndim == 1 else samples.shape[1]
    if channel != "mix" and channel > count:
        raise AudioError(f"{name}: has no channel {channel}; there {_are(count)}")
    if samples.ndim == 1:
        return samples
    return samples.mean(axis=1, dtype=np.float64) if channel == "mix" else samples[:, channel - 1].copy()


def cancel_text(found: Channels, taken: Channel) -> str:
    """What is said where the channels cancel: a clause that follows the sound's name."""
    levels = ", ".join(f"{level:.0f}" for level in found.levels_db)
    what = "their average" if taken == "mix" else f"channel {taken}"
    return (
        f"its channels cancel each other ({levels} dB, their average {found.mix_db:.0f} dB), so {what} is heard; "
        "choose another with --channel"
    )


def refuse_several(found: Channels, name: str) -> ChannelError:
    """The error for where one voice is needed and the channels hold several."""
    numbers = " and ".join(map(str, found.heard)) if len(found.heard) == 2 else ", ".join(map(str, found.heard))
    return ChannelError(
        f"{name}: channels {numbers} hold different sounds; choose one with --channel N (channel=N in Python), "
        "or --channel mix for their average"
    )


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"


def _compare(products: npt.NDArray[np.float64]) -> Channels:
    """Compare by the mean products of the samples of each frame, (frames, n, n) of n - 1 channels and their average."""
    *levels, mix = _level(np.diagonal(products, axis1=1, axis2=2)).tolist()
    count = len(levels)
    loudest = max(levels)
    heard = [i for i in range(count) if levels[i] >= max(loudest * 10 ** (-SILENT_DB / 10), 10 ** (FLOOR_DB / 10))]
    differ = any(not _same(products, levels, i, j) for i in heard for j in heard if i < j)
    mean = sum(levels[i] for i in heard) / max(1, len(heard))
    cancel = len(heard) > 1 and not differ and mix < mean * 10 ** (-CANCEL_DB / 10)
    return Channels(tuple(map(_decibels, levels)), _decibels(mix), tuple(i + 1 for i in heard), differ, cancel)


def _same(products: npt.NDArray[np.float64], levels: Sequence[float], i: int, j: int) -> bool:
    one, other = products[:, i, i], products[:, j, j]
    reach = 10 ** (-ACTIVE_DB / 10)
    active = (one >= reach * levels[i]) | (other >= reach * levels[j])
    together = float(products[active, i, j].sum())
    if together**2 >= CORRELATED**2 * float(one[active].sum()) * float(other[active].sum()):
        return True
    # Each level is counted from the channel's own, and not below where its sound ends.
    steps = [
        10 * np.log10(np.maximum(x[active] / levels[k], 10 ** (-_FARTHEST / 10))) for x, k in ((one, i), (other, j))
    ]
    return float((steps[0] - steps[1]).std()) <= STEADY_DB


def _level(powers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The level of active speech of each column of `powers` (frames, channels), as a power."""
    amplitudes = np.sqrt(np.maximum(powers, 0)).sum(axis=0)
    return np.asarray((powers.sum(axis=0) / np.maximum(amplitudes, 1e-30)) ** 2)


def _decibels(power: float) -> float:
    return float(10 * np.log10(max(float(power), _QUIETEST)))
