"""What a checkpoint's network answers to many utterances, and predictions as a CSV for graders."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.atomic import check_replaceable, replace_file
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus
from voxport.train.data.collation import FixedCrops, WholeUtterances

Progress = Callable[[int, int], None]  # utterances done, utterances in all
Float32 = npt.NDArray[np.float32]


class Answers(NamedTuple):
    """Scores (utterances, speakers), and embeddings (utterances, width) of unit length."""

    scores: Float32
    embeddings: Float32


@torch.inference_mode()
def answer_whole(
    checkpoint: Checkpoint, source: WholeUtterances, device: str = "cpu", progress: Progress | None = None
) -> Answers:
    """Answers to whole utterances in the order of `source.indices`; padding does not change them."""
    network = checkpoint.network().to(device)
    count = len(source.indices)
    scores = np.empty((count, len(checkpoint.labels)), dtype=np.float32)
    embeddings = np.empty((count, network.embedding_size), dtype=np.float32)
    done = 0
    for batch in source:
        embedded = network.embed(batch.features.to(device), batch.lengths.to(device))
        positions = batch.positions.numpy()
        scores[positions] = network.scores(embedded).cpu().numpy()
        embeddings[positions] = F.normalize(embedded, dim=-1).cpu().numpy()
        done += len(positions)
        if progress:
            progress(done, count)
    return Answers(scores, embeddings)


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
    scores = answer_whole(checkpoint, WholeUtterances(source, range(len(frames)), frames), device, progress).scores
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
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("Id", "Category"))
            writer.writerows(rows)
        replace_file(part, path)
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem})") from problem
    finally:
        part.unlink(missing_ok=True)
