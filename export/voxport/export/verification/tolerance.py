"""Each precision's own tolerance, measured on the inputs that the gate is about to use.

For fp16 and int8 it is a multiple of how far that precision itself moves the answers: the network in PyTorch with
its products rounded to half, or as int8 rounds them. This is to fp16 and int8 what float32 against float64 is to
fp32: a measure of what an artefact without any mistake may be off by. It is computed without ONNX, and without the
eager network, so that no mistake of the graph can widen it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from voxport.export.errors import ExportError
from voxport.export.inputs.cases import Utterance
from voxport.export.network.folding import Product
from voxport.export.network.inference_net import DeployableNet, deployable_net
from voxport.export.quantization.calibration import round_up
from voxport.export.quantization.qdq import ACTIVATION_LEVELS, quantize_weight
from voxport.export.verification.reference import Reference, Tolerance, Track, few_threads, tolerance
from voxport.runtime.contract import Precision
from voxport.runtime.frontend.log_mel import compute_features
from voxport.train.checkpoint import Checkpoint

LEAST_COSINE = 0.98


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


# An artefact draws another rounding than the simulation: its gates are rounded too, its sums may be taken in
# another order, and a device may keep partial sums in half.
_FACTOR = 3
FLOAT_PARTS = ("pooling",)  # of the deployable network, besides what its own forward computes
_PRODUCTS = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.matmul.default,
    torch.ops.aten.linear.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv2d.padding,
}


def half_tolerance(
    checkpoint: Checkpoint, utterances: Sequence[Utterance], reference: Reference, track: Track
) -> Tolerance:
    """Three times the noise of half precision, and at least float32's own tolerance."""
    scale = checkpoint.recipe.model.am_scale
    score_noise, embedding_noise = half_noise(checkpoint, utterances, track)
    least = tolerance(reference, scale)
    reason = (
        f"{_FACTOR} × what rounding the products of these inputs to half does, simulated in PyTorch (max |Δscore| "
        f"{score_noise:.2g}, max ‖Δembedding‖ {embedding_noise:.2g}), at least float32's tolerance ({least.score:.2g}, "
        f"{least.embedding:.2g}), rounded up to one digit"
    )
    return Tolerance(
        round_up(max(_FACTOR * score_noise, least.score)),
        round_up(max(_FACTOR * embedding_noise, least.embedding)),
        reason,
    )


def half_noise(checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track) -> tuple[float, float]:
    """The largest |Δscore| and ‖Δembedding‖ between the network in float32 and with its products in half."""
    plain, rounded = deployable_net(checkpoint).float(), products_in_half(deployable_net(checkpoint).float())
    score_noise = embedding_noise = 0.0
    with few_threads(), torch.no_grad():
        for utterance in track(utterances, "Rounding to half"):
            values: Any = utterance.input
            if values.ndim == 1:
                values = compute_features(values, checkpoint.frontend)
            features = torch.from_numpy(np.asarray(values, np.float32))[None]
            lengths = torch.tensor([features.shape[1]])
            (scores, embedding), (rough, rough_embedding) = plain(features, lengths), rounded(features, lengths)
            score_noise = max(score_noise, float((rough - scores).abs().max()))
            embedding_noise = max(embedding_noise, float((rough_embedding - embedding).norm()))
    return score_noise, embedding_noise


def products_in_half(network: DeployableNet) -> DeployableNet:
    """`network` itself, its body's products rounded as `graph.fp16` has them computed."""
    for name, part in list(network.named_children()):
        if isinstance(part, nn.ModuleList):
            network.__setattr__(name, nn.ModuleList(_InHalf(each) for each in part))
        elif name not in FLOAT_PARTS:
            network.__setattr__(name, _InHalf(part))
    return network


class _InHalf(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, *inputs: Any) -> Any:
        with _RoundedProducts():  # type: ignore[no-untyped-call]
            return self.part(*inputs)


class _RoundedProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operands and results of matrix products and convolutions are those that half can hold."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        return _round(func(*map(_round, args), **(kwargs or {})))


def _round(value: Any) -> Any:
    return value.half().to(value.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


Rule = Callable[[Checkpoint, Sequence[Utterance], Reference, Track], Tolerance]


def _fp32(checkpoint: Checkpoint, _: Sequence[Utterance], reference: Reference, __: Track) -> Tolerance:
    return tolerance(reference, checkpoint.recipe.model.am_scale)


RULES: Mapping[Precision, Rule] = {"fp32": _fp32, "fp16": half_tolerance, "int8": int8_tolerance}


def tolerance_of(
    precision: Precision, checkpoint: Checkpoint, utterances: Sequence[Utterance], reference: Reference, track: Track
) -> Tolerance:
    """How far the answers of an artefact of `precision` may be from the reference; it gives the reason too.

    Raises:
        ExportError: no rule is known for `precision`.
    """
    if precision not in RULES:
        known = ", ".join(RULES)
        raise ExportError(f"no tolerance is known for precision {precision}; this voxport proves {known}")
    return RULES[precision](checkpoint, utterances, reference, track)
