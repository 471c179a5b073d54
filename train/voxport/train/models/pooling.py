"""Pooling over time: frames (B, T, D) → one vector per utterance (B, width), exact under padding.

Letters in shapes: B utterances, T frames, D model width. `padding` (B, T) is True where a frame is
padding; None where all frames count.
"""

import torch
from torch import Tensor, nn

from voxport.train.recipe import ModelOptions


class SelfAttentionPooling(nn.Module):
    """A weighted mean over time; the weights are a softmax over a learnt score per frame.

    Safari, India, Hernando: "Self-Attention Encoding and Pooling for Speaker Recognition", 2020, §2.3.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.score = nn.Linear(d_model, 1)
        self.width = d_model

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, D) → (B, D)."""
        score = self.score(frames).squeeze(-1)
        if padding is not None:
            score = score.masked_fill(padding, float("-inf"))
        weights: Tensor = score.softmax(dim=-1)
        return torch.einsum("bt,btd->bd", weights, frames)


class SelfAttentionMaxPooling(SelfAttentionPooling):
    """Self-attention pooling, and beside it the maximum over time of each dimension."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.width = 2 * d_model

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, D) → (B, 2 D)."""
        mean = super().forward(frames, padding)
        if padding is not None:
            frames = frames.masked_fill(padding.unsqueeze(2), float("-inf"))
        return torch.cat([mean, frames.amax(dim=1)], dim=1)


class MeanPooling(nn.Module):
    """The mean over time."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.width = d_model

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, D) → (B, D)."""
        if padding is None:
            return frames.mean(dim=1)
        total = frames.masked_fill(padding.unsqueeze(2), 0.0).sum(dim=1)
        return total / (~padding).sum(dim=1, keepdim=True)


class AttentiveStatisticsPooling(nn.Module):
    """A weighted mean over time, and beside it the weighted standard deviation, of each of C dimensions.

    The weights are a softmax over a score that a small network gives each frame, of its last D dimensions:
    where several layers are pooled together, those are the last layer's.
    Okabe, Koshinaka, Shinoda: "Attentive Statistics Pooling for Deep Speaker Embedding", 2018, eq. 4 to 8.
    """

    smallest_variance = 1e-5  # a root has no slope at 0, where a single frame would put it

    def __init__(self, d_model: int, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(d_model, max(1, d_model // 4))
        self.score = nn.Linear(self.hidden.out_features, 1)
        self.width = 2 * channels

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, C) → (B, 2 C)."""
        score = self.score(torch.tanh(self.hidden(frames[..., -self.hidden.in_features :]))).squeeze(-1)
        if padding is not None:
            score = score.masked_fill(padding, float("-inf"))
        weights = score.softmax(dim=-1)
        mean = torch.einsum("bt,btd->bd", weights, frames)
        # Not E[x²] - E[x]²: that loses all digits where the frames are nearly alike.
        variance = torch.einsum("bt,btd->bd", weights, (frames - mean.unsqueeze(1)).square())
        return torch.cat([mean, variance.clamp_min(self.smallest_variance).sqrt()], dim=1)


AnyPooling = SelfAttentionPooling | AttentiveStatisticsPooling | MeanPooling


def build_pooling(options: ModelOptions) -> AnyPooling:
    """A freshly initialised pooling of the kind that `options.pooling` names; its `width` is that of its output."""
    if options.pooling == "attentive_statistics":
        parts = 1 + options.num_layers if options.aggregate_layers else 1
        return AttentiveStatisticsPooling(options.d_model, parts * options.d_model)
    if options.pooling == "mean":
        return MeanPooling(options.d_model)
    if options.pooling == "self_attention_max":
        return SelfAttentionMaxPooling(options.d_model)
    return SelfAttentionPooling(options.d_model)
