"""How good a checkpoint is on labelled utterances: whole ones and crops, by length and by speaker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend import pad_value
from voxport.train.batches import FixedCrops, WholeUtterances
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus

BUCKETS = (0, 128, 256, 400, 600, 1000, 2000)  # lower edges of the length buckets, in frames
Progress = Callable[[int, int], None]  # utterances done, utterances in all
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Bucket:
    """Accuracy on the utterances of `low` ≤ frames < `high` (None: no upper edge)."""

    low: int
    high: int | None
    utterances: int
    accuracy: float


@dataclass(frozen=True)
class SpeakerAccuracy:
    """One speaker's share of utterances that were recognised, and whom they were most often taken for."""

    speaker: str
    utterances: int
    accuracy: float
    taken_for: str | None


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in [0, 1] on labelled utterances; `speakers` goes from worst to best."""

    utterances: int
    accuracy_whole: float
    top5_whole: float | None  # None where there are fewer than six speakers
    accuracy_crop: float
    crop_frames: int
    by_length: tuple[Bucket, ...]
    speakers: tuple[SpeakerAccuracy, ...]


def choose_utterances(checkpoint: Checkpoint, corpus: Corpus, part: str) -> tuple[list[int], npt.NDArray[np.int64]]:
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
        indices = corpus.indices(getattr(checkpoint.split, part)).tolist()
    labels = [known[corpus.labels[corpus.utterances[i].speaker]] for i in indices]
    return indices, np.array(labels, dtype=np.int64)


@torch.inference_mode()
def score_whole(
    checkpoint: Checkpoint, source: WholeUtterances, device: str = "cpu", progress: Progress | None = None
) -> Scores:
    """Scores (utterances, speakers) in the order of `source.indices`; padding does not change them."""
    network = checkpoint.network().to(device)
    scores = np.empty((len(source.indices), len(checkpoint.labels)), dtype=np.float32)
    done = 0
    for batch in source:
        answer = network(batch.features.to(device), batch.lengths.to(device))
        scores[batch.positions.numpy()] = answer.cpu().numpy()
        done += len(batch.lengths)
        if progress:
            progress(done, len(scores))
    return scores


@torch.inference_mode()
def score_crops(checkpoint: Checkpoint, source: FixedCrops, device: str = "cpu") -> Scores:
    """Scores (utterances, speakers) of one crop each, in the order of `source.indices`."""
    network = checkpoint.network().to(device)
    return np.concatenate([network(batch.features.to(device)).cpu().numpy() for batch in source])


def evaluate(
    checkpoint: Checkpoint, corpus: Corpus, part: str = "valid", device: str = "cpu", progress: Progress | None = None
) -> tuple[Evaluation, npt.NDArray[np.int64]]:
    """Score the utterances of `part`; returns the figures and the confusion counts (true, predicted)."""
    indices, labels = choose_utterances(checkpoint, corpus, part)
    frames = np.array([corpus.utterances[i].frames for i in indices])
    whole = score_whole(checkpoint, WholeUtterances(corpus.features, indices, frames.tolist()), device, progress)
    crop_frames = checkpoint.recipe.train.crop_frames
    crops = FixedCrops(
        corpus.features, indices, crop_frames, pad_value(checkpoint.frontend), checkpoint.recipe.train.seed
    )
    cropped = score_crops(checkpoint, crops, device)
    everyone = np.arange(len(checkpoint.labels))
    predicted = whole.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, labels=everyone).astype(np.int64)
    evaluation = Evaluation(
        utterances=len(indices),
        accuracy_whole=float((predicted == labels).mean()),
        top5_whole=float(top_k_accuracy_score(labels, whole, k=5, labels=everyone)) if len(everyone) > 5 else None,
        accuracy_crop=float((cropped.argmax(axis=1) == labels).mean()),
        crop_frames=crop_frames,
        by_length=_by_length(frames, predicted == labels),
        speakers=_by_speaker(confusion, checkpoint.labels),
    )
    return evaluation, confusion


def _by_length(frames: npt.NDArray[np.int64], correct: npt.NDArray[np.bool_]) -> tuple[Bucket, ...]:
    edges: Sequence[int | None] = (*BUCKETS, None)
    buckets = []
    for low, high in zip(BUCKETS, edges[1:], strict=True):
        inside = (frames >= low) & (frames < (high if high is not None else np.inf))
        if inside.any():
            buckets.append(Bucket(low, high, int(inside.sum()), float(correct[inside].mean())))
    return tuple(buckets)


def _by_speaker(confusion: npt.NDArray[np.int64], labels: tuple[str, ...]) -> tuple[SpeakerAccuracy, ...]:
    rows = []
    for speaker, counts in enumerate(confusion):
        total, correct = int(counts.sum()), int(counts[speaker])
        if total == 0:
            continue
        others = counts.copy()
        others[speaker] = 0
        taken_for = labels[int(others.argmax())] if others.any() else None
        rows.append(SpeakerAccuracy(labels[speaker], total, correct / total, taken_for))
    return tuple(sorted(rows, key=lambda row: (row.accuracy, row.speaker)))
