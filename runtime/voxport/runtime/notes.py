"""What is worth saying about a sound beside its answer."""

from dataclasses import dataclass
from typing import Literal

NoteCode = Literal["channels"]


@dataclass(frozen=True)
class Note:
    """A remark on a sound: `code` is for programs, `text` a clause for people that follows the sound's name.

    channels: its channels cancel each other, and the loudest was taken; or only one of them holds speech.
    """

    code: NoteCode
    text: str
