"""Sliding windows over sound that comes in pieces: what `Stream` and `Timeline` are built on.

Time is counted in frames of 20 ms, those of the energy gate. Window k starts at frame k·hop and takes
`size` samples. It answers for the `hop` frames around its middle; the first one also for everything
before, and the tail for everything up to the end.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.vad import FRAME_SECONDS, EnergyGate
from voxport.runtime.contract import Contract
from voxport.runtime.errors import LengthError, VoxportError
from voxport.runtime.length_range import LengthRange
from voxport.runtime.speech import SpeechRule, find_speech

# Long enough for a voice to show (1 s is already much worse), short enough that turns do not blend.
DEFAULT_WINDOW_SECONDS = 2.0
_HOPS_PER_WINDOW = 4  # default: each moment is heard by four windows

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """How sound is cut into windows, and which of them count as speech.

    `window_s` is the length of a window in seconds; None takes 2 s, or what the model allows that is
    nearest to it. `hop_s` is the step from window to window, in whole steps of 20 ms; None takes a quarter of
    the window. A window counts as speech when at least the share `min_speech` of its 20 ms frames
    passes the energy gate: no quieter than `floor_db` (dB relative to full scale), and no more than
    `range_db` below the recording's running level (see `voxport.runtime.audio.vad`). What the contract's rule
    (`voxport.runtime.speech`) takes for noise or tones is no speech either.

    Raises:
        VoxportError: a value outside its range.
    """

    window_s: float | None = None
    hop_s: float | None = None
    min_speech: float = 0.4
    floor_db: float = -60.0
    range_db: float = 30.0

    def __post_init__(self) -> None:
        if self.window_s is not None:
            within("window_s", self.window_s, FRAME_SECONDS, 3600.0)
        if self.hop_s is not None:
            within("hop_s", self.hop_s, FRAME_SECONDS, 3600.0)
        within("min_speech", self.min_speech, 0.0, 1.0)
        within("floor_db", self.floor_db, -120.0, 0.0)
        within("range_db", self.range_db, 1.0, 120.0)


def within(name: str, value: object, low: float, high: float) -> None:
    """Raise VoxportError unless `value` is a number with low ≤ value ≤ high; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise VoxportError(f"{name} must be a number from {low:g} to {high:g}, found {value!r:.60}")


def whole(name: str, value: object, low: int, high: int) -> None:
    """Raise VoxportError unless `value` is a whole number with low ≤ value ≤ high."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise VoxportError(f"{name} must be a whole number from {low} to {high}, found {value!r:.60}")


@dataclass(frozen=True)
class WindowPlan:
    """Window options made definite for one model. `size` counts samples at `rate` Hz; `hop` counts frames."""

    rate: int
    frame: int  # samples
    size: int
    hop: int
    shortest: int  # samples that the model needs

    @classmethod
    def of(cls, options: WindowOptions, contract: Contract) -> "WindowPlan":
        """Raises LengthError where the model does not take such windows, VoxportError for a hop beyond a window."""
        rate, allowed = contract.frontend.sample_rate, LengthRange.of_sound(contract)
        frame = max(1, round(rate * FRAME_SECONDS))
        if options.window_s is None:
            size = min(max(round(DEFAULT_WINDOW_SECONDS * rate), allowed.shortest), allowed.longest)
        else:
            size = round(options.window_s * rate)
        if not allowed.shortest <= size <= allowed.longest:
            raise LengthError(
                f"window_s: this model takes {allowed.describe(allowed.shortest)} to "
                f"{allowed.describe(allowed.longest)}, not {size / rate:g} s; choose a window between them"
            )
        if options.hop_s is not None and options.hop_s > size / rate:
            raise VoxportError(f"hop_s: {options.hop_s:g} s would skip sound between windows of {size / rate:g} s")
        hop_s = size / rate / _HOPS_PER_WINDOW if options.hop_s is None else options.hop_s
        return cls(rate, frame, size, max(1, int(hop_s * rate / frame + 1e-6)), allowed.shortest)

    @property
    def span(self) -> int:
        """Frames that a window reaches into."""
        return math.ceil(self.size / self.frame)

    def seconds(self, frame: int) -> float:
        """When a frame starts."""
        return frame * self.frame / self.rate


@dataclass(frozen=True, eq=False)
class Window:
    """One window: its samples (n,), which start at sample `start` of the sound.

    `speech` is the share of its frames that passed the gate. `voiced` tells of the frames that the
    window answers for, of which `first` is the first, whether each passed. `speech_s` are the seconds of active speech
    in it; None where the contract has no rule, and where nobody has looked yet.
    """

    start: int
    samples: Samples
    speech: float
    first: int
    voiced: tuple[bool, ...]
    speech_s: float | None = None

    @property
    def stop(self) -> int:
        """The first sample behind the window."""
        return self.start + len(self.samples)


def spoken(window: Window, sample_rate: int, min_share: float, rule: SpeechRule | None) -> Window | None:
    """A window that counts as speech, since enough of it passed the gate and the contract's `rule` finds speech."""
    if window.speech < min_share:
        return None
    if rule is None:
        return window
    found = find_speech(window.samples, sample_rate, rule)
    return replace(window, speech_s=found.seconds) if found.found else None


