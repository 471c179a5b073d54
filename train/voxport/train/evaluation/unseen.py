"""How well a network compares voices that it never heard: equal error rate by length, and who passes for known."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxport.runtime.errors import VoxportError
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus
from voxport.train.data.collation import LONGEST, WholeUtterances
from voxport.train.evaluation.inference import Progress, answer_whole
from voxport.train.evaluation.lengths import DRAWS, LENGTHS, LengthRow, measure_lengths
from voxport.train.evaluation.long_utterances import corpus_windows
from voxport.train.evaluation.verification import MAX_TRIALS, Trials, all_pairs, read_trials


@dataclass(frozen=True)
class UnseenOptions:
    """How strangers are compared: all pairs of the corpus, or `trials`; in `draws` pieces each of `lengths` frames.

    With `as_norm` the figures after adaptive score normalisation are given too, by so many of the network's own
    speakers. Of more than `max_trials` pairs a sample is taken.
    """

    trials: Path | None = None
    lengths: tuple[int, ...] = LENGTHS
    as_norm: int | None = None
    device: str = "cpu"
    max_trials: int = MAX_TRIALS
    draws: int = DRAWS


@dataclass(frozen=True)
class Unseen:
    """Figures of the `utterances` of a corpus's `speakers`, none of whom the network was trained on."""

    path: str
    speakers: int
    utterances: int
    trials: int
    target_trials: int
    possible_trials: int
    source: str
    rows: tuple[LengthRow, ...]


def evaluate_unseen(
    checkpoint: Checkpoint,
    corpus: Corpus,
    options: UnseenOptions = UnseenOptions(),
    progress: Progress | None = None,
) -> Unseen:
    """Compare the utterances of `corpus` with each other.

    Raises:
        VoxportError: a speaker's name is one of the checkpoint's, the trial list does not fit the corpus, there are no
            pairs of both kinds, or normalisation is asked of a head whose scores are no cosines.
    """
    known = sorted(set(corpus.labels) & set(checkpoint.labels))
    if known:
        raise VoxportError(
            f"{corpus.path}: {len(known)} of {len(corpus.labels)} speakers have names of speakers that the network was "
            f"trained on ({', '.join(known[:5])}); give a corpus of others, or rename its speakers"
        )
    if options.as_norm is not None and checkpoint.recipe.model.head != "am_softmax":
        raise VoxportError(
            f"recipe {checkpoint.recipe.name} has the head {checkpoint.recipe.model.head!r}, whose scores are no "
            "cosines; score normalisation needs a recipe with AM-Softmax"
        )
    trials = _trials(checkpoint, corpus, options)
    if not trials.target.any() or trials.target.all():
        raise VoxportError(
            f"{corpus.path}: {int(trials.target.sum())} of {len(trials)} trials are of one speaker; both kinds are "
            "needed: two speakers or more, one of them with two utterances or more"
        )
    # Only what is compared is heard: a trial list may name few of many.
    used, places = np.unique(np.concatenate([trials.left, trials.right]), return_inverse=True)
    left, right = places.reshape(2, -1)
    trials = dataclasses.replace(trials, left=left, right=right)
    indices = used.tolist()
    source = WholeUtterances(corpus.features, indices, [corpus.utterances[i].frames for i in indices])
    whole = answer_whole(checkpoint, source, options.device, progress, corpus_windows(corpus, LONGEST))
    rows = measure_lengths(
        checkpoint,
        corpus,
        indices,
        None,
        trials,
        whole,
        options.lengths,
        options.device,
        options.as_norm,
        options.draws,
    )
    return Unseen(
        str(corpus.path),
        len(set(corpus.speakers[used].tolist())),
        len(indices),
        len(trials),
        int(trials.target.sum()),
        trials.possible,
        "all pairs" if options.trials is None else str(options.trials),
        rows,
    )


def _trials(checkpoint: Checkpoint, corpus: Corpus, options: UnseenOptions) -> Trials:
    """Trials between positions in `corpus.utterances`."""
    if options.trials is None:
        return all_pairs(corpus.speakers, options.max_trials, checkpoint.recipe.train.seed)
    listed = read_trials(options.trials)
    try:
        at = corpus.indices(listed.keys)
    except VoxportError as problem:
        raise VoxportError(
            f"{options.trials}: names utterances that {corpus.path} has not; write keys as the corpus has them, like "
            f"{corpus.utterances[0].key}"
        ) from problem
    return dataclasses.replace(listed.trials, left=at[listed.trials.left], right=at[listed.trials.right])
