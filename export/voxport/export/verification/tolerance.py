"""Each precision's own tolerance, measured on the inputs that the gate is about to use.

For fp16 and int8 it is a multiple of how far that precision itself moves the answers: the network in PyTorch with
its products rounded to half, or as int8 rounds them. This is to fp16 and int8 what float32 against float64 is to
fp32: a measure of what an artefact without any mistake may be off by. It is computed without ONNX, and without the
eager network, so that no mistake of the graph can widen it.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from voxport.runtime.contract import Precision, Rounding
from voxport.runtime.frontend.log_mel import compute_features
from voxport.train.checkpoint import Checkpoint

LEAST_COSINE = 0.98
_GOLDEN_FRAMES, _GOLDEN_COUNT = 300, 6  # longest and most of the inputs that the contract's roundings are from
_ROUNDINGS: Mapping[Rounding, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    """The largest |Δscore| and ‖Δembedding‖ between the network in float32 and with its products in int8."""
    rounded = products_in_int8(deployable_net(checkpoint).float())
    return _noise(checkpoint, rounded, track(utterances, "Rounding to int8"))


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
    noise = half_noise(checkpoint, utterances, track)
    what = "rounding the products of these inputs to half does, simulated in PyTorch"
    return _at_least_float32(noise, what, checkpoint, reference)


def half_noise(checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track) -> tuple[float, float]:
    """The largest |Δscore| and ‖Δembedding‖ between the network in float32 and with its products in half."""
    rounded = products_in_half(deployable_net(checkpoint).float())
    return _noise(checkpoint, rounded, track(utterances, "Rounding to half"))


def rounding_tolerance(
    computed: Rounding, checkpoint: Checkpoint, utterances: Sequence[Utterance], reference: Reference, track: Track
) -> Tolerance:
    """Of a float32 artefact that an engine computes in bf16 or fp16 throughout: three times what that rounding does."""
    noise = rounding_noise(computed, checkpoint, utterances, track)
    what = f"rounding all products to {computed} does on these inputs, in PyTorch"
    return _at_least_float32(noise, what, checkpoint, reference)


def _at_least_float32(noise: tuple[float, float], what: str, checkpoint: Checkpoint, reference: Reference) -> Tolerance:
    """A multiple of the noise of what is done to the products, or float32's tolerance where that is more."""
    least = tolerance(reference, checkpoint.recipe.model.am_scale)
    reason = (
        f"{_FACTOR} × what {what} (max |Δscore| {noise[0]:.2g}, max ‖Δembedding‖ {noise[1]:.2g}), at least float32's "
        f"tolerance ({least.score:.2g}, {least.embedding:.2g}), rounded up to one digit"
    )
    score, embedding = max(_FACTOR * noise[0], least.score), max(_FACTOR * noise[1], least.embedding)
    return Tolerance(round_up(score), round_up(embedding), reason)


def rounding_noise(
    computed: Rounding, checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track
) -> tuple[float, float]:
    """The largest |Δscore| and ‖Δembedding‖ between the network in float32 and with every product in `computed`.

    The head and the pooling are rounded too, unlike in an fp16 artefact: an engine that takes bf16 takes it for all.
    The frontend is not.
    """
    rounded = _InPrecision(deployable_net(checkpoint).float(), _ROUNDINGS[computed])
    return _noise(checkpoint, rounded, track(utterances, f"Rounding to {computed}"))


def golden_roundings(
    checkpoint: Checkpoint, utterances: Sequence[Utterance], own: float, scored: bool
) -> dict[Rounding, float]:
    """How far answers may be off in each precision that an engine may compute in: what the contract carries of it.

    It bounds max |Δscore|, or without `scored` ‖Δembedding‖: three times what the rounding does to a few of the gate's
    `utterances`, short ones of several lengths, and at least the artefact's `own` tolerance. A precision that moves
    answers by half of their range proves nothing, and is left out.
    """
    most = 0.5 * (checkpoint.recipe.model.am_scale if scored else 1.0)
    short = sorted((each for each in utterances if not each.real), key=lambda each: each.frames)
    chosen = [each for each in short if each.frames <= _GOLDEN_FRAMES] or short[:1]
    spread = np.unique(np.linspace(0, len(chosen) - 1, _GOLDEN_COUNT).round().astype(int))
    found = {}
    for computed in _ROUNDINGS:
        noise = rounding_noise(computed, checkpoint, [chosen[i] for i in spread], lambda items, _: items)
        found[computed] = round_up(max(own, _FACTOR * noise[0 if scored else 1]))
    return {computed: bound for computed, bound in found.items() if bound <= most}


def _noise(checkpoint: Checkpoint, rounded: nn.Module, utterances: Iterable[Utterance]) -> tuple[float, float]:
    """The largest |Δscore| and ‖Δembedding‖ between the network in float32 and `rounded`.

    Neither is the eager network or a graph, so that no mistake of an export can widen it.
    """
    plain = deployable_net(checkpoint).float()
    score_noise = embedding_noise = 0.0
    with few_threads(), torch.no_grad():
        for utterance in utterances:
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
            network.__setattr__(name, nn.ModuleList(_InPrecision(each) for each in part))
        elif name not in FLOAT_PARTS:
            network.__setattr__(name, _InPrecision(part))
    return network


class _InPrecision(nn.Module):
    def __init__(self, part: nn.Module, dtype: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.part, self.dtype = part, dtype

    def forward(self, *inputs: Any) -> Any:
        with _RoundedProducts(self.dtype):
            return self.part(*inputs)


class _RoundedProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operands and results of matrix products and convolutions are those that `dtype` can hold."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dtype = dtype

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _PRODUCTS:
            return func(*args, **(kwargs or {}))
        rounded = [self._round(value) for value in args]
        return self._round(func(*rounded, **(kwargs or {})))

    def _round(self, value: Any) -> Any:
        is_number = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(self._dtype).to(value.dtype) if is_number else value


Rule = Callable[[Checkpoint, Sequence[Utterance], Reference, Track], Tolerance]


def _fp32(checkpoint: Checkpoint, _: Sequence[Utterance], reference: Reference, __: Track) -> Tolerance:
    return tolerance(reference, checkpoint.recipe.model.am_scale)


RULES: Mapping[Precision, Rule] = {"fp32": _fp32, "fp16": half_tolerance, "int8": int8_tolerance}


def tolerance_of(
    precision: Precision,
    checkpoint: Checkpoint,
    utterances: Sequence[Utterance],
    reference: Reference,
    track: Track,
    computed: Rounding | None = None,
) -> Tolerance:
    """How far the answers of an artefact of `precision` may be from the reference; it gives the reason too.

    `computed` is the precision in which an engine computes what the artefact holds in float32.

    Raises:
        ExportError: no rule is known for `precision`.
    """
    if precision not in RULES:
        known = ", ".join(RULES)
        raise ExportError(f"no tolerance is known for precision {precision}; this voxport proves {known}")
    if computed is None:
        return RULES[precision](checkpoint, utterances, reference, track)
    rounding = rounding_tolerance(computed, checkpoint, utterances, reference, track)
    if precision == "fp32":
        return rounding
    own = RULES[precision](checkpoint, utterances, reference, track)
    score, embedding = round_up(own.score + rounding.score), round_up(own.embedding + rounding.embedding)
    return Tolerance(score, embedding, f"{own.reason}; and what is not {precision}: {rounding.reason}")
