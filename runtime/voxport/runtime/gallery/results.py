"""What a gallery answers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Enrolled:
    """A speaker of a gallery and the number of utterances that the voice is the mean of.

    `repeated` of those that were given last were there already, and count once.
    """

    speaker: str
    utterances: int
    repeated: int = 0


@dataclass(frozen=True)
class Likeness:
    """What an utterance that is to be enrolled is like.

    `own` is its cosine to the voice that is there under the name, or where the name is new to the mean of the
    other utterances that are given; None where there is nothing to compare with. `nearest` is the most alike of
    the others, None where nobody else is enrolled. `repeated` says that the very utterance is there already.
    `doubt` says why it should not be enrolled so, by the rule of `voxport.runtime.gallery.check`; `warning` why
    one might look again. None: nothing is wrong.
    """

    own: float | None
    nearest: str | None
    nearest_cosine: float | None
    repeated: bool
    doubt: str | None
    warning: str | None


@dataclass(frozen=True)
class Pair:
    """Two names whose voices are as alike as one: enrolled under both, or enrolled, and among the strangers."""

    first: str
    second: str
    cosine: float


@dataclass(frozen=True)
class Misfit:
    """A kept utterance (counted from 1) that is unlike the rest of its speaker's, or more like another's voice."""

    speaker: str
    utterance: int
    own: float
    nearest: str | None
    nearest_cosine: float | None


@dataclass(frozen=True)
class GalleryCheck:
    """What is wrong with a gallery. `different` and `alike` are the cosines that it was judged by.

    `pairs` are names that are one voice, `misfits` utterances that are not their speaker's. `trained` are names that
    are labels of the model's training, `notes` say what else makes thresholds untrue.
    """

    different: float
    alike: float
    pairs: tuple[Pair, ...]
    misfits: tuple[Misfit, ...]
    trained: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether no name has to be mended."""
        return not self.pairs and not self.misfits


@dataclass(frozen=True)
class Match:
    """A speaker and the cosine, in [-1, 1], between the enrolled voice and the voice in question.

    `normalized` is the normalised score, where the gallery compares by these, else None.
    """

    speaker: str
    cosine: float
    normalized: float | None = None

    @property
    def score(self) -> float:
        """What ranks, and what thresholds are for: the normalised score, or the cosine where there is none."""
        return self.cosine if self.normalized is None else self.normalized


@dataclass(frozen=True)
class Matches:
    """Which enrolled speaker is it?

    `ranked` holds the most alike, best first. `known` says whether the best score reaches `threshold`;
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

    `accepted` says whether `score` reaches `threshold`; both are None where no threshold was given or
    calibrated. `normalized` is as in `Match`.
    """

    speaker: str
    cosine: float
    threshold: float | None
    accepted: bool | None
    normalized: float | None = None

    @property
    def score(self) -> float:
        """What the threshold is for: the normalised score, or the cosine where there is none."""
        return self.cosine if self.normalized is None else self.normalized


@dataclass(frozen=True)
class Description:
    """What a gallery keeps of a speaker.

    `own` are the cosines of the kept utterances to the speaker's others (None where there are none), `seconds` the
    lengths of their sounds (None where not known), `pieces` the number of short pieces. `nearest` are the most alike
    of the others. `trained`: the name is a label of the model's training.
    """

    speaker: str
    utterances: int
    trained: bool
    own: tuple[float | None, ...]
    seconds: tuple[float | None, ...]
    pieces: int
    nearest: tuple[Match, ...]
