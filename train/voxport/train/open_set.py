"""The threshold of "nobody known", from voices that the network has not learnt: calibrated at the end of every run.

Two kinds of stranger are made of the held-out utterances, for which no further sound is needed:

- the utterance itself, compared with every speaker but its own, whose voice helped to train the network;
- the utterance with its mel bands stretched by `WARPS`, as another vocal tract would have it, compared with all.

The threshold is the lowest that lets at most the asked share of either kind through.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import Rejection
from voxport.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxport.train.data import Corpus
from voxport.train.data.collation import WholeUtterances
from voxport.train.evaluation.inference import answer_whole
from voxport.train.evaluation.rejection import allowed_false_accepts, threshold_for

WARPS = (0.8, 1.25)  # on the mel axis; a child's vocal tract is about 0.8 as long as a grown-up's
MOST = 1000  # utterances that are enough

Features = npt.NDArray[np.float32]


def store_rejection(path: Path, corpus: Corpus, false_accept_rate: float, device: str) -> Rejection | None:
    """Calibrate the checkpoint in the file `path` on its validation utterances, and store the threshold in it.

    None where a threshold means nothing: fewer than two speakers, or scores that are no cosines.
    """
    checkpoint = load_checkpoint(path)
    rejection = calibrate_open_set(checkpoint, corpus, false_accept_rate, device)
    if rejection is not None:
        save_checkpoint(dataclasses.replace(checkpoint, rejection=rejection), path)
    return rejection


def calibrate_open_set(
    checkpoint: Checkpoint, corpus: Corpus, false_accept_rate: float, device: str = "cpu"
) -> Rejection | None:
    """The threshold for `false_accept_rate`, or for the lowest rate that the validation utterances can show.

    Few utterances cannot show a low rate: of n, one is let through at least, and the rate is then 1 / n.
    """
    if checkpoint.recipe.model.head != "am_softmax" or len(checkpoint.labels) < 2 or not checkpoint.split.valid:
        return None
    indices = _chosen(corpus.indices(checkpoint.split.valid), checkpoint.recipe.train.seed)
    labels = corpus.speakers[indices]
    rate = max(false_accept_rate, 1 / len(indices))
    allowed = allowed_false_accepts(len(indices), rate)
    cosines = partial(_cosines, checkpoint, corpus, indices, device)
    plain = cosines(None)
    kinds = [_without(plain, labels), *(cosines(warp).max(axis=1) for warp in WARPS)]
    threshold = max(threshold_for(np.sort(kind)[::-1], allowed) for kind in kinds)
    rejected = float((plain.max(axis=1) < threshold).mean())
    what = f"{len(indices)} held-out utterances of {len(checkpoint.labels)} speakers, each against the other speakers, "
    what += f"and with its mel bands stretched by {' and '.join(f'{warp:g}' for warp in WARPS)} against all"
    return Rejection(threshold, rate, what, rejected)


def warped(features: Features, factor: float) -> Features:
    """Features (frames, bands) whose band k is that of the place k · `factor`, held at the ends."""
    bands = features.shape[1]
    places = np.minimum(np.arange(bands) * factor, bands - 1)
    below = np.floor(places).astype(np.int64)
    share = (places - below).astype(np.float32)
    above = np.minimum(below + 1, bands - 1)
    return np.asarray(features[:, below] * (1 - share) + features[:, above] * share, np.float32)


def _cosines(
    checkpoint: Checkpoint, corpus: Corpus, indices: npt.NDArray[np.int64], device: str, warp: float | None
) -> npt.NDArray[np.float64]:
    """Cosines (utterances, speakers) of the utterances, stretched by `warp`."""
    read: Callable[[int], Features] = corpus.features if warp is None else lambda i: warped(corpus.features(i), warp)
    frames = [corpus.utterances[i].frames for i in indices]
    scores = answer_whole(checkpoint, WholeUtterances(read, indices.tolist(), frames), device).scores
    return scores.astype(np.float64) / checkpoint.recipe.model.am_scale


def _without(cosines: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The best cosine (utterances,) with any speaker but the utterance's own."""
    others = cosines.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(others.max(axis=1))


def _chosen(indices: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    if len(indices) <= MOST:
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, MOST, replace=False))
