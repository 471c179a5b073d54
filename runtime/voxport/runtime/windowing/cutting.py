"""Cuts input that is longer than the model takes into windows, each with what it counts for.

The rule is the contract's `windowing`. Of a sound only the speech is heard: frames of 20 ms that pass the energy gate,
and what lies within `margin_s` of one; the pauses are cut out, and the rest is joined. (A network hears pauses as a
part of the voice: a sentence that six seconds of silence follow has another embedding.) Windows are of one length and
follow each other by the share `hop` of it; the last one ends where the speech ends. Each counts by how much of it lies
nearer to its middle than to another's, so that every moment of speech counts once. Speech that fits into one window is
heard at once. Where there is less of it than the model needs, the first window of the sound answers as it is.

The gate knows loud from quiet, and a hum or music on hold are loud. With `speech_only` a window in which the contract's
rule (`voxport.runtime.speech`) finds no speech therefore counts for nothing and is not heard; where none holds any, the
first one answers, so that there are numbers, and the sound is nobody's.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Windowing
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.length_range import LengthRange
from voxport.runtime.speech import Speech, SpeechRule, find_speech

Float32 = npt.NDArray[np.float32]


class SpokenWindows:
    """Of the windows that `sound_windows` gives, those that hold speech."""

    def __init__(self, windows: Iterator[tuple[Float32, int]], sample_rate: int, rule: SpeechRule | None) -> None:
        """Take `windows`, of samples at `sample_rate` Hz; without a rule all of them."""
        self._windows, self._rate, self._rule = windows, sample_rate, rule
        self.lacking: Speech | None = (
            None  # what speaks against the window with the most sound, where none holds speech
        )

    def __iter__(self) -> Iterator[tuple[Float32, int]]:
        """At least one window, and what it counts for; `lacking` is known when all are taken."""
        if self._rule is None:
            yield from self._windows
            return
        first: Float32 | None = None
        any_found = False
        for samples, weight in self._windows:
            speech = find_speech(samples, self._rate, self._rule)
            if speech.found:
                any_found, self.lacking = True, None
                yield samples, weight
            elif not any_found:
                first = samples if first is None else first
                if self.lacking is None or speech.seconds > self.lacking.seconds:
                    self.lacking = speech
        if not any_found:
            assert first is not None, "a sound has at least one window"
            yield first, 1


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
