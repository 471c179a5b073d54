"""A sound through the changes of `AugmentOptions`, one after another, each by chance."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from voxport.train.effects import codecs, draws, rooms, signals
from voxport.train.effects.options import AugmentOptions
from voxport.train.effects.signals import Samples


class Material(Protocol):
    """What changes need beside the sound itself; everything is drawn from the generator that they give."""

    sample_rate: int

    def voices(self, count: int, generator: np.random.Generator) -> Sequence[Samples]:
        """Sounds of at most `count` other speakers than the one of the sound that is being changed."""
        ...

    def response(self, generator: np.random.Generator) -> Samples:
        """The response of a room."""
        ...

    def noise(self, count: int, generator: np.random.Generator) -> Samples:
        """Noise (count,) of any level."""
        ...


def change(sound: Samples, options: AugmentOptions, material: Material, generator: np.random.Generator) -> Samples:
    """A copy of `sound` (n,); other speeds give another length.

    One number is drawn for every decision, whether it is needed or not, so that a probability that is changed
    in a recipe leaves the other effects' chances as they were.
    """
    wanted = dict(zip(_EFFECTS, generator.random(len(_EFFECTS)), strict=True))
    rate = material.sample_rate
    if wanted["speed"] < options.speed:
        sound = signals.speed(sound, draws.between(options.speed_factors, generator))
    if wanted["room"] < options.room:
        sound = rooms.reverberate(sound, material.response(generator))
    elif wanted["room"] < options.room + options.playback:
        sound = rooms.play_back(sound, rate, material.response(generator), generator)
    if wanted["noise"] < options.noise:
        noise = material.noise(len(sound), generator)
        sound = signals.add(sound, noise, draws.between(options.noise_snr_db, generator))
    if wanted["babble"] < options.babble:
        low, high = options.talkers
        voices = material.voices(int(generator.integers(int(low), int(high) + 1)), generator)
        if voices:
            babble = signals.babble(len(sound), voices, generator)
            sound = signals.add(sound, babble, draws.between(options.babble_snr_db, generator))
    if wanted["gain"] < options.gain:
        sound = signals.gain(sound, draws.between(options.gain_db, generator))
    if wanted["band"] < options.band:
        low, high = draws.between(options.band_low_hz, generator), draws.between(options.band_high_hz, generator)
        sound = signals.band(sound, rate, low, high)
    if wanted["clip"] < options.clip:
        peak = float(np.abs(sound).max(initial=0.0))
        # As many times full scale as the factor says, whatever the recording's level.
        sound = signals.clip(sound, draws.between(options.clip_factors, generator) / max(peak, 1e-4))
    if wanted["codec"] < options.codec:
        sound = codecs.code(sound, rate, options.codecs[int(generator.integers(len(options.codecs)))])
    return sound


_EFFECTS = ("speed", "room", "noise", "babble", "gain", "band", "clip", "codec")
