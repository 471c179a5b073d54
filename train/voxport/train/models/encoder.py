"""Frame encoders: (B, T, D) → (B, T, D), exact under padding.

Letters in shapes: B utterances, T frames, D model width. `padding` (B, T) is True where a frame is
padding; None where all frames count.
"""

from typing import cast

from torch import Tensor, nn

from voxport.train.models.conformer import Conformer
from voxport.train.recipe import ModelOptions


class _DepthwiseMask:
    """Zeroes padded frames before a depthwise convolution.

    torchaudio's convolution module ignores lengths, so that padding leaks into its neighbours by half
    a kernel per layer (pytorch/audio#4205). A forward pre-hook mends that and keeps the weights' names.
    """

    def __init__(self) -> None:
        self.padding: Tensor | None = None

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        if self.padding is None:
            return None
        return (inputs[0].masked_fill(self.padding.unsqueeze(1), 0.0),)


class ConformerEncoder(Conformer):  # type: ignore[misc]
    """torchaudio's Conformer, with its convolutions masked too.

    Gulati et al.: "Conformer: Convolution-augmented Transformer for Speech Recognition", 2020.
    """

    def __init__(self, options: ModelOptions) -> None:
        super().__init__(
            input_dim=options.d_model,
            num_heads=options.num_heads,
            ffn_dim=options.ffn_dim,
            num_layers=options.num_layers,
            depthwise_conv_kernel_size=options.kernel_size,
            dropout=options.dropout,
        )
        self._mask = _DepthwiseMask()
        for module in self.modules():
            if isinstance(module, nn.Conv1d) and module.groups > 1:
                module.register_forward_pre_hook(self._mask)

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        return self.outputs(frames, padding)[-1]

    def outputs(self, frames: Tensor, padding: Tensor | None = None) -> list[Tensor]:
        """(B, T, D) → what each layer gives, (B, T, D)."""
        self._mask.padding = padding
        found = []
        try:
            frames = frames.transpose(0, 1)
            for layer in self.conformer_layers:
                frames = layer(frames, padding)
                found.append(frames.transpose(0, 1))
        finally:
            self._mask.padding = None
        return found


class TransformerEncoder(nn.Module):
    """Transformer layers, normalised after each block as PyTorch's are by default.

    Each layer is initialised on its own; `nn.TransformerEncoder` would start them all with equal weights.
    """

    def __init__(self, options: ModelOptions) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                options.d_model, options.num_heads, options.ffn_dim, options.dropout, batch_first=True
            )
            for _ in range(options.num_layers)
        )

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        return self.outputs(frames, padding)[-1]

    def outputs(self, frames: Tensor, padding: Tensor | None = None) -> list[Tensor]:
        """(B, T, D) → what each layer gives, (B, T, D)."""
        found = []
        for layer in self.layers:
            frames = cast(Tensor, layer(frames, src_key_padding_mask=padding))
            found.append(frames)
        return found


def build_encoder(options: ModelOptions) -> ConformerEncoder | TransformerEncoder:
    """A freshly initialised encoder of the kind that `options.encoder` names."""
    return TransformerEncoder(options) if options.encoder == "transformer" else ConformerEncoder(options)
