"""Pooling over time in the deployable graph, with the batch normalisation that follows it.

Pooling sees what the last layer gives before its affine part where it can: weights over frames sum to
1, so that an affine map of every frame may as well follow the pooling. A maximum cannot wait, since a
negative gain turns it into a minimum; `folds` says which it is.

Letters in shapes: B utterances, T frames each, N = B·T, D model width, E embedding width.
"""

import torch
from torch import Tensor, nn

from voxport.export.network.folding import Product, batch_norm, double, linear
from voxport.export.network.layers import Mask
from voxport.train.models.band_statistics import SMALLEST_VARIANCE, SOFTNESS
from voxport.train.models.pooling import (
    AnyPooling,
    AttentiveStatisticsPooling,
    MeanPooling,
    SelfAttentionMaxPooling,
    SelfAttentionPooling,
)


def folds(pooling: AnyPooling) -> bool:
    """Whether the affine part of the frames may move behind the pooling."""
    return not isinstance(pooling, SelfAttentionMaxPooling | AttentiveStatisticsPooling)


def build_pooling(pooling: AnyPooling, norm: nn.Module, frame_norm: nn.LayerNorm) -> "Pooling | StatisticsPooling":
    """The deployable form of a trained pooling and the normalisation after it."""
    if isinstance(pooling, AttentiveStatisticsPooling):
        return StatisticsPooling(pooling, norm)
    return Pooling(pooling, norm, frame_norm)


class Pooling(nn.Module):
    """(N, D) → (B, E): the trained pooling and normalisation, of frames that still lack `frame_norm`'s affine part."""

    gain_E: Tensor
    offset_E: Tensor
    score_D1: Tensor | None

    def __init__(self, pooling: SelfAttentionPooling | MeanPooling, norm: nn.Module, frame_norm: nn.LayerNorm) -> None:
        super().__init__()
        gain_E, offset_E = batch_norm(norm, pooling.width)
        gain_D, offset_D = torch.ones_like(gain_E), torch.zeros_like(offset_E)
        if folds(pooling):
            gain_D, offset_D = double(frame_norm.weight), double(frame_norm.bias)
        self.register_buffer("gain_E", gain_D * gain_E)
        self.register_buffer("offset_E", offset_D * gain_E + offset_E)
        score_D1 = None
        if isinstance(pooling, SelfAttentionPooling):
            # The score's own bias shifts all frames alike, and falls out of the softmax.
            weight_D1 = double(pooling.score.weight).T
            score_D1 = gain_D[:, None] * weight_D1 if folds(pooling) else weight_D1
        self.register_buffer("score_D1", score_D1)
        self.maximum = isinstance(pooling, SelfAttentionMaxPooling)

    def forward(self, parts: list[Tensor], mask: Mask) -> Tensor:
        """The last of `parts`, (N, D) → (B, E)."""
        x_ND = parts[-1]
        x_BTD = x_ND.reshape(mask.batch, mask.frames, x_ND.shape[1])
        pooled_BE = (self._weights(x_ND, mask)[:, None, :] @ x_BTD)[:, 0]
        if self.maximum:
            highest_BD = (x_BTD + mask.bias_BT[:, :, None]).amax(dim=1)
            pooled_BE = torch.cat([pooled_BE, highest_BD], dim=1)
        return pooled_BE * self.gain_E + self.offset_E

    def _weights(self, x_ND: Tensor, mask: Mask) -> Tensor:
        """Weights (B, T) that sum to 1 over the valid frames of each row."""
        if self.score_D1 is None:
            return torch.softmax(mask.bias_BT, dim=-1)
        score_BT = (x_ND @ self.score_D1).reshape(mask.batch, mask.frames)
        return torch.softmax(score_BT + mask.bias_BT, dim=-1)


