"""How many labelled utterances a back end gets right, each alone. Apart from all timing.

Utterances that the models do not take whole are heard in windows. The mean of the windows' scores ranks speakers as
the scores of the averaged embedding do, since one is a multiple of the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxport.benchmarks.backends.registry import Array
from voxport.benchmarks.core.protocol import Judge, Judged
from voxport.benchmarks.core.records import Accuracy
from voxport.benchmarks.tasks.cold_start import Tools
from voxport.runtime.errors import VoxportError
from voxport.train.checkpoint import Checkpoint, load_checkpoint
from voxport.train.data import Corpus, CorpusOptions, open_corpus
from voxport.train.evaluation.long_utterances import corpus_windows


@dataclass(frozen=True)
class Labelled:
    """Positions in a corpus and their labels as the checkpoint numbers them; `note` says what they are."""

    corpus: Corpus
    chosen: tuple[int, ...]
    labels: tuple[int, ...]
    note: str


def judge(request: Judge, tools: Tools) -> Judged:
    """Run every labelled utterance.

    Raises:
        VoxportError: the corpus cannot be used, or has nobody whom the checkpoint knows.
    """
    backend = tools.opener(request.backend)
    labelled = choose(request, load_checkpoint(request.checkpoint))
    wrong = []
    for number, (position, label) in enumerate(zip(labelled.chosen, labelled.labels, strict=True)):
        summed: Array = np.zeros(backend.speakers, np.float32)
        for values, weight in _windows(labelled.corpus, position, request):
            summed = summed + weight * backend.run(values[np.newaxis], np.array([len(values)], dtype=np.int64))[0]
        if int(summed.argmax()) != label:
            wrong.append(number)
    total = len(labelled.chosen)
    correct = total - len(wrong)
    share = correct / total
    return Judged(Accuracy(request.backend.name, total, correct, share, None, 0.0, None, labelled.note, tuple(wrong)))


def choose(request: Judge, checkpoint: Checkpoint) -> Labelled:
    """What training did not see, where this is its corpus; else every utterance of a known speaker."""
    layout = checkpoint.layout_for(request.data)
    corpus = open_corpus(request.data, CorpusOptions(checkpoint.frontend, skip_bad=True, progress=False, layout=layout))
    numbers = {label: i for i, label in enumerate(checkpoint.labels)}
    seen = checkpoint.split.seen_in(corpus)
    usable = [
        i
        for i, utterance in enumerate(corpus.utterances)
        if corpus.labels[utterance.speaker] in numbers
        and utterance.key not in seen
        and utterance.frames >= request.min_frames
    ]
    if request.limit is not None and len(usable) > request.limit:
        usable = [usable[round(float(i))] for i in np.linspace(0, len(usable) - 1, request.limit)]
    if not usable:
        raise VoxportError(
            f"{request.data}: no utterance that training has not seen, of a speaker whom {request.checkpoint} knows"
        )
    labels = tuple(numbers[corpus.labels[corpus.utterances[i].speaker]] for i in usable)
    part = "all that training has not seen" if seen else "all utterances of known speakers"
    if alike := checkpoint.split.alike_in(corpus).intersection(corpus.utterances[i].key for i in usable):
        part += f" ({len(alike)} have names of training utterances; if they are the same ones, this says little)"
    long = sum(corpus.utterances[i].frames > request.max_frames for i in usable)
    heard = f"{long} heard in windows of {request.max_frames} frames"
    note = f"{len(usable)} utterances of {Path(request.data).name}, {part}, {heard}"
    return Labelled(corpus, tuple(usable), labels, note)


def _windows(corpus: Corpus, position: int, request: Judge) -> Iterator[tuple[Array, int]]:
    """What is run of an utterance, and what each part counts for."""
    kind = request.backend.input_kind
    if kind == "waveform" and not corpus.has_sound(position):
        raise VoxportError(f"{corpus.path} holds features, and {request.backend.name} takes sound")
    if corpus.utterances[position].frames > request.max_frames:
        yield from corpus_windows(corpus, request.max_frames, kind)(position)
    elif kind == "features":
        yield np.ascontiguousarray(corpus.features(position)), 1
    else:
        yield corpus.samples(position, corpus.frontend.sample_rate), 1
