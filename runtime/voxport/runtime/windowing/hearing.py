"""What a model answers to one sound of any length."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel, ChannelChoice, check_one_channel
from voxport.runtime.audio.preprocess import ChosenChannels, Prepared, Sound, prepare_features
from voxport.runtime.backends.base import Answer, Backend
from voxport.runtime.contract import Contract
from voxport.runtime.errors import TooLongError
from voxport.runtime.notes import Described
from voxport.runtime.windowing.long_input import MAX_SECONDS, LongFeatures, LongInput, LongSound, Pool


@dataclass(frozen=True, eq=False)
class Heard:
    """An answer of one row, what it is of, and the number of windows it was averaged over."""

    answer: Answer
    source: Described
    windows: int = 1


def open_sound(
    contract: Contract,
    sound: Sound,
    sample_rate: int | None,
    name: str = "the sound",
    *,
    channel: Channel | None = None,
    max_seconds: float = MAX_SECONDS,
) -> Prepared | LongSound:
    """A sound as the graph takes it, or where it is longer than that, what gives its windows.

    Raises as `prepare_sound` does, but a sound is too long only above `max_seconds`.
    """
    check_one_channel(channel)
    chosen = ChosenChannels.of(sound, sample_rate, name, channel)
    opened = _open(contract, chosen, max_seconds)
    if len(opened) == 1:
        return opened[0]
    for each in opened:
        if isinstance(each, LongSound):
            each.listen()
    only, note = chosen.only(opened)
    if isinstance(only, Prepared):
        return replace(only, notes=(note, *only.notes))
    only.add_note(note)
    return only


def open_channels(
    contract: Contract,
    sound: Sound,
    sample_rate: int | None,
    name: str = "the sound",
    *,
    channel: ChannelChoice | None = None,
) -> list[Prepared | LongSound]:
    """What `open_sound` gives for every channel that is to be heard, in their order; "each" takes all.

    With None that is one, or where they hold different sounds each that is not silent. Raises as `open_sound` does
    for one channel.
    """
    return _open(contract, ChosenChannels.of(sound, sample_rate, name, channel), MAX_SECONDS)


def _open(contract: Contract, chosen: ChosenChannels, max_seconds: float) -> list[Prepared | LongSound]:
    opened: list[Prepared | LongSound] = []
    for channel in chosen.channels:
        try:
            opened.append(chosen.prepare(contract, channel))
        except TooLongError:
            opened.append(LongSound(contract, chosen, channel, most=max_seconds))
    return opened


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
        return Heard(_run(backend, source.values), source)
    pool = Pool(backend.contract)
    for piece in source.pieces():
        pool.add(_run(backend, piece.values), piece.weight)
    return Heard(pool.answer(), source, pool.windows)


def _run(backend: Backend, values: npt.NDArray[np.float32]) -> Answer:
    return backend.run(values[None], np.array([len(values)], np.int64))
