"""The deployable graph: the trained network rebuilt for inference, equal to it but for rounding.

Every affine map is folded into its neighbour (see `folding`), there is no dropout and no Python that
depends on data, and lengths mask attention, depthwise convolution and pooling, so that an utterance
padded inside a batch gets the answer that it gets alone, whatever the padding holds.

Letters in shapes: B utterances, T frames each, N = B·T frames in one row after another, F mel bands,
D model width, H heads, K = D / H, S speakers.
"""

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.models.conformer import ConformerLayer

from voxport.export.errors import ExportError
from voxport.export.folding import Product, after_norm, batch_norm, double, linear
from voxport.train.checkpoint import Checkpoint
from voxport.train.encoder import ConformerEncoder
from voxport.train.head import AmSoftmaxHead
from voxport.train.model import SpeakerNet
from voxport.train.pooling import SelfAttentionPooling

# What this module knows how to rebuild. A new option of the recipe must be looked at here first:
# building a graph that ignores it would only fail later, in the parity gate.
_KNOWN_OPTIONS = frozenset(
    "num_layers d_model num_heads ffn_dim kernel_size dropout pooling batch_norm am_scale am_margin"
    " encoder head head_dropout".split()
)
_KNOWN_KINDS = {"encoder": "conformer", "pooling": "self_attention", "head": "am_softmax"}
_SMALLEST_NORM = 1e-12  # as in torch.nn.functional.normalize, which the training uses


