"""The deployable graph against the network it was rebuilt from, alone and padded, to the last digits of float64."""

import dataclasses
import math
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from tests.export.tiny import LABELS, OPTIONS, make_checkpoint, random_network
from voxport.export.errors import ExportError
from voxport.export.network.inference_net import DeployableNet, deployable_net
from voxport.export.network.layers import AttentionForm
from voxport.train.recipe import ModelOptions

KINDS = {
    "two layers": OPTIONS,
    "one layer": dataclasses.replace(OPTIONS, num_layers=1),
    "four heads": dataclasses.replace(OPTIONS, num_heads=4, d_model=24),
    "one head, narrow": dataclasses.replace(OPTIONS, num_heads=1, d_model=8, ffn_dim=40),
    "kernel 1": dataclasses.replace(OPTIONS, kernel_size=1),
    "kernel 31": dataclasses.replace(OPTIONS, kernel_size=31),
    "no batch norm": dataclasses.replace(OPTIONS, batch_norm=False),
    "attention and maximum": dataclasses.replace(OPTIONS, pooling="self_attention_max"),
    "mean": dataclasses.replace(OPTIONS, pooling="mean"),
    "attentive statistics": dataclasses.replace(OPTIONS, pooling="attentive_statistics"),
    "stacked frames": dataclasses.replace(OPTIONS, stack_frames=4, pooling="attentive_statistics"),
    "aggregated layers": dataclasses.replace(
        OPTIONS, pooling="attentive_statistics", stack_frames=3, aggregate_layers=True, embedding_size=6
    ),
    "band statistics": dataclasses.replace(
        OPTIONS,
        pooling="attentive_statistics",
        stack_frames=3,
        aggregate_layers=True,
        embedding_size=6,
        band_statistics=True,
    ),
    "above the lowest": dataclasses.replace(
        OPTIONS, stack_frames=3, embedding_size=6, band_statistics=True, above_lowest="instead"
    ),
    "beside the bands": dataclasses.replace(
        OPTIONS, stack_frames=3, embedding_size=6, band_statistics=True, above_lowest="beside"
    ),
    "band statistics without batch norm": dataclasses.replace(
        OPTIONS, embedding_size=6, band_statistics=True, batch_norm=False
    ),
    "a narrow embedding without batch norm": dataclasses.replace(OPTIONS, embedding_size=6, batch_norm=False),
    "maximum, no batch norm": dataclasses.replace(OPTIONS, pooling="self_attention_max", batch_norm=False),
    "transformer": dataclasses.replace(OPTIONS, encoder="transformer"),
    "transformer, maximum": dataclasses.replace(OPTIONS, encoder="transformer", pooling="self_attention_max"),
    "another scale": dataclasses.replace(OPTIONS, am_scale=12.5, head_dropout=0.1),
}
LENGTHS = (1, 2, 13, 40, 67)


@pytest.mark.parametrize("attention", get_args(AttentionForm))
@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_padded_batch_equals_each_utterance_alone_in_the_trained_network(
    options: ModelOptions, attention: AttentionForm
) -> None:
    network = random_network(options, n_mels=10).double()
    deployable = DeployableNet(random_network(options, n_mels=10), attention).eval()
    torch.manual_seed(1)
    utterances = [torch.randn(frames, 10, dtype=torch.float64) for frames in LENGTHS]
    for garbage in (math.nan, math.inf, 1e30):
        batch = torch.full((len(LENGTHS), max(LENGTHS) + 9, 10), garbage, dtype=torch.float64)
        for row, utterance in zip(batch, utterances, strict=True):
            row[: len(utterance)] = utterance
        with torch.inference_mode():
            scores, embedding = deployable(batch, torch.tensor(LENGTHS))
            for row, utterance in enumerate(utterances):
                wanted = network.embed(utterance[None])
                torch.testing.assert_close(embedding[row], F.normalize(wanted, dim=-1)[0], rtol=0, atol=1e-11)
                torch.testing.assert_close(scores[row], network.scores(wanted)[0], rtol=0, atol=1e-10)


def test_answers_differ_between_utterances_and_speakers() -> None:
    # Were they all alike, the test above would hold for any graph.
    deployable = DeployableNet(random_network(OPTIONS, n_mels=10))
    torch.manual_seed(1)
    scores, embedding = deployable(torch.randn(2, 30, 10, dtype=torch.float64), torch.tensor([30, 30]))
    assert scores.std(dim=1).min() > 0.5
    assert (embedding[0] - embedding[1]).norm() > 0.1
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2, dtype=torch.float64))


def test_float32_rounds_once() -> None:
    network = random_network(OPTIONS, n_mels=10)
    deployable = DeployableNet(network).float()
    assert {buffer.dtype for buffer in deployable.buffers()} == {torch.float32}
    x = torch.randn(1, 50, 10)
    torch.testing.assert_close(deployable(x, torch.tensor([50]))[0], network(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("attention", ["in_keys", "by_head"])
def test_every_form_of_attention_gives_the_same_numbers(attention: AttentionForm) -> None:
    """Where nothing is hidden the added dimension adds an exact zero; where something is, its weight is an exact 0."""
    network = random_network(OPTIONS, n_mels=10)
    x = torch.randn(3, 50, 10)
    for lengths in (torch.tensor([50, 50, 50]), torch.tensor([50, 31, 1])):
        summed = DeployableNet(network).float()(x, lengths)
        found = DeployableNet(network, attention).float()(x, lengths)
        for one, other in zip(summed, found, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


def test_the_network_is_left_as_it_was() -> None:
    network = random_network(OPTIONS, n_mels=10)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    DeployableNet(network).float()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_checkpoint_becomes_a_graph_in_eval_mode() -> None:
    checkpoint = make_checkpoint()
    deployable = deployable_net(checkpoint)
    assert not deployable.training
    assert deployable.class_weight_ES.shape == (16, len(LABELS))
    assert not list(deployable.parameters())


def test_mlp_head_is_refused() -> None:
    checkpoint = make_checkpoint(dataclasses.replace(OPTIONS, head="mlp"))
    with pytest.raises(ExportError, match="recipe tiny: the head 'mlp' cannot be exported: its scores are not cosines"):
        deployable_net(checkpoint)


def test_unknown_value_of_an_option_is_refused() -> None:
    options = dataclasses.replace(OPTIONS)
    object.__setattr__(options, "pooling", "statistics")
    checkpoint = make_checkpoint()
    checkpoint = dataclasses.replace(checkpoint, recipe=dataclasses.replace(checkpoint.recipe, model=options))
    with pytest.raises(
        ExportError, match="cannot export the model option pooling = 'statistics'; use a recipe without"
    ):
        deployable_net(checkpoint)


def test_unknown_option_is_refused() -> None:
    @dataclass(frozen=True)
    class LaterOptions(ModelOptions):
        relative_positions: bool = True

    checkpoint = make_checkpoint()
    recipe = dataclasses.replace(checkpoint.recipe, model=LaterOptions(**dataclasses.asdict(OPTIONS)))
    with pytest.raises(ExportError, match="cannot export the model option relative_positions = True"):
        deployable_net(dataclasses.replace(checkpoint, recipe=recipe))
