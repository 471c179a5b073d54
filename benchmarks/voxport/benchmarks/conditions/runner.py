"""The conditions of `voxport bench conditions`: clean sound changed in the ways in which recordings differ.

Six kinds, as the public benchmark CASE has them (clean, codec, microphone, noise, reverberation, playback).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from voxport.train.effects import codecs, draws, rooms, signals
from voxport.train.effects.kinds import KINDS, Kind

Samples = npt.NDArray[np.float32]
__all__ = ["CONDITIONS", "KINDS", "Condition", "Kind", "RoomBank", "Surroundings"]

_TALKERS = 5  # voices in babble
_ROOMS = 4  # of each reverberation time; files take turns


class Surroundings(Protocol):
    """What a condition may need beside the sound itself."""

    sample_rate: int

    def voices(self, count: int, generator: np.random.Generator) -> list[Samples]:
        """Sounds of `count` other speakers than the one of the sound that is being changed."""
        ...

    def room(self, t60: float, generator: np.random.Generator) -> Samples:
        """The response of one of the rooms with this reverberation time."""
        ...


Change = Callable[[Samples, Surroundings, np.random.Generator], Samples]


@dataclass(frozen=True)
class Condition:
    """A named change of sound."""

    name: str
    kind: Kind
    change: Change


def _gain(decibels: float) -> Change:
    return lambda sound, *_: signals.gain(sound, decibels)


def _clip(factor: float) -> Change:
    return lambda sound, *_: signals.clip(sound, factor)


def _band(low: float, high: float) -> Change:
    return lambda sound, around, _: signals.band(sound, around.sample_rate, low, high)


def _white(snr_db: float) -> Change:
    return lambda sound, _, chance: signals.add(sound, signals.coloured_noise(len(sound), 0.0, chance), snr_db)


def _babble(snr_db: float) -> Change:
    def change(sound: Samples, around: Surroundings, chance: np.random.Generator) -> Samples:
        return signals.add(sound, signals.babble(len(sound), around.voices(_TALKERS, chance), chance), snr_db)

    return change


def _room(t60: float) -> Change:
    return lambda sound, around, chance: rooms.reverberate(sound, around.room(t60, chance))


def _playback(t60: float) -> Change:
    def change(sound: Samples, around: Surroundings, chance: np.random.Generator) -> Samples:
        return rooms.play_back(sound, around.sample_rate, around.room(t60, chance), chance)

    return change


def _codec(name: str) -> Change:
    return lambda sound, around, _: codecs.code(sound, around.sample_rate, name)


def _speed(factor: float) -> Change:
    return lambda sound, *_: signals.speed(sound, factor)


CONDITIONS: tuple[Condition, ...] = (
    Condition("clean", "clean", lambda sound, *_: sound),
    Condition("telephone (8 kHz, µ-law)", "codec", _codec("mu_law")),
    Condition("GSM", "codec", _codec("gsm")),
    Condition("MP3, lowest rate", "codec", _codec("mp3_lowest")),
    Condition("Opus, lowest rate", "codec", _codec("opus_lowest")),
    Condition("gain -40 dB", "microphone", _gain(-40)),
    Condition("gain -30 dB", "microphone", _gain(-30)),
    Condition("gain -20 dB", "microphone", _gain(-20)),
    Condition("gain -10 dB", "microphone", _gain(-10)),
    Condition("gain +6 dB", "microphone", _gain(6)),
    Condition("gain +12 dB", "microphone", _gain(12)),
    Condition("clipped, ×3", "microphone", _clip(3)),
    Condition("clipped, ×10", "microphone", _clip(10)),
    Condition("DC offset 0.1", "microphone", lambda sound, *_: sound + np.float32(0.1)),
    Condition("band 150-5000 Hz", "microphone", _band(150, 5000)),
    Condition("white noise, 20 dB", "noise", _white(20)),
    Condition("white noise, 10 dB", "noise", _white(10)),
    Condition("white noise, 5 dB", "noise", _white(5)),
    Condition("babble, 20 dB", "noise", _babble(20)),
    Condition("babble, 10 dB", "noise", _babble(10)),
    Condition("babble, 5 dB", "noise", _babble(5)),
    Condition("T60 0.3 s", "reverberation", _room(0.3)),
    Condition("T60 0.8 s", "reverberation", _room(0.8)),
    Condition("loudspeaker, T60 0.3 s", "playback", _playback(0.3)),
    Condition("speed -10 %", "playback", _speed(0.9)),
    Condition("speed -5 %", "playback", _speed(0.95)),
    Condition("speed +5 %", "playback", _speed(1.05)),
    Condition("speed +10 %", "playback", _speed(1.1)),
)


class RoomBank:
    """A few seeded rooms of each reverberation time, simulated when first asked for."""

    def __init__(self, sample_rate: int, seed: int) -> None:
        self.sample_rate, self._seed = sample_rate, seed
        self._made: dict[tuple[float, int], Samples] = {}

    def room(self, t60: float, generator: np.random.Generator) -> Samples:
        key = (t60, int(generator.integers(_ROOMS)))
        if key not in self._made:
            chance = draws.generator("bench", self._seed, "room", str(t60), key[1])
            self._made[key] = rooms.room_response(t60, self.sample_rate, chance)
        return self._made[key]
