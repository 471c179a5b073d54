"""The deployable graph: the trained network rebuilt for inference, equal to it but for rounding.

Every affine map is folded into its neighbour (see `folding`), there is no dropout and no Python that
depends on data, and lengths mask attention, depthwise convolution and pooling, so that an utterance
padded inside a batch gets the answer that it gets alone, whatever the padding holds.

Letters in shapes: B utterances, T frames each, N = B·T frames in one row after another, F mel bands,
D model width, E embedding width, S speakers.
"""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxport.export.errors import ExportError
from voxport.export.network.folding import before_norm, double, linear
from voxport.export.network.frontend import FrontendGraph
from voxport.export.network.layers import AttentionForm, DeployableConformerLayer, DeployableTransformerLayer, Mask
from voxport.export.network.pooling import BandStatistics, build_pooling, folds
from voxport.train.checkpoint import Checkpoint
from voxport.train.models.encoder import ConformerEncoder, TransformerEncoder
from voxport.train.models.heads import AmSoftmaxHead
from voxport.train.models.speaker_net import SpeakerNet

# What this room knows how to rebuild. A new option of the recipe must be looked at here first: a graph
# that ignored it would fail only later, in the parity gate.
_KNOWN: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys("num_layers d_model num_heads ffn_dim kernel_size dropout head_dropout batch_norm".split()),
    **dict.fromkeys("am_scale am_margin stack_frames aggregate_layers embedding_size".split()),
    "band_statistics": None,
    "above_lowest": ("no", "beside", "instead"),
    "encoder": ("conformer", "transformer"),
    "pooling": ("self_attention", "self_attention_max", "attentive_statistics", "mean"),
    "head": ("am_softmax",),
}
_SMALLEST_NORM = 1e-12  # as in torch.nn.functional.normalize, which training uses


