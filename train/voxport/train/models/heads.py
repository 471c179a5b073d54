"""Classification heads: an embedding (B, D) → a score for each of S speakers, and the loss that trains them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voxport.train.recipe import ModelOptions


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


class MlpHead(nn.Module):
    """Linear, ReLU, Linear: scores are logits, trained with plain cross-entropy."""

    def __init__(self, d_model: int, speakers: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, speakers)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) → scores (B, S)."""
        scores: Tensor = self.out(F.relu(self.hidden(embedding)))
        return scores

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(scores, labels)


def build_head(options: ModelOptions, width: int, speakers: int) -> AmSoftmaxHead | MlpHead:
    """A freshly initialised head of the kind that `options.head` names, for embeddings of `width`."""
    if options.head == "mlp":
        return MlpHead(width, speakers)
    return AmSoftmaxHead(width, speakers, options.am_scale, options.am_margin)
