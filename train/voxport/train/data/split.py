"""A fixed division of a corpus's utterances into training and validation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxport.corpora.errors import CorpusError

if TYPE_CHECKING:
    from voxport.train.data.corpus import Corpus


@dataclass(frozen=True)
class Split:
    """Keys of the training and of the validation utterances; disjoint, each sorted."""

    train: tuple[str, ...]
    valid: tuple[str, ...]

    def seen_in(self, corpus: "Corpus") -> frozenset[str]:
        """Keys of the utterances that were trained on, where `corpus` is that of the training; else none.

        Another corpus may name its files alike (a folder of held-out sounds often does), so it counts as the
        training's only where it holds all that were trained on. `alike_in` counts what that leaves in doubt.
        """
        trained = frozenset(self.train)
        return trained if trained <= {utterance.key for utterance in corpus.utterances} else frozenset()

    def alike_in(self, corpus: "Corpus") -> frozenset[str]:
        """Keys that another corpus than the training's shares with what was trained on: the same ones, or namesakes."""
        shared = frozenset(self.train) & {utterance.key for utterance in corpus.utterances}
        return shared - self.seen_in(corpus)


def split_utterances(corpus: "Corpus", fraction: float, seed: int) -> Split:
    """Hold out `fraction` of the utterances for validation, the same share of every speaker.

    A pure function of the keys, the fraction and the seed: the order of the corpus does not matter.
    Every speaker keeps a training utterance. Shares that are not whole numbers are rounded so that
    the total is right (the largest remainders round up, ties by chance), which scikit-learn's
    stratified splitters do not do: they refuse a validation part smaller than the number of speakers.

    Raises:
        CorpusError: a fraction outside 0 ≤ fraction < 1, or no speaker with two utterances to divide.
    """
    if not 0 <= fraction < 1:
        raise CorpusError(f"the validation fraction must be at least 0 and below 1, found {fraction}")
    keys: list[list[str]] = [[] for _ in corpus.labels]
    for utterance in corpus.utterances:
        keys[utterance.speaker].append(utterance.key)
    order = sorted(range(len(keys)), key=lambda speaker: corpus.labels[speaker])
    generator = np.random.default_rng([seed, 2])  # 0 and 1 are the streams of CropBatches
    held_out = _shares(np.array([len(keys[speaker]) for speaker in order]), fraction, generator)
    train: list[str] = []
    valid: list[str] = []
    for speaker, count in zip(order, held_out, strict=True):
        # Ordered by a hash of the key, so that a speaker more or less elsewhere changes nothing here.
        shuffled = sorted(keys[speaker], key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest())
        valid += shuffled[:count]
        train += shuffled[count:]
    if fraction > 0 and not valid:
        raise CorpusError(f"{corpus.path}: one utterance per speaker leaves none for validation; add utterances")
    return Split(tuple(sorted(train)), tuple(sorted(valid)))


def training_count(utterances: Sequence[int], fraction: float) -> int:
    """How many utterances `split_utterances` leaves for training of speakers with so many `utterances` each."""
    counts = np.array(utterances, dtype=np.int64)
    return int(counts.sum()) - sum(_shares(counts, fraction, np.random.default_rng(0)))  # chance only decides whose


def _shares(
    counts: "np.ndarray[tuple[int], np.dtype[np.int64]]", fraction: float, generator: np.random.Generator
) -> list[int]:
    """How many utterances of each speaker to hold out, by largest remainder, never a speaker's last."""
    exact = counts * fraction
    shares = np.minimum(np.floor(exact), counts - 1).astype(np.int64)
    wanted = max(1, round(float(exact.sum()))) if fraction > 0 else 0
    # lexsort's last key counts first: remainder, then chance.
    for position in np.lexsort((generator.random(len(counts)), -(exact - shares))):
        if shares.sum() >= wanted:
            break
        if shares[position] < counts[position] - 1:
            shares[position] += 1
    return [int(share) for share in shares]
