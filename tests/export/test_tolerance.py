"""The tolerance of each utterance: measured on it, no wider for a fault, and what a report says of the room left."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.export.conftest import SMALL
from tests.export.tiny import make_checkpoint
from voxport.export.inputs.cases import LengthLimits, Utterance, synthetic_utterances
from voxport.export.network.frontend import FrontendGraph
from voxport.export.verification.compare import CaseResult, RowResult, agreement, disagreements
from voxport.export.verification.reference import Reference, Tolerance, eager_reference, tolerance
from voxport.export.verification.report import room_left

WAVE = make_checkpoint(SMALL, "psf_fbank40")


def some(kind: Any, frames: tuple[int, ...] = (12, 40)) -> list[Utterance]:
    return [synthetic_utterances(WAVE.frontend, kind, LengthLimits(n, n), seed=n)[0] for n in frames]


def reference(utterances: list[Utterance]) -> Reference:
    return eager_reference(WAVE, utterances, lambda items, _: items)


@pytest.fixture(scope="module")
def heard() -> Reference:
    return reference(some("waveform"))


def test_the_noise_is_that_of_float32_on_each_utterance() -> None:
    utterances = some("features")
    found = reference(utterances)
    assert found.score_noises.shape == found.embedding_noises.shape == (2,)
    single, exact = WAVE.network(), WAVE.network().double()
    for i, each in enumerate(utterances):
        values = torch.from_numpy(each.input)[None]
        with torch.inference_mode():
            rough, truth = single.scores(single.embed(values)), exact.scores(exact.embed(values.double()))
        plain = float((rough - truth).abs().max())
        assert 0 < plain <= found.score_noises[i] * (1 + 1e-6)
        assert found.score_noises[i] < 30 * plain  # and nothing but rounding is in it
    assert found.score_noise == max(found.score_noises)


def test_sound_has_more_noise_than_its_features(heard: Reference) -> None:
    """A Fourier transform as a matrix product in float32, and a logarithm behind it."""
    features = reference(some("features"))
    assert heard.score_noises.min() > features.score_noises.min()


def test_a_fault_in_the_graphs_frontend_does_not_widen_it(heard: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FrontendGraph.forward

    def wrong(self: FrontendGraph, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        features, counts = right(self, waveform, lengths)
        return features + 3.0, counts

    monkeypatch.setattr(FrontendGraph, "forward", wrong)
    spoilt = reference(some("waveform"))
    assert spoilt.score_noises.max() < 3 * heard.score_noises.max()


def test_the_bound_is_ten_times_the_noise_of_the_utterance_or_of_the_median() -> None:
    noises = np.array([1e-7, 1e-6, 2e-6, 3e-5, 4e-6])
    found = tolerance(Reference(np.zeros((5, 2)), np.zeros((5, 2)), noises, noises / 10, np.zeros((2, 2))), 1.0)  # type: ignore[arg-type]
    assert found.scores == (2e-5, 2e-5, 2e-5, 3e-4, 4e-5)
    assert found.score == 3e-4
    assert found.embeddings == (2e-6, 2e-6, 2e-6, 3e-5, 4e-6)
    assert found.of(3) == (3e-4, 3e-5)
    quiet = tolerance(Reference(np.zeros((1, 2)), np.zeros((1, 2)), noises[:1], noises[:1], np.zeros((2, 2))), 30.0)  # type: ignore[arg-type]
    assert quiet.score == pytest.approx(30 * 2**-20, rel=0.5)
    assert quiet.score >= 30 * 2**-20


def row(position: int, score: float, distance: float | None = 0.0) -> RowResult:
    return RowResult(0, position, f"utterance {position}", False, 9, score, distance, 1.0, 0.0)


def case(*rows: RowResult) -> CaseResult:
    return CaseResult(0, "alone", len(rows), 9, "none", 0.0, rows)


BOUND = Tolerance(1.0, 1.0, "for a test", (0.1, 1.0), (0.2, 1.0))


def test_each_utterance_is_held_against_its_own_bound() -> None:
    assert disagreements([case(row(0, 0.09), row(1, 0.9))], BOUND) == []
    (complaint,) = disagreements([case(row(0, 0.5), row(1, 0.9))], BOUND)
    assert "max |Δscore| is 0.5, tolerance 0.1; 1 of 2 comparisons are over theirs" in complaint
    assert "utterance 0" in complaint
    (complaint,) = disagreements([case(row(0, 0.0, 0.3), row(1, 0.0, 0.9))], BOUND)
    assert "max ‖Δembedding‖ is 0.3, tolerance 0.2" in complaint
    assert disagreements([case(row(0, float("inf")))], BOUND)
    assert disagreements([case(row(0, 0.5, None))], Tolerance(1.0, 1.0, "one for all")) == []


def test_the_room_left_is_that_of_the_closest_comparison() -> None:
    found = agreement([case(row(0, 0.03), row(1, 0.6))], BOUND)
    assert found is not None
    assert (found.used, found.max_abs_score) == (0.6, 0.6)
    assert "utterance 1" in found.closest
    assert room_left(found) == "40% of the tolerance"
    nearer = agreement([case(row(0, 0.08), row(1, 0.6, None))], BOUND)
    assert nearer is not None
    assert nearer.used == pytest.approx(0.8)
    assert "utterance 0" in nearer.closest  # though another differs by more
    assert "utterance 1" in nearer.worst
    over = agreement([case(row(0, 0.3))], BOUND)
    assert over is not None
    assert room_left(over) == "none: 3 times the tolerance"
