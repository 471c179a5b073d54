"""What a model knows of its own limits, calibrated at the end of every run: "nobody known", and probabilities.

The threshold of "nobody known" comes from voices that the network has not learnt. Two kinds of stranger are made of the
held-out utterances, for which no further sound is needed:

- the utterance itself, compared with every speaker but its own, whose voice helped to train the network;
- the utterance with its mel bands stretched by `WARPS`, as another vocal tract would have it, compared with all.

Where the run learnt from changed sounds, the first kind is also made of held-out utterances changed in every way that
`effects.kinds` has; stored features are changed in their bands' powers. The threshold is the lowest that lets at most
the asked share of any kind through. The temperature of the probabilities is fitted on the clean and the changed sounds
together, and one for each length on pieces of the held-out utterances, heard as sounds of their own.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from voxport.runtime.contract import ConditionLine, Rejection
from voxport.train.augmentation.conditions import changed_by_kind
from voxport.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxport.train.data import Corpus
from voxport.train.data.collation import LONGEST, WholeUtterances
from voxport.train.data.corpus import CorpusOptions
from voxport.train.effects.options import AugmentOptions
from voxport.train.evaluation.conditions import condition_lines, fit_temperature
from voxport.train.evaluation.inference import Answers, answer_whole
from voxport.train.evaluation.lengths import fit_temperatures
from voxport.train.evaluation.rejection import allowed_false_accepts, threshold_for

WARPS = (0.8, 1.25)  # on the mel axis; a child's vocal tract is about 0.8 as long as a grown-up's
MOST = 1000  # utterances that are enough
FEWEST_FOR_LENGTHS = 100  # utterances below which a temperature a length would be noise
MOST_CHANGED = 200  # utterances that are changed in every way

Features = npt.NDArray[np.float32]


def store_calibration(
    path: Path, corpus: Corpus, false_accept_rate: float | None, device: str, opening: CorpusOptions | None = None
) -> Checkpoint:
    """Calibrate the checkpoint in the file `path` on its validation utterances; it is stored, and returned.

    Without `false_accept_rate` there is no threshold. With `opening`, how the corpus was opened, a run that learnt
    from changed sounds is calibrated over changed sounds too.
    """
    checkpoint = load_checkpoint(path)
    answers: dict[str, Answers] = {}
    indices = np.empty(0, np.int64)
    augment = checkpoint.recipe.augment
    if augment is not None and opening is not None and checkpoint.split.valid:
        indices = _chosen(corpus.indices(checkpoint.split.valid), checkpoint.recipe.train.seed, MOST_CHANGED)
        sounds = np.array([corpus.has_sound(int(i)) for i in indices])
        # Stored features are changed in their bands' powers, which a division by each band's deviation hides.
        indices = indices[sounds] if sounds.any() or corpus.frontend.normalize == "mean_std" else indices
    if len(indices) and augment is not None and opening is not None:
        answers = answers_by_kind(checkpoint, corpus, indices, augment, opening, device)
    labels = corpus.speakers[indices]
    calibrated = checkpoint
    if false_accept_rate is not None:
        changed = [answers[kind].scores for kind in answers if kind != "clean"]
        rejection = calibrate_open_set(checkpoint, corpus, false_accept_rate, device, changed, labels)
        calibrated = dataclasses.replace(calibrated, rejection=rejection)
    if answers:
        scores = np.concatenate([each.scores for each in answers.values()])
        temperature = fit_temperature(scores, np.tile(labels, len(answers)))
        calibrated = dataclasses.replace(calibrated, temperature=temperature)
        what = f"{len(indices)} held-out utterances of the training's corpus"
        what += "" if corpus.has_sound(int(indices[0])) else ", whose stored features were changed"
        calibrated = dataclasses.replace(calibrated, conditions=condition_lines_of(calibrated, answers, labels, what))
    calibrated = _with_temperatures(calibrated, corpus, device)
    if calibrated != checkpoint:
        save_checkpoint(calibrated, path)
    return calibrated


def _with_temperatures(checkpoint: Checkpoint, corpus: Corpus, device: str) -> Checkpoint:
    """`checkpoint` with a temperature for each length, where enough was held out to fit them."""
    indices = _chosen(corpus.indices(checkpoint.split.valid), checkpoint.recipe.train.seed, MOST)
    if len(indices) < FEWEST_FOR_LENGTHS or len(checkpoint.labels) < 2:
        return checkpoint
    places = indices.tolist()
    source = WholeUtterances(corpus.features, places, [corpus.utterances[i].frames for i in places], max_frames=LONGEST)
    whole = answer_whole(checkpoint, source, device)
    points = fit_temperatures(checkpoint, corpus, places, corpus.speakers[indices], whole, device)
    return dataclasses.replace(checkpoint, temperature_by_length=points)


def answers_by_kind(
    checkpoint: Checkpoint,
    corpus: Corpus,
    indices: npt.NDArray[np.int64],
    augment: AugmentOptions,
    opening: CorpusOptions,
    device: str = "cpu",
) -> dict[str, Answers]:
    """Answers to the sounds `indices` (n,), clean and under every kind of condition.

    Raises:
        CorpusError: a sound cannot be read any more.
    """
    changed = changed_by_kind(corpus, indices, augment, checkpoint.recipe.train.seed, opening)
    clean = [corpus.features(int(i)) for i in indices]
    return {kind: _answers(checkpoint, features, device) for kind, features in {"clean": clean, **changed}.items()}


def condition_lines_of(
    checkpoint: Checkpoint, answers: Mapping[str, Answers], labels: npt.NDArray[np.int64], what: str
) -> tuple[ConditionLine, ...]:
    """A line a kind, with the checkpoint's own threshold and temperature."""
    scale = checkpoint.recipe.model.am_scale
    return condition_lines(answers, labels, scale, checkpoint.temperature, checkpoint.rejection, what)


