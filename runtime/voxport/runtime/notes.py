"""What is worth saying about a sound beside its answer."""

from dataclasses import dataclass
from typing import Literal

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
