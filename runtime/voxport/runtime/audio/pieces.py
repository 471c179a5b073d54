"""Short pieces of a sound: what a gallery needs to know how alike short sounds are."""

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.audio.preprocess import Sound
from voxport.runtime.audio.samples import check_samples, resample
from voxport.runtime.audio.vad import FRAME_SECONDS
from voxport.runtime.contract import Contract
from voxport.runtime.length_range import LengthRange

PIECE_SECONDS = (0.75, 1.5)  # one in the middle of each of the lengths that a gallery sets thresholds for
_WHOLE = 1.5  # a sound shorter than so many pieces is no source of one


def loud_pieces(
    contract: Contract, sound: Sound, sample_rate: int | None, seconds: Sequence[float], channel: Channel = "mix"
) -> list[npt.NDArray[np.float32]]:
    """The loudest piece of each of these lengths, samples (n,) at the model's rate, where the sound is longer.

    It is taken from one channel, or from the average, and looked for in as much of the sound as the model takes at
    once. Raises AudioError as reading it does.
    """
    rate, allowed = contract.frontend.sample_rate, LengthRange.of_sound(contract)
    if isinstance(sound, (str, os.PathLike)):
        samples = read_audio(sound, rate, enough=allowed.longest, channel=channel)
    else:
        given = sample_rate or rate
        start = np.asarray(sound)[: allowed.longest * given // rate + 1]
        mono = check_samples(start, channel=channel)
        samples = mono if given == rate else resample(mono, given, rate)
    samples = samples[: allowed.longest]
    frame = max(1, round(rate * FRAME_SECONDS))
    energy = np.concatenate([[0.0], np.square(samples[: len(samples) // frame * frame], dtype=np.float64)])
    energy = np.cumsum(energy)[::frame]
    found = []
    for length in seconds:
        count = round(length * rate)
        reach = -(-count // frame)
        if len(samples) < _WHOLE * count or not allowed.shortest <= count <= allowed.longest:
            continue
        at = int(np.argmax(energy[reach:] - energy[:-reach])) * frame
        found.append(np.ascontiguousarray(samples[at : at + count]))
    return found
