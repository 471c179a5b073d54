"""The speaker network: log-mel → Conformer → self-attention pooling → batch norm → AM-Softmax.

Letters in shapes: B utterances, T frames, F mel bands, D model width, S speakers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.models import Conformer

from voxport.train.recipe import ModelOptions


class SelfAttentionPooling(nn.Module):
    """A weighted mean over time; the weights are a softmax over a learnt score per frame.

    Safari, India, Hernando: "Self-Attention Encoding and Pooling for Speaker Recognition", 2020, §2.3.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.score = nn.Linear(d_model, 1)

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, D), True where `padding` (B, T) → (B, D)."""
        score = self.score(frames).squeeze(-1)
        if padding is not None:
            score = score.masked_fill(padding, float("-inf"))
        weights: Tensor = score.softmax(dim=-1)
        return torch.einsum("bt,btd->bd", weights, frames)


class AmSoftmaxHead(nn.Module):
    """Cosine scores with an additive margin in training.

    Wang, Cheng, Liu, Liu: "Additive Margin Softmax for Face Verification", 2018, eq. 5 and 6.
    """

    def __init__(self, d_model: int, speakers: int, scale: float, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(speakers, d_model))
        nn.init.xavier_normal_(self.weight)
        self.scale, self.margin = scale, margin

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) → scores (B, S): `scale` times the cosine to each speaker's weight vector."""
        return self.scale * F.linear(F.normalize(embedding, dim=-1), F.normalize(self.weight, dim=-1))

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy after the margin is taken off the true speaker's cosine."""
        margins = torch.zeros_like(scores).scatter_(1, labels.unsqueeze(1), self.scale * self.margin)
        return F.cross_entropy(scores - margins, labels)


class _DepthwiseMask:
    """Zeroes padded frames before a depthwise convolution.

    torchaudio's convolution module ignores lengths, so that padding leaks into its neighbours by half
    a kernel per layer (pytorch/audio#4205). A forward pre-hook mends that and keeps the weights' names.
    """

    def __init__(self) -> None:
        self.padding: Tensor | None = None  # (B, T), True where padded; None where nothing is

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self.padding is None:
            return None
        return (inputs[0].masked_fill(self.padding.unsqueeze(1), 0.0),)


class SpeakerNet(nn.Module):
    """The network as it is trained. In eval mode with lengths, padded utterances equal single ones."""

    def __init__(self, options: ModelOptions, n_mels: int, speakers: int) -> None:
        super().__init__()
        self.project = nn.Linear(n_mels, options.d_model)
        self.encoder = Conformer(
            input_dim=options.d_model,
            num_heads=options.num_heads,
            ffn_dim=options.ffn_dim,
            num_layers=options.num_layers,
            depthwise_conv_kernel_size=options.kernel_size,
            dropout=options.dropout,
        )
        self.pooling = SelfAttentionPooling(options.d_model)
        self.norm: nn.Module = nn.BatchNorm1d(options.d_model) if options.batch_norm else nn.Identity()
        self.dropout = nn.Dropout(options.dropout)
        self.head = AmSoftmaxHead(options.d_model, speakers, options.am_scale, options.am_margin)
        self._mask = _DepthwiseMask()
        for module in self.encoder.modules():
            if isinstance(module, nn.Conv1d) and module.groups > 1:
                module.register_forward_pre_hook(self._mask)

    def embed(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (B, T, F) and lengths (B,) in frames, or None where all T frames count → (B, D)."""
        if lengths is None:
            full = torch.full((features.shape[0],), features.shape[1], device=features.device)
            frames, _ = self.encoder(self.project(features), full)
            pooled: Tensor = self.norm(self.pooling(frames))
            return pooled
        features = features[:, : int(lengths.max())]
        padding = torch.arange(features.shape[1], device=lengths.device) >= lengths.unsqueeze(1)
        self._mask.padding = padding
        try:
            # The garbage that a caller leaves in the padding may be NaN, which no later mask removes.
            frames, _ = self.encoder(self.project(features.masked_fill(padding.unsqueeze(2), 0.0)), lengths)
        finally:
            self._mask.padding = None
        masked: Tensor = self.norm(self.pooling(frames, padding))
        return masked

    def scores(self, embedding: Tensor) -> Tensor:
        """Embedding (B, D) → scores (B, S), `am_scale` times a cosine."""
        scores: Tensor = self.head(self.dropout(embedding))
        return scores

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (B, T, F) → scores (B, S)."""
        return self.scores(self.embed(features, lengths))


def build_network(options: ModelOptions, n_mels: int, speakers: int) -> SpeakerNet:
    """A freshly initialised network."""
    return SpeakerNet(options, n_mels, speakers)
