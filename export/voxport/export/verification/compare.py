"""The parity gate: does an artefact give the answers of the eager network?

The reference is eager PyTorch on each utterance alone. The artefact sees the same utterances alone and
in padded batches, through the interface that applications use.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxport.export.inputs.cases import Case, Utterance, build_batch
from voxport.export.verification.reference import Reference, Tolerance
from voxport.runtime.backends.base import Answer, Backend, Float32
from voxport.runtime.contract import Contract
from voxport.runtime.errors import VoxportError
from voxport.train.evaluation.intervals import wilson

TrackCases = Callable[[Sequence[Case], str], Iterable[Case]]


@dataclass(frozen=True)
class RowResult:
    """One utterance in one run. A difference that is no number counts as infinite.

    `position` is that of the utterance in the gate's list. `margin` is by how much the reference prefers its best
    speaker to the one that the artefact chose.
    Distance and cosine of embeddings are None for an artefact that gives none.
    """

    row: int
    position: int
    utterance: str
    real: bool
    frames: int
    max_abs_score: float
    embedding_distance: float | None
    cosine: float | None
    margin: float

    @property
    def flipped(self) -> bool:
        """Whether the artefact chose another speaker."""
        return self.margin > 0


@dataclass(frozen=True)
class CaseResult:
    """One run of the artefact; where it could not be run, `error` says why and `rows` is empty."""

    case: int
    kind: str
    batch: int
    padded: int
    garbage: str
    seconds: float
    rows: tuple[RowResult, ...]
    error: str | None = None

    @property
    def address(self) -> str:
        """Which case of the grid it is, for a person."""
        padding = "" if self.garbage == "none" else f", padded to {self.padded} with {self.garbage}"
        return f"case {self.case}: {self.kind}, batch {self.batch}{padding}"


@dataclass(frozen=True)
class Agreement:
    """What the comparison of all rows gave. `top1_*` count an utterance once, over all cases that it is in.

    `used` is the largest share that a difference, of scores or embeddings, has of its own tolerance, and `closest`
    where that was: 1 - `used` is the room that is left.
    """

    comparisons: int
    utterances: int
    max_abs_score: float
    max_embedding_distance: float | None
    min_cosine: float | None
    top1: float
    top1_interval: tuple[float, ...]  # Wilson's, 95 %
    flips: tuple[str, ...]
    worst: str
    used: float
    closest: str


def run_cases(
    backend: Backend, utterances: Sequence[Utterance], cases: Sequence[Case], reference: Reference, track: TrackCases
) -> tuple[CaseResult, ...]:
    """Run every case and compare every row. `track(cases, description)` may show progress."""
    return tuple(
        _run_case(backend, number, case, utterances, reference) for number, case in enumerate(track(cases, "Artefact"))
    )


def agreement(results: Sequence[CaseResult], bound: Tolerance) -> Agreement | None:
    """All rows together; None where there are none."""
    pairs = [(result, row) for result in results for row in result.rows]
    if not pairs:
        return None
    same: dict[str, bool] = {}
    for _, row in pairs:
        same[row.utterance] = same.get(row.utterance, True) and not row.flipped
    top1 = sum(same.values()) / len(same)
    closest = max(pairs, key=lambda pair: _used(pair[1], bound))
    return Agreement(
        comparisons=len(pairs),
        utterances=len(same),
        max_abs_score=max(row.max_abs_score for _, row in pairs),
        max_embedding_distance=max((d for _, row in pairs if (d := row.embedding_distance) is not None), default=None),
        min_cosine=min((c for _, row in pairs if (c := row.cosine) is not None), default=None),
        top1=top1,
        top1_interval=wilson(top1, len(same)),
        flips=tuple(f"{address(result, row)}, margin {row.margin:.3g}" for result, row in pairs if row.flipped),
        worst=address(*max(pairs, key=lambda pair: pair[1].max_abs_score)),
        used=_used(closest[1], bound),
        closest=address(*closest),
    )


def disagreements(results: Sequence[CaseResult], bound: Tolerance) -> list[str]:
    """Why the artefact does not pass: cases that it could not run, and differences over the tolerance.

    Another speaker than the reference's is judged by its margin: below twice the tolerance on scores
    both speakers are equally right; above it a score is over the tolerance too.
    """
    complaints = [f"{result.address}: could not be run: {result.error}" for result in results if result.error]
    pairs = [(result, row) for result in results for row in result.rows]
    for output, (what, value_of) in enumerate((("max |Δscore|", _score_of), ("max ‖Δembedding‖", _distance_of))):
        over = [pair for pair in pairs if not value_of(pair[1]) <= bound.of(pair[1].position)[output]]
        if over:
            result, row = max(over, key=lambda pair: value_of(pair[1]) / bound.of(pair[1].position)[output])
            complaints.append(
                f"{what} is {value_of(row):.3g}, tolerance {bound.of(row.position)[output]:.3g}; {len(over)} of "
                f"{len(pairs)} comparisons are over theirs, the worst at {address(result, row)}"
            )
    return complaints if pairs else [*complaints, "nothing could be compared"]


def address(result: CaseResult, row: RowResult) -> str:
    """Where a comparison stands in the grid, for a person."""
    return f"{result.address}, row {row.row}: {row.utterance}"


def _run_case(
    backend: Backend, number: int, case: Case, utterances: Sequence[Utterance], reference: Reference
) -> CaseResult:
    batch, lengths = build_batch(case, utterances, seed=number)
    rows: tuple[RowResult, ...] = ()
    error = None
    start = time.perf_counter()
    try:
        answer = backend.run(batch, lengths)
    except VoxportError as problem:
        error = str(problem)
    else:
        found, wanted = _arrays(answer, backend.contract), _shapes(len(case.rows), backend.contract, reference)
        if {name: values.shape for name, values in found.items()} == wanted:
            rows = tuple(
                _compare(
                    row, utterances[index], {name: values[row] for name, values in found.items()}, reference, index
                )
                for row, index in enumerate(case.rows)
            )
        else:
            shapes = " and ".join(str(values.shape) for values in found.values())
            error = f"answers of shape {shapes}, expected {tuple(wanted.values())}"
    seconds = time.perf_counter() - start
    return CaseResult(number, case.kind, len(case.rows), case.padded, case.garbage, seconds, rows, error)


def _arrays(answer: Answer, contract: Contract) -> dict[str, Float32]:
    """The answer's parts: scores always (see `scored`), embeddings where the artefact has them."""
    found = {"scores": answer.scores}
    if "embedding" in contract.outputs:
        found["embedding"] = answer.embedding
    return found


