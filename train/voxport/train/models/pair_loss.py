"""Losses on embeddings themselves: of two utterances of a speaker, and of an utterance and a piece of it.

In a batch that holds two utterances of each of its speakers, short pieces of one are to lie nearer to the long crop of
the speaker's other utterance than to those of the other speakers: Snell, Swersky, Zemel: "Prototypical networks for
few-shot learning", 2017, with one utterance for a prototype; short against long after Kye and others: "Meta-learning
for short utterance speaker recognition with imbalance length pairs", 2020.

Letters in shapes: B utterances, D embedding width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE = 20.0  # of the cosines before the softmax


def pair_loss(long: Tensor, short: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of finding the speaker's other utterance among the batch's.

    Args:
        long: (B, D) embeddings of crops; rows 2k and 2k + 1 are two utterances of one speaker, B is even.
        short: (B, D) embeddings of pieces of the same utterances.
        labels: (B,) speakers. Further pairs of the same speaker are no wrong answers, and are left out.
    """
    crops, pieces = F.normalize(long.float(), dim=-1), F.normalize(short.float(), dim=-1)
    speakers = labels[::2]
    own = torch.arange(len(speakers), device=labels.device)
    again = (speakers[:, None] == speakers) & (own[:, None] != own)
    losses = []
    for asked, among in ((pieces[::2], crops[1::2]), (pieces[1::2], crops[::2])):
        scores = (SCALE * asked @ among.T).masked_fill(again, float("-inf"))
        losses.append(F.cross_entropy(scores, own))
    return torch.stack(losses).mean()


def agreement_loss(long: Tensor, short: Tensor) -> Tensor:
    """Mean of 1 - cosine between crops' embeddings (B, D), which stand still, and those of pieces of them (B, D)."""
    return (1 - F.cosine_similarity(long.detach().float(), short.float(), dim=-1)).mean()
