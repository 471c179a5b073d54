"""Who is speaking now: sound goes in as it comes, decisions come out as they firm up."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxport.runtime.audio.channels import Channel, check_one_channel
from voxport.runtime.audio.resample_stream import Intake
from voxport.runtime.errors import VoxportError
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.runtime.results import Candidate, candidates
from voxport.runtime.streaming.scorers import ModelScorer, Scorer, score, temperature_of, threshold_for, unit_of
from voxport.runtime.windowing.windows import Window, WindowOptions, WindowPlan, Windows, spoken, whole, within

UNKNOWN = -1  # the index of nobody


@dataclass(frozen=True, kw_only=True)
class StreamOptions(WindowOptions):
    """Windows (see `WindowOptions`), and how their scores become decisions.

    A decision is the mean of the scores of the last `average` windows of speech. It is firm once the
    same speaker has led in `firm_after` decisions on end, now by at least `firm_margin` (a difference
    of cosines) over the next speaker and, where there is a threshold, over the threshold, and leads in
    the newest window by itself too. A window of silence ends a turn: mean and count start anew. `top`
    is the number of speakers in a decision.

    With windows of 2 s every 0.5 s, a mean of 4 hears 3.5 s, and is first firm after 3 s.
    """

    average: int = 4
    firm_after: int = 3
    firm_margin: float = 0.1
    top: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("average", "firm_after", "top"):
            whole(name, getattr(self, name), 1, 1000)
        within("firm_margin", self.firm_margin, 0.0, 2.0)


@dataclass(frozen=True)
class Decision:
    """Who speaks in the windows from `start_s` to `end_s` (seconds since the stream began).

    `ranked` holds the best candidates by smoothed score, best first. `known` says whether the best
    reaches the threshold; None where there is none. `firm` says that the answer has settled. `channel` is the
    channel that was heard, from 1; None where there is one, or all were averaged.
    """

    start_s: float
    end_s: float
    ranked: tuple[Candidate, ...]
    known: bool | None
    firm: bool
    channel: int | None = None

    @property
    def best(self) -> Candidate:
        """The candidate with the highest smoothed score, known or not."""
        return self.ranked[0]

    @property
    def speaker(self) -> str | None:
        """The speaker; None where it is nobody that the model knows."""
        return None if self.known is False else self.best.speaker


class Stream:
    """Names the speaker of a live sound.

        stream = Stream(identifier, sample_rate=44100)
        for chunk in microphone:
            for decision in stream.push(chunk):
                print(decision.end_s, decision.speaker, decision.firm)
        stream.close()

    There is one decision for each window of speech. Decisions depend on the samples alone: chunked in
    any way they are equal, bit by bit. Memory is constant, besides what `push` returns. One thread at a
    time may use a stream; any number of streams may share an identifier.
    """

    def __init__(
        self,
        identifier: SpeakerIdentifier,
        sample_rate: int | None = None,
        options: StreamOptions | None = None,
        *,
        scorer: Scorer | None = None,
        channel: Channel = "mix",
    ) -> None:
        """Open a stream.

        Args:
            identifier: the loaded model.
            sample_rate: of the chunks, in Hz, 4 to 192 kHz; None: the model's own. Others are resampled.
            options: None takes the defaults.
            scorer: who is compared with; None takes the model's own speakers.
            channel: the one to hear of chunks (n, channels), from 1, or "mix" for the average. What is yet to come
                cannot be compared: of a call, open a stream for each channel.

        Raises:
            LengthError: the model does not take windows of that length.
            AudioError: the rate cannot be used.
            BackendError: the rate is not the model's, and soxr is not installed.
        """
        check_one_channel(channel)
        self._options = options or StreamOptions()
        self._plan = WindowPlan.of(self._options, identifier.contract)
        self._rate = self._plan.rate if sample_rate is None else sample_rate
        self._scorer = ModelScorer(identifier) if scorer is None else scorer
        self._rule = identifier.contract.speech
        self._firm_margin = self._options.firm_margin * unit_of(self._scorer)
        self._closed = False
        self._channel = channel
        self._recent: deque[tuple[int, npt.NDArray[np.float64]]] = deque(maxlen=self._options.average)
        self.reset()

    def push(self, chunk: npt.ArrayLike) -> tuple[Decision, ...]:
        """Take the next samples and return the decisions that they complete, mostly none or one.

        Args:
            chunk: any number of samples, also none. float16, float32 or float64 in [-1, 1], int16 or
                int32; shape (n,), or (n, channels) with at most 8 channels.

        Raises:
            AudioError: NaN, infinity, another type or shape, or floats far beyond [-1, 1]. Nothing of
                the chunk is used, and the stream goes on.
            VoxportError: the stream is closed.
            BackendError: the model failed; `reset` before going on.
        """
        if self._closed:
            raise VoxportError("the stream is closed; call reset() to begin a new one")
        return tuple(self._decide(window) for piece in self._intake.push(chunk) for window in self._speech(piece))

    def close(self) -> tuple[Decision, ...]:
        """End the stream and return what its tail still decides; () when it is closed already.

        Sound behind the last whole window is heard by one window more, which ends where the sound ends.
        A stream shorter than a window is one window; shorter than the model needs, it has no decision.
        """
        if self._closed:
            return ()
        self._closed = True
        decisions = [self._decide(window) for window in self._speech(self._intake.finish())]
        window, fresh = self._windows.tail()
        last = self._spoken(window) if window is not None and fresh else None
        if last is not None:
            decisions.append(self._decide(last))
        return tuple(decisions)

    def reset(self) -> None:
        """Begin again at time 0, as a new stream would; what was not decided is forgotten."""
        self._intake = Intake(self._rate, self._plan.rate, self._channel)
        self._windows = Windows(self._plan, self._options)
        self._closed = False
        self._recent.clear()
        self._leader: int | None = None
        self._led = 0

    @property
    def seconds(self) -> float:
        """How much sound has been pushed."""
        return self._intake.seconds

    def _speech(self, samples: npt.NDArray[np.float32]) -> Iterator[Window]:
        return (each for window in self._windows.push(samples) if (each := self._spoken(window)) is not None)

    def _spoken(self, window: Window) -> Window | None:
        found = spoken(window, self._plan.rate, self._options.min_speech, self._rule)
        if found is None:
            self._recent.clear()
            self._leader, self._led = None, 0
        return found

    def _decide(self, window: Window) -> Decision:
        # One window at a time, however many a chunk completes: another batch size may round otherwise.
        (row,) = score(self._scorer, [window.samples])
        self._recent.append((window.start, row))
        mean = np.mean([scores for _, scores in self._recent], axis=0)
        seconds = len(window.samples) / self._plan.rate
        threshold = threshold_for(self._scorer, seconds, window.speech_s)
        known, leader, margin = self._lead(mean, threshold)
        self._led = self._led + 1 if leader == self._leader else 1
        self._leader = leader
        # The mean lags behind a change of speaker: the newest window must not contradict it.
        agreed = self._lead(row, threshold)[1] == leader
        firm = agreed and self._led >= self._options.firm_after and margin >= self._firm_margin
        ranked = candidates(mean, self._scorer.speakers, self._options.top, temperature_of(self._scorer, seconds))
        start, stop = self._recent[0][0] / self._plan.rate, window.stop / self._plan.rate
        channel = None if self._channel == "mix" else self._channel
        return Decision(start, stop, ranked, known, bool(firm), channel)

    def _lead(self, mean: npt.NDArray[np.float64], threshold: float | None) -> tuple[bool | None, int, float]:
        """Whether the best is known, its index (or UNKNOWN), and its lead in cosine."""
        cosines = mean / self._scorer.scale
        best = int(np.argmax(cosines))
        others = [float(np.delete(cosines, best).max())] if len(cosines) > 1 else []
        if threshold is None:
            return None, best, float(cosines[best]) - max(others, default=-np.inf)
        if cosines[best] >= threshold:
            return True, best, float(cosines[best]) - max([threshold, *others])
        return False, UNKNOWN, threshold - float(cosines[best])
