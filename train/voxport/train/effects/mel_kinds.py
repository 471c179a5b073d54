"""One change of stored features by kind: what `kinds` does to a sound, as far as the mel bands' powers show it."""

from collections.abc import Callable

import numpy as np

from voxport.runtime.frontend.spec import Frontend
from voxport.train.effects.kinds import Kind
from voxport.train.effects.mel import (
    Energies,
    Voices,
    babbled,
    faster,
    limited,
    mixed,
    noise_energies,
    reverberant,
    tilted,
    with_hum,
)

_Change = Callable[[Energies, Frontend, Voices, np.random.Generator], Energies]

_SNR_DB = (5, 25)
_T60_S = (0.15, 1.0)
_DIRECT_DB = (-9, 9)


def change_energies_of_kind(
    energies: Energies, kind: Kind, frontend: Frontend, voices: Voices, generator: np.random.Generator
) -> Energies:
    """`energies` (frames, bands) changed in one way of `kind`. Playback's other speeds change their number."""
    return _CHANGES[kind](energies, frontend, voices, generator)


def _codec(energies: Energies, frontend: Frontend, _: Voices, generator: np.random.Generator) -> Energies:
    """The band of a telephone, or that of a codec at its lowest rates. What it does within the band is not heard."""
    low, high = ((200, 400), (3000, 3600)) if generator.random() < 0.5 else ((20, 100), (3400, 6000))
    narrow = limited(energies, generator.uniform(*low), generator.uniform(*high), frontend)
    return with_hum(narrow, frontend, generator)


def _microphone(energies: Energies, frontend: Frontend, _: Voices, generator: np.random.Generator) -> Energies:
    if generator.random() < 0.5:
        return tilted(energies, generator.uniform(-12, 12))
    narrow = limited(energies, generator.uniform(50, 400), generator.uniform(3000, 7000), frontend)
    return with_hum(narrow, frontend, generator)


def _noise(energies: Energies, frontend: Frontend, voices: Voices, generator: np.random.Generator) -> Energies:
    if generator.random() < 0.5:
        noise = noise_energies(len(energies), generator.uniform(-2, 0.3), frontend, generator)
        return mixed(energies, noise, generator.uniform(*_SNR_DB))
    return babbled(energies, voices(int(generator.integers(3, 7)), generator), _SNR_DB, generator)


def _reverberation(energies: Energies, frontend: Frontend, _: Voices, generator: np.random.Generator) -> Energies:
    t60, direct_db = generator.uniform(*_T60_S), generator.uniform(*_DIRECT_DB)
    return reverberant(energies, t60, direct_db, frontend.hop_length / frontend.sample_rate)


def _playback(energies: Energies, frontend: Frontend, voices: Voices, generator: np.random.Generator) -> Energies:
    if generator.random() < 0.5:
        return faster(energies, generator.uniform(0.9, 1.1), frontend)
    narrow = limited(energies, generator.uniform(150, 500), generator.uniform(3000, 7000), frontend)
    return _reverberation(narrow, frontend, voices, generator)


_CHANGES: dict[Kind, _Change] = {
    "clean": lambda energies, *_: energies,
    "codec": _codec,
    "microphone": _microphone,
    "noise": _noise,
    "reverberation": _reverberation,
    "playback": _playback,
}
