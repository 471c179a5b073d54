"""The gate around an artefact: gather the evidence from the checkpoint, hold the artefact against it.

What decides besides the answers: accuracy on a labelled set, and what int8 costs each layer.
"""

import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from voxport.export.inputs.cases import Case, LengthLimits, Utterance, grid_cases, synthetic_utterances
from voxport.export.inputs.corpus_samples import RealOptions, real_utterances
from voxport.export.quantization.quantizer import QuantizationReport
from voxport.export.verification.accuracy import AccuracyOptions, accuracy_gate
from voxport.export.verification.compare import agreement, disagreements, run_cases, scored
from voxport.export.verification.reference import (
    Float32,
    Reference,
    Tolerance,
    class_weights,
    eager_answer,
    eager_reference,
)
from voxport.export.verification.report import Check, ParityReport
from voxport.export.verification.tolerance import tolerance_of
from voxport.runtime.backends.base import Backend
from voxport.runtime.backends.golden import replay_golden
from voxport.runtime.contract import AsNorm, ConditionLine, Contract, InputKind, Precision, Rounding
from voxport.runtime.errors import ContractError
from voxport.train.checkpoint import Checkpoint, checkpoint_sha256, load_checkpoint
from voxport.train.progress import track

T = TypeVar("T")

_GOLDEN_FRAMES = 31
_SAME_SPEAKER = 1 - 1e-5  # cosine of a class weight and the same in float16, which leaves some 1e-7


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """What every export that ends in the gate lets its user choose.

    Lengths are in frames, both included; the gate proves the artefact over the whole range. `real` says how
    many real utterances it uses, `accuracy` on which labelled set it judges besides. An existing output is
    replaced only with `force`. With `keep_failed` an artefact that does not pass stays as NAME.failed.SUFFIX.
    With `as_norm` the contract has its user normalise scores by so many of the training speakers; it needs embeddings.
    Raises ExportError for lengths that are impossible.
    """

    min_frames: int = 20
    max_frames: int = 3000
    force: bool = False
    keep_failed: bool = False
    real: RealOptions = field(default_factory=RealOptions)
    accuracy: AccuracyOptions | None = None
    progress: bool = False
    as_norm: int | None = None

    def __post_init__(self) -> None:
        _ = self.limits  # refuses lengths that are impossible

    @property
    def limits(self) -> LengthLimits:
        return LengthLimits(self.min_frames, self.max_frames)


@dataclass(frozen=True, eq=False)
class Evidence:
    """The inputs of the gate and the eager network's answers to them, for one input kind and length range."""

    checkpoint: Checkpoint
    checkpoint_path: str
    checkpoint_sha256: str
    limits: LengthLimits
    precision: Precision
    utterances: tuple[Utterance, ...]
    cases: tuple[Case, ...]
    reference: Reference
    tolerance: Tolerance
    real_note: str
    seconds: float

    @property
    def golden(self) -> int:
        """Position of the utterance to record in the contract: short, yet with more than one frame if possible."""
        alone = [case.rows[0] for case in self.cases if case.kind == "alone" and case.garbage == "none"]
        made = [i for i in alone if not self.utterances[i].real]
        return next((i for i in made if self.utterances[i].frames >= _GOLDEN_FRAMES), made[-1])


@dataclass(frozen=True)
class Named:
    """A checkpoint with the names under which artefacts and reports refer to it."""

    checkpoint: Checkpoint
    path: str
    sha256: str


def named(path: str | os.PathLike[str]) -> Named:
    """Load the checkpoint at `path`, with the names that reports and artefacts use.

    Raises:
        CheckpointError: it cannot be read.
    """
    return Named(load_checkpoint(path), os.fspath(path), checkpoint_sha256(path))


def gather(
    source: Named,
    kind: InputKind,
    limits: LengthLimits,
    precision: Precision,
    real: RealOptions,
    computed: Rounding | None = None,
) -> Evidence:
    """Make the grid, add real utterances where they are to be had, and let the eager network answer them.

    `computed` is the precision in which an engine computes what an artefact of `precision` holds in float32.
    """
    start = time.perf_counter()
    frontend = source.checkpoint.frontend
    found = real_utterances(source.checkpoint, kind, limits, real)
    utterances = (*synthetic_utterances(frontend, kind, limits), *found.utterances)
    hop = 1 if kind == "features" else frontend.hop_length

    def shown(items: Sequence[Utterance], description: str) -> Iterable[Utterance]:
        return track(items, description, len(items), real.progress)

    reference = eager_reference(source.checkpoint, utterances, shown)
    return Evidence(
        checkpoint=source.checkpoint,
        checkpoint_path=source.path,
        checkpoint_sha256=source.sha256,
        limits=limits,
        precision=precision,
        utterances=utterances,
        cases=tuple(grid_cases(utterances, hop)),
        reference=reference,
        tolerance=tolerance_of(precision, source.checkpoint, utterances, reference, shown, computed),
        real_note=found.note,
        seconds=time.perf_counter() - start,
    )


def prove(backend: Backend, evidence: Evidence, model: str, progress: bool = False) -> ParityReport:
    """Run the whole gate on a loaded artefact; `model` names its file in the report."""
    start = time.perf_counter()

    def shown(items: Sequence[Case], description: str) -> Iterable[Case]:
        return track(items, description, len(items), progress)

    checks = (*contract_checks(backend.contract, evidence), _golden_check(backend, evidence, model))
    with_scores = scored(backend, evidence.reference.class_weight)
    cases = run_cases(with_scores, evidence.utterances, evidence.cases, evidence.reference, shown)
    failures = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    failures += disagreements(cases, evidence.tolerance)
    return ParityReport(
        model=model,
        checkpoint=evidence.checkpoint_path,
        passed=not failures,
        failures=tuple(failures),
        checks=checks,
        precision=evidence.precision,
        tolerance=evidence.tolerance,
        score_noise=evidence.reference.score_noise,
        embedding_noise=evidence.reference.embedding_noise,
        real_utterances=evidence.real_note,
        agreement=agreement(cases, evidence.tolerance),
        cases=cases,
        seconds=evidence.seconds + time.perf_counter() - start,
        conditions=evidence.checkpoint.conditions,
    )


