"""Dropout with cheap masks: the right rate, scale and gradient, and nothing changed elsewhere."""

import pytest
import torch
from torch import nn

from voxport.train.models.layers import HostDropout, use_host_dropout
from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import ModelOptions

COUNT = 1_000_001  # odd: the last random word is used by half


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_the_rate_is_the_one_asked_for_and_the_mean_stays(rate: float) -> None:
    torch.manual_seed(1)
    dropped = HostDropout(rate)(torch.ones(COUNT))
    kept = dropped != 0
    deviation = (rate * (1 - rate) / COUNT) ** 0.5
    assert abs(float((~kept).double().mean()) - rate) < 5 * deviation
    torch.testing.assert_close(dropped[kept], torch.full_like(dropped[kept], 1 / (1 - rate)))
    for distance in (1, 2, 3):  # neighbours share a random word, and must not share their fate
        both = float((kept[distance:] & kept[:-distance]).double().mean())
        assert abs(both - (1 - rate) ** 2) < 6 * deviation


def test_the_gradient_passes_where_the_value_did() -> None:
    values = torch.randn(5, 7, requires_grad=True)
    dropped = HostDropout(0.4)(values)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, (dropped != 0) / 0.6)


def test_a_seed_gives_the_same_mask_and_the_next_draw_another() -> None:
    layer, ones = HostDropout(0.5), torch.ones(64)
    torch.manual_seed(3)
    first, second = layer(ones), layer(ones)
    torch.manual_seed(3)
    assert torch.equal(layer(ones), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_evaluation_and_a_rate_of_zero_leave_values_alone(dtype: torch.dtype) -> None:
    values = torch.randn(9, dtype=dtype)
    assert torch.equal(HostDropout(0.5).eval()(values), values)
    assert torch.equal(HostDropout(0.0)(values), values)
    assert HostDropout(0.5)(values).dtype == dtype


@pytest.mark.parametrize("encoder", ["conformer", "transformer"])
def test_every_dropout_of_a_network_is_replaced_and_no_weight_renamed(encoder: str) -> None:
    options = ModelOptions(1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3, encoder=encoder)  # type: ignore[arg-type]
    network = build_network(options, 4, 3)
    names, rates = list(network.state_dict()), [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
    use_host_dropout(network)
    assert list(network.state_dict()) == names
    replaced = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert [type(module) for module in replaced] == [HostDropout] * len(rates)
    assert [module.p for module in replaced] == rates
