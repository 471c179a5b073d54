"""What is worth saying about a sound beside its answer."""

from dataclasses import dataclass
from typing import Literal, Protocol

from voxport.runtime.speech import Speech

NoteCode = Literal["channels", "band", "noise", "clipping", "level"]


@dataclass(frozen=True)
class Note:
    """A remark on a sound: `code` is for programs, `text` a clause for people that follows the sound's name.

    channels: its channels cancel each other, and the loudest was taken; or only one of them holds speech. band: its
    spectrum ends far below what the model listens to. noise: its speech hardly stands above the noise. clipping: it
    was recorded too loud. level: it is very quiet. For the last four see `voxport.runtime.quality`.
    """

    code: NoteCode
    text: str


class Described(Protocol):
    """A sound, or features, of which an answer tells what it is of; of a long one known when it has been read."""

    @property
    def seconds(self) -> float:
        """Seconds of sound."""
        ...

    @property
    def channel(self) -> int | None:
        """The number, from 1, of the channel that is heard; None where there is one, or all are averaged."""
        ...

    @property
    def notes(self) -> tuple[Note, ...]:
        """Remarks on the sound."""
        ...

    @property
    def speech(self) -> Speech | None:
        """What the contract's rule found; None without a rule, and of features."""
        ...


def is_unspoken(heard: Described) -> bool:
    """Whether a sound was checked, and holds no speech."""
    return heard.speech is not None and not heard.speech.found
