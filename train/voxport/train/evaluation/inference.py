"""What a checkpoint's network answers to many utterances."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from voxport.train.checkpoint import Checkpoint
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
