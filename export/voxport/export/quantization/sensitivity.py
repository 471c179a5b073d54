"""What int8 costs each layer: one matrix product at a time in int8, the rest in float32.

The cost is the embedding error, 1 - cosine to the float32 graph's embedding, in the mean over utterances: over
the real ones and over made-up ones apart, and the larger of both means. So what is harmless for speech like the
calibration's, but not for other sounds, does not hide behind many real utterances.

Rounding errors of layers hardly know of each other, so their costs about add up, and a budget for the whole
tells which layers must stay in float.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from voxport.export.graph.session import OnnxRun
from voxport.export.inputs.cases import Utterance
from voxport.export.quantization.qdq import MatrixProduct, Scheme, matrix_products, quantize

_HARDLY_ANY = 0.02  # of all weights
_NOTHING = 1e-6  # mean 1 - cosine: float32's own rounding, give or take
KeepFloat = int | Literal["auto"]
Float64 = npt.NDArray[np.float64]
Track = Callable[[Sequence[MatrixProduct], str], Iterable[MatrixProduct]]


@dataclass(frozen=True)
class Cost:
    """What int8 does to the answers: mean and largest 1 - cosine of embeddings, and max |Δscore|.

    `mean_error` is the larger one of the means over real and over made-up utterances.
    """

    mean_error: float
    max_error: float
    max_abs_score: float


@dataclass(frozen=True)
class LayerCost:
    """One product, its weight's shape, its share of all products' weights, and what int8 costs it."""

    layer: str
    rows: int
    columns: int
    share: float
    cost: Cost
    kept_float: bool = False


class Sensitivity:
    """Measures costs of a graph on utterances, each alone. `ranges` are for the static scheme."""

    def __init__(
        self, graph: ModelProto, scheme: Scheme, ranges: Mapping[str, float], utterances: Sequence[Utterance]
    ) -> None:
        self._graph, self._scheme, self._ranges, self._utterances = graph, scheme, ranges, utterances
        self._products = matrix_products(graph.graph)
        self._right = self._answers(graph)

    def cost(self, layers: Collection[str]) -> Cost:
        """What it costs to compute the products of `layers` in int8."""
        found = self._answers(quantize(self._graph, self._scheme, layers, self._ranges))
        errors = [1 - float(mine @ right) for (_, mine), (_, right) in zip(found, self._right, strict=True)]
        scores = [float(np.abs(mine - right).max()) for (mine, _), (right, _) in zip(found, self._right, strict=True)]
        kinds = {each.real for each in self._utterances}
        means = [
            np.mean([error for error, each in zip(errors, self._utterances, strict=True) if each.real == kind])
            for kind in kinds
        ]
        return Cost(float(max(means)), max(errors), max(scores))

    def layers(self, track: Track) -> tuple[LayerCost, ...]:
        """The cost of each product alone, in the graph's order. `track(products, description)` may show progress."""
        total = sum(each.rows * each.columns for each in self._products)
        return tuple(
            LayerCost(each.layer, each.rows, each.columns, each.rows * each.columns / total, self.cost([each.layer]))
            for each in track(self._products, "Layers in int8")
        )

    def _answers(self, graph: ModelProto) -> list[tuple[Float64, Float64]]:
        """Scores and embedding of each utterance, in float64."""
        run = OnnxRun(graph)
        answers = [run(each.input, ("scores", "embedding")) for each in self._utterances]
        return [(scores[0].astype(np.float64), embedding[0].astype(np.float64)) for scores, embedding in answers]


def keep_float(
    costs: Sequence[LayerCost], keep: KeepFloat, budget: float, measure: Callable[[Collection[str]], Cost]
) -> tuple[tuple[str, ...], Cost]:
    """The layers to leave in float32, the most harmful first, and what the others cost together.

    A number keeps as many. "auto" keeps the fewest with which the mean error, first as the sum of the
    layers' and then as `measure(layers in int8)` finds it, is within `budget`. It also keeps what is nearly
    free: a layer with hardly any of the weights that costs more than all others together.
    """
    worst = sorted(costs, key=lambda each: -each.cost.mean_error)  # stable, so equal ones stay in the graph's order
    count = keep if isinstance(keep, int) else 0
    if keep == "auto":
        while worst[count:] and _is_bargain(worst[count], worst[count + 1 :]):
            count += 1
        while sum(each.cost.mean_error for each in worst[count:]) > budget:
            count += 1
    while True:
        kept = tuple(each.layer for each in worst[:count])
        together = measure([each.layer for each in costs if each.layer not in kept])
        if keep != "auto" or together.mean_error <= budget or count >= len(worst):
            return kept, together
        count += 1


def _is_bargain(layer: LayerCost, others: Sequence[LayerCost]) -> bool:
    rest = sum(each.cost.mean_error for each in others)
    return layer.share < _HARDLY_ANY and layer.cost.mean_error > max(rest, _NOTHING)