class Windows:
    """Cuts mono samples at the model's rate into windows, in constant memory, however they are chunked."""

    def __init__(self, plan: WindowPlan, options: WindowOptions) -> None:
        """Start at time 0."""
        self._plan = plan
        self._gate = EnergyGate(options.floor_db, options.range_db)
        # Twice what must be kept: old samples are then moved out of the way only now and then.
        self._buffer = np.empty(2 * (plan.span + plan.hop + 1) * plan.frame, np.float32)
        self._filled = 0
        self._base = 0  # frame at which the buffer starts
        self._voiced: list[bool] = []  # of the frames from `_base` on
        self._next = 0  # frame at which the next window starts
        self._answered = 0  # frames that windows have answered for
        self._heard = 0  # samples, from 0, that windows have reached

    @property
    def total(self) -> int:
        """Samples that have come in."""
        return self._base * self._plan.frame + self._filled

    def push(self, samples: Samples) -> Iterator[Window]:
        """The windows that `samples` (n,) complete. Take them all before the next call."""
        while len(samples):
            count = min(len(samples), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = samples[:count]
            self._filled += count
            samples = samples[count:]
            self._judge()
            yield from self._complete()
            self._forget()

    def tail(self) -> tuple[Window | None, bool]:
        """The last window, up to the end, and whether it holds sound that no window has held.

        It is as long as the others where there is enough sound, and therefore overlaps the window
        before it. None where all the sound is shorter than the model needs.
        """
        plan, total = self._plan, self.total
        self._judge()
        rest = self._filled % plan.frame
        if rest:
            self._voiced += self._gate.push(self._buffer[self._filled - rest : self._filled][None])
        if total < plan.shortest:
            return None, False
        start = max(0, total - plan.size)
        return self._window(start, total - start, self._base + len(self._voiced)), total > self._heard

    def _judge(self) -> None:
        """Put every frame that is complete through the gate."""
        done, frame = len(self._voiced), self._plan.frame
        ready = self._filled // frame - done
        if ready > 0:
            fresh = self._buffer[done * frame : (done + ready) * frame].reshape(ready, frame)
            self._voiced += self._gate.push(fresh)

    def _complete(self) -> Iterator[Window]:
        plan = self._plan
        while self._next + plan.span <= self._base + len(self._voiced):
            start = self._next * plan.frame
            window = self._window(start, plan.size, self._next + (plan.span + plan.hop) // 2)
            self._answered, self._heard = window.first + len(window.voiced), window.stop
            self._next += plan.hop
            yield window

    def _window(self, start: int, size: int, answer_to: int) -> Window:
        plan = self._plan
        offset = start - self._base * plan.frame
        reached = self._voiced[start // plan.frame - self._base : -(-(start + size) // plan.frame) - self._base]
        answered = self._voiced[self._answered - self._base : answer_to - self._base]
        samples = self._buffer[offset : offset + size].copy()
        return Window(start, samples, sum(reached) / len(reached), self._answered, tuple(answered))

    def _forget(self) -> None:
        """Drop what lies before the last window: the tail may start anywhere in it."""
        keep = max(0, self._next - self._plan.hop)
        dropped = keep - self._base
        if dropped <= 0:
            return
        samples = dropped * self._plan.frame
        self._buffer[: self._filled - samples] = self._buffer[samples : self._filled].copy()
        del self._voiced[:dropped]
        self._filled -= samples
        self._base = keep
