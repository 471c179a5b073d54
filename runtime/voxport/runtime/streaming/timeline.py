"""Who speaks when in a long recording."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel, ChannelChoice, check_channel
from voxport.runtime.audio.decode import audio_blocks
from voxport.runtime.audio.preprocess import heard_channels
from voxport.runtime.audio.resample_stream import Intake
from voxport.runtime.errors import AudioError
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.runtime.length_range import LengthRange
from voxport.runtime.results import softmax
from voxport.runtime.speech import SpeechRule
from voxport.runtime.streaming.scorers import ModelScorer, Scorer, score, temperature_of, threshold_for, unit_of
from voxport.runtime.streaming.segments import Segment, TurnBuilder, tidy
from voxport.runtime.streaming.viterbi import PathSmoother
from voxport.runtime.windowing.windows import Window, WindowOptions, WindowPlan, Windows, spoken, whole, within

Blocks = Iterable[npt.NDArray[Any]]
Progress = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class TimelineOptions(WindowOptions):
    """Windows (see `WindowOptions`), and how they become segments.

    `switch_penalty` is what a change of speaker costs (a difference of cosines, see
    `voxport.runtime.streaming.viterbi`): more gives fewer, longer turns, 0 takes every window for itself.
    Silence up to `max_gap_s` seconds does not end a turn. Turns shorter than `min_segment_s` join a
    neighbour or are left out. `batch` windows run together.
    """

    switch_penalty: float = 0.25
    max_gap_s: float = 0.5
    min_segment_s: float = 0.5
    batch: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        within("switch_penalty", self.switch_penalty, 0.0, 100.0)
        within("max_gap_s", self.max_gap_s, 0.0, 3600.0)
        within("min_segment_s", self.min_segment_s, 0.0, 3600.0)
        whole("batch", self.batch, 1, 1024)


class Timeline:
    """Divides a recording of any length among the speakers, leaving silence out.

        for segment in Timeline(identifier).segments("meeting.flac"):
            print(segment.start_s, segment.end_s, segment.speaker)

    Memory is constant, besides the turns themselves (some hundred bytes each). One speaker at a time is
    found: where two speak at once, the one that the model hears more. Nothing is kept between calls:
    any number of threads may share a timeline.
    """

    def __init__(
        self,
        identifier: SpeakerIdentifier,
        options: TimelineOptions | None = None,
        *,
        scorer: Scorer | None = None,
    ) -> None:
        """Raises LengthError where the model does not take windows of the options' length.

        `scorer` says who is compared with; None takes the model's own speakers.
        """
        self._identifier = identifier
        self._options = options or TimelineOptions()
        self._scorer = ModelScorer(identifier) if scorer is None else scorer
        self._plan = WindowPlan.of(self._options, identifier.contract)

    @property
    def window_s(self) -> float:
        """The length of a window in seconds; a shorter recording is one window."""
        return self._plan.size / self._plan.rate

    def segments(
        self,
        sound: str | os.PathLike[str] | npt.NDArray[Any] | Blocks,
        sample_rate: int | None = None,
        *,
        progress: Progress | None = None,
        channel: ChannelChoice | None = None,
    ) -> tuple[Segment, ...]:
        """Who speaks when, in order of time; segments of a channel do not overlap. () where all is silence.

        Args:
            sound: a path to a sound file (read block by block), samples (n,) or (n, channels), or any
                iterable of such arrays, in order: their sizes do not change the result.
            sample_rate: of samples, in Hz; not used for a path, since a file states its own.
            progress: called now and then with the seconds of the recording done so far, at last with all.
            channel: the one to hear, from 1, "mix" for the average, or "each". None compares the channels of a
                file or an array first (`voxport.runtime.audio.channels`) and hears each that holds a sound of its own;
                those of an iterable are averaged.

        Raises:
            AudioError: the sound cannot be used, or there is none.
            LengthError: it is shorter than the shortest sound that the model takes.
            BackendError: the model or a package failed.
        """
        name, chosen = self._channels(sound, sample_rate, channel)
        found: list[Segment] = []
        done = 0.0
        for each in chosen:
            told = None if progress is None else _share(progress, done, len(chosen))
            segments, seconds = self._segments(sound, sample_rate, name, each, told)
            done += seconds
            found += segments
        return tuple(sorted(found, key=lambda segment: (segment.start_s, segment.channel or 0)))

    def _channels(
        self, sound: Any, sample_rate: int | None, channel: ChannelChoice | None
    ) -> tuple[str, tuple[Channel, ...]]:
        if isinstance(sound, (str, os.PathLike)):
            return os.fspath(sound), heard_channels(sound, sample_rate, os.fspath(sound), channel)[1]
        if isinstance(sound, np.ndarray):
            return "the sound", heard_channels(sound, sample_rate, "the sound", channel)[1]
        check_channel(channel)
        if channel == "each":
            raise AudioError("the sound: its blocks can be read once only, so choose one channel of them, or mix")
        return "the sound", ("mix" if channel is None else channel,)

    def _segments(
        self, sound: Any, sample_rate: int | None, name: str, channel: Channel, progress: Progress | None
    ) -> tuple[tuple[Segment, ...], float]:
        """The segments of one channel, and the seconds of its sound."""
        pieces = self._pieces(sound, sample_rate, channel)
        plan = self._plan
        work = _Work(plan, self._options, self._scorer, self._identifier.contract.speech)
        windows = Windows(plan, self._options)
        told = 0
        for piece in pieces:
            for window in windows.push(piece):
                work.add(window)
            if progress is not None and windows.total >= told + plan.rate:
                told = windows.total
                progress(told / plan.rate)
        if windows.total == 0:
            raise AudioError(f"{name}: holds no samples; a recording with at least one window of sound is needed")
        if windows.total < plan.shortest:
            LengthRange.of_sound(self._identifier.contract).check(np.array([windows.total]), (name,))
        last, _ = windows.tail()
        if last is not None:  # also where it holds nothing new: it answers for the end
            work.add(last)
        number = None if channel == "mix" else channel
        segments = tuple(replace(segment, channel=number) for segment in work.finish())
        if progress is not None:
            progress(windows.total / plan.rate)
        return segments, windows.total / plan.rate

    def _pieces(self, sound: Any, sample_rate: int | None, channel: Channel) -> Iterator[npt.NDArray[np.float32]]:
        if isinstance(sound, (str, os.PathLike)):
            return audio_blocks(sound, self._plan.rate, channel=channel)
        if sample_rate is None:
            raise AudioError("the sound: samples need their sample rate; pass sample_rate in Hz")
        intake = Intake(sample_rate, self._plan.rate, channel)
        return _taken([sound] if isinstance(sound, np.ndarray) else sound, intake)


def _share(progress: Progress, before: float, channels: int) -> Progress:
    """`progress` for one of several channels, where `before` seconds of the others are done."""
    return lambda seconds: progress((before + seconds) / channels)


def _taken(blocks: Blocks, intake: Intake) -> Iterator[npt.NDArray[np.float32]]:
    for block in blocks:
        yield from intake.push(block)
    yield intake.finish()


class _Work:
    """One recording on its way: windows → batches → scores → smooth path → turns."""

    def __init__(self, plan: WindowPlan, options: TimelineOptions, scorer: Scorer, rule: SpeechRule | None) -> None:
        self._plan, self._options, self._scorer, self._rule = plan, options, scorer, rule
        self._waiting: list[Window | None] = []  # None: a window of silence, which ends a path
        self._speech = 0  # windows in `_waiting` that are to be scored
        self._in_speech = False
        self._scored: deque[tuple[Window, npt.NDArray[np.float64], float]] = deque()
        self._smoother = PathSmoother(options.switch_penalty * unit_of(scorer))
        self._turns = TurnBuilder(self._frames(options.max_gap_s))

    def add(self, window: Window) -> None:
        """The next window in time."""
        found = spoken(window, self._plan.rate, self._options.min_speech, self._rule)
        if found is not None:
            self._waiting.append(found)
            self._speech += 1
        elif self._in_speech:
            self._waiting.append(None)
        self._in_speech = found is not None
        if self._speech == self._options.batch:
            self._run()

    def finish(self) -> tuple[Segment, ...]:
        """All segments, tidied."""
        self._run()
        self._place(self._smoother.finish())
        options = self._options
        turns = tidy(self._turns.turns, self._frames(options.max_gap_s), self._frames(options.min_segment_s))
        speakers = (*self._scorer.speakers, None)
        return tuple(
            Segment(
                self._plan.seconds(turn.start),
                self._plan.seconds(turn.stop),
                speakers[turn.speaker],
                turn.score / turn.windows,
                turn.probability / turn.windows,
            )
            for turn in turns
        )

    def _frames(self, seconds: float) -> int:
        return round(seconds * self._plan.rate / self._plan.frame)

    def _run(self) -> None:
        windows = [window for window in self._waiting if window is not None]
        rows = score(self._scorer, [window.samples for window in windows]) if windows else np.zeros((0, 0))
        scored = 0
        for window in self._waiting:
            if window is None:
                self._place(self._smoother.finish())
                continue
            row = rows[scored]
            scored += 1
            # The window's sound is needed no more; what it answers for is, until the path is decided.
            seconds = len(window.samples) / self._plan.rate
            self._scored.append((replace(window, samples=window.samples[:0].copy()), row, seconds))
            threshold = threshold_for(self._scorer, seconds, window.speech_s)
            self._place(self._smoother.push(self._cosines(row, threshold)))
        self._waiting.clear()
        self._speech = 0

    def _cosines(self, row: npt.NDArray[np.float64], threshold: float | None) -> npt.NDArray[np.float64]:
        """Cosines (speakers,); where there is a threshold, it is one speaker more: nobody."""
        cosines = row / self._scorer.scale
        return cosines if threshold is None else np.append(cosines, threshold)

    def _place(self, path: list[int]) -> None:
        for speaker in path:
            window, row, seconds = self._scored.popleft()
            nearest = int(np.argmax(row)) if speaker == len(row) else speaker
            probability = float(softmax(row, temperature_of(self._scorer, seconds))[nearest])
            self._turns.add(window.first, window.voiced, speaker, float(row[nearest]), probability)
