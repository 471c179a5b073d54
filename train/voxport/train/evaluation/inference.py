"""What a checkpoint's network answers to many utterances, and predictions as a CSV for graders."""

import csv
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.atomic import check_replaceable, writing
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus
from voxport.train.data.collation import LONGEST, Features, FixedCrops, WholeUtterances
from voxport.train.evaluation.long_utterances import Windows, corpus_windows, feature_windows
from voxport.train.models.heads import AmSoftmaxHead
from voxport.train.models.speaker_net import SpeakerNet

Progress = Callable[[int, int], None]  # utterances done, utterances in all
Float32 = npt.NDArray[np.float32]


class Answers(NamedTuple):
    """Scores (utterances, speakers), and embeddings (utterances, width) of unit length."""

    scores: Float32
    embeddings: Float32


@torch.inference_mode()
def answer_whole(
    checkpoint: Checkpoint,
    source: WholeUtterances,
    device: str = "cpu",
    progress: Progress | None = None,
    windows: Windows | None = None,
    longest: int = LONGEST,
) -> Answers:
    """Answers to whole utterances in the order of `source.indices`; padding does not change them.

    Utterances of more than `longest` frames are answered in windows, as the runtime does: the mean of their unit
    embeddings by the frames that they count for. `windows` gives those of an index; None cuts its features.
    An MLP head's scores are no function of a unit embedding alone: their mean is taken.
    """
    network = checkpoint.network().to(device)
    count = len(source.indices)
    scores = np.empty((count, len(checkpoint.labels)), dtype=np.float32)
    embeddings = np.empty((count, network.embedding_size), dtype=np.float32)
    short = [place for place in range(count) if source.frames[place] <= longest]
    rest = [place for place in range(count) if source.frames[place] > longest]
    indices, frames = [source.indices[place] for place in short], [source.frames[place] for place in short]
    done = 0
    for batch in dataclasses.replace(source, indices=indices, frames=frames):
        embedded = network.embed(batch.features.to(device), batch.lengths.to(device))
        positions = np.array(short)[batch.positions.numpy()]
        scores[positions] = network.scores(embedded).cpu().numpy()
        embeddings[positions] = F.normalize(embedded, dim=-1).cpu().numpy()
        done += len(positions)
        if progress:
            progress(done, count)
    windows = windows or feature_windows(source.source, checkpoint.frontend, longest)
    for place in rest:
        scores[place], embeddings[place] = _answer_long(network, windows(source.indices[place]), device)
        done += 1
        if progress:
            progress(done, count)
    return Answers(scores, embeddings)


def _answer_long(network: SpeakerNet, windows: Iterator[tuple[Features, int]], device: str) -> tuple[Float32, Float32]:
    """Scores (speakers,) and unit embedding (width,)."""
    total, weights = torch.zeros(network.embedding_size, dtype=torch.float64), 0
    scores = torch.zeros(network.speakers, dtype=torch.float64)
    for features, weight in windows:
        embedded = network.embed(torch.from_numpy(features)[None].to(device))
        total += weight * F.normalize(embedded, dim=-1)[0].double().cpu()
        scores += weight * network.scores(embedded)[0].double().cpu()
        weights += weight
    unit = F.normalize(total, dim=0).float()
    if isinstance(network.head, AmSoftmaxHead):
        return network.scores(unit[None].to(device))[0].cpu().numpy(), unit.numpy()
    return (scores / weights).float().numpy(), unit.numpy()


@torch.inference_mode()
def score_crops(checkpoint: Checkpoint, source: FixedCrops, device: str = "cpu") -> Float32:
    """Scores (utterances, speakers) of one crop each, in the order of `source.indices`."""
    network = checkpoint.network().to(device)
    return np.concatenate([network(batch.features.to(device)).cpu().numpy() for batch in source])


def predict(
    checkpoint: Checkpoint, corpus: Corpus, device: str = "cpu", progress: Progress | None = None
) -> list[tuple[str, str]]:
    """(utterance, speaker) for the corpus's test part, in testdata.json's order.

    A corpus without a test part (sound files) is predicted whole, in its own order.
    """
    if corpus.test:
        utterances, source = corpus.test, corpus.test_features
    else:
        utterances, source = corpus.utterances, corpus.features
    frames = [utterance.frames for utterance in utterances]
    windows = None if corpus.test else corpus_windows(corpus)
    whole = WholeUtterances(source, range(len(frames)), frames)
    scores = answer_whole(checkpoint, whole, device, progress, windows).scores
    speakers = [checkpoint.labels[i] for i in scores.argmax(axis=1)]
    return [(utterance.key, speaker) for utterance, speaker in zip(utterances, speakers, strict=True)]


def check_csv(path: Path) -> None:
    """Raise VoxportError where `write_csv` could not write `path`: before the work, not after it."""
    try:
        check_replaceable(path)
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem})") from problem
    if not path.absolute().parent.is_dir():
        raise VoxportError(f"{path}: cannot be written; there is no folder {path.parent}")


def write_csv(rows: list[tuple[str, str]], path: Path) -> None:
    """Write `rows` under the header `Id,Category`, whole or not at all."""
    try:
        with writing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("Id", "Category"))
            writer.writerows(rows)
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem})") from problem
