"""What each mel band of an utterance does as a whole, without any network: 5 numbers a band, exact under padding.

Where features touch their frontend's floor, the lowest value of a band tells the level that normalisation took away,
and a short piece of the utterance tells it as well as all of it.

Letters in shapes: B utterances, T frames, F mel bands.
"""

import torch
from torch import Tensor

PER_BAND = 5
SMALLEST_VARIANCE = 1e-4  # a root has no slope at 0, where a single frame would put it
SOFTNESS = 0.25  # how fast a frame that rises over the lowest counts as above it, per unit of the features


def above_lowest(features: Tensor, padding: Tensor | None = None) -> Tensor:
    """Features (B, T, F), finite, less each band's lowest value over the frames that count; 0 in the padding."""
    if padding is None:
        return features - features.amin(dim=1, keepdim=True)
    hidden = padding.unsqueeze(2)
    lowest = features.masked_fill(hidden, float("inf")).amin(dim=1, keepdim=True)
    return (features - lowest).masked_fill(hidden, 0.0)


def band_statistics(features: Tensor, padding: Tensor | None = None) -> Tensor:
    """Features (B, T, F), finite, and padding (B, T), True where a frame is padding, or None → (B, 5 F).

    Of each band the lowest value, the mean above it, the standard deviation, the highest value, and the share of
    frames above the lowest (a mean of tanh).
    """
    if padding is None:
        lowest, highest = features.amin(dim=1), features.amax(dim=1)
        share = torch.full_like(features[:, :, :1], 1.0 / features.shape[1])
    else:
        hidden = padding.unsqueeze(2)
        lowest = features.masked_fill(hidden, float("inf")).amin(dim=1)
        highest = features.masked_fill(hidden, float("-inf")).amax(dim=1)
        share = (~hidden).to(features.dtype) / (~hidden).sum(dim=1, keepdim=True)
    mean = (features * share).sum(dim=1)
    variance = ((features - mean.unsqueeze(1)).square() * share).sum(dim=1)
    above = (torch.tanh(SOFTNESS * (features - lowest.unsqueeze(1))) * share).sum(dim=1)
    deviation = variance.clamp_min(SMALLEST_VARIANCE).sqrt()
    return torch.cat([lowest, mean - lowest, deviation, highest, above], dim=1)
