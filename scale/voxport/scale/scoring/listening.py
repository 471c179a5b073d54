"""One process's share of the work: utterances in, rows out, whatever is wrong with a file."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from voxport.corpora.errors import CorpusError, Problem
from voxport.corpora.layouts.base import Entry
from voxport.corpora.sounds import read_sound, sound_file
from voxport.runtime import SpeakerIdentifier
from voxport.runtime.audio.preprocess import Prepared, read_features
from voxport.runtime.backends.batching import group_by_length, pad
from voxport.runtime.errors import VoxportError
from voxport.runtime.notes import is_unspoken
from voxport.runtime.results import Voice, answered
from voxport.runtime.windowing.hearing import Heard, hear, open_features, open_sound

TOGETHER = 64  # sounds that are in memory at once
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What every worker does; plain values, which travel to other machines."""

    model: str
    model_sha256: str
    gallery: str | None
    device: Any
    threads: int
    top: int
    embeddings: bool


class Listener:
    """A loaded model that answers utterances of a corpus, in batches of similar length."""

    def __init__(self, job: Job) -> None:
        """Load the model, and the gallery where there is one; raises as that does."""
        self._job = job
        self._identifier = SpeakerIdentifier.load(job.model, device=job.device, threads=job.threads)
        self._contract = self._identifier.contract
        self._gallery = None
        if job.gallery is not None:
            from voxport.runtime.gallery.gallery import Gallery

            self._gallery = Gallery.load(job.gallery, self._contract)

    def rows(
        self, utterances: Iterable[Entry | Problem], done: Callable[[int, float], None] = lambda rows, seconds: None
    ) -> Iterator[Row]:
        """A row for each of `utterances`, in their order; `done` is told the rows and the seconds of sound so far."""
        waiting = iter(utterances)
        while chunk := list(islice(waiting, TOGETHER)):
            found = self._together(chunk)
            yield from found
            done(len(found), sum(row["seconds"] or 0.0 for row in found))

    def _together(self, chunk: list[Entry | Problem]) -> list[Row]:
        opened: list[Prepared | Heard | str] = [self._open(each) for each in chunk]
        rows: list[Row] = []
        short = [i for i, each in enumerate(opened) if isinstance(each, Prepared)]
        for place, heard in zip(short, self._run([opened[i] for i in short]), strict=True):  # type: ignore[misc]
            opened[place] = heard
        for each, found in zip(chunk, opened, strict=True):
            rows.append(self._row(each, found))
        return rows

    def _run(self, prepared: list[Prepared]) -> Iterator[Heard | str]:
        """What the model says of each, in the order given, however they are grouped into batches."""
        found: dict[int, Heard | str] = {}
        for group in group_by_length([item.seconds for item in prepared]):
            try:
                answer = self._identifier.backend.run(*pad([prepared[i].values for i in group]))
            except Exception:  # for want of memory, or because of one of them: each by itself says whose fault it is
                found |= {i: self._alone(prepared[i]) for i in group}
                continue
            found |= {i: Heard(answer.take(row), prepared[i]) for row, i in enumerate(group)}
        return (found[i] for i in range(len(prepared)))

    def _alone(self, prepared: Prepared) -> Heard | str:
        try:
            return hear(self._identifier.backend, prepared)
        except Exception as problem:
            return _told(problem)

    def _open(self, utterance: Entry | Problem) -> Prepared | Heard | str:
        """The sound as the model takes it; a long one is answered at once; or what is wrong with it."""
        if isinstance(utterance, Problem):
            return utterance.reason
        try:
            return self._opened(utterance)
        except Exception as problem:  # whatever a strange file makes a decoder raise, the others go on
            return _told(problem, utterance.path)

    def _opened(self, entry: Entry) -> Prepared | Heard:
        contract = self._contract
        if not entry.is_sound:
            if entry.path.suffix.lower() != ".npy":
                raise CorpusError("a tensor of features; voxport train predict reads those")
            source: Any = open_features(contract, read_features(entry.path), str(entry.path))
            return source if isinstance(source, Prepared) else hear(self._identifier.backend, source)
        if entry.span is not None:
            rate = contract.frontend.sample_rate
            source = open_sound(contract, read_sound(entry, rate), rate, entry.key)
            return source if isinstance(source, Prepared) else hear(self._identifier.backend, source)
        with sound_file(entry) as path:  # which may be gone after the block
            source = open_sound(contract, path, None, channel=entry.channel)
            return source if isinstance(source, Prepared) else hear(self._identifier.backend, source)

    def _row(self, utterance: Entry | Problem, found: Prepared | Heard | str) -> Row:
        row = empty_row(utterance, self._job.model_sha256)
        if isinstance(found, str):
            return row | {"error": found}
        assert isinstance(found, Heard), "all that is prepared was run"
        source, answer = found.source, found.answer
        row |= {"seconds": source.seconds, "windows": found.windows, "notes": [note.text for note in source.notes]}
        try:
            row |= self._who(found)
        except VoxportError as problem:
            return row | {"error": str(problem)}
        if is_unspoken(source):
            return row
        if self._job.embeddings and "embedding" in self._contract.outputs:
            row["embedding"] = answer.embedding.reshape(-1)
        return row

    def _who(self, found: Heard) -> Row:
        source, answer, top = found.source, found.answer, self._job.top
        if self._gallery is not None:
            voice = Voice(answer.embedding.reshape(-1), source.seconds, found.windows, speech=source.speech)
            matches = self._gallery.identify(voice, top=top)
            ranked = [(match.speaker, match.score, None) for match in matches.ranked]
            return _named(ranked, matches.known, matches.speaker)
        if "scores" not in self._contract.outputs:
            return {}
        said = answered(answer.scores[0], self._contract, top, source, found.windows)
        return _named([(each.speaker, each.score, each.probability) for each in said.ranked], said.known, said.speaker)


def _named(ranked: Sequence[tuple[str, float, float | None]], known: bool | None, speaker: str | None) -> Row:
    keys = ("speaker", "score", "probability")
    top = [dict(zip(keys, each, strict=True)) for each in ranked]
    return {"speaker": speaker, "known": known, "probability": ranked[0][2] if ranked else None, "top": top}


def empty_row(utterance: Entry | Problem, model_sha256: str) -> Row:
    """The row of an utterance of which nothing but its name is known."""
    return {
        "id": _as_text(utterance.key),
        "path": None if isinstance(utterance, Problem) else _as_text(os.fspath(utterance.path)),
        "label": None if isinstance(utterance, Problem) else utterance.speaker,
        "speaker": None,
        "known": None,
        "probability": None,
        "top": None,
        "embedding": None,
        "seconds": None,
        "windows": None,
        "notes": None,
        "model": model_sha256,
        "error": None,
    }


def _as_text(name: str) -> str:
    """A file's name that is no UTF-8 has its odd bytes as escapes: Parquet's text is UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _told(problem: Exception, path: Path | None = None) -> str:
    """A problem in a sentence, without the file's name, which stands beside it."""
    if isinstance(problem, VoxportError):
        text = str(problem)
    else:
        text = f"{type(problem).__name__}: {problem}"
    return _as_text(text if path is None else text.removeprefix(f"{path}: "))