def _shapes(rows: int, contract: Contract, reference: Reference) -> dict[str, tuple[int, int]]:
    shapes = {"scores": (rows, reference.scores.shape[1]), "embedding": (rows, reference.embeddings.shape[1])}
    return {name: shape for name, shape in shapes.items() if name == "scores" or name in contract.outputs}


def _compare(
    row: int, utterance: Utterance, answer: Mapping[str, Float32], reference: Reference, index: int
) -> RowResult:
    found = {name: values.astype(np.float64) for name, values in answer.items()}
    right, right_embedding = reference.scores[index].astype(np.float64), reference.embeddings[index].astype(np.float64)
    finite = all(bool(np.isfinite(values).all()) for values in found.values())
    scores, distance, cosine = found["scores"], None, None
    if "embedding" in found:
        embedding = found["embedding"]
        norms = float(np.linalg.norm(embedding) * np.linalg.norm(right_embedding))
        distance = float(np.linalg.norm(embedding - right_embedding)) if finite else math.inf
        cosine = float(embedding @ right_embedding) / norms if finite and norms > 0 else -1.0
    return RowResult(
        row=row,
        position=index,
        utterance=utterance.name,
        real=utterance.real,
        frames=utterance.frames,
        max_abs_score=float(np.abs(scores - right).max()) if finite else math.inf,
        embedding_distance=distance,
        cosine=cosine,
        margin=float(right.max() - right[scores.argmax()]) if finite else math.inf,
    )


def _used(row: RowResult, bound: Tolerance) -> float:
    """The larger share that the row's two differences have of their tolerances."""
    score, embedding = bound.of(row.position)
    return max(_score_of(row) / score, _distance_of(row) / embedding)


def _score_of(row: RowResult) -> float:
    return row.max_abs_score


def _distance_of(row: RowResult) -> float:
    return 0.0 if row.embedding_distance is None else row.embedding_distance


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
