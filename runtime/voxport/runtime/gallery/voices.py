"""What callers give a gallery, arrays or voices, as the utterances that it keeps."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from voxport.runtime.errors import GalleryError
from voxport.runtime.gallery.state import unit_rows
from voxport.runtime.gallery.utterances import Utterances
from voxport.runtime.results import Voice

Embeddings = npt.ArrayLike | Voice | Sequence[Voice]


def is_without_speech(voice: Voice) -> bool:
    """Whether the sound of a voice was checked, and holds no speech: its vector says nothing."""
    return voice.speech is not None and not voice.speech.found


def refuse_without_speech(voice: Voice, what: str) -> None:
    """Raise GalleryError for the voice of a sound without speech."""
    if voice.speech is not None and not voice.speech.found:
        raise GalleryError(f"{what}: {voice.speech.text}; give a recording in which somebody speaks")


def utterances_of(given: Embeddings, embedding_size: int, what: str) -> Utterances:
    """Embeddings (embedding_size,) or (utterances, embedding_size), a voice, or several.

    Raises:
        GalleryError: as `unit_rows` does, and where a voice holds no speech.
    """
    voices = [given] if isinstance(given, Voice) else given
    if not isinstance(voices, (list, tuple)) or not voices or not all(isinstance(each, Voice) for each in voices):
        rows = unit_rows(given, embedding_size, what)  # type: ignore[arg-type]
        none = np.zeros((0, embedding_size))
        return Utterances(rows, lengths_of([None] * len(rows)), none, lengths_of([]))
    for number, each in enumerate(voices, 1):
        refuse_without_speech(each, what if len(voices) == 1 else f"{what}, voice {number}")
    rows = unit_rows(np.stack([each.embedding for each in voices]), embedding_size, what)
    pieces = pieces_of(voices)
    short = np.zeros((0, embedding_size))
    if pieces:
        short = unit_rows(np.stack([piece.embedding for piece in pieces]), embedding_size, what)
    return Utterances(
        rows,
        lengths_of(voices),
        short,
        lengths_of(pieces),
    )


def pieces_of(voices: Sequence[Voice]) -> list[Voice]:
    """The short pieces of sounds, but those without speech, which are nobody's and therefore no trial."""
    return [piece for each in voices for piece in each.pieces if not is_without_speech(piece)]


def lengths_of(voices: Sequence[Voice | None]) -> npt.NDArray[np.float32]:
    """Seconds of each sound, and of the active speech in it, float32 (voices, 2); 0 where not known."""
    rows = [(each.duration_s, each.speech_s or 0.0) if each is not None else (0.0, 0.0) for each in voices]
    return np.array(rows, np.float32).reshape(len(rows), 2)
