"""The right answers: eager PyTorch on each utterance alone, and how far float32 itself blurs them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from voxport.export.inputs.cases import Utterance
from voxport.export.quantization.calibration import round_up
from voxport.runtime.backends.onnxrt.session import default_threads
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.spec import Frontend
from voxport.train.checkpoint import Checkpoint
from voxport.train.models.frontend import TorchFrontend
from voxport.train.models.speaker_net import SpeakerNet

_NOISE_FACTOR = 10
_FLOOR = 2.0**-20  # of the score scale: 8 units in the last place of a score near its scale
Float32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.floating[Any]]
Track = Callable[[Sequence[Utterance], str], Iterable[Utterance]]


@dataclass(frozen=True, eq=False)
class Reference:
    """Eager answers in float32: scores (utterances, speakers) and unit-length embeddings (utterances, D).

    `score_noise` is max |Δscore| and `embedding_noise` max ‖Δembedding‖ between the eager network in
    float32 and the same in float64, over these utterances.
    """

    scores: Float32
    embeddings: Float32
    score_noise: float
    embedding_noise: float
    class_weight: Float32  # (D, speakers): scores are embedding @ class_weight


@dataclass(frozen=True)
class Tolerance:
    """The bounds on max |Δscore| and max ‖Δembedding‖, and why they are what they are."""

    score: float
    embedding: float
    reason: str


def eager_reference(checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track) -> Reference:
    """Answer every utterance alone. `track(utterances, description)` may show progress.

    Utterances that are samples go through the NumPy frontend, which defines the features. For the noise
    they also go through the torch frontend in float32: a frontend inside a graph is no better than that.
    """
    with few_threads():
        return _eager_reference(checkpoint, utterances, track)


def _eager_reference(checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track) -> Reference:
    single, exact = checkpoint.network(), checkpoint.network().double()
    torch_frontend = TorchFrontend(checkpoint.frontend)
    scores, embeddings, score_noise, embedding_noise = [], [], 0.0, 0.0
    for utterance in track(utterances, "Eager PyTorch"):
        values = utterance.input
        answer = eager_answer(single, checkpoint.frontend, values)
        rough, precise = [answer], values
        if values.ndim == 1:
            rough.append(_answer(single, torch_frontend(torch.from_numpy(values))))
            precise = compute_features(values, checkpoint.frontend, np.float64)
        truth = _answer(exact, torch.from_numpy(precise.astype(np.float64)))
        for scores_S, embedding_D in rough:
            score_noise = max(score_noise, float((scores_S - truth[0]).abs().max()))
            embedding_noise = max(embedding_noise, float((embedding_D - truth[1]).norm()))
        scores.append(answer[0].numpy())
        embeddings.append(answer[1].numpy())
    class_weight = class_weights(single, embeddings[0].shape[0])
    return Reference(np.stack(scores), np.stack(embeddings), score_noise, embedding_noise, class_weight)


@contextmanager
def few_threads() -> Iterator[None]:
    """As many as the runtime takes: on a busy machine PyTorch's many wait for each other more than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(default_threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def eager_answer(network: SpeakerNet, frontend: Frontend, values: Floats) -> tuple[Tensor, Tensor]:
    """Scores (S,) and unit-length embedding (D,) of features (T, F) or samples (n,), alone."""
    features = compute_features(values, frontend) if values.ndim == 1 else values
    return _answer(network, torch.from_numpy(features.astype(np.float32)))


@torch.inference_mode()
def class_weights(network: SpeakerNet, embedding_size: int) -> Float32:
    """Float32 (embedding_size, speakers): a unit-length embedding times this gives the network's scores."""
    found: Float32 = network.scores(torch.eye(embedding_size)).numpy()
    return found


def tolerance(noise: Reference, score_scale: float) -> Tolerance:
    """How far an artefact's answers in float32 may be from the reference.

    Another order of additions is another draw of the noise that float32 itself makes, so the bound
    is ten times what the eager network shows against float64 on the same inputs, and never below what
    a score near its scale can resolve. Rounded up to one digit, so that chance in the
    last ones does not change an artefact's bytes.
    """
    floor = _FLOOR * score_scale
    score = round_up(max(floor, _NOISE_FACTOR * noise.score_noise))
    embedding = round_up(max(_FLOOR, _NOISE_FACTOR * noise.embedding_noise))
    reason = (
        f"{_NOISE_FACTOR} × the eager network's own rounding on these inputs (float32 against float64: max |Δscore| "
        f"{noise.score_noise:.2g}, max ‖Δembedding‖ {noise.embedding_noise:.2g}), at least {_FLOOR:.2g} of the "
        f"score scale {score_scale:g}, rounded up to one digit"
    )
    return Tolerance(score, embedding, reason)


@torch.inference_mode()
def _answer(network: SpeakerNet, features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (T, F) → scores (S,) and unit-length embedding (D,)."""
    embedding = network.embed(features[None])
    return network.scores(embedding)[0], torch.nn.functional.normalize(embedding, dim=-1)[0]
