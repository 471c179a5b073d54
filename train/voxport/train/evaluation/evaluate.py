"""How good a checkpoint is on labelled utterances: as a classifier, in verification, and at saying no."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.log_mel import pad_value
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusError
from voxport.train.data.collation import LONGEST, FixedCrops, WholeUtterances
from voxport.train.evaluation.breakdown import Bucket, SpeakerAccuracy, by_length, by_speaker
from voxport.train.evaluation.inference import Float32, Progress, answer_whole, score_crops
from voxport.train.evaluation.lengths import DRAWS, LENGTHS, LengthRow, calibration_error, measure_lengths
from voxport.train.evaluation.long_utterances import corpus_windows
from voxport.train.evaluation.rejection import RejectionReport, allowed_false_accepts, calibrate_rejection
from voxport.train.evaluation.verification import (
    MAX_TRIALS,
    Det,
    Int64,
    TrialList,
    Trials,
    Verification,
    all_pairs,
    det_curve,
    equal_error_rate,
    min_dcf,
    read_trials,
    score_trials,
)


@dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated. `part` is valid, train or all; `trials` a list of trials in place of all pairs.

    With `false_accept_rate` a rejection threshold is chosen. More than `max_trials` pairs are sampled.
    `crop_frames` is the length of the crops; None: the recipe's. Utterances of more than `max_frames` are heard
    in windows of that length, as an export with that length hears them. `lengths` are those of the pieces of the
    table by length, in frames, of which each utterance gives `draws`.
    """

    part: str = "valid"
    device: str = "cpu"
    trials: Path | None = None
    false_accept_rate: float | None = None
    max_trials: int = MAX_TRIALS
    crop_frames: int | None = None
    max_frames: int = LONGEST
    lengths: tuple[int, ...] = LENGTHS
    draws: int = DRAWS


@dataclass(frozen=True)
class Evaluation:
    """Figures of labelled utterances; accuracies in [0, 1], `speakers` from worst to best.

    `calibration_error` is how far, on average, the softmax's confidence is from the share of right
    answers. `verification` is None where the utterances make no pair of one speaker, or none of two.
    """

    part: str
    utterances: int
    accuracy_whole: float
    top5_whole: float | None  # None where there are fewer than six speakers
    accuracy_crop: float
    crop_frames: int
    calibration_error: float
    by_length: tuple[Bucket, ...]
    speakers: tuple[SpeakerAccuracy, ...]
    verification: Verification | None
    rejection: RejectionReport | None
    in_windows: int = 0  # utterances that were too long to be heard at once
    pieces: tuple[LengthRow, ...] = ()  # the same utterances in pieces of each length


@dataclass(frozen=True)
class Evidence:
    """What plots show: confusion counts (true, answered) by `labels`; per trial its kind and cosine."""

    confusion: Int64
    labels: tuple[str, ...]
    target: npt.NDArray[np.bool_]
    cosine: Float32

    @cached_property
    def det(self) -> Det:
        """The DET curve of the trials."""
        return det_curve(self.target, self.cosine)


def choose_utterances(checkpoint: Checkpoint, corpus: Corpus, part: str) -> tuple[list[int], Int64]:
    """Indices in `corpus` of the utterances of `part` (valid, train or all), and their labels in the checkpoint.

    Raises:
        VoxportError: the part is empty, or the corpus has speakers that the checkpoint does not know.
    """
    known = {label: i for i, label in enumerate(checkpoint.labels)}
    unknown = sorted(set(corpus.labels) - set(known))
    if unknown:
        raise VoxportError(
            f"{corpus.path}: {len(unknown)} of {len(corpus.labels)} speakers are not in the checkpoint "
            f"({', '.join(unknown[:5])}…); evaluate on speakers that it was trained on"
        )
    if part == "all":
        indices = list(range(len(corpus.utterances)))
    else:
        try:
            indices = corpus.indices(getattr(checkpoint.split, part)).tolist()
        except CorpusError as problem:
            raise CorpusError(
                f"{problem}; to evaluate another corpus of the same speakers, use --part all"
            ) from problem
    if not indices:
        raise VoxportError(f"the checkpoint's part {part} holds no utterances; choose another --part")
    labels = [known[corpus.labels[corpus.utterances[i].speaker]] for i in indices]
    return indices, np.array(labels, dtype=np.int64)


