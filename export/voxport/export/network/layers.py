"""The layers of the deployable graph, with every affine map folded into its neighbour (see `folding`).

Letters in shapes: B utterances, T frames each, N = B·T frames in one row after another, D model width,
H heads, K = D / H.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxport.export.network.folding import Product, after_norm, batch_norm, double, linear
from voxport.train.models.conformer import ConformerLayer

AttentionForm = Literal["summed", "in_keys", "by_head"]
"""How attention is written; each form gives the same answers. See `Attention`."""

# Of a key that does not count. Not -inf, which a product that fills up its sums with zeros would make NaN.
_HIDDEN = -1e30


class Mask:
    """Which frames count, in the forms that the layers need.

    `bias_BT` is added before a softmax over frames: 0 where they count, else -inf. `keep_N1` is 1 or 0.
    `attention` is the form in which attention takes the mask.
    """

    def __init__(self, valid_BT: Tensor, dtype: torch.dtype, attention: AttentionForm = "summed") -> None:
        self.batch, self.frames = valid_BT.shape
        self.attention = attention
        self.bias_BT = torch.where(valid_BT, 0.0, -torch.inf).to(dtype)
        self.keep_N1 = valid_BT.reshape(self.batch * self.frames, 1).to(dtype)
        self._key_B11T = torch.where(valid_BT, 0.0, _HIDDEN).to(dtype)[:, None, None, :]
        self._keys: dict[int, Tensor] = {}

    def keys_BH1T(self, num_heads: int) -> Tensor:  # noqa: N802 - shapes
        """What a key adds to its product with any query, made once for all layers: 0 where it counts."""
        if num_heads not in self._keys:
            self._keys[num_heads] = self._key_B11T.expand(-1, num_heads, -1, -1)
        return self._keys[num_heads]


class DeployableConformerLayer(nn.Module):
    """One Conformer layer. The batch's frames stand in one row: only attention and convolution need more.

    Without `affine` the final normalisation leaves its gain and offset to what follows.
    """

    def __init__(self, layer: ConformerLayer, affine: bool) -> None:
        super().__init__()
        norm = layer.self_attn_layer_norm
        self.feed_forward_1 = FeedForward(layer.ffn1)
        self.attention_norm = Standardize(norm)
        self.attention = Attention(layer.self_attn, norm)
        self.convolution = Convolution(layer.conv_module)
        self.feed_forward_2 = FeedForward(layer.ffn2)
        self.final_norm = Standardize(layer.final_layer_norm, affine)

    def forward(self, x_ND: Tensor, mask: Mask) -> Tensor:
        """(N, D) → (N, D)."""
        x_ND = x_ND + self.feed_forward_1(x_ND)
        x_ND = x_ND + self.attention(self.attention_norm(x_ND), mask)
        x_ND = x_ND + self.convolution(x_ND, mask)
        x_ND = x_ND + self.feed_forward_2(x_ND)
        normed_ND: Tensor = self.final_norm(x_ND)
        return normed_ND


class DeployableTransformerLayer(nn.Module):
    """One Transformer layer that normalises after each block, so that only its last affine part can move on."""

    def __init__(self, layer: nn.TransformerEncoderLayer, affine: bool) -> None:
        super().__init__()
        self.attention = Attention(layer.self_attn)
        self.attention_norm = Standardize(layer.norm1, affine=True)
        self.expand = linear(layer.linear1)
        self.contract = linear(layer.linear2)
        self.final_norm = Standardize(layer.norm2, affine)

    def forward(self, x_ND: Tensor, mask: Mask) -> Tensor:
        """(N, D) → (N, D)."""
        x_ND = self.attention_norm(x_ND + self.attention(x_ND, mask))
        x_ND = x_ND + self.contract(F.relu(self.expand(x_ND)))
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
    """Multi-head self-attention over the valid frames of each utterance, of what `norm` standardized.

    Three forms, told by `Mask.attention`:

    - "summed": the mask is added to the products of queries and keys. TensorRT knows attention by this sum.
    - "in_keys": it is one more dimension of both: 1 in every query, `_HIDDEN` in a key that does not count. That
      spares a pass over (B, H, T, T), on a CPU 6 % of the whole at 1,000 frames. A GPU's units for products take
      dimensions in multiples of eight.
    - "by_head": summed, one head after another. All heads' products together leave a CPU's cache from 400 frames
      on (2.6 MB), those of one stay in it, and no head is moved to the front: with the other products in int8, 1.1 to
      1.3 times as fast from 400 frames on in ONNX Runtime. OpenVINO takes all heads of float32 as one operation.
    """

    def __init__(self, attention: nn.MultiheadAttention, norm: nn.LayerNorm | None = None) -> None:
        super().__init__()
        self.num_heads, width = attention.num_heads, attention.embed_dim
        qkv = Product(double(attention.in_proj_weight).T, double(attention.in_proj_bias))
        scale = torch.ones(3 * width, dtype=torch.float64)
        scale[:width] = 1 / math.sqrt(width // self.num_heads)  # the queries'
        self.qkv = (qkv if norm is None else after_norm(norm, qkv)).scaled(scale)
        self.out = linear(attention.out_proj)

    def forward(self, x_ND: Tensor, mask: Mask) -> Tensor:
        """(N, D) → (N, D)."""
        context = self._by_head if mask.attention == "by_head" else self._all_heads
        result_ND: Tensor = self.out(context(self.qkv(x_ND), mask))
        return result_ND

    def _all_heads(self, qkv_N3D: Tensor, mask: Mask) -> Tensor:
        """What attention finds, (N, D), all heads at once."""
        B, T, D = mask.batch, mask.frames, qkv_N3D.shape[1] // 3
        heads = (B, T, self.num_heads, D // self.num_heads)
        q_ND, k_ND, v_ND = torch.split(qkv_N3D, D, dim=1)
        q_BHTK = q_ND.reshape(heads).permute(0, 2, 1, 3)
        k_BHKT = k_ND.reshape(heads).permute(0, 2, 3, 1)
        v_BHTK = v_ND.reshape(heads).permute(0, 2, 1, 3)
        if mask.attention == "in_keys":
            k_BHKT = torch.cat([k_BHKT, mask.keys_BH1T(self.num_heads)], dim=2)
            products_BHTT = F.pad(q_BHTK, (0, 1), value=1.0) @ k_BHKT
        else:
            products_BHTT = q_BHTK @ k_BHKT + mask.bias_BT[:, None, None, :]
        weight_BHTT = torch.softmax(products_BHTT, dim=-1)
        return (weight_BHTT @ v_BHTK).permute(0, 2, 1, 3).reshape(B * T, D)

    def _by_head(self, qkv_N3D: Tensor, mask: Mask) -> Tensor:
        """The same, one head after another: their columns lie side by side already."""
        B, T, H, D = mask.batch, mask.frames, self.num_heads, qkv_N3D.shape[1] // 3
        parts = [each_NK.reshape(B, T, D // H) for each_NK in torch.split(qkv_N3D, D // H, dim=1)]
        found = []
        for q_BTK, k_BTK, v_BTK in zip(parts[:H], parts[H : 2 * H], parts[2 * H :], strict=True):
            products_BTT = q_BTK @ k_BTK.transpose(1, 2) + mask.bias_BT[:, None, :]
            found.append(torch.softmax(products_BTT, dim=-1) @ v_BTK)
        return torch.cat(found, dim=2).reshape(B * T, D)


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
