"""Scores for an artefact that gives embeddings alone, so that the gate can judge whom it would recognise."""

import numpy as np
import numpy.typing as npt

from voxport.runtime.backends.base import Answer, Backend
from voxport.runtime.contract import Contract


class Scored:
    """`backend` with the scores that the checkpoint's own head gives to its embeddings."""

    def __init__(self, backend: Backend, class_weight: npt.NDArray[np.float32]) -> None:
        """`class_weight` is (embedding_size, speakers); see `reference.class_weights`."""
        self._backend = backend
        self._weight = class_weight.astype(np.float64)

    @property
    def contract(self) -> Contract:
        """That of the artefact itself."""
        return self._backend.contract

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        """Answer a batch; see `OnnxModel.run`."""
        embedding = self._backend.run(inputs, lengths).embedding
        return Answer((embedding.astype(np.float64) @ self._weight).astype(np.float32), embedding)


def scored(backend: Backend, class_weight: npt.NDArray[np.float32]) -> Backend:
    """`backend` itself where it gives scores."""
    return backend if "scores" in backend.contract.outputs else Scored(backend, class_weight)
