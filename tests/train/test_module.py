"""The learning rate's course, and what stops a lost run."""

import copy
import dataclasses
import itertools
from typing import Literal

import numpy as np
import pytest
import torch

from voxport.runtime.frontend.presets import profile
from voxport.train.evaluation.lengths import normalised
from voxport.train.models.pair_loss import pair_loss
from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import ModelOptions, TrainOptions, load_recipe
from voxport.train.training.dataloaders import Share
from voxport.train.training.lightning_module import SpeakerModule, TrainingError, learning_rate_factor
from voxport.train.training.optimizers import FullMuon, build_optimizer, orthogonal

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


def test_the_second_crop_is_a_piece_of_the_first() -> None:
    network = build_network(ModelOptions(num_layers=1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3), 4, 3)
    options = TrainOptions(crop_frames=30, second_crop=(5, 9))
    module = SpeakerModule(network, options, torch.tensor([0]))
    crops = torch.arange(30.0).expand(4, 1, 30).transpose(1, 2)
    pieces = [module._piece(crops, step) for step in range(300)]
    assert {piece.shape[1] for piece in pieces} == {5, 6, 7, 8, 9}
    assert min(float(piece.min()) for piece in pieces) == 0.0
    assert max(float(piece.max()) for piece in pieces) == 29.0
    assert all(torch.equal(piece[0, :, 0].diff(), torch.ones(piece.shape[1] - 1)) for piece in pieces)
    torch.manual_seed(3)  # the step alone decides: processes that share a batch seed torch differently
    assert torch.equal(module._piece(crops, 7), pieces[7])


@pytest.mark.parametrize("normalize", ["mean", "mean_std"])
def test_the_recipes_share_of_crops_is_normalised_as_a_piece_heard_alone(
    normalize: Literal["mean", "mean_std"],
) -> None:
    network = build_network(ModelOptions(num_layers=1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3), 4, 3)
    options = TrainOptions(crop_frames=30, fill="repeat", alone=0.3)
    module = SpeakerModule(network, options, torch.tensor([0]), normalize=normalize)
    crops = torch.randn(4000, 30, 4) * 3 + 5
    heard = module._alone(crops, 0)
    changed = (heard != crops).flatten(1).any(dim=1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.03)  # four standard errors
    frontend = dataclasses.replace(profile("psf_fbank40"), normalize=normalize)
    for row in changed.nonzero()[:5, 0].tolist():
        expected = normalised(crops[row].numpy(), frontend)
        np.testing.assert_allclose(heard[row].numpy(), expected, atol=1e-5)
    assert not torch.equal(module._alone(crops, 1), heard)
    rest = SpeakerModule(network, options, torch.tensor([0]))  # whose frontend looks at each frame alone
    assert rest._alone(crops, 0) is crops


