"""How far int8 itself moves the answers: the network in PyTorch with its products rounded as int8 rounds them.

This is to int8 what float32 against float64 is to float32: a measure, on the gate's own inputs, of what an
artefact without any mistake may be off by. It is computed without ONNX.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxport.export.inputs.cases import Utterance
from voxport.export.network.folding import Product
from voxport.export.network.inference_net import DeployableNet, deployable_net
from voxport.export.quantization.qdq import ACTIVATION_LEVELS, quantize_weight
from voxport.export.verification.reference import Reference, Tolerance, Track, few_threads, round_up, tolerance
from voxport.runtime.frontend.log_mel import compute_features
from voxport.train.checkpoint import Checkpoint

LEAST_COSINE = 0.98
_FACTOR = 3


def int8_tolerance(
    checkpoint: Checkpoint, utterances: Sequence[Utterance], reference: Reference, track: Track
) -> Tolerance:
    """Three times the noise of int8, and never more than a cosine of 0.98 allows.

    The simulation has the finest scales, one per frame. An artefact draws another rounding, and static scales,
    one for all utterances, are coarser.
    """
    score_noise, embedding_noise = int8_noise(checkpoint, utterances, track)
    scale = checkpoint.recipe.model.am_scale
    furthest = math.sqrt(2 * (1 - LEAST_COSINE))
    least = tolerance(reference, scale)
    embedding = round_up(max(least.embedding, min(_FACTOR * embedding_noise, furthest)))
    # A score is scale × cosine with a unit vector, so it moves by no more than scale × the embedding.
    score = round_up(max(least.score, min(_FACTOR * score_noise, scale * furthest)))
    reason = (
        f"{_FACTOR} × what rounding to int8 does on these inputs, simulated in PyTorch (max |Δscore| "
        f"{score_noise:.2g}, max ‖Δembedding‖ {embedding_noise:.2g}), at most what a cosine of {LEAST_COSINE} "
        "allows, rounded up to one digit; whether answers stay right is for the accuracy gate to judge"
    )
    return Tolerance(score, embedding, reason)


def int8_noise(checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track) -> tuple[float, float]:
    """The largest |Δscore| and ‖Δembedding‖ between the network in float32 and with its products in int8.

    Neither is the eager network or a graph, so that no mistake of an export can widen it.
    """
    plain, rounded = deployable_net(checkpoint).float(), products_in_int8(deployable_net(checkpoint).float())
    score_noise = embedding_noise = 0.0
    with few_threads(), torch.inference_mode():
        for utterance in track(utterances, "Rounding to int8"):
            values: Any = utterance.input
            if values.ndim == 1:
                values = compute_features(values, checkpoint.frontend)
            features = torch.from_numpy(np.asarray(values, np.float32))[None]
            lengths = torch.tensor([features.shape[1]])
            (scores, embedding), (rough, rough_embedding) = plain(features, lengths), rounded(features, lengths)
            score_noise = max(score_noise, float((rough - scores).abs().max()))
            embedding_noise = max(embedding_noise, float((rough_embedding - embedding).norm()))
    return score_noise, embedding_noise


def products_in_int8(network: DeployableNet) -> DeployableNet:
    """`network` itself, its matrix products computed with inputs and weights that int8 can hold."""
    for module in network.modules():
        if isinstance(module, Product):
            _round_product(module)
    return network


def _round_product(product: Product) -> None:
    integers, scale = quantize_weight(product.weight.numpy())
    product.weight = torch.from_numpy(integers.astype(np.float32) * scale)

    def round_input(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        x = inputs[0]
        step = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / ACTIVATION_LEVELS
        return (torch.round(x / step) * step,)

    product.register_forward_pre_hook(round_input)
