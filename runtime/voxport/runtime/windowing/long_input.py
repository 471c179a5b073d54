"""Inputs longer than the model takes: windows of its longest length, whose answers become one.

The rule is the contract's `windowing`. Windows are of one length, the longest that the model was proven for,
and follow each other by a share of it; the last one ends where the input ends. Each answers for the moments
that are nearest to its middle, and counts by the frames of 20 ms among them in which somebody speaks, so that
every moment of speech counts once and a window without speech is not run. Where nothing is speech, the first
window answers. Features carry no loudness to tell speech by: each of their frames counts.

The embeddings' weighted mean, brought to unit length, is the answer's embedding. Scores are linear in the
embedding (score_scale × its product with unit class weights), so the weighted mean of the scores, divided by
the length that the mean embedding had, is what the averaged embedding scores. A model without embeddings does
not tell that length: its scores stay the weighted mean. They rank speakers alike, and lie the lower the more
the windows differ.
"""

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.decode import PathName, audio_blocks, audio_seconds, sample_blocks
from voxport.runtime.audio.preprocess import Sound, prepare_features
from voxport.runtime.backends.base import Answer
from voxport.runtime.contract import Contract, Windowing
from voxport.runtime.errors import LengthError, VoxportError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.length_range import LengthRange

Float32 = npt.NDArray[np.float32]

MAX_SECONDS = 24 * 3600.0  # one answer for more says little, and the work grows with it
_NO_DIRECTION = 1e-6  # length of a mean embedding below which it points nowhere


@dataclass(frozen=True, eq=False)
class Piece:
    """One window as the graph takes it, (frames, n_mels) or (samples,), and the frames that it counts for."""

    values: Float32
    weight: int


class LongInput(Protocol):
    """An input of more than the model's longest length, not yet read."""

    @property
    def seconds(self) -> float:
        """Seconds of sound; known when the pieces have been taken."""
        ...

    def pieces(self) -> Iterator[Piece]:
        """At least one window, in order of time, in memory that does not grow; raises as reading does."""
        ...


class LongSound:
    """A sound that `prepare_sound` has found too long, and nothing else wrong with."""

    def __init__(self, contract: Contract, sound: Sound, sample_rate: int | None, name: str, most: float) -> None:
        """Raises LengthError where the sound claims to be longer than `most` seconds; `pieces`, where it is."""
        self._contract, self._most = contract, most
        self._rate = sample_rate or contract.frontend.sample_rate
        self._sound: PathName | npt.NDArray[Any]
        if isinstance(sound, (str, os.PathLike)):
            self._sound, self._name = sound, os.fspath(sound)
            self.seconds = audio_seconds(sound) or 0.0
        else:
            self._sound, self._name = np.asarray(sound), name
            self.seconds = len(sound) / self._rate
        _check_seconds(self.seconds, self._name, most)

    def own(self) -> None:
        """Copy an array, which its owner may change meanwhile."""
        if not isinstance(self._sound, (str, os.PathLike)):
            self._sound = self._sound.copy()

    def pieces(self) -> Iterator[Piece]:
        """See LongInput; raises AudioError and LengthError where the fault is reached."""
        contract, frontend = self._contract, self._contract.frontend
        for samples, weight in sound_windows(
            frontend, LengthRange.of_sound(contract), contract.windowing, self._blocks()
        ):
            as_samples = contract.input_kind == "waveform"
            yield Piece(samples if as_samples else compute_features(samples, frontend), weight)

    def _blocks(self) -> Iterator[Float32]:
        rate, sound = self._contract.frontend.sample_rate, self._sound
        if isinstance(sound, (str, os.PathLike)):
            blocks = audio_blocks(sound, rate)
        else:
            blocks = sample_blocks(sound, self._rate, rate, self._name)
        count = 0
        for block in blocks:
            count += len(block)
            self.seconds = count / rate
            _check_seconds(self.seconds, self._name, self._most)
            yield block


class LongFeatures:
    """Features (frames, n_mels) that `prepare_features` has found too long; each of their frames counts as speech."""

    def __init__(self, contract: Contract, features: npt.NDArray[Any], name: str) -> None:
        """Raises LengthError for more than MAX_SECONDS."""
        self._contract, self._features, self._name = contract, features, name
        self.seconds = LengthRange.of_features(contract).seconds(len(features))
        _check_seconds(self.seconds, name, MAX_SECONDS)

    def pieces(self) -> Iterator[Piece]:
        """See LongInput; raises VoxportError where a value is no number."""
        longest = self._contract.max_frames
        for start, weight in spans(len(self._features), longest, self._contract.windowing.hop):
            window = prepare_features(self._contract, self._features[start : start + longest], self._name)
            yield Piece(window.values, weight)


def sound_windows(
    frontend: Frontend, allowed: LengthRange, windowing: Windowing, blocks: Iterator[Float32]
) -> Iterator[tuple[Float32, int]]:
    """Windows (samples,) of mono sound at the frontend's rate, longer than `allowed`, and what each counts for."""
    # Only who has such a sound pays for these imports.
    from voxport.runtime.audio.vad import FRAME_SECONDS
    from voxport.runtime.windowing.windows import WindowOptions, WindowPlan, Windows

    rate, size = frontend.sample_rate, allowed.longest
    frame = max(1, round(rate * FRAME_SECONDS))
    hop = max(1, int(windowing.hop * size / frame + 1e-6))
    options = WindowOptions(floor_db=windowing.floor_db, range_db=windowing.range_db)
    windows = Windows(WindowPlan(rate, frame, size, hop, allowed.shortest), options)
    silence: Float32 | None = None  # the first window, as long as none before it holds speech
    held: tuple[Float32, int] | None = None  # one window stays back: the tail may be no other
    spoken = False
    for block in blocks:
        for window in windows.push(block):
            if held is not None and held[1]:
                spoken = True
                yield held
            silence = window.samples if silence is None and not spoken else silence
            held = (window.samples, sum(window.voiced))
    tail, fresh = windows.tail()
    assert tail is not None, "a sound that is longer than the longest window is not shorter than the shortest"
    rest = [held] if held is not None else []  # none where the sound is longer by a part of a frame only
    if fresh or held is None:
        rest.append((tail.samples, sum(tail.voiced)))
    else:
        rest[0] = (held[0], held[1] + sum(tail.voiced))
    for samples, weight in rest:
        if weight:
            spoken = True
            yield samples, weight
    if not spoken:
        yield tail.samples if silence is None else silence, 1


def spans(length: int, size: int, hop_share: float) -> list[tuple[int, int]]:
    """(start, items answered for) of windows of `size` items over `length` items; the last ends at the end."""
    hop = max(1, int(hop_share * size + 1e-6))
    starts = [*range(0, length - size, hop), length - size]
    borders = [0, *((one + two + size) // 2 for one, two in itertools.pairwise(starts)), length]
    return [(start, borders[k + 1] - borders[k]) for k, start in enumerate(starts)]


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
