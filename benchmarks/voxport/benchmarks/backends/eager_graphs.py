"""Eager PyTorch behind CUDA graphs: one captured graph for each shape. Needs a GPU."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from voxport.benchmarks.backends.eager import TorchBackend, load_network
from voxport.benchmarks.backends.registry import Array, Lengths
from voxport.benchmarks.core.settings import BackendSpec
from voxport.runtime.errors import BackendError

_cuda: Any = torch.cuda  # its streams have no annotations
WARM_CALLS = 3  # before a capture, as PyTorch's documentation asks: libraries allocate at their first calls


@dataclass(frozen=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    source: Tensor
    scores: Tensor


class EagerGraphs(TorchBackend):
    """Replays a graph where this shape was seen before. Without lengths: their values would be frozen into it."""

    takes_lengths = False

    def __init__(self, spec: BackendSpec) -> None:
        if spec.device != "cuda":
            raise BackendError(f"{spec.name}: CUDA graphs need a GPU; measure with --device cuda")
        super().__init__(spec, load_network(spec))
        self._captured: dict[tuple[int, ...], _Captured] = {}

    def _scores(self, source: Tensor, inputs: Array, lengths: Lengths) -> Tensor:
        shape = tuple(source.shape)
        if shape not in self._captured:
            self._captured[shape] = self._capture(source)
        found = self._captured[shape]
        found.source.copy_(source)
        found.graph.replay()
        return found.scores

    def _capture(self, source: Tensor) -> _Captured:
        still = source.clone()
        side = _cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_CALLS):
                self.function(still)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            scores: Tensor = self.function(still)
        return _Captured(graph, still, scores)