class DeployableNet(nn.Module):
    """features (B, T, F), lengths (B,) in frames → scores (B, S), unit-length embedding (B, E).

    `network` is not changed. Weights are float64 until the module is cast, for example with `.float()`.
    `attention` is the form of attention, of which each is the fastest somewhere; see `layers.Attention`.
    """

    class_weight_ES: Tensor

    def __init__(self, network: SpeakerNet, attention: AttentionForm = "summed") -> None:
        super().__init__()
        self.attention: AttentionForm = attention
        self.stack_frames = network.stack_frames
        self.above_lowest = network.above_lowest
        self.project = linear(network.project)
        self.shallow = None if network.shallow is None else linear(network.shallow)
        layers, last_norm = _layers(network.encoder, affine=not folds(network.pooling))
        self.layers = nn.ModuleList(layers)
        self.pooling = build_pooling(network.pooling, network.norm, last_norm)
        self.narrow = None if network.narrow is None else before_norm(linear(network.narrow), network.narrow_norm)
        self.bands = None
        if network.bands is not None and network.bands_norm is not None:
            self.bands = BandStatistics(network.bands, network.bands_norm, network.narrow_norm or nn.Identity())
        head = network.head
        if not isinstance(head, AmSoftmaxHead):
            raise TypeError(f"no scores are known for {type(head).__name__}")
        weight_SE = F.normalize(double(head.weight), dim=-1)
        self.register_buffer("class_weight_ES", (head.scale * weight_SE).T.contiguous())

    def forward(self, features_BTF: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and embeddings of a padded batch."""
        frames = torch.arange(features_BTF.shape[1], device=lengths_B.device)
        valid_BT = frames < lengths_B[:, None]
        # Padding may hold NaN, which no product can mask: replaced once here, all that follows is finite.
        clean_BTF = torch.where(valid_BT[:, :, None], features_BTF, 0.0)
        above_BTF = clean_BTF
        if self.above_lowest != "no":
            lowest_B1F = torch.where(valid_BT[:, :, None], clean_BTF, torch.inf).amin(dim=1, keepdim=True)
            above_BTF = torch.where(valid_BT[:, :, None], clean_BTF - lowest_B1F, 0.0)
        if self.above_lowest == "instead":
            clean_BTF = above_BTF
        bands_BE = None if self.bands is None else self.bands(clean_BTF, valid_BT)
        if self.above_lowest == "beside":
            clean_BTF = torch.cat([clean_BTF, above_BTF], dim=2)
        if self.stack_frames > 1:
            clean_BTF, valid_BT = self._stacked(clean_BTF, valid_BT)
        input_NF = clean_BTF.reshape(-1, clean_BTF.shape[2])
        x_ND = self.project(input_NF)
        mask = Mask(valid_BT, x_ND.dtype, self.attention)
        parts = [] if self.shallow is None else [F.relu(self.shallow(input_NF))]
        for layer in self.layers:
            x_ND = layer(x_ND, mask)
            parts.append(x_ND)
        pooled_BE = self.pooling(parts if self.shallow is not None else parts[-1:], mask)
        if self.narrow is not None:
            pooled_BE = self.narrow(pooled_BE)
        if bands_BE is not None:
            pooled_BE = pooled_BE + bands_BE
        norm_B1 = torch.linalg.vector_norm(pooled_BE, dim=-1, keepdim=True)
        embedding_BE = pooled_BE / norm_B1.clamp_min(_SMALLEST_NORM)
        return embedding_BE @ self.class_weight_ES, embedding_BE

    def _stacked(self, features_BTF: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
        """As `train.model.stack_frames`, with as many groups as fit after filling up; none of them is cut."""
        B, T, num_mels = features_BTF.shape
        count = self.stack_frames
        groups = (T + count - 1) // count
        filled_BTF = F.pad(features_BTF, (0, 0, 0, count - 1))[:, : groups * count]
        return filled_BTF.reshape(B, groups, count * num_mels), valid_BT[:, ::count]


def deployable_net(checkpoint: Checkpoint, attention: AttentionForm = "summed") -> DeployableNet:
    """The deployable graph of a checkpoint, float64, in eval mode; `attention` as in DeployableNet.

    Raises:
        ExportError: the checkpoint's recipe has an option that cannot be exported.
        CheckpointError: the weights do not fit the recipe.
    """
    options, where = checkpoint.recipe.model, f"recipe {checkpoint.recipe.name}"
    if options.head == "mlp":
        raise ExportError(
            f"{where}: the head 'mlp' cannot be exported: its scores are not cosines, as an artefact promises; "
            "train the recipe with the head 'am_softmax'"
        )
    for field in dataclasses.fields(options):
        value, known = getattr(options, field.name), _KNOWN.get(field.name, ())
        if known is not None and value not in known:
            raise ExportError(
                f"{where}: this voxport cannot export the model option {field.name} = {value!r}; "
                "use a recipe without it, or a newer voxport"
            )
    return DeployableNet(checkpoint.network(), attention).eval()


def _layers(encoder: nn.Module, affine: bool) -> tuple[list[nn.Module], nn.LayerNorm]:
    """The encoder's layers rebuilt, the last one `affine` or not, and the norm that it ends in."""
    if isinstance(encoder, TransformerEncoder):
        trained: Any = encoder.layers
        *first, last = trained
        rebuilt = [DeployableTransformerLayer(each, affine=True) for each in first]
        return [*rebuilt, DeployableTransformerLayer(last, affine)], last.norm2
    if isinstance(encoder, ConformerEncoder):
        *first, last = encoder.conformer_layers
        blocks = [DeployableConformerLayer(each, affine=True) for each in first]
        return [*blocks, DeployableConformerLayer(last, affine)], last.final_layer_norm
    raise TypeError(f"no layers are known for {type(encoder).__name__}")


class SoundNet(nn.Module):
    """waveform (B, L), lengths (B,) in samples → scores (B, S), unit-length embedding (B, D)."""

    def __init__(self, frontend: FrontendGraph, network: DeployableNet) -> None:
        super().__init__()
        self.frontend = frontend
        self.network = network

    def forward(self, waveform_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and embeddings of a padded batch."""
        features_BTF, counts_B = self.frontend(waveform_BL, lengths_B)
        scores_BS, embedding_BD = self.network(features_BTF, counts_B)
        return scores_BS, embedding_BD
