"""The learning rate's course, and what stops a lost run."""

import itertools

import pytest
import torch

from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import ModelOptions, TrainOptions
from voxport.train.training.lightning_module import SpeakerModule, TrainingError, learning_rate_factor

OPTIONS = TrainOptions(steps=100, warmup_steps=10)


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    factors = [learning_rate_factor(step, OPTIONS) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)  # the first update counts
    assert factors[9] == factors[10] == 1.0
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0.0)
    assert all(earlier >= later for earlier, later in itertools.pairwise(factors[10:]))


def test_schedule_equals_torchs_own_parts() -> None:
    """Linear warm-up and cosine annealing from torch, chained, as an independent reference."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    for step in range(10, 100):
        assert learning_rate_factor(step, OPTIONS) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        cosine.step()


def test_lost_loss_is_an_error_that_says_what_to_change() -> None:
    network = build_network(ModelOptions(num_layers=1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3), 4, 3)
    module = SpeakerModule(network, OPTIONS, torch.tensor([0]))
    with pytest.raises(TrainingError, match=r"the loss is nan at step 0.*learning_rate"):
        module.training_step((torch.full((2, 9, 4), float("nan")), torch.tensor([0, 1])), 0)


def test_every_batch_has_a_length_of_its_own() -> None:
    network = build_network(ModelOptions(num_layers=1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3), 4, 3)
    module = SpeakerModule(network, TrainOptions(crop_frames=30, shortest_crop=11), torch.tensor([0]))
    crops = torch.randn(4, 30, 4)
    lengths = [module._cut(crops, step).shape[1] for step in range(400)]
    assert set(lengths) == set(range(11, 31))  # a length that never comes has a chance of 20 × 0.95⁴⁰⁰ = 2e-8
    cut = module._cut(crops, 0)
    assert torch.equal(cut, crops[:, : cut.shape[1]])
    for stream in range(9):  # processes and pieces seed torch differently; the step alone decides the length
        torch.manual_seed(stream)
        assert [module._cut(crops, step).shape[1] for step in range(9)] == lengths[:9]
    other = SpeakerModule(network, TrainOptions(crop_frames=30, shortest_crop=11, seed=1), torch.tensor([0]))
    assert [other._cut(crops, step).shape[1] for step in range(9)] != lengths[:9]
    whole = SpeakerModule(network, TrainOptions(crop_frames=30), torch.tensor([0]))
    assert whole._cut(crops, 0) is crops