def contract_checks(contract: Contract, evidence: Evidence) -> tuple[Check, ...]:
    """What the artefact says about itself against what the checkpoint says."""
    checkpoint = evidence.checkpoint
    return (
        _labels_check(contract.labels, checkpoint.labels),
        _equal("frontend", contract.frontend.name, contract.frontend == checkpoint.frontend, checkpoint.frontend.name),
        _equal_values("checkpoint hash", contract.checkpoint_sha256, evidence.checkpoint_sha256),
        _equal_values("recipe", contract.recipe, checkpoint.recipe.name),
        _equal_values("score scale", contract.score_scale, checkpoint.recipe.model.am_scale),
        _equal_values("embedding size", contract.embedding_size, evidence.reference.embeddings.shape[1]),
        _equal_values("rejection", contract.rejection, checkpoint.rejection),
        _equal_values("temperature", contract.temperature, checkpoint.temperature),
        _equal_values("temperature by length", contract.temperature_by_length, checkpoint.temperature_by_length),
        _conditions_check(contract.conditions, checkpoint.conditions),
        _as_norm_check(contract.as_norm, evidence.reference.class_weight),
    )


def _labels_check(found: Sequence[str], wanted: Sequence[str]) -> Check:
    if tuple(found) == tuple(wanted):
        return Check("labels", True, f"{len(wanted)} speakers in the same order")
    if len(found) != len(wanted):
        return Check("labels", False, f"{len(found)} in the artefact, {len(wanted)} in the checkpoint")
    first = next(i for i, (have, want) in enumerate(zip(found, wanted, strict=True)) if have != want)
    return Check(
        "labels", False, f"column {first} is {found[first]!r} in the artefact, {wanted[first]!r} in the checkpoint"
    )


def _conditions_check(found: Sequence[ConditionLine], wanted: Sequence[ConditionLine]) -> Check:
    same = tuple(found) == tuple(wanted)
    return Check("conditions", same, f"{len(found)} lines" + ("" if same else ", others than in the checkpoint"))


def _as_norm_check(found: AsNorm | None, class_weight: Float32) -> Check:
    """Whether scores are normalised by the network's own speakers; `class_weight` is (embedding_size, speakers)."""
    if found is None:
        return Check("normalisation", True, "none, voices are compared by cosine")
    own = class_weight.T / np.linalg.norm(class_weight.T, axis=1, keepdims=True)
    if found.shape != own.shape:
        return Check("normalisation", False, f"by {found.shape} numbers, the checkpoint has {own.shape}")
    least = float(np.einsum("se,se->s", found.speakers, own).min())
    detail = f"by the {found.top} nearest of {len(own)} speakers, smallest cosine to the checkpoint's {least:.7f}"
    return Check("normalisation", least > _SAME_SPEAKER, detail)


def _equal_values(name: str, found: object, wanted: object) -> Check:
    return _equal(name, str(found or "none"), found == wanted, str(wanted or "none"))


def _equal(name: str, found: str, same: bool, wanted: str) -> Check:
    detail = found if same else f"{found} in the artefact, {wanted} in the checkpoint"
    return Check(name, same, detail if found != wanted or same else f"{found}, with other values in the checkpoint")


def _golden_check(backend: Backend, evidence: Evidence, model: str) -> Check:
    """The recorded answer must be the eager network's, and the artefact's."""
    try:
        replayed = replay_golden(backend, model)
    except ContractError as problem:
        return Check("golden vector", False, str(problem))
    golden = backend.contract.golden
    network = evidence.checkpoint.network()
    scores, embedding = eager_answer(network, evidence.checkpoint.frontend, golden.input.values)
    recorded = float(np.abs(scores.numpy().astype(np.float64) - golden.scores.values.astype(np.float64)).max())
    bound = evidence.tolerance.score
    if golden.embedding is not None:
        recorded = float(np.linalg.norm(embedding.numpy().astype(np.float64) - golden.embedding.values))
        bound = evidence.tolerance.embedding
    detail = f"{replayed.measure} of the artefact {replayed.max_abs_score:.2g}, of the eager network {recorded:.2g}"
    return Check("golden vector", replayed.passed and recorded <= bound, f"{detail}, tolerance {bound:.2g}")


def judged(
    report: ParityReport,
    backend: Backend,
    checkpoint: Checkpoint,
    accuracy: AccuracyOptions | None,
    quantization: QuantizationReport | None,
    known: dict[int, int] | None = None,
) -> ParityReport:
    """`report` with the verdict on accuracy, where a labelled set is given. A failure of int8 names its layers.

    `known` keeps the eager network's answers to the set, see `accuracy_gate`.

    Raises:
        CorpusError: the labelled set cannot be opened.
        ExportError: nothing in it can be used with this model.
    """
    found = None
    if accuracy is not None:
        weight = class_weights(checkpoint.network(), backend.contract.embedding_size)
        found = accuracy_gate(scored(backend, weight), checkpoint, accuracy, known)
    failures = list(report.failures)
    if found is not None and not found.passed:
        failures.append(found.complaint)
    if failures and quantization is not None:
        failures[0] += f"; {quantization.blame}"
    return dataclasses.replace(
        report, passed=not failures, failures=tuple(failures), accuracy=found, quantization=quantization
    )