class StatisticsPooling(nn.Module):
    """Parts, each (N, D) → (B, E): weighted means, weighted standard deviations, then the trained normalisation.

    The frames come with their affine part: the smallest variance is one of the frames as they were trained.
    """

    gain_E: Tensor
    offset_E: Tensor
    score_H1: Tensor

    def __init__(self, pooling: AttentiveStatisticsPooling, norm: nn.Module) -> None:
        super().__init__()
        gain_E, offset_E = batch_norm(norm, pooling.width)
        self.register_buffer("gain_E", gain_E)
        self.register_buffer("offset_E", offset_E)
        self.hidden = linear(pooling.hidden)
        # The score's own bias shifts all frames alike, and falls out of the softmax.
        self.register_buffer("score_H1", double(pooling.score.weight).T.contiguous())
        self.smallest_variance = pooling.smallest_variance

    def forward(self, parts: list[Tensor], mask: Mask) -> Tensor:
        """Parts, each (N, D) → (B, E); the last one gives the weights."""
        score_BT = (torch.tanh(self.hidden(parts[-1])) @ self.score_H1).reshape(mask.batch, mask.frames)
        weight_B1T = torch.softmax(score_BT + mask.bias_BT, dim=-1)[:, None, :]
        means, deviations = [], []
        for x_ND in parts:  # one by one: side by side they would be copied first
            x_BTD = x_ND.reshape(mask.batch, mask.frames, x_ND.shape[1])
            mean_B1D = weight_B1T @ x_BTD
            centred_BTD = x_BTD - mean_B1D
            variance_B1D = weight_B1T @ (centred_BTD * centred_BTD)
            means.append(mean_B1D[:, 0])
            deviations.append(variance_B1D.clamp_min(self.smallest_variance).sqrt()[:, 0])
        return torch.cat([*means, *deviations], dim=1) * self.gain_E + self.offset_E


class BandStatistics(nn.Module):
    """Features (B, T, F) → what the statistics of the bands add to the embedding, (B, E).

    The normalisation in front of the product stays apart: the statistics differ a hundredfold in size, and a product
    in int8 would hear the large ones alone.
    """

    gain_S: Tensor
    offset_S: Tensor

    def __init__(self, bands: nn.Linear, norm: nn.Module, narrow_norm: nn.Module) -> None:
        super().__init__()
        gain_S, offset_S = batch_norm(norm, bands.in_features)
        self.register_buffer("gain_S", gain_S)
        self.register_buffer("offset_S", offset_S)
        gain_E, _ = batch_norm(narrow_norm, bands.out_features)  # its offset is in the product of what is pooled
        self.product = Product(double(bands.weight).T * gain_E, torch.zeros_like(gain_E))

    def forward(self, clean_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """`clean_BTF` is finite everywhere; frames count where `valid_BT` says so."""
        valid_BT1 = valid_BT[:, :, None]
        lowest_BF = torch.where(valid_BT1, clean_BTF, torch.inf).amin(dim=1)
        highest_BF = torch.where(valid_BT1, clean_BTF, -torch.inf).amax(dim=1)
        keep_B1T = valid_BT[:, None, :].to(clean_BTF.dtype)
        share_B1T = keep_B1T / keep_B1T.sum(dim=2, keepdim=True)
        mean_B1F = share_B1T @ clean_BTF
        centred_BTF = clean_BTF - mean_B1F
        variance_BF = (share_B1T @ (centred_BTF * centred_BTF))[:, 0]
        above_BF = (share_B1T @ torch.tanh(SOFTNESS * (clean_BTF - lowest_BF[:, None, :])))[:, 0]
        mean_BF, deviation_BF = mean_B1F[:, 0], variance_BF.clamp_min(SMALLEST_VARIANCE).sqrt()
        statistics = torch.cat([lowest_BF, mean_BF - lowest_BF, deviation_BF, highest_BF, above_BF], dim=1)
        added: Tensor = self.product(statistics * self.gain_S + self.offset_S)
        return added
