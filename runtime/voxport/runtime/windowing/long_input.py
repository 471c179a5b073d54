"""Inputs longer than the model takes: windows of it (`voxport.runtime.windowing.cutting`), whose answers become one.

Features do not tell speech from silence: each of their frames counts.

The embeddings' weighted mean, brought to unit length, is the answer's embedding. Scores are linear in the
embedding (score_scale × its product with unit class weights), so the weighted mean of the scores, divided by
the length that the mean embedding had, is what the averaged embedding scores. A model without embeddings does
not tell that length: its scores stay the weighted mean. They rank speakers alike, and lie the lower the more
the windows differ.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel
from voxport.runtime.audio.decode import PathName, audio_blocks, audio_seconds
from voxport.runtime.audio.preprocess import ChosenChannels, prepare_features
from voxport.runtime.audio.samples import sample_blocks
from voxport.runtime.backends.base import Answer
from voxport.runtime.contract import Contract
from voxport.runtime.errors import LengthError, VoxportError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.length_range import LengthRange
from voxport.runtime.notes import Described, Note
from voxport.runtime.speech import Speech
from voxport.runtime.windowing.cutting import SpokenWindows, sound_windows, spans
from voxport.runtime.windowing.stretches import Stretches

Float32 = npt.NDArray[np.float32]

MAX_SECONDS = 24 * 3600.0  # one answer for more says little, and the work grows with it
_NO_DIRECTION = 1e-6  # length of a mean embedding below which it points nowhere


@dataclass(frozen=True, eq=False)
class Piece:
    """One window as the graph takes it, (frames, n_mels) or (samples,), and the frames that it counts for."""

    values: Float32
    weight: int


class LongInput(Described, Protocol):
    """An input of more than the model's longest length, not yet read; described when the pieces have been taken."""

    def pieces(self) -> Iterator[Piece]:
        """At least one window, in order of time, in memory that does not grow; raises as reading does."""
        ...


class LongSound:
    """A sound that `prepare_sound` has found too long, and nothing else wrong with."""

    def __init__(
        self, contract: Contract, chosen: ChosenChannels, channel: Channel = "mix", *, most: float = MAX_SECONDS
    ) -> None:
        """Raises LengthError where the sound claims to be longer than `most` seconds; `pieces`, where it is."""
        sound, name = chosen.sound, chosen.name
        self._contract, self._most, self._heard = contract, most, channel
        self._rate = chosen.sample_rate or contract.frontend.sample_rate
        self._notes, self._stretches = chosen.notes, Stretches(contract)
        self._lacking: Speech | None = None
        self._sound: PathName | npt.NDArray[Any]
        if isinstance(sound, (str, os.PathLike)):
            self._sound, self._name = sound, os.fspath(sound)
            self.seconds = audio_seconds(sound) or 0.0
        else:
            self._sound, self._name = np.asarray(sound), name
            self.seconds = len(self._sound) / self._rate
        _check_seconds(self.seconds, self._name, most)

    def own(self) -> None:
        """Copy an array, which its owner may change meanwhile."""
        if not isinstance(self._sound, (str, os.PathLike)):
            self._sound = self._sound.copy()

    @property
    def channel(self) -> int | None:
        """See Described."""
        return None if self._heard == "mix" else self._heard

    @property
    def notes(self) -> tuple[Note, ...]:
        """See Described, and `voxport.runtime.windowing.stretches`."""
        return (*self._notes, *self._stretches.notes)

    @property
    def speech(self) -> Speech | None:
        """See Described, and `voxport.runtime.windowing.stretches`; none, where no window held any."""
        return self._lacking or self._stretches.speech

    def add_note(self, note: Note) -> None:
        """Put another note before the others."""
        self._notes = (note, *self._notes)

    def listen(self) -> None:
        """Read the sound through, to know its notes and its speech before its pieces are taken; raises as they do."""
        for _ in self._blocks():
            pass

    def pieces(self) -> Iterator[Piece]:
        """See LongInput; raises AudioError and LengthError where the fault is reached."""
        contract, frontend = self._contract, self._contract.frontend
        all_windows = sound_windows(frontend, LengthRange.of_windows(contract), contract.windowing, self._blocks())
        rule = contract.speech if contract.windowing.speech_only else None
        windows = SpokenWindows(all_windows, frontend.sample_rate, rule)
        for samples, weight in windows:
            as_samples = contract.input_kind == "waveform"
            yield Piece(samples if as_samples else compute_features(samples, frontend), weight)
        self._lacking = windows.lacking

    def _blocks(self) -> Iterator[Float32]:
        rate, sound = self._contract.frontend.sample_rate, self._sound
        if isinstance(sound, (str, os.PathLike)):
            blocks = audio_blocks(sound, rate, channel=self._heard)
        else:
            blocks = sample_blocks(sound, self._rate, rate, self._name, self._heard)
        count, stretches = 0, Stretches(self._contract)
        for block in blocks:
            count += len(block)
            self.seconds = count / rate
            _check_seconds(self.seconds, self._name, self._most)
            stretches.push(block)
            yield block
        stretches.finish()
        self._stretches = stretches


class LongFeatures:
    """Features (frames, n_mels) that `prepare_features` has found too long; each of their frames counts as speech."""

    channel: int | None = None
    notes: tuple[Note, ...] = ()
    speech: Speech | None = None

    def __init__(self, contract: Contract, features: npt.NDArray[Any], name: str) -> None:
        """Raises LengthError for more than MAX_SECONDS."""
        self._contract, self._features, self._name = contract, features, name
        self.seconds = LengthRange.of_features(contract).seconds(len(features))
        _check_seconds(self.seconds, name, MAX_SECONDS)

    def pieces(self) -> Iterator[Piece]:
        """See LongInput; raises VoxportError where a value is no number."""
        longest = self._contract.window_frames
        for start, weight in spans(len(self._features), longest, self._contract.windowing.hop):
            window = prepare_features(self._contract, self._features[start : start + longest], self._name)
            yield Piece(window.values, weight)


class Pool:
    """Answers to windows, of one row each, on their way to one answer."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._sums: list[npt.NDArray[np.float64]] = []
        self._weight = 0
        self._first: Answer | None = None
        self.windows = 0

    def add(self, answer: Answer, weight: int) -> None:
        """Take in a window's answer; `weight` is above zero."""
        rows = [np.asarray(getattr(answer, name)[0], np.float64) for name in self._contract.outputs]
        before = self._sums if self.windows else [np.zeros(1)] * len(rows)
        self._sums = [total + weight * row for row, total in zip(rows, before, strict=True)]
        self._weight += weight
        self._first = answer if self.windows == 0 else None
        self.windows += 1

    def answer(self) -> Answer:
        """The one answer, of one row. Raises VoxportError where the embeddings cancel each other out."""
        if self._first is not None:
            return self._first
        means = dict(zip(self._contract.outputs, (total / self._weight for total in self._sums), strict=True))
        length = 1.0
        if "embedding" in means:
            length = float(np.linalg.norm(means["embedding"]))
            if not length > _NO_DIRECTION:
                raise VoxportError("the sound's windows are of voices that cancel each other out; cut it by speaker")
        return Answer.of({name: (mean / length).astype(np.float32)[None] for name, mean in means.items()})


def _check_seconds(seconds: float, name: str, most: float) -> None:
    if seconds > most:
        raise LengthError(
            f"{name}: more than {most:g} s of sound are not given one answer here; cut it into shorter pieces, "
            "or see who speaks when: voxport timeline"
        )
