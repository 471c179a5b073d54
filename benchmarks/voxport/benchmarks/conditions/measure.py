"""How much a model's answers suffer when clean sound is changed: see `conditions.runner`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.conditions.case import case_lists, measure_case
from voxport.benchmarks.conditions.report import ConditionRow, ConditionsReport, ConditionsSettings
from voxport.benchmarks.conditions.runner import CONDITIONS, Condition, RoomBank, Samples
from voxport.benchmarks.conditions.shares import (
    Answered,
    equal_error,
    false_accepts,
    kind_rows,
    right,
    wrong_probability,
)
from voxport.corpora.layouts.base import AS_FOUND, Entry
from voxport.corpora.layouts.recognition import list_corpus
from voxport.corpora.sounds import read_sound
from voxport.runtime.backends.base import Backend
from voxport.runtime.backends.load import load_backend
from voxport.runtime.backends.options import BackendOptions
from voxport.runtime.errors import AudioError, LengthError, VoxportError
from voxport.runtime.results import softmax
from voxport.runtime.windowing.hearing import hear, open_sound
from voxport.train.effects import draws

Progress = Callable[[int, int, str], None]  # answers given, answers in all, the condition


@dataclass(frozen=True)
class Files:
    """Clean sounds at the model's rate, their keys and speakers."""

    keys: tuple[str, ...]
    speakers: tuple[str, ...]
    sounds: tuple[Samples, ...]
    notes: tuple[str, ...]


class CorpusSurroundings(RoomBank):
    """The surroundings of a corpus's files: rooms for all, and for each the sounds of its other speakers."""

    def __init__(self, files: Files, sample_rate: int, seed: int) -> None:
        super().__init__(sample_rate, seed)
        self._files, self._draws = files, seed
        self.speaker = ""

    def changed(self, condition: Condition) -> Iterator[Samples]:
        """Every file under `condition`, the same in each run with this seed."""
        files = self._files
        for key, sound, speaker in zip(files.keys, files.sounds, files.speakers, strict=True):
            self.speaker = speaker
            yield condition.change(sound, self, draws.generator("bench", self._draws, condition.name, key))

    def voices(self, count: int, generator: np.random.Generator) -> list[Samples]:
        """One random sound each of `count` other speakers, or of all others where they are fewer."""
        others = sorted(set(self._files.speakers) - {self.speaker})
        chosen = generator.permutation(len(others))[:count]
        found = []
        for i in chosen:
            own = [k for k, speaker in enumerate(self._files.speakers) if speaker == others[i]]
            found.append(self._files.sounds[own[int(generator.integers(len(own)))]])
        return found


def measure_conditions(settings: ConditionsSettings, progress: Progress | None = None) -> ConditionsReport:
    """Answer every file under every condition; of CASE's own folder, score its trials.

    Raises:
        VoxportError: the model or the corpus cannot be used, or a package is missing.
    """
    backend = load_backend(settings.model, BackendOptions(settings.device, settings.threads))  # type: ignore[arg-type]
    contract = backend.contract
    lists = case_lists(Path(settings.data))
    if lists:
        return measure_case(backend, lists, settings, progress)
    files = read_files(Path(settings.data), contract.frontend.sample_rate, settings.limit)
    numbers = {label: i for i, label in enumerate(contract.labels)}
    labels = np.array([numbers.get(speaker, -1) for speaker in files.speakers])
    around = CorpusSurroundings(files, contract.frontend.sample_rate, settings.seed)
    answers: list[Answered] = []
    for number, condition in enumerate(CONDITIONS):
        done = number * len(files.keys)

        def tell(i: int, name: str = condition.name, done: int = done) -> None:
            if progress is not None:
                progress(done + i, len(CONDITIONS) * len(files.keys), name)

        answers.append(_answer(backend, files, condition, around, tell))
    if progress is not None:
        progress(len(CONDITIONS) * len(files.keys), len(CONDITIONS) * len(files.keys), "")
    threshold = contract.rejection.threshold if contract.rejection and "scores" in contract.outputs else None
    rows = _rows(answers, labels, np.unique(files.speakers, return_inverse=True)[1], threshold, settings.seed)
    notes = [*files.notes]
    if refused := sum(row.refused for row in rows):
        notes.append(f"{refused} changed files were refused by the model; they count as wrong and are in no EER")
    return ConditionsReport(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        settings=settings,
        model=Path(settings.model).name,
        recipe=contract.recipe,
        frontend=contract.frontend.name,
        files=len(files.keys),
        speakers=len(set(files.speakers)),
        known=int((labels >= 0).sum()),
        threshold=threshold,
        rows=rows,
        kinds=kind_rows(rows),
        notes=tuple(notes),
    )


