"""The labelled utterances by which a finished model is judged, and how each is heard; for export and benchmarks alike.

Utterances that the model does not take whole are heard in windows. The mean of the windows' scores ranks speakers as
the scores of the averaged embedding do, since one is a multiple of the other.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import InputKind
from voxport.runtime.errors import VoxportError
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusError
from voxport.train.evaluation.long_utterances import corpus_windows


@dataclass(frozen=True)
class LabelledSet:
    """Positions in a corpus and their speakers as the checkpoint numbers them, and what was left out.

    `unknown` counts utterances by labels that the checkpoint does not know, `short` those below the shortest length,
    `trained_on` those that the network has seen. Of those that count, `in_windows` are longer than one run takes, and
    `namesakes` have the name of a training utterance, in a corpus that is not the whole one of the training.
    """

    indices: tuple[int, ...]
    truth: tuple[int, ...]
    unknown: Mapping[str, int]
    short: int
    trained_on: int
    in_windows: int
    namesakes: int


def choose_labelled(corpus: Corpus, checkpoint: Checkpoint, lengths: tuple[int, int], limit: int | None) -> LabelledSet:
    """What training has not seen of the checkpoint's speakers, at most `limit`, evenly from all.

    Args:
        corpus: the labelled set.
        checkpoint: whose speakers and whose training count.
        lengths: fewest and most frames that the model takes in one run.
        limit: None for all.

    Raises:
        CorpusError: no utterance can be used.
    """
    numbers = {label: i for i, label in enumerate(checkpoint.labels)}
    trained, unknown, short, seen = checkpoint.split.seen_in(corpus), Counter[str](), 0, 0
    indices: list[int] = []
    for i, utterance in enumerate(corpus.utterances):
        label = corpus.labels[utterance.speaker]
        if label not in numbers:
            unknown[label] += 1
        elif utterance.key in trained:
            seen += 1
        elif utterance.frames < lengths[0]:
            short += 1
        else:
            indices.append(i)
    if not indices:
        raise CorpusError(
            f"{corpus.path}: no utterance can judge the accuracy of this model ({unknown.total()} of speakers "
            f"that it does not know, {seen} that it was trained on, {short} shorter than it takes)"
        )
    if limit is not None and limit < len(indices):
        indices = [indices[round(float(i))] for i in np.linspace(0, len(indices) - 1, limit)]
    alike = checkpoint.split.alike_in(corpus)
    return LabelledSet(
        indices=tuple(indices),
        truth=tuple(numbers[corpus.labels[corpus.utterances[i].speaker]] for i in indices),
        unknown=dict(sorted(unknown.items())),
        short=short,
        trained_on=seen,
        in_windows=sum(corpus.utterances[i].frames > lengths[1] for i in indices),
        namesakes=sum(corpus.utterances[i].key in alike for i in indices),
    )


def heard(corpus: Corpus, i: int, kind: InputKind, most_frames: int) -> Iterator[tuple[npt.NDArray[Any], int]]:
    """What is run of utterance `i`, and what each part counts for: all of it, or windows of `most_frames`.

    Raises:
        VoxportError: the model takes sound and the corpus holds features, or the sound cannot be read.
    """
    if kind == "waveform" and not corpus.has_sound(i):
        raise VoxportError(f"{corpus.path} holds features, and this model takes sound")
    if corpus.utterances[i].frames > most_frames:
        yield from corpus_windows(corpus, most_frames, kind)(i)
    elif kind == "features":
        yield np.ascontiguousarray(corpus.features(i)), 1
    else:
        yield corpus.samples(i, corpus.frontend.sample_rate), 1
