"""The network: padding, pooling and head against plain references."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from voxport.train.model import AmSoftmaxHead, SelfAttentionPooling, SpeakerNet, build_network
from voxport.train.recipe import ModelOptions

OPTIONS = ModelOptions(num_layers=2, d_model=16, num_heads=2, ffn_dim=24, kernel_size=7, dropout=0.3)


@pytest.fixture
def network() -> SpeakerNet:
    torch.manual_seed(0)
    network = build_network(OPTIONS, n_mels=10, speakers=5)
    network.train()
    for _ in range(3):  # gives both kinds of batch norm statistics that are not the initial ones
        network(torch.randn(8, 40, 10) * 2 + 1)
    return network.eval()


@pytest.mark.parametrize("garbage", [0.0, 1e4, float("nan"), float("inf")])
@torch.inference_mode()
def test_padded_batch_equals_single_utterances(network: SpeakerNet, garbage: float) -> None:
    lengths = [31, 8, 1, 20, 2]
    batch = torch.full((5, 40, 10), garbage)
    singles = []
    for row, length in enumerate(lengths):
        batch[row, :length] = torch.randn(length, 10)
        singles.append(network(batch[row : row + 1, :length]))
    together = network(batch, torch.tensor(lengths))
    torch.testing.assert_close(together, torch.cat(singles), atol=1e-4, rtol=0)


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
    assert len(network.encoder.conformer_layers) == 3
    layer = network.encoder.conformer_layers[0]
    assert layer.self_attn.num_heads == 4
    assert layer.ffn1.sequential[1].out_features == 512
    assert layer.conv_module.sequential[2].kernel_size == (31,)
    assert network.head.weight.shape == (600, 256)


def test_without_batch_norm_there_is_none_after_pooling() -> None:
    network = build_network(ModelOptions(num_layers=1, d_model=16, batch_norm=False), n_mels=10, speakers=3)
    assert isinstance(network.norm, torch.nn.Identity)