class DeployableNet(nn.Module):
    """features (B, T, F), lengths (B,) in frames → scores (B, S), unit-length embedding (B, D).

    `network` is not changed. Weights are float64 until the module is cast, for example with `.float()`.
    """

    class_weight_DS: Tensor

    def __init__(self, network: SpeakerNet, num_heads: int) -> None:
        super().__init__()
        assert isinstance(network.encoder, ConformerEncoder)
        assert isinstance(network.head, AmSoftmaxHead)
        layers = list(network.encoder.conformer_layers)
        self.project = linear(network.project)
        self.layers = nn.ModuleList(DeployableLayer(layer, num_heads, layer is layers[-1]) for layer in layers)
        self.pooling = Pooling(network, layers[-1].final_layer_norm)
        weight_SD = F.normalize(double(network.head.weight), dim=-1)
        self.register_buffer("class_weight_DS", (network.head.scale * weight_SD).T.contiguous())

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and embeddings of a padded batch."""
        B, T, num_mels = features_BTF.shape
        valid_BT = torch.arange(T, device=lengths_B.device) < lengths_B[:, None]
        # Padding may hold NaN, which no product can mask: replaced once here, all that follows is finite.
        clean_BTF = torch.where(valid_BT[:, :, None], features_BTF, 0.0)
        x_ND = self.project(clean_BTF.reshape(B * T, num_mels))
        mask = Mask(valid_BT, x_ND.dtype)
        for layer in self.layers:
            x_ND = layer(x_ND, mask)
        pooled_BD = self.pooling(x_ND, mask)
        norm_B1 = torch.linalg.vector_norm(pooled_BD, dim=-1, keepdim=True)
        embedding_BD = pooled_BD / norm_B1.clamp_min(_SMALLEST_NORM)
        return embedding_BD @ self.class_weight_DS, embedding_BD


class Mask:
    """Which frames count, in the forms that the layers need.

    `bias_BT` is added before a softmax over frames: 0 where they count, else -inf. `keep_N1` is 1 or 0.
    """

    def __init__(self, valid_BT: Tensor, dtype: torch.dtype) -> None:
        self.batch, self.frames = valid_BT.shape
        self.bias_BT = torch.where(valid_BT, 0.0, -torch.inf).to(dtype)
        self.keep_N1 = valid_BT.reshape(self.batch * self.frames, 1).to(dtype)


class DeployableLayer(nn.Module):
    """One Conformer layer. The batch's frames stand in one row: only attention and convolution need more.

    The `last` layer leaves its final normalisation's gain and offset to the pooling.
    """

    def __init__(self, layer: ConformerLayer, num_heads: int, last: bool) -> None:
        super().__init__()
        self.feed_forward_1 = FeedForward(layer.ffn1)
        self.attention = Attention(layer, num_heads)
        self.convolution = Convolution(layer.conv_module)
        self.feed_forward_2 = FeedForward(layer.ffn2)
        self.final_norm = Standardize(layer.final_layer_norm, affine=not last)

    def forward(self, x_ND: Tensor, mask: Mask) -> Tensor:
        """(N, D) → (N, D)."""
        x_ND = x_ND + self.feed_forward_1(x_ND)
        x_ND = x_ND + self.attention(x_ND, mask)
        x_ND = x_ND + self.convolution(x_ND, mask)
        x_ND = x_ND + self.feed_forward_2(x_ND)
        normed_ND: Tensor = self.final_norm(x_ND)
        return normed_ND


class FeedForward(nn.Module):
    """The macaron feed-forward block with its factor ½."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        norm, expand, _, _, contract, _ = block.sequential
        self.norm = Standardize(norm)
        self.expand = after_norm(norm, linear(expand))
        self.contract = linear(contract).scaled(0.5)

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) → (N, D)."""
        result_ND: Tensor = self.contract(F.silu(self.expand(self.norm(x_ND))))
        return result_ND


class Attention(nn.Module):
    """Multi-head self-attention over the valid frames of each utterance."""

    def __init__(self, layer: ConformerLayer, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = Standardize(layer.self_attn_layer_norm)
        attention = layer.self_attn
        width = attention.embed_dim
        weight_and_bias = Product(double(attention.in_proj_weight).T, double(attention.in_proj_bias))
        scale = torch.ones(3 * width, dtype=torch.float64)
        scale[:width] = 1 / math.sqrt(width // num_heads)  # the queries'
        self.qkv = after_norm(layer.self_attn_layer_norm, weight_and_bias).scaled(scale)
        self.out = linear(attention.out_proj)

    def forward(self, x_ND: Tensor, mask: Mask) -> Tensor:
        """(N, D) → (N, D)."""
        B, T, D = mask.batch, mask.frames, x_ND.shape[1]
        q_ND, k_ND, v_ND = self.qkv(self.norm(x_ND)).split(D, dim=1)
        heads = (B, T, self.num_heads, D // self.num_heads)
        q_BHTK = q_ND.reshape(heads).permute(0, 2, 1, 3)
        k_BHKT = k_ND.reshape(heads).permute(0, 2, 3, 1)
        v_BHTK = v_ND.reshape(heads).permute(0, 2, 1, 3)
        weight_BHTT = torch.softmax(q_BHTK @ k_BHKT + mask.bias_BT[:, None, None, :], dim=-1)
        context_ND = (weight_BHTT @ v_BHTK).permute(0, 2, 1, 3).reshape(B * T, D)
        result_ND: Tensor = self.out(context_ND)
        return result_ND


class Convolution(nn.Module):
    """Gated depthwise convolution over time, with its batch normalisation folded in."""

    weight_D11K: Tensor
    bias_D: Tensor

    def __init__(self, block: Any) -> None:
        super().__init__()
        pointwise_1, _, depthwise, norm, _, pointwise_2, _ = block.sequential
        width = depthwise.out_channels
        self.norm = Standardize(block.layer_norm)
        glu = after_norm(block.layer_norm, linear(pointwise_1))
        # Two products, not one and a split: in ONNX Runtime the split would copy both halves.
        self.value = Product(glu.weight[:, :width], glu.bias[:width])
        self.gate = Product(glu.weight[:, width:], glu.bias[width:])
        gain, offset = batch_norm(norm, width)
        self.register_buffer("weight_D11K", (double(depthwise.weight) * gain[:, None, None])[:, :, None])
        self.register_buffer("bias_D", double(depthwise.bias) * gain + offset)
        self.out = linear(pointwise_2)

    def forward(self, x_ND: Tensor, mask: Mask) -> Tensor:
        """(N, D) → (N, D)."""
        B, T, D = mask.batch, mask.frames, x_ND.shape[1]
        normed_ND = self.norm(x_ND)
        gated_ND = self.value(normed_ND) * torch.sigmoid(self.gate(normed_ND)) * mask.keep_N1
        # A two-dimensional convolution of height 1: ONNX Runtime has no fast one-dimensional depthwise
        # kernel, and takes both permutations into its own change of layout.
        image_BD1T = gated_ND.reshape(B, 1, T, D).permute(0, 3, 1, 2)
        half = self.weight_D11K.shape[-1] // 2
        mixed_BD1T = F.conv2d(image_BD1T, self.weight_D11K, self.bias_D, padding=(0, half), groups=D)
        mixed_ND = mixed_BD1T.permute(0, 2, 3, 1).reshape(B * T, D)
        result_ND: Tensor = self.out(F.silu(mixed_ND))
        return result_ND


class Pooling(nn.Module):
    """Self-attention pooling and batch normalisation, on what the last layer gives before its affine part.

    The weights over frames sum to 1, so that an affine map of every frame may follow the pooling. The
    score's own bias shifts all frames alike, and falls out of the softmax.
    """

    score_D1: Tensor
    gain_D: Tensor
    offset_D: Tensor

    def __init__(self, network: SpeakerNet, final_norm: nn.LayerNorm) -> None:
        super().__init__()
        assert type(network.pooling) is SelfAttentionPooling
        gain_D, offset_D = double(final_norm.weight), double(final_norm.bias)
        norm_gain, norm_offset = batch_norm(network.norm, len(gain_D))
        self.register_buffer("score_D1", gain_D[:, None] * double(network.pooling.score.weight).T)
        self.register_buffer("gain_D", gain_D * norm_gain)
        self.register_buffer("offset_D", offset_D * norm_gain + norm_offset)

    def forward(self, x_ND: Tensor, mask: Mask) -> Tensor:
        """(N, D) → (B, D)."""
        B, T, D = mask.batch, mask.frames, x_ND.shape[1]
        score_BT = (x_ND @ self.score_D1).reshape(B, T)
        weight_BT = torch.softmax(score_BT + mask.bias_BT, dim=-1)
        pooled_BD = (weight_BT[:, None, :] @ x_ND.reshape(B, T, D))[:, 0]
        return pooled_BD * self.gain_D + self.offset_D


class Standardize(nn.Module):
    """Layer normalisation; without `affine` its gain and offset are folded into what follows."""

    gain_D: Tensor
    offset_D: Tensor

    def __init__(self, norm: nn.LayerNorm, affine: bool = False) -> None:
        super().__init__()
        self.epsilon = norm.eps
        gain, offset = double(norm.weight), double(norm.bias)
        self.register_buffer("gain_D", gain if affine else torch.ones_like(gain))
        self.register_buffer("offset_D", offset if affine else torch.zeros_like(offset))

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) → (N, D)."""
        return F.layer_norm(x_ND, self.gain_D.shape, self.gain_D, self.offset_D, self.epsilon)


def deployable_net(checkpoint: Checkpoint) -> DeployableNet:
    """The deployable graph of a checkpoint, float64, in eval mode.

    Raises:
        ExportError: the checkpoint's recipe has an option that this voxport cannot export.
        CheckpointError: the weights do not fit the recipe.
    """
    options = checkpoint.recipe.model
    names = sorted({field.name for field in dataclasses.fields(options)} - _KNOWN_OPTIONS)
    unknown = [f"the model option {name}" for name in names]
    unknown += [
        f"{name} {getattr(options, name)!r}" for name, kind in _KNOWN_KINDS.items() if getattr(options, name) != kind
    ]
    if unknown:
        raise ExportError(
            f"recipe {checkpoint.recipe.name}: this voxport cannot export {', '.join(unknown)}; "
            "use a recipe without it, or a newer voxport"
        )
    return DeployableNet(checkpoint.network(), options.num_heads).eval()
