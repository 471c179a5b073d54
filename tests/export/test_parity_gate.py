"""The gate can fail: each fault that a model may have is given to it, and found for what it is."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.export.conftest import LIMITS, Exported
from tests.export.tiny import LABELS, TorchBackend
from voxport.export.inputs.corpus_samples import RealOptions
from voxport.export.network.frontend import FrontendGraph
from voxport.export.network.inference_net import DeployableNet, SoundNet, deployable_net
from voxport.export.network.layers import Attention, Convolution, Mask
from voxport.export.network.pooling import Pooling
from voxport.export.verification.gate import Evidence, Named, gather, prove
from voxport.export.verification.report import ParityReport, plot
from voxport.runtime.backends.base import Answer
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.contract import Array, Contract, Golden, Rejection
from voxport.runtime.errors import BackendError


@pytest.fixture(scope="module")
def contract(exported: Exported) -> Contract:
    return read_contract(exported.model)


@pytest.fixture(scope="module")
def right(exported: Exported) -> DeployableNet:
    return deployable_net(exported.checkpoint).float()


def failing_cases(report: ParityReport) -> set[tuple[str, str]]:
    """Kind and padding of the cases in which an answer was over the tolerance."""
    bound = report.tolerance.score
    cases = [case for case in report.cases if not all(row.max_abs_score <= bound for row in case.rows)]
    return {(case.kind, case.garbage) for case in cases}


def test_right_model_passes(evidence: Evidence, contract: Contract, right: DeployableNet) -> None:
    report = prove(TorchBackend(right, contract), evidence, "right")
    assert report.passed, report.failures
    assert report.failures == ()
    assert report.agreement is not None
    assert report.agreement.max_abs_score <= report.tolerance.score
    assert report.agreement.top1 == 1.0
    assert report.agreement.flips == ()
    assert report.agreement.min_cosine is not None
    assert report.agreement.min_cosine > 1 - 1e-6
    assert report.score_noise > 0
    assert all(check.passed for check in report.checks)


def test_picture_shows_errors_by_length_and_by_batch(exported: Exported) -> None:
    by_length, by_batch = plot(exported.report).axes
    assert (by_length.get_xlabel(), by_batch.get_xlabel()) == ("frames", "utterances in the batch")
    assert [text.get_text() for text in by_batch.get_xticklabels()] == ["1", "2", "7", "32"]
    assert [text.get_text() for text in by_length.get_xticklabels()] == ["5", "10", "20", "50", "100"]
    assert exported.report.agreement is not None
    for axis in (by_length, by_batch):
        points = sum(len(np.asarray(found.get_offsets())) for found in axis.collections)
        assert points == exported.report.agreement.comparisons


def wrong_weight(network: DeployableNet) -> None:
    weight: Any = network.layers[0].feed_forward_1.expand.weight  # type: ignore[union-attr]
    weight[3, 5] += 0.5


def unscaled_queries(network: DeployableNet) -> None:
    for module in network.modules():
        if isinstance(module, Attention):
            module.qkv.weight[:, :8] *= 1.1


@pytest.mark.parametrize("spoil", [wrong_weight, unscaled_queries])
def test_wrong_weight(
    evidence: Evidence, contract: Contract, right: DeployableNet, spoil: Callable[[DeployableNet], None]
) -> None:
    network = copy.deepcopy(right)
    spoil(network)
    report = prove(TorchBackend(network, contract), evidence, "spoilt")
    assert not report.passed
    assert any(failure.startswith("max |Δscore| is") for failure in report.failures)
    assert ("alone", "none") in failing_cases(report)  # the fault needs no padding
    assert report.agreement is not None
    assert "alone" in report.agreement.worst or "lengths" in report.agreement.worst


class Unmasked(nn.Module):
    """A part of the network that takes every frame for a valid one."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor | list[Tensor], mask: Mask) -> Any:
        return self.part(x, Mask(torch.ones(mask.batch, mask.frames, dtype=torch.bool), mask.keep_N1.dtype))


def replace_parts(network: nn.Module, kind: type[nn.Module]) -> nn.Module:
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind) and not isinstance(module, Unmasked):
                setattr(module, name, Unmasked(child))
    return network


@pytest.mark.parametrize("kind", [Attention, Convolution, Pooling])
def test_missing_mask(evidence: Evidence, contract: Contract, right: DeployableNet, kind: type[nn.Module]) -> None:
    network = replace_parts(right, kind)
    report = prove(TorchBackend(network, contract), evidence, "unmasked")
    assert not report.passed
    failing = failing_cases(report)
    assert failing
    assert not failing & {("alone", "none"), ("equal lengths", "none")}  # only padding shows it
    # What the padding holds was replaced before the layers: even clean padding shows the fault.
    assert ("mixed lengths", "zeros") in failing