def spread(places: Sequence[int]) -> npt.NDArray[np.int64]:
    """At most MOST_CHANGED of `places`, spread evenly."""
    chosen = np.linspace(0, len(places) - 1, min(len(places), MOST_CHANGED)).round().astype(np.int64)
    return np.asarray(places, np.int64)[chosen]


def _answers(checkpoint: Checkpoint, features: Sequence[Features], device: str) -> Answers:
    frames = [len(each) for each in features]
    return answer_whole(checkpoint, WholeUtterances(lambda i: features[i], range(len(features)), frames), device)


def calibrate_open_set(
    checkpoint: Checkpoint,
    corpus: Corpus,
    false_accept_rate: float,
    device: str = "cpu",
    changed: Sequence[npt.NDArray[np.float32]] = (),
    changed_labels: npt.NDArray[np.int64] | None = None,
) -> Rejection | None:
    """The threshold for `false_accept_rate`, or for the lowest rate that the validation utterances can show.

    Few utterances cannot show a low rate: of n, one is let through at least, and the rate is then 1 / n. None where
    a threshold means nothing: fewer than two speakers, or scores that are no cosines. `changed` are scores
    (n, speakers) of changed utterances whose speakers are `changed_labels` (n,).
    """
    if checkpoint.recipe.model.head != "am_softmax" or len(checkpoint.labels) < 2 or not checkpoint.split.valid:
        return None
    indices = _chosen(corpus.indices(checkpoint.split.valid), checkpoint.recipe.train.seed, MOST)
    labels = corpus.speakers[indices]
    rate = max(false_accept_rate, 1 / len(indices))
    cosines = partial(_cosines, checkpoint, corpus, indices, device)
    plain = cosines(None)
    kinds = [_without(plain, labels), *(cosines(warp).max(axis=1) for warp in WARPS)]
    what = f"{len(indices)} held-out utterances of {len(checkpoint.labels)} speakers, each against the other speakers, "
    what += f"and with its mel bands stretched by {' and '.join(f'{warp:g}' for warp in WARPS)} against all"
    if changed and changed_labels is not None:
        scale = checkpoint.recipe.model.am_scale
        kinds.append(np.concatenate([_without(scores / scale, changed_labels) for scores in changed]))
        what += f"; {len(changed_labels)} of them changed in {len(changed)} ways against the other speakers"
    threshold = max(threshold_for(np.sort(kind)[::-1], allowed_false_accepts(len(kind), rate)) for kind in kinds)
    rejected = float((plain.max(axis=1) < threshold).mean())
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


def _without(cosines: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The best cosine (utterances,) with any speaker but the utterance's own."""
    others = cosines.astype(np.float64)
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(others.max(axis=1))


def _chosen(indices: npt.NDArray[np.int64], seed: int, most: int) -> npt.NDArray[np.int64]:
    if len(indices) <= most:
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, most, replace=False))
