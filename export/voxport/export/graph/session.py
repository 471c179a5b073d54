"""A graph that is not a finished artefact yet, run on single utterances."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from voxport.export.graph.cleanup import to_bytes
from voxport.runtime.backends.base import default_threads
from voxport.runtime.backends.onnxrt.session import import_onnxruntime


class OnnxRun:
    """An ONNX Runtime session on the CPU of a graph in memory, whose first input is features or sound."""

    def __init__(self, graph: ModelProto) -> None:
        runtime = import_onnxruntime("cpu")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = default_threads()
        options.log_severity_level = 3  # its advice on graphs is for those who wrote them by hand
        self._session: Any = runtime.InferenceSession(to_bytes(graph), options, providers=["CPUExecutionProvider"])
        self._source = graph.graph.input[0].name

    def __call__(self, values: npt.NDArray[Any], outputs: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """The named outputs for one utterance, (frames, n_mels) or (samples,), alone."""
        feed = {self._source: values[None].astype(np.float32), "lengths": np.array([len(values)])}
        found: list[npt.NDArray[np.float32]] = self._session.run(list(outputs), feed)
        return found
