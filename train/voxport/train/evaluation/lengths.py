"""How a checkpoint fares on sounds of each length: accuracy, calibration and equal error rate on pieces of utterances.

A piece is heard in one of two ways:

- `alone`, as a sound of its own: the frontend hears the piece and nothing else, as it does when a short sound arrives;
- `cut`, as a part of the whole utterance's features, as training's crops are. A frontend that subtracts the mean has
  then taken the whole utterance's, and where stored features touch its floor, a piece tells that mean.

Where a frontend looks at no more than each frame, both are the same, and only `alone` is measured.

Where a piece is cut decides much: one holds a vowel, another half a pause. So each utterance is cut at several places,
and figures are the means over these draws, beside the lowest and the highest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from voxport.runtime.contract import LengthTemperature
from voxport.runtime.frontend.log_mel import STD_OFFSET, VARIANCE_FLOOR, compute_features, min_samples
from voxport.runtime.frontend.spec import Frontend
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus
from voxport.train.data.collation import Features, WholeUtterances
from voxport.train.evaluation.conditions import fit_temperature
from voxport.train.evaluation.inference import Answers, Float32, answer_whole
from voxport.train.evaluation.verification import (
    Trials,
    adaptive_s_norm,
    det_curve,
    equal_error_rate,
    score_trials,
)

Int64 = npt.NDArray[np.int64]
Heard = Literal["whole", "alone", "cut"]

LENGTHS = (64, 100, 128, 200, 400)  # frames; at the usual hop of 10 ms 1, 2 and 4 s are among them
DRAWS = 4  # pieces of each utterance and length


@dataclass(frozen=True)
class LengthRow:
    """Figures of `utterances` heard in pieces of `frames`, of which `shorter` are shorter and heard whole.

    `frames` is None for whole utterances. Accuracy and calibration error, in [0, 1], are None for speakers whom the
    network does not know; the equal error rate is None where no trials of both kinds can be made. `eer_as_norm` is that
    after adaptive score normalisation, where it was asked for. `accepted` is the share of strangers whose best cosine
    reaches the checkpoint's threshold of "nobody known"; None for known speakers, and where there is no threshold.
    Figures are means over `draws` pieces of each utterance; the ranges are the lowest and the highest draw's.
    """

    frames: int | None
    heard: Heard
    utterances: int
    shorter: int
    accuracy: float | None
    calibration_error: float | None
    eer: float | None
    eer_as_norm: float | None = None
    accepted: float | None = None
    draws: int = 1
    accuracy_range: tuple[float, float] | None = None
    eer_range: tuple[float, float] | None = None


def ways(frontend: Frontend) -> tuple[Heard, ...]:
    """The ways of hearing a piece that differ under `frontend`."""
    return ("alone",) if frontend.normalize == "none" and frontend.level is None else ("alone", "cut")


@dataclass(frozen=True)
class Pieces:
    """One piece of `frames` of each utterance of `corpus`, at a place drawn from `seed` and the number of the draw.

    Where an utterance is a sound, what is heard alone is cut from its samples. Of stored features, the normalisation
    over the utterance is done anew; a speech level stays the whole utterance's, since their floor hides the sound's.
    """

    corpus: Corpus
    frames: int
    seed: int
    heard: Heard
    draw: int = 0

    def __call__(self, index: int) -> Features:
        """Features (at most `frames`, n_mels) of utterance `index`."""
        corpus, frontend = self.corpus, self.corpus.frontend
        features = corpus.features(index)
        spare = len(features) - self.frames
        if spare <= 0:
            return features
        offset = int(np.random.default_rng([self.seed, index, self.draw]).integers(spare + 1))
        if self.heard == "alone" and corpus.has_sound(index):
            samples = corpus.samples(index, frontend.sample_rate)
            count = min_samples(frontend, self.frames)
            start = min(offset * frontend.hop_length, max(0, len(samples) - count))
            return compute_features(samples[start : start + count], frontend)
        piece = features[offset : offset + self.frames]
        return normalised(piece, frontend) if self.heard == "alone" else piece


def normalised(features: Features, frontend: Frontend) -> Features:
    """Features (frames, bands) with the frontend's normalisation over the utterance done anew."""
    if frontend.normalize == "none":
        return features
    centred = features - features.mean(axis=0)
    if frontend.normalize == "mean_std":
        deviation = np.sqrt(np.maximum(np.square(centred).mean(axis=0), VARIANCE_FLOOR))
        centred = centred / (deviation + STD_OFFSET)
    return np.asarray(centred, np.float32)


def measure_lengths(
    checkpoint: Checkpoint,
    corpus: Corpus,
    indices: Sequence[int],
    labels: Int64 | None,
    trials: Trials | None,
    whole: Answers,
    lengths: Sequence[int] = LENGTHS,
    device: str = "cpu",
    as_norm: int | None = None,
    draws: int = DRAWS,
) -> tuple[LengthRow, ...]:
    """A row for each of `lengths` (frames) and way of hearing, from short to long, and one for whole utterances.

    Args:
        checkpoint: its network answers.
        corpus: where the utterances lie.
        indices: positions of n utterances in `corpus`.
        labels: (m,) true speakers of the first m of `indices`; None where the network does not know them.
        trials: pairs of positions in `indices`; None where there are none of both kinds.
        whole: answers to the whole utterances.
        lengths: of the pieces.
        device: cpu or cuda.
        as_norm: how many of the network's own speakers, the nearest, normalise a score; None: no such figure.
        draws: how many pieces of each utterance and length the figures are means over.
    """
    rows = []
    frames = np.array([corpus.utterances[i].frames for i in indices])

    def row(length: int | None, heard: Heard, answers: Answers) -> LengthRow:
        shorter = 0 if length is None else int((frames < length).sum())
        return LengthRow(
            length,
            heard,
            len(indices) if labels is None else len(labels),
            shorter,
            *_as_classifier(checkpoint, answers, labels, frames if length is None else np.minimum(frames, length)),
            *_as_verifier(checkpoint, answers, trials, as_norm),
            None if labels is not None else _accepted(checkpoint, answers),
        )

    for length in sorted(set(lengths)):
        for heard in ways(corpus.frontend):
            found = (_answers(checkpoint, corpus, indices, length, heard, draw, device) for draw in range(draws))
            rows.append(_mean([row(length, heard, answers) for answers in found]))
    return (*rows, row(None, "whole", whole))


