"""Decided windows → segments: who speaks from when to when."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Segment:
    """One speaker's turn, in seconds from the start of the recording.

    `speaker` is None for a voice that the model does not know. `score` (score_scale × cosine) and
    `probability` are means over the turn's windows: of the speaker, or of the most similar one where
    he is unknown. `channel` is the channel that was heard, from 1; None where there is one, or all were
    averaged.
    """

    start_s: float
    end_s: float
    speaker: str | None
    score: float
    probability: float
    channel: int | None = None

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Turn:
    """A segment while it is being put together: whole frames, and sums over `windows` windows."""

    start: int
    stop: int
    speaker: int
    score: float
    probability: float
    windows: int

    @property
    def length(self) -> int:
        """Its length in frames."""
        return self.stop - self.start

    def extended(self, other: "Turn", own: bool = True) -> "Turn":
        """This turn and `other` as one; `own`: the other's windows speak for this speaker too."""
        longer = replace(self, start=min(self.start, other.start), stop=max(self.stop, other.stop))
        if not own:
            return longer
        return replace(
            longer,
            score=self.score + other.score,
            probability=self.probability + other.probability,
            windows=self.windows + other.windows,
        )


def voiced_runs(first: int, voiced: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Stretches (start, stop) of open frames, counted from the start of the recording."""
    start: int | None = None
    for frame, is_open in enumerate((*voiced, False), first):
        if is_open and start is None:
            start = frame
        elif not is_open and start is not None:
            yield start, frame
            start = None


class TurnBuilder:
    """Joins decided windows to turns as they come."""

    def __init__(self, max_gap: int) -> None:
        """`max_gap`: frames of silence that a turn goes on over."""
        self._max_gap = max_gap
        self.turns: list[Turn] = []

    def add(self, first: int, voiced: Sequence[bool], speaker: int, score: float, probability: float) -> None:
        """A window that answers for the frames `voiced`, of which `first` is the first."""
        counted = False
        for start, stop in voiced_runs(first, voiced):
            run = Turn(start, stop, speaker, score, probability, 1)
            last = self.turns[-1] if self.turns else None
            if last is not None and last.speaker == speaker and start - last.stop <= self._max_gap:
                self.turns[-1] = last.extended(run, own=not counted)
            else:
                self.turns.append(run)
            counted = True


def tidy(turns: Iterable[Turn], max_gap: int, min_length: int) -> list[Turn]:
    """Without turns shorter than `min_length` frames, in one pass from left to right.

    A short turn joins its longer neighbour where at most `max_gap` frames of silence lie between them,
    and is left out where it stands alone. Turns of one speaker that then meet become one.
    """
    kept: list[Turn] = []  # only the last may be short
    for turn in turns:
        if kept and kept[-1].length < min_length:
            short = kept.pop()
            left = kept[-1] if kept and _gap(kept[-1], short) <= max_gap else None
            right = turn if _gap(short, turn) <= max_gap else None
            if left is not None and (right is None or left.length >= right.length):
                kept[-1] = left.extended(short, own=left.speaker == short.speaker)
            elif right is not None:
                turn = right.extended(short, own=right.speaker == short.speaker)
        if kept and kept[-1].speaker == turn.speaker and _gap(kept[-1], turn) <= max_gap:
            kept[-1] = kept[-1].extended(turn)
        else:
            kept.append(turn)
    if kept and kept[-1].length < min_length:
        short = kept.pop()
        if kept and _gap(kept[-1], short) <= max_gap:
            kept[-1] = kept[-1].extended(short, own=kept[-1].speaker == short.speaker)
    return kept


def _gap(earlier: Turn, later: Turn) -> int:
    return later.start - earlier.stop
