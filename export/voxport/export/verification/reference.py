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
from voxport.export.network.frontend import FrontendGraph
from voxport.export.quantization.calibration import round_up
from voxport.runtime.backends.base import default_threads
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.spec import Frontend
from voxport.train.checkpoint import Checkpoint
from voxport.train.models.frontend import TorchFrontend
from voxport.train.models.speaker_net import SpeakerNet

_NOISE_FACTOR = 10  # docs/results/2026-11-29-gate.md shows what it refuses and what it catches
_UNIT = 2.0**-24  # half a unit in the last place of a float32 near 1
_FLOOR = 2.0**-20  # of the score scale: 8 units in the last place of a score near its scale
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]
Track = Callable[[Sequence[Utterance], str], Iterable[Utterance]]


@dataclass(frozen=True, eq=False)
class Reference:
    """Eager answers in float32: scores (utterances, speakers) and unit-length embeddings (utterances, D).

    `score_noises` and `embedding_noises`, both (utterances,), are max |Δscore| and ‖Δembedding‖ between the network
    in float32 and the same in float64, the largest of several ways to compute it; see `_roundings`.
    """

    scores: Float32
    embeddings: Float32
    score_noises: Float64
    embedding_noises: Float64
    class_weight: Float32  # (D, speakers): scores are embedding @ class_weight

    @property
    def score_noise(self) -> float:
        """The largest over all utterances."""
        return float(self.score_noises.max(initial=0.0))

    @property
    def embedding_noise(self) -> float:
        """The largest over all utterances."""
        return float(self.embedding_noises.max(initial=0.0))


@dataclass(frozen=True)
class Tolerance:
    """The bounds on max |Δscore| and max ‖Δembedding‖, and why they are what they are.

    `scores` and `embeddings` are those of each utterance, in the order of the gate's; empty where all have the same.
    """

    score: float
    embedding: float
    reason: str
    scores: tuple[float, ...] = ()
    embeddings: tuple[float, ...] = ()

    def of(self, utterance: int) -> tuple[float, float]:
        """The bounds on scores and on embeddings for the utterance at this position."""
        if not self.scores:
            return self.score, self.embedding
        return self.scores[utterance], self.embeddings[utterance]


def eager_reference(checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track) -> Reference:
    """Answer every utterance alone. `track(utterances, description)` may show progress.

    Utterances that are samples go through the NumPy frontend, which defines the features.
    """
    with few_threads():
        return _eager_reference(checkpoint, utterances, track)


def _eager_reference(checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track) -> Reference:
    single, exact = checkpoint.network(), checkpoint.network().double()
    roundings = _Roundings(checkpoint, single)
    scores, embeddings, score_noises, embedding_noises = [], [], [], []
    for utterance in track(utterances, "Eager PyTorch"):
        values = utterance.input
        answer = eager_answer(single, checkpoint.frontend, values)
        precise = compute_features(values, checkpoint.frontend, np.float64) if values.ndim == 1 else values
        truth = _answer(exact, torch.from_numpy(precise.astype(np.float64)))
        drawn = [answer, *roundings(values, precise)]
        score_noises.append(max(float((scores_S - truth[0]).abs().max()) for scores_S, _ in drawn))
        embedding_noises.append(max(float((embedding_D - truth[1]).norm()) for _, embedding_D in drawn))
        scores.append(answer[0].numpy())
        embeddings.append(answer[1].numpy())
    class_weight = class_weights(single, embeddings[0].shape[0])
    noises = np.array(score_noises), np.array(embedding_noises)
    return Reference(np.stack(scores), np.stack(embeddings), *noises, class_weight)


class _Roundings:
    """Other draws of the noise that float32 makes on one input; none of them is computed by an artefact.

    The eager network answers once more, with another number of threads, on the input rounded anew: each value moved
    by up to half a unit in its last place. That draws anew the rounding of everything behind it, as another order of
    additions in another instruction set does. For sound it also answers to the features of the torch frontend, and to
    the exact ones with what float32 does to the graph's frontend: its Fourier transform is a matrix product, which is
    rounded several times as much as the fast one. That is the difference between the same module in float32 and in
    float64, so that a fault in it moves neither.
    """

    def __init__(self, checkpoint: Checkpoint, network: SpeakerNet) -> None:
        self._frontend, self._network = checkpoint.frontend, network
        self._torch = TorchFrontend(checkpoint.frontend)
        self._graph, self._exact = FrontendGraph(checkpoint.frontend).float(), FrontendGraph(checkpoint.frontend)
        self._random = np.random.default_rng(24)

    def __call__(self, values: Float32, precise: Floats) -> list[tuple[Tensor, Tensor]]:
        nudge = 1 + self._random.uniform(-_UNIT, _UNIT, values.shape)
        with _threads(1 if torch.get_num_threads() > 1 else 2):
            found = [eager_answer(self._network, self._frontend, (values * nudge).astype(np.float32))]
        if values.ndim == 1:
            found.append(_answer(self._network, self._torch(torch.from_numpy(values))))
            rounded = torch.from_numpy(precise + self._graph_error(values)).float()
            found.append(_answer(self._network, rounded))
        return found

    @torch.inference_mode()
    def _graph_error(self, values: Float32) -> Float64:
        sound, length = torch.from_numpy(values)[None], torch.tensor([len(values)])
        rough, exact = self._graph(sound, length)[0], self._exact(sound.double(), length)[0]
        error: Float64 = (rough.double() - exact)[0].numpy()
        return error


@contextmanager
def few_threads() -> Iterator[None]:
    """As many as the runtime takes: on a busy machine PyTorch's many wait for each other more than they work."""
    with _threads(default_threads()):
        yield


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
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
    """How far an artefact's answers in float32 may be from the reference, for each utterance.

    Another order of additions is another draw of the noise that float32 itself makes on that input. So the bound is
    ten times the noise of the utterance, or of the median utterance where that is larger, since a few draws may be
    small by chance, and never below what a score near its scale can resolve. Rounded up to two digits, and the
    largest of all, which the contract carries, to one, so that chance in the last ones does not change an artefact's
    bytes.
    """
    scores = _bounds(noise.score_noises, _FLOOR * score_scale)
    embeddings = _bounds(noise.embedding_noises, _FLOOR)
    reason = (
        f"{_NOISE_FACTOR} × the network's own rounding on that input (float32 against float64: max |Δscore| "
        f"{np.median(noise.score_noises):.2g} in the median and {noise.score_noise:.2g} at most, max ‖Δembedding‖ "
        f"{np.median(noise.embedding_noises):.2g} and {noise.embedding_noise:.2g}), at least that of the median input "
        f"and {_FLOOR:.2g} of the score scale {score_scale:g}, rounded up"
    )
    return Tolerance(round_up(max(scores)), round_up(max(embeddings)), reason, scores, embeddings)


def _bounds(noises: Float64, floor: float) -> tuple[float, ...]:
    least = float(np.median(noises))
    return tuple(round_up(max(floor, _NOISE_FACTOR * max(float(each), least)), 2) for each in noises)


@torch.inference_mode()
def _answer(network: SpeakerNet, features: Tensor) -> tuple[Tensor, Tensor]:
    """Features (T, F) → scores (S,) and unit-length embedding (D,)."""
    embedding = network.embed(features[None])
    return network.scores(embedding)[0], torch.nn.functional.normalize(embedding, dim=-1)[0]