def read_files(data: Path, sample_rate: int, limit: int | None) -> Files:
    """The labelled sounds of a corpus, at most `limit` of them, evenly spread.

    Raises:
        CorpusError: there is no such corpus.
        VoxportError: it holds features, or fewer than two speakers.
    """
    entries: Sequence[Entry] = [
        entry for entry in list_corpus(data.absolute(), AS_FOUND).entries if entry.speaker is not None
    ]
    entries = [entry for entry in entries if entry.is_sound]
    if not entries:
        raise VoxportError(f"{data}: holds no labelled sound files; conditions are made from sound, not from features")
    if limit is not None and len(entries) > limit:
        entries = [entries[round(float(i))] for i in np.linspace(0, len(entries) - 1, limit)]
    kept, sounds, notes = [], [], []
    for entry in entries:
        try:
            sounds.append(read_sound(entry, sample_rate))
            kept.append(entry)
        except AudioError as problem:
            notes.append(f"left out: {problem}")
    speakers = tuple(str(entry.speaker) for entry in kept)
    if len(set(speakers)) < 2:
        raise VoxportError(f"{data}: {len(set(speakers))} speakers with readable sound files; at least two are needed")
    return Files(tuple(entry.key for entry in kept), speakers, tuple(sounds), tuple(notes))


def _answer(
    backend: Backend,
    files: Files,
    condition: Condition,
    around: CorpusSurroundings,
    tell: Callable[[int], None],
) -> Answered:
    contract = backend.contract
    count = len(files.keys)
    scores = np.full((count, len(contract.labels)), np.nan, np.float32) if "scores" in contract.outputs else None
    embeddings = (
        np.full((count, contract.embedding_size), np.nan, np.float32) if "embedding" in contract.outputs else None
    )
    lengths = np.ones(count)
    for i, (key, changed) in enumerate(zip(files.keys, around.changed(condition), strict=True)):
        tell(i)
        try:
            source = open_sound(contract, changed, contract.frontend.sample_rate, f"{key}, {condition.name}")
            answer = hear(backend, source).answer
            lengths[i] = len(changed) / contract.frontend.sample_rate
        except (AudioError, LengthError):
            continue
        if scores is not None:
            scores[i] = answer.scores[0]
        if embeddings is not None:
            embeddings[i] = answer.embedding[0]
    filled = scores if scores is not None else embeddings
    assert filled is not None
    refused: npt.NDArray[np.bool_] = np.asarray(np.isnan(filled).any(axis=1))
    probabilities = None
    if scores is not None:
        probabilities = np.array(
            [
                np.nan if lost else softmax(row, contract.temperature_for(seconds)).max()
                for row, lost, seconds in zip(scores, refused, lengths, strict=True)
            ]
        )
    cosine = None if scores is None else scores.max(axis=1) / contract.score_scale
    best = None if scores is None else np.where(refused, -2, np.nan_to_num(scores, nan=-np.inf).argmax(axis=1))
    return Answered(best, cosine, probabilities, embeddings, refused)


def _rows(
    answers: Sequence[Answered],
    labels: npt.NDArray[np.int64],
    speakers: npt.NDArray[np.int64],
    threshold: float | None,
    seed: int,
) -> tuple[ConditionRow, ...]:
    clean = answers[0]
    return tuple(
        ConditionRow(
            name=condition.name,
            kind=condition.kind,
            files=len(labels),
            refused=int(answered.refused.sum()),
            accuracy=right(clean, answered, labels, seed),
            eer=equal_error(clean, answered, speakers, seed),
            false_accepts=false_accepts(clean, answered, labels, threshold, seed),
            wrong_probability=wrong_probability(answered, labels),
        )
        for condition, answered in zip(CONDITIONS, answers, strict=True)
    )
