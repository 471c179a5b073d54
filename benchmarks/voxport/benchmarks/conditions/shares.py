"""Accuracy, equal error rate and false accepts under a condition, each against clean with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.conditions.report import ConditionRow, KindRow, Share
from voxport.runtime.contract import ConditionLine
from voxport.train.effects.kinds import KINDS
from voxport.train.evaluation.verification import det_curve, equal_error_rate

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_RESAMPLES = 2000
_EER_RESAMPLES = 200  # each sorts every pair of files
_EER_FILES = 1000  # pairs grow with the square of the files; beyond this, they are spread evenly


@dataclass(frozen=True)
class Answered:
    """A model's answers to every file under one condition; None is what it has no output for.

    `best` (files,) are label numbers (-2: refused), `cosine` and `probability` (files,) those of the best,
    `embeddings` (files, width) of unit length, NaN where refused.
    """

    best: Int64 | None
    cosine: Float32 | None
    probability: Float64 | None
    embeddings: Float32 | None
    refused: npt.NDArray[np.bool_]


def right(clean: Answered, changed: Answered, labels: Int64, seed: int) -> Share | None:
    """Share of files named rightly, among those whose speaker (`labels`, files; -1: unknown) the model knows."""
    known = labels >= 0
    if clean.best is None or changed.best is None or not known.any():
        return None
    return paired((clean.best == labels)[known], (changed.best == labels)[known], seed)


def false_accepts(
    clean: Answered, changed: Answered, labels: Int64, threshold: float | None, seed: int
) -> Share | None:
    """Share of files that pass `threshold` (a cosine) under a wrong name."""
    if threshold is None or clean.best is None:
        return None

    def accepted(answered: Answered) -> npt.NDArray[np.bool_]:
        assert answered.best is not None
        assert answered.cosine is not None
        passed = np.nan_to_num(answered.cosine, nan=-2) >= threshold
        return np.asarray((answered.best != labels) & ~answered.refused & passed)

    return paired(accepted(clean), accepted(changed), seed)


def wrong_probability(answered: Answered, labels: Int64) -> float | None:
    """Median probability of the wrong answers; None where there are none."""
    if answered.best is None or answered.probability is None:
        return None
    wrong = (answered.best != labels) & ~answered.refused
    return float(np.median(answered.probability[wrong])) if wrong.any() else None


def paired(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], seed: int) -> Share:
    """The share of `after`, and its difference from `before` over resamples of files, 95 % percentile interval."""
    difference = after.astype(np.float64) - before
    drawn = np.random.default_rng(seed).multinomial(
        len(difference), np.full(len(difference), 1 / len(difference)), _RESAMPLES
    )
    low, high = np.quantile(drawn @ difference / len(difference), (0.025, 0.975))
    return Share(float(after.mean()), float(difference.mean()), float(low), float(high))


def equal_error(clean: Answered, changed: Answered, speakers: Int64, seed: int) -> Share | None:
    """Equal error rate of clean against changed files, no file against itself; `speakers` (files,) are numbers."""
    if clean.embeddings is None or changed.embeddings is None:
        return None
    (usable,) = np.nonzero(~clean.refused & ~changed.refused)
    if len(usable) > _EER_FILES:
        usable = usable[np.linspace(0, len(usable) - 1, _EER_FILES).round().astype(np.int64)]
    own = speakers[usable]
    if len(usable) < 2 or len(np.unique(own)) < 2 or not (np.bincount(own) > 1).any():
        return None  # there are no trials of both kinds
    before = clean.embeddings[usable] @ clean.embeddings[usable].T
    after = clean.embeddings[usable] @ changed.embeddings[usable].T
    same = own[:, None] == own[None, :]
    others = ~np.eye(len(usable), dtype=bool)
    value, reference = _rate(after, same, others), _rate(before, same, others)
    generator = np.random.default_rng(seed)
    differences = []
    for _ in range(_EER_RESAMPLES):
        drawn = generator.integers(len(usable), size=len(usable))
        at = np.ix_(drawn, drawn)
        apart = drawn[:, None] != drawn[None, :]
        if not (same[at] & apart).any() or same[at].all():
            continue  # a resample without trials of both kinds says nothing
        differences.append(_rate(after[at], same[at], apart) - _rate(before[at], same[at], apart))
    low, high = np.quantile(differences, (0.025, 0.975))
    return Share(value, value - reference, float(low), float(high))


def _rate(scores: Float32, same: npt.NDArray[np.bool_], chosen: npt.NDArray[np.bool_]) -> float:
    return equal_error_rate(det_curve(same[chosen], scores[chosen]))[0]


def kind_rows(rows: Sequence[ConditionRow]) -> tuple[KindRow, ...]:
    """Means over the conditions of each kind; a kind without conditions has no row."""
    found = []
    for kind in KINDS:
        own = [row for row in rows if row.kind == kind]
        if own:
            accuracy = _mean([row.accuracy.value for row in own if row.accuracy is not None])
            found.append(
                KindRow(kind, len(own), accuracy, _mean([row.eer.value for row in own if row.eer is not None]))
            )
    return tuple(found)


def contract_lines(rows: Sequence[ConditionRow], measured_on: str) -> tuple[ConditionLine, ...]:
    """What a contract says of each kind: means over its conditions, and the median of what wrong answers claim."""
    found = []
    for line in kind_rows(rows):
        own = [row for row in rows if row.kind == line.kind]
        claimed = [row.wrong_probability for row in own if row.wrong_probability is not None]
        found.append(
            ConditionLine(
                line.kind,
                sum(row.files for row in own),
                line.accuracy,
                line.eer,
                _mean([row.false_accepts.value for row in own if row.false_accepts is not None]),
                float(np.median(claimed)) if claimed else None,
                measured_on,
            )
        )
    return tuple(found)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