class MultipliedMask(nn.Module):
    """The network, but with padding masked by multiplication, which NaN and infinity survive."""

    def __init__(self, network: DeployableNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        valid = torch.arange(features.shape[1]) < lengths[:, None]
        mask, x = Mask(valid, features.dtype), self.network.project((features * valid[:, :, None]).flatten(0, 1))
        for layer in self.network.layers:
            x = layer(x, mask)
        embedding = torch.nn.functional.normalize(self.network.pooling([x], mask), dim=-1)
        return embedding @ self.network.class_weight_ES, embedding


def test_mask_that_lets_nan_through(evidence: Evidence, contract: Contract, right: DeployableNet) -> None:
    report = prove(TorchBackend(MultipliedMask(right), contract), evidence, "multiplied")
    assert not report.passed
    assert {garbage for _, garbage in failing_cases(report)} == {"NaN", "infinity"}
    assert report.failures[0].startswith("max |Δscore| is inf")


class FramesThePadding(nn.Module):
    """Waveform input whose frontend takes the array's end for each utterance's."""

    def __init__(self, network: SoundNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        inside = torch.arange(waveform.shape[1]) < lengths[:, None]
        waveform = waveform.where(inside, 0.0)
        features, _ = self.network.frontend(waveform, torch.full_like(lengths, waveform.shape[1]))
        _, counts = self.network.frontend(waveform, lengths)
        scores, embedding = self.network.network(features, counts)
        return scores, embedding


def test_frontend_that_frames_the_padding(exported: Exported, contract: Contract, right: DeployableNet) -> None:
    source = Named(exported.checkpoint, "model.pt", contract.checkpoint_sha256)
    evidence = gather(source, "waveform", LIMITS, "fp32", RealOptions())
    golden = evidence.golden
    source_array, scores = evidence.utterances[golden].input, evidence.reference.scores[golden]
    vector = Golden(Array.of(source_array), Array.of(scores), evidence.tolerance.score)
    sound = contract.replace(input_kind="waveform", golden=vector)
    network = SoundNet(FrontendGraph(exported.checkpoint.frontend).float(), right)
    assert prove(TorchBackend(network, sound), evidence, "right").passed
    report = prove(TorchBackend(FramesThePadding(network), sound), evidence, "frames the padding")
    assert not report.passed
    assert ("mixed lengths", "zeros") in failing_cases(report)
    assert ("alone", "none") not in failing_cases(report)


def test_swapped_labels(evidence: Evidence, contract: Contract, right: DeployableNet) -> None:
    swapped = ("Bora", "Anna", *LABELS[2:])
    report = prove(TorchBackend(right, contract.replace(labels=swapped)), evidence, "swapped")
    assert report.failures == ("labels: column 0 is 'Bora' in the artefact, 'Anna' in the checkpoint",)


def test_swapped_columns(evidence: Evidence, contract: Contract, right: DeployableNet) -> None:
    network = copy.deepcopy(right)
    network.class_weight_ES[:, [0, 1]] = network.class_weight_ES[:, [1, 0]]
    report = prove(TorchBackend(network, contract), evidence, "swapped")
    assert not report.passed
    assert report.agreement is not None
    assert report.agreement.max_abs_score is not None
    assert report.agreement.max_abs_score > 1
    assert report.agreement.max_embedding_distance is not None
    assert report.agreement.max_embedding_distance <= report.tolerance.embedding  # the fault is in the head alone
    flipped = [row for case in report.cases for row in case.rows if row.flipped]
    assert flipped
    assert len(report.agreement.flips) == len(flipped)
    assert min(row.margin for row in flipped) > 0
    assert report.agreement.top1 < 1.0


class Picky:
    """A model that refuses what `accepts` does not, as ONNX Runtime does with a fixed size."""

    def __init__(self, backend: TorchBackend, accepts: Callable[[tuple[int, ...]], bool]) -> None:
        self.backend, self.contract, self.accepts = backend, backend.contract, accepts

    def run(self, inputs: Any, lengths: Any) -> Answer:
        shape = np.asarray(inputs).shape
        if not self.accepts(shape):
            raise BackendError(f"onnxruntime failed on an input of shape {shape}: Got invalid dimensions")
        return self.backend.run(inputs, lengths)


def test_fixed_batch(evidence: Evidence, contract: Contract, right: DeployableNet) -> None:
    report = prove(Picky(TorchBackend(right, contract), lambda shape: shape[0] == 1), evidence, "fixed batch")
    assert not report.passed
    assert {case.batch for case in report.cases if case.error is None} == {1}
    assert {case.batch for case in report.cases if case.error is not None} == {2, 7, 32}
    assert "batch 2" in report.failures[0]
    assert "could not be run: onnxruntime failed on an input of shape (2, " in report.failures[0]


def test_fixed_length(evidence: Evidence, contract: Contract, right: DeployableNet) -> None:
    golden = contract.golden.input.shape[0]
    report = prove(Picky(TorchBackend(right, contract), lambda shape: shape[1] == golden), evidence, "fixed length")
    assert not report.passed
    assert {case.padded for case in report.cases if case.error is None} == {golden}
    assert all("could not be run" in failure for failure in report.failures)


class FirstRowOnly(nn.Module):
    """Answers every row as the first, as a batch that was frozen at 1 and broadcast does."""

    def __init__(self, network: DeployableNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, lengths: Tensor) -> Any:
        scores, embedding = self.network(features[:1], lengths[:1])
        return scores.expand(len(features), -1), embedding.expand(len(features), -1)


def test_batch_answered_by_its_first_row(evidence: Evidence, contract: Contract, right: DeployableNet) -> None:
    report = prove(TorchBackend(FirstRowOnly(right), contract), evidence, "first row")
    assert not report.passed
    assert all(kind != "alone" for kind, _ in failing_cases(report))
    assert ("equal lengths", "none") in failing_cases(report)
    assert all(row.max_abs_score <= report.tolerance.score for case in report.cases for row in case.rows[:1])


@pytest.mark.parametrize("wrong", [(1, 16), (len(LABELS), 8)])
def test_answers_of_another_shape(
    evidence: Evidence, contract: Contract, right: DeployableNet, wrong: tuple[int, int]
) -> None:
    class Cut(nn.Module):
        def forward(self, features: Tensor, lengths: Tensor) -> Any:
            scores, embedding = right(features, lengths)
            return scores[:, : wrong[0]], embedding[:, : wrong[1]]

    report = prove(TorchBackend(Cut(), contract), evidence, "cut")
    assert not report.passed
    assert any("answers of shape" in failure for failure in report.failures)
    assert report.failures[-1] == "nothing could be compared"
    assert report.agreement is None


@pytest.mark.parametrize(
    ("changes", "failure"),
    [
        ({"checkpoint_sha256": "0" * 64}, "checkpoint hash: 0000"),
        ({"recipe": "another"}, "recipe: another in the artefact, tiny in the checkpoint"),
        ({"score_scale": 15.0}, "score scale: 15.0 in the artefact, 30.0 in the checkpoint"),
        ({"rejection": Rejection(0.3, 0.01)}, "rejection: Rejection("),
        ({"labels": LABELS[:-1]}, "labels: 6 in the artefact, 7 in the checkpoint"),
    ],
)
def test_contract_that_is_not_the_checkpoints(
    evidence: Evidence, contract: Contract, right: DeployableNet, changes: dict[str, Any], failure: str
) -> None:
    report = prove(TorchBackend(right, contract.replace(**changes)), evidence, "another")
    assert not report.passed
    assert report.failures[0].startswith(failure)


def test_frontend_of_the_same_name_with_other_values(
    evidence: Evidence, contract: Contract, right: DeployableNet
) -> None:
    frontend = dataclasses.replace(contract.frontend, f_min=0.0)
    report = prove(TorchBackend(right, contract.replace(frontend=frontend)), evidence, "another frontend")
    assert report.failures == ("frontend: homework_mel40, with other values in the checkpoint",)


def test_golden_vector_that_is_not_the_networks(evidence: Evidence, contract: Contract, right: DeployableNet) -> None:
    scores = contract.golden.scores.values + np.float32(0.01)
    golden = dataclasses.replace(contract.golden, scores=Array.of(scores), tolerance=1.0)
    report = prove(TorchBackend(right, contract.replace(golden=golden)), evidence, "another golden vector")
    assert len(report.failures) == 1
    assert report.failures[0].startswith("golden vector: max |Δscore| of the artefact 0.01, of the eager network 0.01")


def test_flip_within_the_tolerance_is_reported_and_forgiven(
    evidence: Evidence, contract: Contract, right: DeployableNet
) -> None:
    # Two speakers with almost the same class vector: which is best is a matter of rounding.
    scores = evidence.reference.scores.copy()
    order = scores.argsort(axis=1)
    first, second = scores[0, order[0, -1]], scores[0, order[0, -2]]
    bound = dataclasses.replace(evidence.tolerance, score=float(first - second) * 0.6, scores=(), embeddings=())

    class Nudged(nn.Module):
        def forward(self, features: Tensor, lengths: Tensor) -> Any:
            answer, embedding = right(features, lengths)
            nudge = torch.zeros_like(answer)
            nudge[:, order[0, -1]] -= 0.51 * float(first - second)
            nudge[:, order[0, -2]] += 0.51 * float(first - second)
            return answer + nudge, embedding

    golden = dataclasses.replace(contract.golden, tolerance=bound.score)
    loose = dataclasses.replace(evidence, tolerance=bound)
    report = prove(TorchBackend(Nudged(), contract.replace(golden=golden)), loose, "nudged")
    assert report.agreement is not None
    assert report.agreement.flips
    assert "margin" in report.agreement.flips[0]
    assert report.agreement.top1 < 1.0
    low, high = report.agreement.top1_interval
    assert low < report.agreement.top1 < high
    assert report.passed, report.failures
