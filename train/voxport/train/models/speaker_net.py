"""The speaker network: log-mel → (frames stacked) → encoder → pooling → batch norm → dropout → head.

Letters in shapes: B utterances, T frames, F mel bands, D embedding width, S speakers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxport.train.models.band_statistics import PER_BAND, above_lowest, band_statistics
from voxport.train.models.encoder import build_encoder
from voxport.train.models.heads import build_head
from voxport.train.models.pooling import build_pooling
from voxport.train.recipe import ModelOptions


class Pooled(NamedTuple):
    """One vector an utterance (B, width), and the statistics of its bands (B, 5 F) where the network takes them."""

    frames: Tensor
    bands: Tensor | None


class SpeakerNet(nn.Module):
    """The network as it is trained. In eval mode with lengths, padded utterances equal single ones."""

    def __init__(self, options: ModelOptions, n_mels: int, speakers: int) -> None:
        super().__init__()
        self.speakers = speakers
        self.stack_frames = options.stack_frames
        self.above_lowest = options.above_lowest
        inputs = 2 * n_mels if options.above_lowest == "beside" else n_mels
        self.project = nn.Linear(inputs * options.stack_frames, options.d_model)
        self.encoder = build_encoder(options)
        # What the layers see through their normalisations lacks the input's level; pooling gets it from here.
        self.shallow = nn.Linear(self.project.in_features, options.d_model) if options.aggregate_layers else None
        self.pooling = build_pooling(options)
        self.embedding_size = options.embedding_size or self.pooling.width
        self.norm = _norm(self.pooling.width, options)
        self.narrow = nn.Linear(self.pooling.width, self.embedding_size) if options.embedding_size else None
        self.narrow_norm = _norm(self.embedding_size, options) if options.embedding_size else None
        self.bands = self.bands_norm = None
        if options.band_statistics:
            self.bands_norm = _norm(PER_BAND * n_mels, options)
            self.bands = nn.Linear(PER_BAND * n_mels, self.embedding_size, bias=False)
            nn.init.normal_(self.bands.weight, std=0.5 / (PER_BAND * n_mels) ** 0.5)
        self.dropout = nn.Dropout(options.dropout if options.head_dropout is None else options.head_dropout)
        self.head = build_head(options, self.embedding_size, speakers)

    def embed(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (B, T, F) and lengths (B,) in frames, or None where all T frames count → (B, D)."""
        return self._embedding(self._pooled(features, lengths))

    def embed_views(self, views: Sequence[Tensor]) -> Tensor:
        """Features (B, T, F) of several views of the same utterances, each with its T → (views · B, D).

        Behind the pooling all views are one batch, for batch normalisation too: else its statistics would tell it
        how long an utterance is while it learns, and not afterwards.
        """
        pooled = [self._pooled(view, None) for view in views]
        frames = torch.cat([each.frames for each in pooled])
        bands = [each.bands for each in pooled if each.bands is not None]
        return self._embedding(Pooled(frames, torch.cat(bands) if bands else None))

    def _pooled(self, features: Tensor, lengths: Tensor | None) -> Pooled:
        padding = None
        if lengths is not None:
            features = features[:, : int(lengths.max())]
            padding = torch.arange(features.shape[1], device=lengths.device) >= lengths.unsqueeze(1)
            # The garbage that a caller leaves in the padding may be NaN, which no later mask removes.
            features = features.masked_fill(padding.unsqueeze(2), 0.0)
        above = None if self.above_lowest == "no" else above_lowest(features, padding)
        if above is not None and self.above_lowest == "instead":
            features = above
        bands = None if self.bands is None else band_statistics(features, padding)
        if above is not None and self.above_lowest == "beside":
            features = torch.cat([features, above], dim=2)
        if self.stack_frames > 1:
            features, padding = stack_frames(features, padding, self.stack_frames)
        if self.shallow is None:
            frames = self.encoder(self.project(features), padding)
        else:
            outputs = self.encoder.outputs(self.project(features), padding)
            frames = torch.cat([F.relu(self.shallow(features)), *outputs], dim=2)
        return Pooled(self.pooling(frames, padding), bands)

    def _embedding(self, pooled: Pooled) -> Tensor:
        embedding: Tensor = self.norm(pooled.frames)
        if self.narrow is not None and self.narrow_norm is not None:
            embedding = self.narrow(embedding)
            if self.bands is not None and self.bands_norm is not None:
                embedding = embedding + self.bands(self.bands_norm(pooled.bands))
            embedding = self.narrow_norm(embedding)
        return embedding

    def scores(self, embedding: Tensor) -> Tensor:
        """Embedding (B, D) → scores (B, S): `am_scale` times a cosine, or the logits of an MLP head."""
        scores: Tensor = self.head(self.dropout(embedding))
        return scores

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Features (B, T, F) → scores (B, S)."""
        return self.scores(self.embed(features, lengths))


def _norm(width: int, options: ModelOptions) -> nn.Module:
    return nn.BatchNorm1d(width) if options.batch_norm else nn.Identity()


def stack_frames(features: Tensor, padding: Tensor | None, count: int) -> tuple[Tensor, Tensor | None]:
    """Each `count` neighbouring frames as one: (B, T, F) → (B, ⌈T / count⌉, count · F), and the padding likewise.

    The last group is filled up with zeros; a group counts where any of its frames does.
    """
    batch, frames, n_mels = features.shape
    features = F.pad(features, (0, 0, 0, -frames % count)).reshape(batch, -1, count * n_mels)
    return features, None if padding is None else padding[:, ::count]


def build_network(options: ModelOptions, n_mels: int, speakers: int) -> SpeakerNet:
    """A freshly initialised network."""
    return SpeakerNet(options, n_mels, speakers)


def count_parameters(options: ModelOptions, n_mels: int, speakers: int) -> int:
    """Learnt numbers of such a network, counted without filling them in."""
    with torch.device("meta"):
        network = build_network(options, n_mels, speakers)
    return sum(parameter.numel() for parameter in network.parameters())