def _answers(
    checkpoint: Checkpoint, corpus: Corpus, indices: Sequence[int], length: int, heard: Heard, draw: int, device: str
) -> Answers:
    pieces = Pieces(corpus, length, checkpoint.recipe.train.seed, heard, draw)
    frames = [min(corpus.utterances[i].frames, length) for i in indices]
    return answer_whole(checkpoint, WholeUtterances(pieces, indices, frames), device)


def _mean(rows: Sequence[LengthRow]) -> LengthRow:
    """One row of `rows`, which differ in where their pieces were cut."""

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    def reach(values: Sequence[float | None]) -> tuple[float, float] | None:
        known = [value for value in values if value is not None]
        return (min(known), max(known)) if known else None

    return replace(
        rows[0],
        accuracy=mean([row.accuracy for row in rows]),
        calibration_error=mean([row.calibration_error for row in rows]),
        eer=mean([row.eer for row in rows]),
        eer_as_norm=mean([row.eer_as_norm for row in rows]),
        accepted=mean([row.accepted for row in rows]),
        draws=len(rows),
        accuracy_range=reach([row.accuracy for row in rows]),
        eer_range=reach([row.eer for row in rows]),
    )


def _as_classifier(
    checkpoint: Checkpoint, answers: Answers, labels: Int64 | None, frames: Int64
) -> tuple[float | None, float | None]:
    """Accuracy, and the calibration error at the checkpoint's temperatures for these lengths."""
    if labels is None:
        return None, None
    scores = answers.scores[: len(labels)]
    temperatures = [checkpoint.temperature_for(seconds_of(int(n), checkpoint.frontend)) for n in frames[: len(labels)]]
    error = calibration_error(scores, labels, np.array(temperatures))
    return float((scores.argmax(axis=1) == labels).mean()), error


def seconds_of(frames: int, frontend: Frontend) -> float:
    """How long a sound of so many frames is, as answers to features count it."""
    return frames * frontend.hop_length / frontend.sample_rate


def fit_temperatures(
    checkpoint: Checkpoint, corpus: Corpus, indices: Sequence[int], labels: Int64, whole: Answers, device: str = "cpu"
) -> tuple[LengthTemperature, ...]:
    """A temperature for each of LENGTHS that half of the utterances exceed, and one for the whole utterances.

    Pieces are heard alone, as short sounds are, DRAWS of each utterance: others than `measure_lengths` judges by. None
    is below the checkpoint's own temperature, which changed sounds have a part in. `labels` (utterances,) are the
    speakers of `indices`, `whole` the answers to them.
    """
    middle = int(np.median([corpus.utterances[i].frames for i in indices]))
    found = [(middle, whole.scores, labels)]
    for length in reversed([length for length in LENGTHS if length < middle]):
        pieces = [
            _answers(checkpoint, corpus, indices, length, "alone", draw, device).scores
            for draw in range(DRAWS, 2 * DRAWS)
        ]
        found.insert(0, (length, np.concatenate(pieces), np.tile(labels, DRAWS)))
    return tuple(
        LengthTemperature(
            seconds_of(length, checkpoint.frontend), max(checkpoint.temperature, fit_temperature(scores, true))
        )
        for length, scores, true in found
    )


def _as_verifier(
    checkpoint: Checkpoint, answers: Answers, trials: Trials | None, as_norm: int | None
) -> tuple[float | None, float | None]:
    """Equal error rate of the cosines, and of the normalised scores."""
    if trials is None:
        return None, None
    cosines = score_trials(answers.embeddings, trials)
    eer = equal_error_rate(det_curve(trials.target, cosines))[0]
    if as_norm is None:
        return eer, None
    cohort = answers.scores / checkpoint.recipe.model.am_scale
    return eer, equal_error_rate(det_curve(trials.target, adaptive_s_norm(cosines, trials, cohort, as_norm)))[0]


def _accepted(checkpoint: Checkpoint, answers: Answers) -> float | None:
    if checkpoint.rejection is None:
        return None
    cosines = answers.scores.max(axis=1) / checkpoint.recipe.model.am_scale
    return float((cosines >= checkpoint.rejection.threshold).mean())


def calibration_error(scores: Float32, labels: Int64, temperatures: npt.NDArray[np.float64] | float = 1.0) -> float:
    """Expected calibration error of softmax(scores / temperature), over 15 bins of confidence.

    `scores` are (utterances, speakers), `labels` (utterances,), `temperatures` (utterances,) or one for all.
    Guo et al.: "On Calibration of Modern Neural Networks", 2017, eq. 3.
    """
    rows = np.broadcast_to(np.asarray(temperatures, np.float64), len(labels))[:, None]
    probabilities = torch.from_numpy(scores / rows).softmax(dim=1)
    error = multiclass_calibration_error(probabilities, torch.from_numpy(labels), scores.shape[1], n_bins=15, norm="l1")
    return float(error)
