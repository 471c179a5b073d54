"""Is there speech in a long sound, and what is wrong with the recording?

The sound is taken as it is, pauses included, in stretches of the longest length that the model takes, one after the
other; the last one ends where the sound ends. Each is judged as a short sound is (`voxport.runtime.speech`,
`voxport.runtime.quality`), and so the sound holds speech where a stretch does. What is told of it is told of the
stretch with the most active speech, or where none holds any, of the one with the most active frames; `seconds` are
those of all stretches that hold speech, of the last one by the share that is new in it.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Contract
from voxport.runtime.length_range import LengthRange
from voxport.runtime.notes import Note
from voxport.runtime.quality import quality_notes
from voxport.runtime.speech import Speech, find_speech

Float32 = npt.NDArray[np.float32]


class Stretches:
    """Listens to a sound that comes in blocks, in the memory of two stretches."""

    def __init__(self, contract: Contract) -> None:
        """Nothing heard yet; without a rule in the contract nothing ever is."""
        self._contract, self._rule = contract, contract.speech
        self._size = LengthRange.of_sound(contract).longest
        self._blocks: list[Float32] = []  # of the stretch that is not whole yet
        self._count = 0  # samples in them
        self._before: Float32 | None = None  # the stretch before
        self._best: tuple[bool, float] = (False, -1.0)  # whether there is speech in the stretch below, and how much
        self._speech: Speech | None = None
        self._seconds = 0.0
        self.notes: tuple[Note, ...] = ()

    @property
    def speech(self) -> Speech | None:
        """What was found, known after `finish`; None without a rule."""
        if self._speech is None or not self._speech.found:
            return self._speech
        return dataclasses.replace(self._speech, seconds=self._seconds)

    def push(self, samples: Float32) -> None:
        """Take the next mono samples (n,) at the model's rate."""
        if self._rule is None:
            return
        self._blocks.append(samples)
        self._count += len(samples)
        if self._count < self._size:
            return
        joined = np.concatenate(self._blocks)
        whole = len(joined) // self._size * self._size
        for start in range(0, whole, self._size):
            self._before = joined[start : start + self._size]
            self._judge(self._before, 1.0)
        self._blocks, self._count = [joined[whole:].copy()], len(joined) - whole

    def finish(self) -> None:
        """The sound has ended."""
        if self._rule is None or self._count == 0:
            return
        rest = np.concatenate(self._blocks)
        before = rest[:0] if self._before is None else self._before[len(rest) :]
        self._judge(np.concatenate([before, rest]), len(rest) / (len(before) + len(rest)))

    def _judge(self, stretch: Float32, share: float) -> None:
        assert self._rule is not None
        rate = self._contract.frontend.sample_rate
        speech = find_speech(stretch, rate, self._rule)
        if speech.found:
            self._seconds += share * speech.seconds
        if (speech.found, speech.seconds) > self._best:
            self._best, self._speech = (speech.found, speech.seconds), speech
            f_max = self._contract.frontend.f_max
            self.notes = quality_notes(stretch, rate, f_max, speech) if speech.found else ()
