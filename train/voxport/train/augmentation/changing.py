"""One utterance and its changed copies as features, in a worker process. Must not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.corpora.layouts.base import Entry
from voxport.corpora.sounds import read_sound
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.errors import AudioError, VoxportError
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.frontend.spec import Frontend
from voxport.train.data import Corpus, CorpusError
from voxport.train.data.feature_store import Pack
from voxport.train.effects import codecs, draws, mel, signals
from voxport.train.effects.chain import change
from voxport.train.effects.kinds import KINDS, Kind, change_of_kind
from voxport.train.effects.material import Found, Surroundings, simulated_rooms
from voxport.train.effects.mel_kinds import change_energies_of_kind
from voxport.train.effects.options import AugmentOptions

Features = npt.NDArray[np.float32]
Samples = npt.NDArray[np.float32]

_FEWEST_FRAMES = 20


@dataclass(frozen=True)
class Wanted:
    """`copies` changed copies of utterance `index` of the corpus, as `speaker`, at `factor` times its speed."""

    index: int
    speaker: int
    factor: float
    copies: int


@dataclass
class Changer:
    """All that a worker process needs. `indices` are the utterances that babble may be made of.

    `entries` holds, by index, the sounds of these utterances; without an entry an utterance is stored features,
    which lie in `pack`.
    """

    frontend: Frontend
    options: AugmentOptions
    use: draws.Use
    seed: int
    keys: dict[int, str]
    speakers: dict[int, int]
    entries: dict[int, Entry]
    pack: Pack
    rooms: Sequence[Samples]
    noises: Sequence[Path]
    responses: Sequence[Path]

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        indices: npt.NDArray[np.int64],
        options: AugmentOptions,
        noises: Found | None,
        responses: Found | None,
        use: draws.Use,
        seed: int,
    ) -> "Changer":
        """For the utterances `indices` (n,) of `corpus`; rooms are simulated here, once.

        Raises:
            CorpusError: the corpus holds stored features whose frontend keeps too little to be changed.
            BackendError: a codec of `options` cannot be had here.
        """
        utterances = corpus.utterances
        if corpus.frontend.normalize == "mean_std" and not all(corpus.has_sound(int(i)) for i in indices):
            raise CorpusError(
                f"{corpus.path}: stored features of frontend {corpus.frontend.name}, which divides by each band's "
                "deviation, cannot be changed; leave augmentation out, or give sound files"
            )
        entries = {int(i): corpus.entries[utterances[i].key] for i in indices if corpus.has_sound(int(i))}
        if entries and options.codec > 0:
            codecs.check(options.codecs)
        needs_rooms = bool(entries) and responses is None and options.room + options.playback > 0
        return cls(
            corpus.frontend,
            options,
            use,
            seed,
            {int(i): utterances[i].key for i in indices},
            {int(i): utterances[i].speaker for i in indices},
            entries,
            corpus.pack,
            simulated_rooms(options, corpus.frontend.sample_rate, use, seed) if needs_rooms else (),
            noises.files if noises is not None else (),
            responses.files if responses is not None else (),
        )

    def sound(self, index: int) -> Samples:
        """The clean sound of utterance `index` at the frontend's rate.

        Raises:
            CorpusError: it cannot be read any more.
        """
        try:
            return read_sound(self.entries[index], self.frontend.sample_rate)
        except AudioError as problem:
            raise CorpusError(f"{problem}; it could be read when the corpus was opened") from problem

    @cached_property
    def stored(self) -> list[int]:
        """The utterances that are stored features."""
        return [i for i in self.keys if i not in self.entries]

    @cached_property
    def around(self) -> Surroundings:
        """The surroundings of the sounds; its `speaker` is set before each use."""
        places = list(self.entries)
        return Surroundings(
            self.frontend.sample_rate,
            [self.speakers[i] for i in places],
            lambda number: self.sound(places[number]),
            self._file,
            self.rooms,
            self.noises,
            self.responses,
        )

    def _file(self, path: Path) -> Samples:
        try:
            return read_audio(path, self.frontend.sample_rate)
        except AudioError as problem:
            raise VoxportError(f"{problem}; take it out of the folder") from problem


def changed_features(changer: Changer, wanted: Wanted) -> list[Features]:
    """Features (frames, bands) of the utterance at its speed, and of its copies.

    Raises:
        CorpusError: a sound cannot be read, or a copy is not finite.
    """
    if wanted.index not in changer.entries:
        return _changed_stored(changer, wanted)
    options, frontend = changer.options, changer.frontend
    sound = changer.sound(wanted.index)
    if wanted.factor != 1:
        sound = signals.speed(sound, wanted.factor)
    around = changer.around
    around.speaker = changer.speakers[wanted.index]
    found = [featured(sound, frontend)]
    for number in range(wanted.copies):
        generator = draws.generator(changer.use, changer.seed, changer.keys[wanted.index], str(wanted.factor), number)
        found.append(featured(change(sound, options, around, generator), frontend))
    if not all(np.isfinite(features).all() for features in found):
        raise CorpusError(f"{changer.keys[wanted.index]}: a changed copy is not finite; leave the utterance out")
    return found


def _changed_stored(changer: Changer, wanted: Wanted) -> list[Features]:
    """The same for stored features, in the power domain of their mel bands."""
    frontend = changer.frontend
    energies, exact = _stored_energies(changer, wanted.index)
    if wanted.factor != 1:
        energies = mel.faster(energies, wanted.factor, frontend)
    voices = partial(_stored_voices, changer, wanted.index)
    found = [mel.features_of(energies, frontend, exact)]
    for number in range(wanted.copies):
        generator = draws.generator(changer.use, changer.seed, changer.keys[wanted.index], str(wanted.factor), number)
        changed = mel.change_energies(energies, changer.options, frontend, voices, generator)
        found.append(mel.features_of(changed, frontend, exact))
    return found


def features_by_kind(changer: Changer, index: int) -> list[Features]:
    """Features (frames, bands) of utterance `index` changed in one way of every kind but clean, a sound's or stored.

    Raises:
        CorpusError: a sound cannot be read any more.
    """
    if index not in changer.entries:
        return _stored_by_kind(changer, index)
    sound, around = changer.sound(index), changer.around
    around.speaker = changer.speakers[index]
    return [
        featured(change_of_kind(sound, kind, around, _draws_of(changer, index, kind)), changer.frontend)
        for kind in KINDS[1:]
    ]


def _stored_by_kind(changer: Changer, index: int) -> list[Features]:
    frontend, voices = changer.frontend, partial(_stored_voices, changer, index)
    energies, exact = _stored_energies(changer, index)
    return [
        mel.features_of(
            change_energies_of_kind(energies, kind, frontend, voices, _draws_of(changer, index, kind)), frontend, exact
        )
        for kind in KINDS[1:]
    ]


def _draws_of(changer: Changer, index: int, kind: Kind) -> np.random.Generator:
    return draws.generator(changer.use, changer.seed, changer.keys[index], kind)


def _stored_energies(changer: Changer, index: int) -> tuple[mel.Energies, bool]:
    """Energies (frames, bands) of stored features, and whether they are exact."""
    stored = changer.pack.features(index)
    known = mel.exact_energies(stored, changer.frontend)
    if known is None:
        return mel.energies_of(stored, changer.frontend), False
    return mel.audible(known, changer.frontend), True


def _stored_voices(changer: Changer, index: int, count: int, generator: np.random.Generator) -> list[mel.Energies]:
    """Energies of at most `count` stored utterances of other speakers than that of `index`."""
    drawn = [int(i) for i in generator.choice(changer.stored, min(2 * count, len(changer.stored)), replace=False)]
    others = [i for i in drawn if changer.speakers[i] != changer.speakers[index]][:count]
    return [mel.energies_of(changer.pack.features(i), changer.frontend) for i in others]


def featured(sound: Samples, frontend: Frontend) -> Features:
    """Features (frames, bands) of a sound, which silence makes long enough."""
    missing = min_samples(frontend, _FEWEST_FRAMES) - len(sound)
    if missing > 0:
        sound = np.pad(sound, (0, missing))
    return np.asarray(compute_features(sound, frontend), np.float32)
