"""Real utterances for the parity gate, from the corpus that a checkpoint was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxport.export.inputs.cases import LengthLimits, Utterance
from voxport.runtime.contract import InputKind
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.log_mel import min_samples, num_frames
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusOptions, open_corpus


@dataclass(frozen=True)
class RealOptions:
    """How many real utterances to compare, at most, and the cache and progress of opening their corpus."""

    count: int = 40
    cache: Path | None = None
    progress: bool = False


@dataclass(frozen=True, eq=False)
class RealUtterances:
    """The utterances, and how many there are or why there are none."""

    utterances: tuple[Utterance, ...]
    note: str


def real_utterances(
    checkpoint: Checkpoint, kind: InputKind, limits: LengthLimits, options: RealOptions
) -> RealUtterances:
    """Utterances of the checkpoint's validation part, short ones and long ones alike, where it is still there.

    Those longer than the model takes are cut to its longest; shorter ones are left out.
    """
    if options.count == 0:
        return RealUtterances((), "none, because none were asked for")
    if checkpoint.data is None:
        return RealUtterances((), "none, because the checkpoint does not say what it was trained on")
    try:
        # Entries that cannot be used were judged in training; here the others are what matters.
        corpus = open_corpus(
            checkpoint.data,
            CorpusOptions(
                checkpoint.frontend,
                skip_bad=True,
                cache=options.cache,
                progress=options.progress,
                layout=checkpoint.layout,
            ),
        )
        candidates = corpus.indices(checkpoint.split.valid).tolist() if checkpoint.split.valid else None
        chosen = spread_over_lengths(corpus, candidates, limits, options.count)
        found = tuple(corpus_utterance(corpus, i, kind, limits) for i in chosen)
    except VoxportError as problem:
        return RealUtterances((), f"none, because {problem}")
    if not found:
        return RealUtterances((), f"none, because {checkpoint.data} has none of {limits.min_frames} frames or more")
    cut = sum(corpus.utterances[i].frames > limits.max_frames for i in chosen)
    note = f"{len(found)} of {checkpoint.data}, {'validation part' if checkpoint.split.valid else 'all parts'}"
    return RealUtterances(found, f"{note}, {cut} of them cut to {limits.max_frames} frames" if cut else note)


def spread_over_lengths(corpus: Corpus, among: Sequence[int] | None, limits: LengthLimits, count: int) -> list[int]:
    """Positions of at most `count` utterances (`among` these, else of all), evenly spread over their lengths."""
    every = range(len(corpus.utterances)) if among is None else among
    candidates = [i for i in every if corpus.utterances[i].frames >= limits.min_frames]
    candidates.sort(key=lambda i: (corpus.utterances[i].frames, corpus.utterances[i].key))
    spread = np.linspace(0, len(candidates) - 1, min(count, len(candidates)))
    return [candidates[round(float(position))] for position in spread]


def corpus_utterance(corpus: Corpus, i: int, kind: InputKind, limits: LengthLimits) -> Utterance:
    """Utterance `i` as a model of `kind` takes it, cut to its longest length.

    Raises:
        VoxportError: the model takes sound and the corpus holds features, or the sound cannot be read.
    """
    key, frontend = corpus.utterances[i].key, corpus.frontend
    values: Any
    if kind == "features":
        values = np.array(corpus.features(i)[: limits.max_frames])
        return Utterance(key, True, values, len(values))
    if not corpus.has_sound(i):
        raise VoxportError(f"{corpus.path} holds features, and this model takes sound")
    values = corpus.samples(i, frontend.sample_rate)[: min_samples(frontend, limits.max_frames + 1) - 1]
    return Utterance(key, True, values, num_frames(frontend, len(values)))
