"""Cosines, or normalised scores, from which on a voice is accepted."""

from dataclasses import dataclass
from typing import Any, Literal

from voxport.runtime.contract import UNPRINTABLE, AsNorm
from voxport.runtime.contract.as_norm import MOST_NORMALIZED
from voxport.runtime.errors import GalleryError
from voxport.runtime.storage.serialization import encode

LengthOf = Literal["sound", "speech"]

MAX_SPEAKERS = 1_000_000
_MAX_NOTE = 1000  # characters


def check_threshold(name: str, value: float | None, as_norm: int | None) -> None:
    """Raise GalleryError where `value` is none that a voice could reach; `as_norm` as in `Thresholds`."""
    if value is None:
        return
    if as_norm is None and not -1 <= value <= 1:
        raise GalleryError(f"{name} is a cosine between -1 and 1, found {value}")
    if not -MOST_NORMALIZED <= value <= MOST_NORMALIZED:
        raise GalleryError(
            f"{name} is a normalised score between {-MOST_NORMALIZED:g} and {MOST_NORMALIZED:g}, found {value}"
        )


def _check_both(thresholds: "Thresholds | ShortThresholds", as_norm: int | None) -> None:
    for name in ("verify", "identify"):
        try:
            check_threshold(f"the {name} threshold", getattr(thresholds, name), as_norm)
        except GalleryError as problem:
            raise ValueError(str(problem)) from problem


@dataclass(frozen=True)
class ShortThresholds:
    """Thresholds for sounds shorter than `below_s` seconds; None: too few such sounds were seen to set one."""

    below_s: float
    verify: float | None
    identify: float | None

    def __post_init__(self) -> None:
        _check_both(self, 0)  # the thresholds that these are part of know the rule
        if not 0 < self.below_s <= 3600:
            raise ValueError(f"below_s must be above 0, at most 3600 seconds, found {self.below_s}")


@dataclass(frozen=True)
class Thresholds:
    """From which score on a voice is accepted; None where there is no such threshold.

    `verify` holds for one comparison: this voice, that speaker. `identify` holds for the best of all
    enrolled speakers, and is therefore higher. `false_accept_rate` is what both were calibrated for,
    None where they were given; `speakers` is how many were enrolled then, which `identify` depends on.
    `by_length` are those of short sounds, the shortest first; `notes` say why the rate may be untrue. `length_of` says
    what counts for `by_length`: the active speech, or the whole sound, pauses included, as in galleries from before.
    `as_norm` is by how many training speakers scores are normalised; None: scores are cosines.
    """

    verify: float | None = None
    identify: float | None = None
    false_accept_rate: float | None = None
    speakers: int = 0
    by_length: tuple[ShortThresholds, ...] = ()
    notes: tuple[str, ...] = ()
    length_of: LengthOf = "sound"
    as_norm: int | None = None

    @classmethod
    def unset(cls, rule: AsNorm | None) -> "Thresholds":
        """None yet, for scores that are normalised by `rule`."""
        return cls(as_norm=None if rule is None else rule.top)

    def encoded(self) -> dict[str, Any]:
        """As JSON holds them; what only newer readers know is left out where it says the usual."""
        found: dict[str, Any] = encode(self)
        if self.as_norm is None:
            del found["as_norm"]
        return found

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
        if self.as_norm is not None and self.as_norm < 2:
            raise ValueError(f"as_norm must be two speakers or more, found {self.as_norm}")
        _check_both(self, self.as_norm)
        for short in self.by_length:
            _check_both(short, self.as_norm)
        if any(UNPRINTABLE.search(note) or len(note) > _MAX_NOTE for note in self.notes) or len(self.notes) > 16:
            raise ValueError("a note on the thresholds is too long, or does not print")
        if self.false_accept_rate is not None and not 0 < self.false_accept_rate < 1:
            raise ValueError(f"false_accept_rate must lie between 0 and 1, found {self.false_accept_rate}")
        if not 0 <= self.speakers <= MAX_SPEAKERS:
            raise ValueError(f"speakers must be between 0 and {MAX_SPEAKERS}, found {self.speakers}")
