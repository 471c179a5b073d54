"""Scores → a ranked answer."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Contract
from voxport.runtime.errors import VoxportError
from voxport.runtime.notes import Described, Note, is_unspoken
from voxport.runtime.speech import Speech
from voxport.runtime.storage.serialization import encode


@dataclass(frozen=True)
class Candidate:
    """One speaker. `score` is score_scale × cosine, `probability` its softmax share at that length's temperature."""

    speaker: str
    score: float
    probability: float


@dataclass(frozen=True)
class Identification:
    """Who is speaking.

    `ranked` holds the best candidates, best first. `duration_s` is the length of the sound in seconds
    (of features: of the shortest sound that gives so many frames). `known` says whether the best
    cosine reaches the contract's rejection threshold; None where the model has no threshold. `windows` is how
    many windows the answer was averaged over: 1 where the model heard the sound whole. `channel` is the number,
    from 1, of the channel that was heard; None where there is one, or all were averaged. `notes` are remarks on the
    sound. `speech` is what the contract's rule found in it; None where nothing was checked. A sound without speech
    is nobody's: `ranked` is empty, and `known` is False.
    """

    ranked: tuple[Candidate, ...]
    duration_s: float
    known: bool | None
    windows: int = 1
    channel: int | None = None
    notes: tuple[Note, ...] = ()
    speech: Speech | None = None

    @property
    def best(self) -> Candidate:
        """The most probable speaker, known or not.

        Raises:
            VoxportError: the sound holds no speech; `speaker` is then None.
        """
        if not self.ranked:
            raise VoxportError(f"the sound {self.speech.text if self.speech else 'has no answer'}; ask for .speaker")
        return self.ranked[0]

    @property
    def speaker(self) -> str | None:
        """The speaker's name; None where it is nobody that the model knows, or nobody speaks."""
        return None if self.known is False else self.best.speaker


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice as a unit vector, float32 (embedding_size,), and what it was heard in.

    `duration_s`, `windows`, `channel`, `notes` and `speech` are as in `Identification`. A sound without speech has a
    vector too, which says nothing. `pieces` are voices of short pieces of the same sound, where they were asked for:
    a gallery calibrates with them.
    """

    embedding: npt.NDArray[np.float32]
    duration_s: float
    windows: int = 1
    pieces: tuple["Voice", ...] = ()
    channel: int | None = None
    notes: tuple[Note, ...] = ()
    speech: Speech | None = None

    @property
    def speech_s(self) -> float | None:
        """Seconds of active speech in the sound, by the contract's rule; None where nothing was checked."""
        return None if self.speech is None else self.speech.seconds

    def heard(self) -> dict[str, Any]:
        """How the sound was heard, as plain values for a report in JSON."""
        return {
            "duration_s": self.duration_s,
            "windows": self.windows,
            "channel": self.channel,
            "notes": encode(self.notes),
            "speech": encode(self.speech),
        }


def answered(
    scores: npt.NDArray[np.float32], contract: Contract, top: int, heard: Described, windows: int = 1
) -> Identification:
    """What `rank` gives, with what is known of the sound that was heard; nobody, where that holds no speech."""
    if is_unspoken(heard):
        return unspoken(heard, windows)
    found = rank(scores, contract, top, heard.seconds, windows)
    return dataclasses.replace(found, channel=heard.channel, notes=heard.notes, speech=heard.speech)


def unspoken(heard: Described, windows: int = 1) -> Identification:
    """The answer to a sound without speech."""
    return Identification((), heard.seconds, False, windows, heard.channel, heard.notes, heard.speech)


def rank(
    scores: npt.NDArray[np.float32], contract: Contract, top: int, duration_s: float, windows: int = 1
) -> Identification:
    """Rank one row of scores (speakers,). Equal scores keep the order of the contract's labels.

    Raises:
        VoxportError: `top` below 1, or a score that is no number.
    """
    ranked = candidates(scores, contract.labels, top, contract.temperature_for(duration_s))
    return Identification(ranked, duration_s, _is_known(ranked[0].score, contract), windows)


def candidates(
    scores: npt.NDArray[np.floating[Any]], speakers: Sequence[str], top: int, temperature: float = 1.0
) -> tuple[Candidate, ...]:
    """The `top` best of one row of scores (speakers,), best first; raises as `rank` does."""
    if top < 1:
        raise VoxportError(f"top must be at least 1, found {top}")
    if not np.isfinite(scores).all():
        raise VoxportError("the model answered with NaN or infinite scores; check it with: voxport inspect MODEL")
    order = np.argsort(-scores, kind="stable")[:top]
    probabilities = softmax(scores, temperature)
    return tuple(Candidate(speakers[i], float(scores[i]), float(probabilities[i])) for i in order)


def softmax(scores: npt.NDArray[np.floating[Any]], temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities of one row of scores (speakers,), in float64; the largest score is taken off first."""
    shares = np.exp((scores.astype(np.float64) - float(scores.max())) / temperature)
    return np.asarray(shares / shares.sum())


def _is_known(best_score: float, contract: Contract) -> bool | None:
    if contract.rejection is None:
        return None
    return best_score / contract.score_scale >= contract.rejection.threshold
