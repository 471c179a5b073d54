"""The Conformer: torchaudio's where it loads, else our own with the same layers, weights' names and answers.

This is the only module that imports torchaudio, and nobody else decides. Both give the same bits, so a checkpoint
does not depend on which one made it. torchaudio may be missing, or be built for another PyTorch and not load:
2.11.1 beside PyTorch 2.11.0 raises OSError.

Letters in shapes: T frames, B utterances, D model width.
"""

from torch import Tensor, nn


class OwnConformer(nn.Module):
    """What `ConformerEncoder` takes of torchaudio's `Conformer`: its layers. Tests compare one with the other.

    Gulati et al.: "Conformer: Convolution-augmented Transformer for Speech Recognition", 2020.
    """

    def __init__(
        self,
        input_dim: int,
        num_heads: int,
        ffn_dim: int,
        num_layers: int,
        depthwise_conv_kernel_size: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.conformer_layers = nn.ModuleList(
            ConformerLayer(input_dim, num_heads, ffn_dim, depthwise_conv_kernel_size, dropout)
            for _ in range(num_layers)
        )


class ConformerLayer(nn.Module):
    """Half a feed-forward block, self-attention, convolution, the other half, normalisation (the paper's §2.4)."""

    def __init__(self, width: int, heads: int, ffn_width: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        # Made in torchaudio's order, so that one seed gives one network.
        self.ffn1 = _FeedForward(width, ffn_width, dropout)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout)
        self.self_attn_dropout = nn.Dropout(dropout)
        self.conv_module = _Convolution(width, kernel_size, dropout)
        self.ffn2 = _FeedForward(width, ffn_width, dropout)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, padding: Tensor | None) -> Tensor:
        """(T, B, D), and (B, T) True where a frame is padding → (T, B, D)."""
        frames = self.ffn1(frames) * 0.5 + frames
        x = self.self_attn_layer_norm(frames)
        x, _ = self.self_attn(x, x, x, key_padding_mask=padding, need_weights=False)
        frames = self.self_attn_dropout(x) + frames
        frames = frames + self.conv_module(frames.transpose(0, 1)).transpose(0, 1)
        frames = self.ffn2(frames) * 0.5 + frames
        normalised: Tensor = self.final_layer_norm(frames)
        return normalised


class _FeedForward(nn.Module):
    """§2.3 of the paper."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.sequential = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, inner),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Linear(inner, width),
            nn.Dropout(dropout),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(…, D) → (…, D)."""
        changed: Tensor = self.sequential(frames)
        return changed


class _Convolution(nn.Module):
    """§2.2 of the paper."""

    def __init__(self, width: int, kernel_size: int, dropout: float) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the depthwise kernel must be odd, found {kernel_size}")
        self.layer_norm = nn.LayerNorm(width)
        self.sequential = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1),
            nn.GLU(dim=1),
            nn.Conv1d(width, width, kernel_size, padding=kernel_size // 2, groups=width),
            nn.BatchNorm1d(width),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
            nn.Dropout(dropout),
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        changed: Tensor = self.sequential(self.layer_norm(frames).transpose(1, 2)).transpose(1, 2)
        return changed


try:
    from torchaudio.models import Conformer as Conformer
except (ImportError, OSError, RuntimeError):
    Conformer = OwnConformer
