"""The network: padding, poolings and heads against plain references."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxport.train.models.encoder import ConformerEncoder, TransformerEncoder
from voxport.train.models.heads import AmSoftmaxHead, MlpHead
from voxport.train.models.pooling import (
    AttentiveStatisticsPooling,
    MeanPooling,
    SelfAttentionMaxPooling,
    SelfAttentionPooling,
)
from voxport.train.models.speaker_net import SpeakerNet, build_network, count_parameters, stack_frames
from voxport.train.recipe import ModelOptions, load_recipe, recipe_names

OPTIONS = ModelOptions(num_layers=2, d_model=16, num_heads=2, ffn_dim=24, kernel_size=7, dropout=0.3)
KINDS = {
    "self_attention": OPTIONS,
    "self_attention_max": dataclasses.replace(OPTIONS, pooling="self_attention_max"),
    "conformer_mean": dataclasses.replace(OPTIONS, pooling="mean", batch_norm=False),
    "transformer": dataclasses.replace(OPTIONS, encoder="transformer", pooling="mean", batch_norm=False, head="mlp"),
    "attentive_statistics": dataclasses.replace(OPTIONS, pooling="attentive_statistics"),
    "stacked": dataclasses.replace(OPTIONS, stack_frames=4, kernel_size=3),
    "aggregated": dataclasses.replace(
        OPTIONS, pooling="attentive_statistics", stack_frames=2, aggregate_layers=True, embedding_size=6
    ),
    "band_statistics": dataclasses.replace(OPTIONS, embedding_size=6, band_statistics=True),
    "above_lowest": dataclasses.replace(OPTIONS, stack_frames=2, above_lowest="instead"),
    "beside": dataclasses.replace(
        OPTIONS, stack_frames=2, embedding_size=6, band_statistics=True, above_lowest="beside"
    ),
    "transformer_max": dataclasses.replace(OPTIONS, encoder="transformer", pooling="self_attention_max"),
}


def trained(options: ModelOptions) -> SpeakerNet:
    torch.manual_seed(0)
    network = build_network(options, n_mels=10, speakers=5)
    network.train()
    for _ in range(3):  # gives both kinds of batch norm statistics that are not the initial ones
        network(torch.randn(8, 40, 10) * 2 + 1)
    return network.eval()


@pytest.fixture
def network() -> SpeakerNet:
    return trained(OPTIONS)


@pytest.mark.parametrize("garbage", [0.0, 1e4, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_padded_batch_equals_single_utterances(kind: str, garbage: float) -> None:
    network = trained(KINDS[kind])
    lengths = [31, 8, 1, 20, 2]
    batch = torch.full((5, 40, 10), garbage)
    singles = []
    for row, length in enumerate(lengths):
        batch[row, :length] = torch.randn(length, 10)
        singles.append(network(batch[row : row + 1, :length]))
    together = network(batch, torch.tensor(lengths))
    assert torch.cat(singles).std(dim=0).max() > 1e-2, "all utterances alike: equality would show nothing"
    torch.testing.assert_close(together, torch.cat(singles), atol=1e-4, rtol=0)
    wider = network(F.pad(batch, (0, 0, 0, 9), value=garbage), torch.tensor(lengths))
    torch.testing.assert_close(wider, together, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_the_mask_is_what_makes_padding_exact(network: SpeakerNet) -> None:
    features = torch.randn(1, 20, 10)
    longer = torch.randn(1, 32, 10)
    batch = torch.cat([torch.cat([features, torch.zeros(1, 12, 10)], dim=1), longer])
    alone = network(features)
    for module in network.encoder.modules():
        module._forward_pre_hooks.clear()
    assert (network(batch, torch.tensor([20, 32]))[:1] - alone).abs().max() > 1e-3


def test_mask_does_not_outlive_a_call(network: SpeakerNet) -> None:
    features = torch.randn(2, 30, 10)
    before = network(features)
    network(features, torch.tensor([30, 4]))
    assert torch.equal(network(features), before)


@torch.inference_mode()
def test_stacked_frames_are_the_neighbours_in_order_filled_up_with_zeros() -> None:
    features = torch.arange(1.0, 11.0).reshape(1, 5, 2)
    padding = torch.tensor([[False, False, False, True, True]])
    stacked, mask = stack_frames(features, padding, 3)
    assert stacked.tolist() == [[[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 0, 0]]]
    assert mask is not None
    assert mask.tolist() == [[False, True]]


@torch.inference_mode()
def test_above_lowest_hears_what_numpy_takes_the_lowest_value_off() -> None:
    """And so no mean that a frontend took away: a piece sounds the same alone and cut from the whole utterance."""
    options = dataclasses.replace(OPTIONS, embedding_size=6, band_statistics=True)
    plain = trained(options)
    network = build_network(dataclasses.replace(options, above_lowest="instead"), 10, 5)
    network.load_state_dict(plain.state_dict())
    features = torch.randn(4, 25, 10)
    above = torch.from_numpy(features.numpy() - features.numpy().min(axis=1, keepdims=True))
    expected = plain(above)
    assert (expected - plain(features)).abs().max() > 0.1
    torch.testing.assert_close(network.eval()(features), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(network(features + 3 * torch.randn(4, 1, 10)), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_beside_the_bands_the_first_layer_gets_both_and_the_statistics_the_bands() -> None:
    options = dataclasses.replace(OPTIONS, embedding_size=6, band_statistics=True, stack_frames=2)
    network = trained(dataclasses.replace(options, above_lowest="beside"))
    plain = trained(options)
    weights = network.state_dict()
    both = weights["project.weight"].reshape(16, 2, 2, 10)  # of two stacked frames: the bands, and above the lowest
    both[:, :, 1] = 0
    plain.load_state_dict(weights | {"project.weight": both[:, :, 0].reshape(16, 20)})
    features = torch.randn(4, 24, 10)
    torch.testing.assert_close(network(features), plain(features), atol=1e-4, rtol=0)
    both[:, :, 1], both[:, :, 0] = torch.randn(16, 2, 10), 0
    heard: list[torch.Tensor] = []
    network.project.register_forward_hook(lambda *call: heard.append(call[2]))
    network(features)
    network(features + 3 * torch.randn(4, 1, 10))
    torch.testing.assert_close(heard[0], heard[1], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_attentive_statistics_are_numpys_weighted_mean_and_deviation() -> None:
    torch.manual_seed(1)
    pooling, frames = AttentiveStatisticsPooling(8, 8), torch.randn(1, 6, 8)
    hidden = np.tanh(frames[0].numpy() @ pooling.hidden.weight.numpy().T + pooling.hidden.bias.numpy())
    score = (hidden @ pooling.score.weight.numpy().T + pooling.score.bias.numpy())[:, 0]
    weights = np.exp(score) / np.exp(score).sum()
    mean = np.average(frames[0].numpy(), axis=0, weights=weights)
    deviation = np.sqrt(np.average((frames[0].numpy() - mean) ** 2, axis=0, weights=weights))
    np.testing.assert_allclose(pooling(frames)[0].numpy(), np.concatenate([mean, deviation]), atol=1e-5)


def test_a_single_frame_has_a_slope_everywhere() -> None:
    frames = torch.randn(2, 1, 8, requires_grad=True)
    AttentiveStatisticsPooling(8, 8)(frames).sum().backward()
    assert frames.grad is not None
    assert torch.isfinite(frames.grad).all()


def test_self_attention_pooling_is_a_softmax_weighted_mean() -> None:
    pooling = SelfAttentionPooling(3)
    frames = torch.randn(1, 4, 3)
    expected = torch.zeros(3)
    scores = [pooling.score(frames[0, t]).item() for t in range(4)]
    total = sum(math.exp(score) for score in scores)
    for t in range(4):
        expected += math.exp(scores[t]) / total * frames[0, t]
    torch.testing.assert_close(pooling(frames)[0], expected)


def test_am_softmax_follows_the_paper() -> None:
    head = AmSoftmaxHead(6, speakers=4, scale=30.0, margin=0.35)
    embedding, labels = torch.randn(3, 6), torch.tensor([0, 3, 1])
    losses: list[Tensor] = []
    for vector, label in zip(embedding, labels, strict=True):
        cosines = F.cosine_similarity(vector, head.weight, dim=1)
        target = torch.exp(30.0 * (cosines[label] - 0.35))
        others = sum(torch.exp(30.0 * cosines[j]) for j in range(4) if j != label)
        losses.append(-torch.log(target / (target + others)))
    torch.testing.assert_close(head.loss(head(embedding), labels), torch.stack(losses).mean())
    cosine = F.cosine_similarity(embedding[0], head.weight, dim=1)
    torch.testing.assert_close(head(embedding)[0], 30.0 * cosine)


def test_network_has_the_reference_shape() -> None:
    network = build_network(ModelOptions(num_layers=3), n_mels=40, speakers=600)
    assert network.project.weight.shape == (256, 40)
    assert isinstance(network.encoder, ConformerEncoder)
    assert isinstance(network.head, AmSoftmaxHead)
    assert len(network.encoder.conformer_layers) == 3
    layer = network.encoder.conformer_layers[0]
    assert layer.self_attn.num_heads == 4
    assert layer.ffn1.sequential[1].out_features == 512
    assert layer.conv_module.sequential[2].kernel_size == (31,)
    assert network.head.weight.shape == (600, 256)


def test_without_batch_norm_there_is_none_after_pooling() -> None:
    network = build_network(ModelOptions(num_layers=1, d_model=16, batch_norm=False), n_mels=10, speakers=3)
    assert isinstance(network.norm, torch.nn.Identity)


def test_max_pooling_doubles_the_embedding() -> None:
    network = build_network(KINDS["self_attention_max"], n_mels=10, speakers=3)
    assert isinstance(network.norm, nn.BatchNorm1d)
    assert network.norm.num_features == network.embedding_size == 32
    assert network.embed(torch.randn(2, 9, 10)).shape == (2, 32)
    assert network.head.weight.shape == (3, 32)


def test_maximum_stands_beside_the_weighted_mean() -> None:
    pooling = SelfAttentionMaxPooling(3)
    frames = torch.randn(2, 5, 3)
    padding = torch.tensor([[False] * 5, [False, False, True, True, True]])
    pooled = pooling(frames, padding)
    for row, length in enumerate((5, 2)):
        valid = frames[row, :length]
        weights = torch.softmax(valid @ pooling.score.weight[0], dim=0)
        torch.testing.assert_close(pooled[row, :3], (weights[:, None] * valid).sum(dim=0))
        assert torch.equal(pooled[row, 3:], valid.max(dim=0).values)


def test_mean_is_over_valid_frames() -> None:
    frames, padding = torch.randn(2, 4, 3), torch.tensor([[False] * 4, [False, True, True, True]])
    torch.testing.assert_close(MeanPooling(3)(frames, padding), torch.stack([frames[0].mean(dim=0), frames[1, 0]]))


def test_official_sample_is_the_plain_torch_modules() -> None:
    """Linear, nn.TransformerEncoderLayer with its defaults and time first, mean, Linear-ReLU-Linear."""
    network = build_network(load_recipe("official_sample").model, n_mels=40, speakers=600)
    assert isinstance(network.encoder, TransformerEncoder)
    assert isinstance(network.head, MlpHead)
    prenet, layer = nn.Linear(40, 80), nn.TransformerEncoderLayer(d_model=80, dim_feedforward=256, nhead=2)
    head = nn.Sequential(nn.Linear(80, 80), nn.ReLU(), nn.Linear(80, 600))
    pairs: list[tuple[nn.Module, nn.Module]] = [(prenet, network.project), (layer, network.encoder.layers[0])]
    pairs += [(head[0], network.head.hidden), (head[2], network.head.out)]
    for plain, ours in pairs:
        plain.load_state_dict(ours.state_dict())
    features, labels = torch.randn(3, 50, 40), torch.tensor([5, 0, 599])
    expected = head(layer.eval()(prenet(features).transpose(0, 1)).mean(dim=0))
    scores = network.eval()(features)
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(network.head.loss(scores, labels), nn.CrossEntropyLoss()(expected, labels))
    dropouts = {module.p for module in network.modules() if isinstance(module, nn.Dropout)}
    assert dropouts == {0.1, 0.0}
    assert network.dropout.p == 0.0
    count = sum(p.numel() for module in (prenet, layer, head) for p in module.parameters())
    assert count_parameters(load_recipe("official_sample").model, 40, 600) == count


def test_every_recipe_builds_and_is_counted() -> None:
    for name in recipe_names():
        recipe = load_recipe(name)
        network = build_network(recipe.model, 40, 7)
        assert count_parameters(recipe.model, 40, 7) == sum(p.numel() for p in network.parameters())
        assert network(torch.randn(2, 30, 40)).shape == (2, 7)


def test_weights_keep_the_names_that_checkpoints_have() -> None:
    names = set(build_network(OPTIONS, n_mels=10, speakers=5).state_dict())
    assert {"project.weight", "pooling.score.weight", "norm.running_mean", "head.weight"} <= names
    assert {name.split(".")[0] for name in names} == {"project", "encoder", "pooling", "norm", "head"}
    assert "encoder.conformer_layers.1.conv_module.sequential.2.weight" in names
