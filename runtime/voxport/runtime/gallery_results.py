"""What a gallery answers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Enrolled:
    """A speaker of a gallery and the number of utterances that the voice is the mean of."""

    speaker: str
    utterances: int


@dataclass(frozen=True)
class Match:
    """A speaker and the cosine, in [-1, 1], between the enrolled voice and the voice in question."""

    speaker: str
    cosine: float


@dataclass(frozen=True)
class Matches:
    """Which enrolled speaker is it?

    `ranked` holds the most alike, best first. `known` says whether the best cosine reaches `threshold`;
    both are None where no threshold was given or calibrated. A sound without speech is nobody's: `ranked` is
    empty, and `known` is False.
    """

    ranked: tuple[Match, ...]
    threshold: float | None
    known: bool | None

    @property
    def best(self) -> Match:
        """The most alike, known or not."""
        return self.ranked[0]

    @property
    def speaker(self) -> str | None:
        """The speaker's name; None where it is nobody that is enrolled."""
        return None if self.known is False else self.best.speaker


@dataclass(frozen=True)
class Verification:
    """Is it this speaker?

    `accepted` says whether `cosine` reaches `threshold`; both are None where no threshold was given or
    calibrated.
    """

    speaker: str
    cosine: float
    threshold: float | None
    accepted: bool | None
