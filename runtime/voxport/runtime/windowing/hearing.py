"""What a model answers to one sound of any length."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.preprocess import Prepared, Sound, prepare_features, prepare_sound
from voxport.runtime.backends.base import Answer, Backend
from voxport.runtime.contract import Contract
from voxport.runtime.errors import TooLongError
from voxport.runtime.windowing.long_input import MAX_SECONDS, LongFeatures, LongInput, LongSound, Pool


@dataclass(frozen=True, eq=False)
class Heard:
    """An answer of one row, the seconds of sound that it is of, and the number of windows it was averaged over."""

    answer: Answer
    seconds: float
    windows: int = 1


def open_sound(
    contract: Contract,
    sound: Sound,
    sample_rate: int | None,
    name: str = "the sound",
    *,
    max_seconds: float = MAX_SECONDS,
) -> Prepared | LongSound:
    """A sound as the graph takes it, or where it is longer than that, what gives its windows.

    Raises as `prepare_sound` does, but a sound is too long only above `max_seconds`.
    """
    try:
        return prepare_sound(contract, sound, sample_rate, name)
    except TooLongError:
        return LongSound(contract, sound, sample_rate, name, max_seconds)


def open_features(contract: Contract, features: npt.ArrayLike, name: str = "the features") -> Prepared | LongFeatures:
    """Features (frames, n_mels) alike. Raises as `prepare_features` does."""
    try:
        return prepare_features(contract, features, name)
    except TooLongError:
        return LongFeatures(contract, np.asarray(features), name)


def hear(backend: Backend, source: Prepared | LongInput) -> Heard:
    """Run what `open_sound` gives. Windows run one by one: more at once are no faster, and take more memory.

    Raises as reading the sound does, and BackendError.
    """
    if isinstance(source, Prepared):
        return Heard(_run(backend, source.values), source.seconds)
    pool = Pool(backend.contract)
    for piece in source.pieces():
        pool.add(_run(backend, piece.values), piece.weight)
    return Heard(pool.answer(), source.seconds, pool.windows)


def _run(backend: Backend, values: npt.NDArray[np.float32]) -> Answer:
    return backend.run(values[None], np.array([len(values)], np.int64))
