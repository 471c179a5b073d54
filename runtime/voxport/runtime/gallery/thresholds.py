"""Cosines from which on a voice is accepted."""

from dataclasses import dataclass
from typing import Literal

from voxport.runtime.contract import UNPRINTABLE

LengthOf = Literal["sound", "speech"]

MAX_SPEAKERS = 1_000_000
_MAX_NOTE = 1000  # characters


def _check_cosines(thresholds: "Thresholds | ShortThresholds") -> None:
    for name in ("verify", "identify"):
        value = getattr(thresholds, name)
        if value is not None and not -1 <= value <= 1:
            raise ValueError(f"the {name} threshold is a cosine between -1 and 1, found {value}")


@dataclass(frozen=True)
class ShortThresholds:
    """Thresholds for sounds shorter than `below_s` seconds; None: too few such sounds were seen to set one."""

    below_s: float
    verify: float | None
    identify: float | None

    def __post_init__(self) -> None:
        _check_cosines(self)
        if not 0 < self.below_s <= 3600:
            raise ValueError(f"below_s must be above 0, at most 3600 seconds, found {self.below_s}")


@dataclass(frozen=True)
class Thresholds:
    """From which cosine on a voice is accepted; None where there is no such threshold.

    `verify` holds for one comparison: this voice, that speaker. `identify` holds for the best of all
    enrolled speakers, and is therefore higher. `false_accept_rate` is what both were calibrated for,
    None where they were given; `speakers` is how many were enrolled then, which `identify` depends on.
    `by_length` are those of short sounds, the shortest first; `notes` say why the rate may be untrue. `length_of` says
    what counts for `by_length`: the active speech, or the whole sound, pauses included, as in galleries from before.
    """

    verify: float | None = None
    identify: float | None = None
    false_accept_rate: float | None = None
    speakers: int = 0
    by_length: tuple[ShortThresholds, ...] = ()
    notes: tuple[str, ...] = ()
    length_of: LengthOf = "sound"

    def for_length(self, seconds: float | None, speech_s: float | None = None) -> "Thresholds | ShortThresholds":
        """What holds for a sound of so many seconds, of which `speech_s` are active speech; None: not known.

        Where speech counts and is not known, `seconds` stand for it.
        """
        if self.length_of == "speech" and speech_s is not None:
            seconds = speech_s
        if seconds is not None:
            for short in self.by_length:
                if seconds < short.below_s:
                    return short
        return self

    def __post_init__(self) -> None:
        _check_cosines(self)
        if any(UNPRINTABLE.search(note) or len(note) > _MAX_NOTE for note in self.notes) or len(self.notes) > 16:
            raise ValueError("a note on the thresholds is too long, or does not print")
        if self.false_accept_rate is not None and not 0 < self.false_accept_rate < 1:
            raise ValueError(f"false_accept_rate must lie between 0 and 1, found {self.false_accept_rate}")
        if not 0 <= self.speakers <= MAX_SPEAKERS:
            raise ValueError(f"speakers must be between 0 and {MAX_SPEAKERS}, found {self.speakers}")
