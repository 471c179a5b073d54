"""Noises and room responses of folders that users have, and of our own making.

Recognised are MUSAN (Snyder, Chen, Povey: "MUSAN: A Music, Speech, and Noise Corpus", 2015) and OpenSLR 28 (Ko et
al.: "A study on data augmentation of reverberant speech for robust speech recognition", ICASSP 2017); any other folder
is taken for what the user says that it is.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxport.runtime.errors import VoxportError
from voxport.train.effects import draws, rooms, signals
from voxport.train.effects.options import AugmentOptions
from voxport.train.effects.signals import Samples

_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".opus", ".aif", ".aiff"})
_SLOPES = (-2.0, 0.0)  # of coloured noise: from brown to white
_KNOWN = 64  # sounds that a process keeps


@dataclass(frozen=True)
class Found:
    """The sound files of a folder, sorted, and what the folder was taken for."""

    files: tuple[Path, ...]
    layout: str


def find_noises(folder: Path) -> Found:
    """Noise and music of MUSAN, point sources of OpenSLR 28, or every sound file below `folder`.

    MUSAN's speech is left out: training makes babble of its own speakers, who are not to be recognised in noise.

    Raises:
        VoxportError: there is no such folder, or no sound in it.
    """
    root = _below(folder, "musan")
    if (root / "noise").is_dir() and ((root / "music").is_dir() or (root / "speech").is_dir()):
        return Found(_files(folder, [root / "noise", root / "music"]), "MUSAN, noise and music")
    root = _below(folder, "RIRS_NOISES")
    if (root / "pointsource_noises").is_dir():
        return Found(_files(folder, [root / "pointsource_noises"]), "OpenSLR 28, point sources")
    return Found(_files(folder, [folder]), "a folder of noises")


def find_responses(folder: Path) -> Found:
    """Simulated and measured responses of OpenSLR 28, or every sound file below `folder`.

    Raises:
        VoxportError: there is no such folder, or no sound in it.
    """
    root = _below(folder, "RIRS_NOISES")
    parts = [root / name for name in ("simulated_rirs", "real_rirs_isotropic_noises") if (root / name).is_dir()]
    if not parts:
        return Found(_files(folder, [folder]), "a folder of room responses")
    files = _files(folder, parts)
    # Its measured part holds the rooms' noises beside their responses.
    kept = tuple(file for file in files if file.parent.name != "real_rirs_isotropic_noises" or "_rir_" in file.name)
    return Found(kept, "OpenSLR 28, room responses")


def _below(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder


def _files(folder: Path, parts: Sequence[Path]) -> tuple[Path, ...]:
    files = sorted(file for part in parts for file in part.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise VoxportError(f"{folder}: holds no sound files ({', '.join(sorted(_SUFFIXES))}); name another folder")
    return tuple(files)


def simulated_rooms(options: AugmentOptions, sample_rate: int, use: draws.Use, seed: int) -> tuple[Samples, ...]:
    """Responses of `options.rooms` rooms whose reverberation times are spread over the range of `options`."""
    low, high = options.room_t60_s
    times = low * (high / low) ** ((np.arange(options.rooms) + 0.5) / options.rooms)
    return tuple(
        rooms.room_response(float(t60), sample_rate, draws.generator(use, seed, "room", number), rooms.QUICK_ORDER)
        for number, t60 in enumerate(times)
    )


@dataclass
class Surroundings:
    """The `Material` of one corpus: its other speakers' sounds, rooms and noises.

    `speakers` (one for each sound) says whose sound number i is, `read` gives it, `read_file` gives a file's;
    `speaker` is the one whose sound is being changed.
    """

    sample_rate: int
    speakers: Sequence[int]
    read: Callable[[int], Samples]
    read_file: Callable[[Path], Samples]
    rooms: Sequence[Samples]
    noises: Sequence[Path] = ()
    responses: Sequence[Path] = ()
    speaker: int = -1

    def __post_init__(self) -> None:
        self._read = functools.lru_cache(_KNOWN)(self.read)
        self._file = functools.lru_cache(_KNOWN)(self.read_file)
        self._own: dict[int, list[int]] = {}
        for i, speaker in enumerate(self.speakers):
            self._own.setdefault(speaker, []).append(i)

    def voices(self, count: int, generator: np.random.Generator) -> list[Samples]:
        """One random sound each of `count` other speakers, or of all others where they are fewer."""
        others = [speaker for speaker in self._own if speaker != self.speaker]
        if not others:
            return []
        chosen = generator.choice(len(others), min(count, len(others)), replace=False)
        found = []
        for i in chosen:
            own = self._own[others[i]]
            found.append(self._read(own[int(generator.integers(len(own)))]))
        return found

    def response(self, generator: np.random.Generator) -> Samples:
        """A measured response where there are any, else one of the simulated rooms."""
        if not self.responses:
            return self.rooms[int(generator.integers(len(self.rooms)))]
        return rooms.trimmed(self._file(self.responses[int(generator.integers(len(self.responses)))]))

    def noise(self, count: int, generator: np.random.Generator) -> Samples:
        """A piece of one of the files where there are any, else coloured noise."""
        if not self.noises:
            return signals.coloured_noise(count, float(draws.between(_SLOPES, generator)), generator)
        return signals.fitted(self._file(self.noises[int(generator.integers(len(self.noises)))]), count, generator)
