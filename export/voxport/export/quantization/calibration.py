"""How large the inputs of matrix products get on real utterances, from which static int8 takes its scales.

One scale serves every utterance, so it must cover large values and still resolve small ones. Three rules
choose its range from what was seen:

- max: the largest magnitude. Nothing seen is clipped.
- percentile: the magnitude that only 1 of 10,000 values exceeds.
- entropy: the range whose 128 levels lose the least information (Migacz, "8-bit inference with TensorRT",
  GTC 2017, p. 38: least Kullback-Leibler divergence).
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, TensorProto, helper

from voxport.export.errors import ExportError
from voxport.export.graph.session import OnnxRun
from voxport.export.inputs.cases import Utterance

Method = Literal["max", "percentile", "entropy"]

_BINS = 2048
_LEVELS = 128
_PERCENTILE = 0.9999
_SMALLEST_SHARE = 1e-9
_DIGITS = 3  # of a range: chance in the last digits must not change an artefact's bytes


class Histogram:
    """Counts of magnitudes in bins of equal width, which double as larger values come."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.width = 0.0
        self.largest = 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count `values`, of any shape."""
        magnitudes = np.abs(values.ravel())
        largest = float(magnitudes.max())
        self.largest = max(self.largest, largest)
        if largest == 0:
            return
        if self.width == 0:
            self.width = 2.0 ** math.ceil(math.log2(largest)) / _BINS
        while largest > self.width * _BINS:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(_BINS // 2, np.int64)])
            self.width *= 2
        places = np.minimum((magnitudes / self.width).astype(np.int64), _BINS - 1)
        self.counts += np.bincount(places, minlength=_BINS)

    def range(self, method: Method) -> float:
        """The largest magnitude that the scale shall cover, rounded up to three digits; 0 if all values are 0."""
        if self.width == 0:
            return 0.0
        if method == "max":
            return round_up(self.largest, _DIGITS)
        if method == "percentile":
            bin_number = int(np.searchsorted(np.cumsum(self.counts), _PERCENTILE * self.counts.sum()))
        else:
            bin_number = _least_divergence(self.counts) - 1
        return round_up(min((bin_number + 1) * self.width, self.largest), _DIGITS)


def activation_ranges(
    graph: ModelProto, inputs: Sequence[str], utterances: Iterable[Utterance], method: Method
) -> dict[str, float]:
    """The range of each of the values `inputs` of `graph`, over utterances that are each run alone.

    Raises:
        ExportError: a value that is not finite, or always zero; no utterance.
    """
    watched = ModelProto()
    watched.CopyFrom(graph)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs)
    run = OnnxRun(watched)
    histograms = {name: Histogram() for name in inputs}
    for utterance in utterances:
        for name, values in zip(inputs, run(utterance.input, inputs), strict=True):
            if not np.isfinite(values).all():
                raise ExportError(f"{utterance.name}: {name} is not finite; this utterance cannot calibrate anything")
            histograms[name].add(values)
    ranges = {name: histogram.range(method) for name, histogram in histograms.items()}
    silent = [name for name, found in ranges.items() if found == 0]
    if silent:
        raise ExportError(f"calibration: {silent[0]} was always zero; calibrate with real utterances")
    return ranges


def _least_divergence(counts: npt.NDArray[np.int64]) -> int:
    """How many bins the range must have so that its levels lose the least information."""
    last = int(np.flatnonzero(counts)[-1]) + 1
    if last <= _LEVELS:
        return last
    candidates = range(_LEVELS, last + 1, 8)
    losses = [_divergence(counts[:last], bins) for bins in candidates]
    return candidates[int(np.argmin(losses))]


def _divergence(counts: npt.NDArray[np.int64], bins: int) -> float:
    """KL divergence from `counts`, what lies beyond `bins` clipped into the last one, to their 128 levels."""
    clipped = counts[:bins].astype(np.float64)
    clipped[-1] += counts[bins:].sum()
    filled = counts[:bins] > 0
    level = np.arange(bins) * _LEVELS // bins
    share = np.bincount(level, counts[:bins], _LEVELS) / np.maximum(np.bincount(level, filled, _LEVELS), 1)
    rough = np.where(filled, share[level], 0.0)
    seen = clipped > 0
    p, q = clipped / clipped.sum(), rough / max(rough.sum(), 1)
    # What is clipped may fall into a bin where nothing was: its divergence is large, not infinite.
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], _SMALLEST_SHARE))).sum())


def round_up(value: float, digits: int = 1) -> float:
    """The next number of so many significant digits."""
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return float(f"{math.ceil(value / step * (1 - 1e-9)) * step:.{digits}g}")