def evaluate(
    checkpoint: Checkpoint,
    corpus: Corpus,
    options: EvaluateOptions = EvaluateOptions(),
    progress: Progress | None = None,
) -> tuple[Evaluation, Evidence]:
    """Score the utterances of `options.part`; returns the figures, and what they were computed from.

    Raises:
        VoxportError: the part, the trial list or the false-accept rate cannot be used with this
            checkpoint and corpus.
    """
    indices, labels = choose_utterances(checkpoint, corpus, options.part)
    listed = read_trials(options.trials) if options.trials is not None else None
    if options.false_accept_rate is not None:
        _check_rejection(checkpoint, corpus, indices, options.false_accept_rate)
    every = indices + _others(corpus, indices, listed)
    frames = [corpus.utterances[i].frames for i in every]
    whole = WholeUtterances(corpus.features, every, frames)
    answers = answer_whole(
        checkpoint, whole, options.device, progress, corpus_windows(corpus, options.max_frames), options.max_frames
    )
    scores = answers.scores[: len(indices)]
    crops = _crops(checkpoint, corpus, indices, options.crop_frames)
    cropped = score_crops(checkpoint, crops, options.device)
    everyone = np.arange(len(checkpoint.labels))
    predicted = scores.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, labels=everyone).astype(np.int64)
    trials = _trials(corpus, every, labels, listed, options, checkpoint.recipe.train.seed)
    cosine = score_trials(answers.embeddings, trials)
    evidence = Evidence(confusion, checkpoint.labels, trials.target, cosine)
    evaluation = Evaluation(
        part=options.part,
        utterances=len(indices),
        accuracy_whole=float((predicted == labels).mean()),
        top5_whole=float(top_k_accuracy_score(labels, scores, k=5, labels=everyone)) if len(everyone) > 5 else None,
        accuracy_crop=float((cropped.argmax(axis=1) == labels).mean()),
        crop_frames=crops.crop_frames,
        calibration_error=calibration_error(scores, labels),
        by_length=by_length(np.array(frames[: len(indices)]), predicted == labels),
        speakers=by_speaker(confusion, checkpoint.labels),
        verification=_verification(checkpoint, corpus, every, trials, evidence, options),
        rejection=_rejection(checkpoint, scores, labels, options),
        in_windows=sum(corpus.utterances[i].frames > options.max_frames for i in indices),
        pieces=measure_lengths(
            checkpoint,
            corpus,
            every,
            labels,
            trials if trials.target.any() and not trials.target.all() else None,
            answers,
            tuple(length for length in options.lengths if length <= options.max_frames),
            options.device,
            draws=options.draws,
        ),
    )
    return evaluation, evidence


def _crops(checkpoint: Checkpoint, corpus: Corpus, indices: list[int], frames: int | None) -> FixedCrops:
    train = checkpoint.recipe.train
    length = frames or train.crop_frames
    return FixedCrops(corpus.features, indices, length, pad_value(checkpoint.frontend), train.seed, train.fill)


def _check_rejection(checkpoint: Checkpoint, corpus: Corpus, indices: list[int], rate: float) -> None:
    """Refuse, before the work, to calibrate on what was learnt by heart, what is no cosine, and too little."""
    seen = checkpoint.split.seen_in(corpus)
    count = sum(corpus.utterances[i].key in seen for i in indices)
    if count:
        raise VoxportError(
            f"{count} of {len(indices)} utterances were trained on, and a rejection threshold must come from "
            "held-out ones; use --part valid, or --data with a corpus that was not trained on"
        )
    if checkpoint.recipe.model.head != "am_softmax":
        raise VoxportError(
            f"recipe {checkpoint.recipe.name} has the head {checkpoint.recipe.model.head!r}, whose scores are no "
            "cosines; a rejection threshold needs a recipe with AM-Softmax"
        )
    allowed_false_accepts(len(indices), rate)


def _others(corpus: Corpus, indices: list[int], listed: TrialList | None) -> list[int]:
    """Indices of utterances that only the trial list names."""
    if listed is None:
        return []
    positions = {utterance.key: i for i, utterance in enumerate(corpus.utterances)}
    unknown = [key for key in listed.keys if key not in positions]
    if unknown:
        raise VoxportError(
            f"the trial list names {len(unknown)} utterances that {corpus.path} has not, first {unknown[0]}; "
            f"write keys as the corpus has them, like {corpus.utterances[0].key}"
        )
    chosen = set(indices)
    return [positions[key] for key in listed.keys if positions[key] not in chosen]


def _trials(
    corpus: Corpus, every: list[int], labels: Int64, listed: TrialList | None, options: EvaluateOptions, seed: int
) -> Trials:
    if listed is None:
        return all_pairs(labels, options.max_trials, seed)
    places = {corpus.utterances[i].key: place for place, i in enumerate(every)}
    at = np.array([places[key] for key in listed.keys])
    return dataclasses.replace(listed.trials, left=at[listed.trials.left], right=at[listed.trials.right])


def _verification(
    checkpoint: Checkpoint,
    corpus: Corpus,
    every: list[int],
    trials: Trials,
    evidence: Evidence,
    options: EvaluateOptions,
) -> Verification | None:
    if not trials.target.any() or trials.target.all():
        return None
    det = evidence.det
    eer, threshold = equal_error_rate(det)
    compared = np.union1d(trials.left, trials.right)
    seen = checkpoint.split.seen_in(corpus)
    return Verification(
        source="all pairs" if options.trials is None else str(options.trials),
        trials=len(trials),
        target_trials=int(trials.target.sum()),
        possible_trials=trials.possible,
        utterances=len(compared),
        seen_in_training=sum(corpus.utterances[every[i]].key in seen for i in compared),
        eer=eer,
        eer_threshold=threshold,
        min_dcf_01=min_dcf(det, 0.01),
        min_dcf_05=min_dcf(det, 0.05),
    )


def _rejection(
    checkpoint: Checkpoint, scores: Float32, labels: Int64, options: EvaluateOptions
) -> RejectionReport | None:
    if options.false_accept_rate is None:
        return None
    cosines = scores.astype(np.float64) / checkpoint.recipe.model.am_scale
    return calibrate_rejection(cosines, labels, options.false_accept_rate)
