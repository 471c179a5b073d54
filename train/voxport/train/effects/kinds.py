"""One change of a sound by kind, drawn from a wide range: what calibration is done over.

The kinds are those of the public benchmark CASE. `voxport bench conditions` has fixed conditions of the same kinds,
with random numbers of its own.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from voxport.train.effects import codecs, rooms, signals
from voxport.train.effects.chain import Material
from voxport.train.effects.signals import Samples

Kind = Literal["clean", "codec", "microphone", "noise", "reverberation", "playback"]

KINDS: tuple[Kind, ...] = ("clean", "codec", "microphone", "noise", "reverberation", "playback")

_Change = Callable[[Samples, Material, np.random.Generator], Samples]


def change_of_kind(sound: Samples, kind: Kind, material: Material, generator: np.random.Generator) -> Samples:
    """`sound` (n,) changed in one way of `kind`; other speeds, a kind of playback, give another length."""
    return _CHANGES[kind](sound, material, generator)


def _codec(sound: Samples, material: Material, generator: np.random.Generator) -> Samples:
    names = sorted(codecs.CODECS)
    return codecs.code(sound, material.sample_rate, names[int(generator.integers(len(names)))])


def _microphone(sound: Samples, material: Material, generator: np.random.Generator) -> Samples:
    which = int(generator.integers(3))
    if which == 0:
        return signals.gain(sound, generator.uniform(-40, 12))
    if which == 1:
        peak = float(np.abs(sound).max(initial=0.0))
        return signals.clip(sound, generator.uniform(1.5, 10) / max(peak, 1e-4))
    return signals.band(sound, material.sample_rate, generator.uniform(50, 400), generator.uniform(3000, 7000))


def _noise(sound: Samples, material: Material, generator: np.random.Generator) -> Samples:
    snr_db = generator.uniform(5, 25)
    if generator.random() < 0.5:
        return signals.add(sound, material.noise(len(sound), generator), snr_db)
    voices = material.voices(int(generator.integers(3, 7)), generator)
    return signals.add(sound, signals.babble(len(sound), voices, generator), snr_db) if voices else sound


def _reverberation(sound: Samples, material: Material, generator: np.random.Generator) -> Samples:
    return rooms.reverberate(sound, material.response(generator))


def _playback(sound: Samples, material: Material, generator: np.random.Generator) -> Samples:
    if generator.random() < 0.5:
        return rooms.play_back(sound, material.sample_rate, material.response(generator), generator)
    return signals.speed(sound, generator.uniform(0.9, 1.1))


_CHANGES: dict[str, _Change] = {
    "clean": lambda sound, *_: sound,
    "codec": _codec,
    "microphone": _microphone,
    "noise": _noise,
    "reverberation": _reverberation,
    "playback": _playback,
}