def test_processes_and_pieces_hear_the_same_crops_alone_as_one_process_would() -> None:
    network = build_network(ModelOptions(num_layers=1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3), 4, 3)
    options = TrainOptions(crop_frames=30, fill="repeat", alone=0.5)
    module = SpeakerModule(network, options, torch.tensor([0]), normalize="mean")
    crops = torch.randn(32, 30, 4) + 1
    whole = module._alone(crops, 1)
    module._parts = 4
    for part in range(4):
        module._part = part
        rows = Share(rank=part % 2, world=2, pieces=2).rows(32, part // 2)
        assert torch.equal(module._alone(crops[rows], 1), whole[rows])


def test_the_loss_counts_the_second_crop_by_its_weight() -> None:
    """In evaluation mode batch normalisation couples nothing, and the two views can be scored apart."""
    network = build_network(ModelOptions(num_layers=1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3), 4, 3).eval()
    options = TrainOptions(crop_frames=30, second_crop=(5, 9), second_crop_weight=0.25)
    module = SpeakerModule(network, options, torch.tensor([0]))
    crops, labels = torch.randn(6, 30, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    expected = network.head.loss(network(crops), labels)
    expected = expected + 0.25 * network.head.loss(network(module._piece(crops, 0)), labels)
    torch.testing.assert_close(module.training_step((crops, labels), 0), expected)


def test_pairs_are_found_among_the_batch_s_other_speakers() -> None:
    """Against a plain count of the same cross-entropy, pair by pair."""
    generator = np.random.default_rng(0)
    long, short = generator.normal(size=(2, 8, 5))
    labels = [4, 4, 2, 2, 4, 4, 0, 0]  # speaker 4 has two pairs, which are no wrong answers for each other

    def unit(values: np.ndarray) -> np.ndarray:
        return np.asarray(values / np.sqrt((values**2).sum()))

    losses = []
    for asked in range(8):
        other = asked + 1 if asked % 2 == 0 else asked - 1
        rivals = [i for i in range(other % 2, 8, 2) if labels[i] != labels[asked]]
        scores = {i: 20 * float(unit(short[asked]) @ unit(long[i])) for i in (other, *rivals)}
        losses.append(-scores[other] + np.log(sum(np.exp(each) for each in scores.values())))
    found = pair_loss(torch.tensor(long), torch.tensor(short), torch.tensor(labels))
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_loss_counts_pairs_by_their_weight() -> None:
    model = ModelOptions(num_layers=1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3)
    network = build_network(model, 4, 3).eval()
    crops, labels = torch.randn(6, 30, 4), torch.tensor([0, 0, 1, 1, 2, 2])

    def loss(pairs: float, agreement: float = 0.0) -> torch.Tensor:
        options = TrainOptions(
            batch_size=6, crop_frames=30, second_crop=(5, 9), pair_weight=pairs, agreement_weight=agreement
        )
        module = SpeakerModule(network, options, torch.tensor([0]))
        module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
        return module.training_step((crops, labels), 0).detach()

    module = SpeakerModule(network, TrainOptions(crop_frames=30, second_crop=(5, 9)), torch.tensor([0]))
    added = pair_loss(network.embed(crops), network.embed(module._piece(crops, 0)), labels)
    torch.testing.assert_close(loss(0.7) - loss(0.0), 0.7 * added.detach())
    whole, piece = network.embed(crops).detach().numpy(), network.embed(module._piece(crops, 0)).detach().numpy()
    cosines = (whole * piece).sum(axis=1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(piece, axis=1)
    assert float(loss(0.0, 2.0) - loss(0.0)) == pytest.approx(2 * (1 - cosines).mean(), rel=1e-3)
    with pytest.raises(ValueError, match="agreement_weight must not be negative, and needs second_crop"):
        TrainOptions(agreement_weight=1.0)
    with pytest.raises(ValueError, match="needs second_crop and an even batch_size"):
        TrainOptions(pair_weight=1.0)
    Share(0, 2, 2).check(8, pairs=True)
    with pytest.raises(TrainingError, match="whole pairs"):
        Share(0, 2, 1).check(6, pairs=True)


def test_views_share_one_batch_normalisation() -> None:
    model = ModelOptions(1, d_model=8, num_heads=2, ffn_dim=8, kernel_size=3, embedding_size=6, band_statistics=True)
    network = build_network(model, 4, 3).train()
    views = [torch.randn(5, 20, 4), torch.randn(5, 7, 4) + 3]
    network.embed_views(views)
    pooled = torch.cat([network._pooled(view, None).bands for view in views])  # type: ignore[misc]
    expected = 0.9 + 0.1 * pooled.var(dim=0)  # PyTorch's momentum; the first update starts from 1
    assert network.bands_norm is not None
    torch.testing.assert_close(network.bands_norm.running_var, expected)


def _trained(network: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        features, labels = torch.randn(6, 9, 12, generator=generator), torch.arange(6) % 3
        network.head.loss(network(features), labels).backward()  # type: ignore[operator, union-attr]
        optimizer.step()


def test_muon_moves_matrices_as_torchs_own_does_up_to_bfloat16_and_adamw_the_rest() -> None:
    model = ModelOptions(1, d_model=16, num_heads=2, ffn_dim=24, kernel_size=3, dropout=0.0)
    options = TrainOptions(optimizer="muon", learning_rate=3e-3, weight_decay=0.02)
    torch.manual_seed(0)
    ours = build_network(model, 12, 3)
    plain, start = copy.deepcopy(ours), copy.deepcopy(ours)
    matrices = [
        weight for name, weight in plain.named_parameters()
        if weight.ndim == 2 and min(weight.shape) > 8 and name != "head.weight"
    ]  # fmt: skip
    assert {tuple(weight.shape) for weight in matrices} == {(16, 12), (24, 16), (16, 24), (48, 16), (16, 16)}
    rest = [weight for weight in plain.parameters() if all(weight is not one for one in matrices)]
    _trained(ours, build_optimizer(ours, options, on_gpu=False), range(1))
    adamw = torch.optim.AdamW(rest, lr=3e-3, weight_decay=0.02)
    _trained(plain, adamw, range(1))
    muon = torch.optim.Muon(matrices, lr=3e-3, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    muon.step()  # type: ignore[no-untyped-call]
    taken = {id(weight) for weight in matrices}
    for one, other, before in zip(ours.parameters(), plain.parameters(), start.parameters(), strict=True):
        moved, off = (float((one - each).detach().norm()) for each in (before, other))
        if id(other) in taken:
            assert moved > 0.001
            assert off < 0.15 * moved  # PyTorch rounds to 8 bits, and each iteration multiplies small values by 3.4
        else:
            assert off == 0


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (16, 16)])
def test_a_cpus_muon_applies_the_polynomial_to_every_singular_value(shape: tuple[int, int]) -> None:
    torch.manual_seed(4)
    matrix = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    a, b, c = 3.4445, -4.775, 2.0315
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    found = orthogonal(matrix, (a, b, c), 5, 1e-7)
    torch.testing.assert_close(found.double(), left @ values.diag() @ right, rtol=0, atol=2e-5)
    weight = torch.nn.Parameter(torch.zeros(shape))
    weight.grad = matrix
    FullMuon([weight], 0.1, 0.0).step()
    torch.testing.assert_close(weight.detach(), -0.1 * 0.2 * max(shape) ** 0.5 * found, rtol=1e-5, atol=1e-7)


def test_muon_goes_on_from_its_state_and_follows_the_schedule() -> None:
    model = ModelOptions(1, d_model=16, num_heads=2, ffn_dim=24, kernel_size=3, dropout=0.0)
    options = TrainOptions(optimizer="muon")
    torch.manual_seed(0)
    network = build_network(model, 12, 3)
    whole, first = copy.deepcopy(network), copy.deepcopy(network)
    _trained(whole, build_optimizer(whole, options, on_gpu=False), range(5))
    stopped = build_optimizer(first, options, on_gpu=False)
    _trained(first, stopped, range(2))
    second = copy.deepcopy(first)
    resumed = build_optimizer(second, options, on_gpu=False)
    resumed.load_state_dict(stopped.state_dict())
    _trained(second, resumed, range(2, 5))
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), second.parameters(), strict=True))
    for group in resumed.param_groups:
        group["lr"] = 0.0
    before = [weight.clone() for weight in second.parameters()]
    _trained(second, resumed, range(1))
    assert all(torch.equal(one, other) for one, other in zip(before, second.parameters(), strict=True))


def test_our_recipe_trains_by_it() -> None:
    assert load_recipe("voxport").train.optimizer == "muon"
    assert load_recipe("voxport_long").train.optimizer == "adamw"
