"""Inputs longer than the model takes: windows of its longest length, whose answers become one.

The rule is the contract's `windowing`. Of a sound only the speech is heard: frames of 20 ms that pass the energy gate,
and what lies within `margin_s` of one; the pauses are cut out, and the rest is joined. (A network hears pauses as a
part of the voice: a sentence that six seconds of silence follow has another embedding.) Windows are of one length, the
longest that the model was proven for, and follow each other by the share `hop` of it; the last one ends where the
speech ends. Each counts by how much of it lies nearer to its middle than to another's, so that every moment of speech
counts once. Speech that fits into one window is heard at once. Where there is less of it than the model needs, the
first window of the sound answers as it is. Features do not tell speech from silence: each of their frames counts.

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

from voxport.runtime.audio.channels import Channel
from voxport.runtime.audio.decode import PathName, audio_blocks, audio_seconds, sample_blocks
from voxport.runtime.audio.preprocess import ChosenChannels, prepare_features
from voxport.runtime.backends.base import Answer
from voxport.runtime.contract import Contract, Windowing
from voxport.runtime.errors import LengthError, VoxportError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.length_range import LengthRange
from voxport.runtime.notes import Described, Note
from voxport.runtime.speech import Speech
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
        """See Described, and `voxport.runtime.windowing.stretches`."""
        return self._stretches.speech

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
        for samples, weight in sound_windows(
            frontend, LengthRange.of_sound(contract), contract.windowing, self._blocks()
        ):
            as_samples = contract.input_kind == "waveform"
            yield Piece(samples if as_samples else compute_features(samples, frontend), weight)

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
        longest = self._contract.max_frames
        for start, weight in spans(len(self._features), longest, self._contract.windowing.hop):
            window = prepare_features(self._contract, self._features[start : start + longest], self._name)
            yield Piece(window.values, weight)


def sound_windows(
    frontend: Frontend, allowed: LengthRange, windowing: Windowing, blocks: Iterator[Float32]
) -> Iterator[tuple[Float32, int]]:
    """Windows (samples,) of mono sound at the frontend's rate, longer than `allowed`, and what each counts for."""
    size = allowed.longest
    speech, cutter = _Speech(frontend.sample_rate, windowing), _Cutter(size, max(1, int(windowing.hop * size + 1e-6)))
    head: list[Float32] = []  # the start of the sound, as long as there may be too little speech
    for block in blocks:
        if cutter.total < allowed.shortest:
            head.append(block[: max(0, size - sum(map(len, head)))])
        yield from cutter.push(speech.push(block))
    yield from cutter.push(speech.finish())
    if cutter.total >= max(1, allowed.shortest):
        yield from cutter.finish()
    else:
        yield np.concatenate(head), 1


class _Cutter:
    """Cuts speech that comes in pieces into windows, as `spans` would cut it whole."""

    def __init__(self, size: int, hop: int) -> None:
        self._size, self._hop = size, hop
        self._buffer = np.zeros(0, np.float32)
        self._start = 0  # of the buffer, in the speech
        self._next = 0  # where the next window starts, if it is not the last one
        self._held: tuple[Float32, int] | None = None  # the window before, and where it starts
        self._border = 0  # up to here windows have been counted for

    @property
    def total(self) -> int:
        """Samples that have come in."""
        return self._start + len(self._buffer)

    def push(self, samples: Float32) -> Iterator[tuple[Float32, int]]:
        """The windows that are sure now."""
        self._buffer = np.concatenate([self._buffer, samples])
        while self._next + self._size < self.total:
            yield from self._take(self._next)
            self._next += self._hop
        keep = max(self._start, min(self._next, self.total - self._size))
        self._buffer, self._start = self._buffer[keep - self._start :], keep

    def finish(self) -> Iterator[tuple[Float32, int]]:
        """The last ones; a window that all fits into is as short as that."""
        yield from self._take(max(0, self.total - self._size))
        assert self._held is not None
        yield self._held[0], self.total - self._border

    def _take(self, at: int) -> Iterator[tuple[Float32, int]]:
        if self._held is not None:
            middle = (self._held[1] + at + self._size) // 2
            yield self._held[0], middle - self._border
            self._border = middle
        self._held = (self._buffer[at - self._start : at - self._start + self._size].copy(), at)


class _Speech:
    """Cuts the pauses out of sound that comes in pieces; what it gives does not depend on the pieces' sizes."""

    def __init__(self, rate: int, windowing: Windowing) -> None:
        from voxport.runtime.audio.vad import FRAME_SECONDS, EnergyGate  # only who has such a sound pays for it

        self._frame = max(1, round(rate * FRAME_SECONDS))
        self._margin = round(windowing.margin_s / FRAME_SECONDS)
        self._gate = EnergyGate(windowing.floor_db, windowing.range_db)
        self._rest = np.zeros(0, np.float32)  # less than a frame
        self._frames = np.zeros((0, self._frame), np.float32)  # those decided last, then those not yet decided
        self._open = np.zeros(0, np.bool_)
        self._decided = 0  # of `_frames`
        self._kept_last = False

    def push(self, samples: Float32) -> Float32:
        """The speech (n,) that is sure now."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // self._frame * self._frame
        self._rest = samples[whole:]
        fresh = samples[:whole].reshape(-1, self._frame)
        self._frames = np.concatenate([self._frames, fresh])
        self._open = np.concatenate([self._open, np.array(self._gate.push(fresh), np.bool_)])
        return self._decide(len(self._frames) - self._margin)

    def finish(self) -> Float32:
        """The speech that was not sure before the end; a last part of a frame goes with the frame before it."""
        last = self._decide(len(self._frames))
        return np.concatenate([last, self._rest]) if self._kept_last else last

    def _decide(self, end: int) -> Float32:
        if end <= self._decided:
            return np.zeros(0, np.float32)
        # Each open frame also opens those within the margin, on either side.
        near = np.convolve(self._open, np.ones(2 * self._margin + 1))[self._margin :] > 0
        kept = near[self._decided : end]
        speech = self._frames[self._decided : end][kept].reshape(-1)
        self._kept_last = bool(kept[-1])
        drop = max(0, end - self._margin)
        self._frames, self._open, self._decided = self._frames[drop:], self._open[drop:], end - drop
        return speech


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
