"""Replay the golden vector: does this file, on this machine, still give the recorded answer?"""

import math
import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from voxport.runtime.backends.base import Backend
from voxport.runtime.contract import Contract
from voxport.runtime.errors import ContractError, LengthError

_TITLE = re.compile(r"\d+ Hz, frontend [0-9a-f]{16}(?P<scale>, scores times \S+)?")


@runtime_checkable
class OtherPrecision(Protocol):
    """A back end that may compute in another precision than the file's."""

    @property
    def golden_tolerance(self) -> float:
        """How far the golden vector may be off in that precision."""
        ...


@dataclass(frozen=True)
class GoldenCheck:
    """max |Δscore| between the answer and the recorded one (NaN where the answer is), and its bound.

    For a model without scores it is ‖Δembedding‖ instead; `measure` says which.
    """

    max_abs_score: float
    tolerance: float
    measure: str = "max |Δscore|"

    @property
    def passed(self) -> bool:
        """False also for NaN, which no comparison calls larger."""
        return math.isfinite(self.max_abs_score) and self.max_abs_score <= self.tolerance

    @property
    def complaint(self) -> str:
        """What to tell the user where the check has not passed."""
        return (
            f"the model no longer gives its recorded answer: {self.measure} {self.max_abs_score:.3g}, "
            f"tolerance {self.tolerance:.3g}. The file is damaged, or it is computed differently here; "
            "export it again, or run it with the version and on the device that it was exported for"
        )


def replay_golden(backend: Backend, where: str) -> GoldenCheck:
    """Run the golden input. `where` names the model's file in messages.

    Raises:
        ContractError: the golden vector does not fit its own contract.
    """
    contract = backend.contract
    source, recorded = contract.golden.input.values, contract.golden.scores.values
    rank = 2 if contract.input_kind == "features" else 1
    if source.ndim != rank or (rank == 2 and source.shape[1] != contract.frontend.n_mels):
        raise ContractError(
            f"{where}: golden input of shape {source.shape} is no {contract.input_kind}; export it again"
        )
    if recorded.shape != (len(contract.labels),):
        raise ContractError(
            f"{where}: golden scores of shape {recorded.shape} for {len(contract.labels)} labels; export it again"
        )
    tolerance = backend.golden_tolerance if isinstance(backend, OtherPrecision) else contract.golden.tolerance
    try:
        answer = backend.run(source[np.newaxis], np.array([source.shape[0]], dtype=np.int64))
    except LengthError as problem:
        raise ContractError(f"{where}: golden vector: {problem}; export the model again") from problem
    if "scores" in contract.outputs:
        difference = np.abs(answer.scores[0].astype(np.float64) - recorded.astype(np.float64)).max()
        return GoldenCheck(float(difference), tolerance)
    difference = np.linalg.norm(answer.embedding[0].astype(np.float64) - _embedding(contract, where))
    return GoldenCheck(float(difference), tolerance, "‖Δembedding‖")


def _embedding(contract: Contract, where: str) -> npt.NDArray[np.float64]:
    recorded = contract.golden.embedding
    values = np.zeros(0) if recorded is None else recorded.values.astype(np.float64)
    if values.shape != (contract.embedding_size,):
        raise ContractError(
            f"{where}: golden embedding of shape {values.shape} for embeddings of {contract.embedding_size}; "
            "export it again"
        )
    return values


def check_title(contract: Contract, made_for: str, where: str) -> None:
    """Raise ContractError where the contract claims another frontend, rate or score scale than the graph was made for.

    No golden vector could tell: it is samples, or features, and scores, which know nothing of the rate or of the scale
    that is in them. `made_for` is what the file says beside its contract: `Contract.title`, as an ONNX graph's name or
    an archive's member. Older files say less there, or something else, which proves nothing.
    """
    said = _TITLE.fullmatch(made_for)
    if said is None:
        return
    claimed = contract.title if said["scale"] else contract.frontend.title
    if made_for != claimed:
        raise ContractError(
            f"{where}: the contract claims {claimed}, the graph was made for {made_for}; the contract was changed, so "
            "export the model again"
        )


def check_golden(backend: Backend, where: str) -> None:
    """Raise ContractError unless the replayed answer is within the recorded tolerance."""
    check = replay_golden(backend, where)
    if not check.passed:
        raise ContractError(f"{where}: {check.complaint}")
