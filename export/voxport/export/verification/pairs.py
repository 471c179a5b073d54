"""Two artefacts of one checkpoint, held against each other where the checkpoint itself is not at hand."""

import dataclasses
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from voxport.export.errors import ExportError
from voxport.export.inputs.cases import Case, LengthLimits, Utterance, grid_cases, synthetic_utterances
from voxport.export.quantization.calibration import round_up
from voxport.export.verification.compare import CaseResult, Scored, agreement, disagreements, run_cases
from voxport.export.verification.reference import Reference, Tolerance
from voxport.export.verification.report import Check, ParityReport
from voxport.export.verification.tolerance import LEAST_COSINE
from voxport.runtime.backends.base import Answer, Backend
from voxport.runtime.backends.formats import check_digest
from voxport.runtime.backends.golden import replay_golden
from voxport.runtime.backends.load import load_reference
from voxport.runtime.contract import OUTPUTS, Contract, InputKind, Output, rule_text
from voxport.runtime.errors import ContractError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.train.progress import track

# What two artefacts of one checkpoint share; where they do not, a comparison would say nothing.
_SHARED = ("checkpoint_sha256", "labels", "frontend", "score_scale", "embedding_size")


@dataclass(frozen=True, eq=False)
class _Side:
    """One artefact: its file's name, how it runs, and the grid in the form that it takes."""

    name: str
    backend: Backend
    utterances: tuple[Utterance, ...]
    cases: tuple[Case, ...]


def check_pair(
    first_path: str | os.PathLike[str], second_path: str | os.PathLike[str], progress: bool = False
) -> ParityReport:
    """Compare two artefacts of one checkpoint, of any kinds, precisions and inputs.

    Each answers the whole grid of utterances, alone and in padded batches, over the lengths that both promise;
    every answer is held against what the other says to that utterance alone. Where one takes features and the
    other sound, both hear the same sound, the former by way of the NumPy frontend.

    Raises:
        ExportError: they come from different checkpoints, or promise no length or no output in common.
        ContractError: a file is missing or damaged, or has no contract.
        BackendError: what is needed to run one of them is not there.
    """
    start = time.perf_counter()
    names = os.fspath(first_path), os.fspath(second_path)
    backends = load_reference(first_path), load_reference(second_path)
    contracts = backends[0].contract, backends[1].contract
    checks = _checks(names, backends)
    outputs, bound = _common(names, contracts), _tolerance(names, contracts)
    first, second = _sides(names, backends, _limits(names, contracts), outputs)
    cases = _against(first, _alone(second, outputs, progress), first.cases, outputs, progress)
    batches = [case for case in second.cases if len(case.rows) > 1 or case.garbage != "none"]
    cases += _against(second, _alone(first, outputs, progress), batches, outputs, progress)
    cases = tuple(dataclasses.replace(case, case=number) for number, case in enumerate(cases))
    failures = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
    failures += disagreements(cases, bound)
    return ParityReport(
        model=names[0],
        checkpoint=contracts[0].checkpoint_sha256,
        passed=not failures,
        failures=tuple(failures),
        checks=checks,
        precision=" and ".join(dict.fromkeys(contract.precision for contract in contracts)),
        tolerance=bound,
        score_noise=0.0,
        embedding_noise=0.0,
        real_utterances="none, because no checkpoint was given",
        agreement=agreement(cases, bound),
        cases=cases,
        seconds=time.perf_counter() - start,
        other=names[1],
    )


def _checks(names: tuple[str, str], backends: tuple[Backend, Backend]) -> tuple[Check, ...]:
    """Refuse what cannot be compared; then what both say of themselves, and whether each keeps its golden vector."""
    one, two = backends[0].contract, backends[1].contract
    for field in _SHARED:
        if getattr(one, field) != getattr(two, field):
            raise ExportError(
                f"{names[0]} and {names[1]} differ in {field.replace('_', ' ')}"
                f"{_values(getattr(one, field), getattr(two, field))}: only artefacts of one checkpoint can be "
                "compared; export both from the same checkpoint"
            )
    checks = [
        Check("checkpoint hash", True, one.checkpoint_sha256),
        Check("labels", True, f"{len(one.labels)} speakers in the same order"),
        Check("frontend", True, one.frontend.name),
        Check("score scale", True, f"{one.score_scale:g}"),
        Check("recipe", one.recipe == two.recipe, " and ".join(dict.fromkeys((one.recipe, two.recipe)))),
        Check("rejection", one.rejection == two.rejection, f"{one.rejection or 'none'} and {two.rejection or 'none'}"),
        Check("temperature", one.temperature == two.temperature, f"{one.temperature:g} and {two.temperature:g}"),
        Check(
            "temperature by length",
            one.temperature_by_length == two.temperature_by_length,
            f"{len(one.temperature_by_length)} and {len(two.temperature_by_length)} points",
        ),
        Check(
            "normalisation",
            one.as_norm == two.as_norm,
            " and ".join(dict.fromkeys(rule_text(each.as_norm) for each in (one, two))),
        ),
        Check("conditions", one.conditions == two.conditions, f"{len(one.conditions)} and {len(two.conditions)} lines"),
    ]
    for name, backend in zip(names, backends, strict=True):
        try:
            found = replay_golden(backend, name)
        except ContractError as problem:
            checks.append(Check(f"golden vector of {name}", False, str(problem)))
            continue
        detail = f"{found.measure} {found.max_abs_score:.2g}, tolerance {found.tolerance:.2g}"
        checks.append(Check(f"golden vector of {name}", found.passed, detail))
    return (*checks, *(digest_check(name, f"digest of {name}") for name in names))


def digest_check(path: str | os.PathLike[str], title: str) -> Check:
    """Whether the file is still the one that was written, as loading it would ask; its answers are compared anyway."""
    try:
        found = check_digest(path)
    except ContractError as problem:
        return Check(title, False, str(problem))
    return Check(title, True, "that of its bytes" if found else "none: the file is from before there were digests")


def _values(one: object, two: object) -> str:
    return f" ({one} and {two})" if isinstance(one, str | int | float) else ""


def _limits(names: tuple[str, str], contracts: tuple[Contract, Contract]) -> LengthLimits:
    """The lengths that both promise."""
    one, two = contracts
    low, high = max(one.min_frames, two.min_frames), min(one.max_frames, two.max_frames)
    if low > high:
        raise ExportError(
            f"no length is promised by both: {names[0]} takes {one.min_frames} to {one.max_frames} frames, "
            f"{names[1]} {two.min_frames} to {two.max_frames}"
        )
    return LengthLimits(low, high)


def _common(names: tuple[str, str], contracts: tuple[Contract, Contract]) -> tuple[Output, ...]:
    one, two = contracts
    common = tuple(name for name in OUTPUTS if name in one.outputs and name in two.outputs)
    if not common:
        raise ExportError(
            f"{names[0]} gives {one.outputs[0]} alone and {names[1]} {two.outputs[0]} alone, so nothing can be "
            "compared; export one with --output both, or hold each against the checkpoint"
        )
    return common


def _tolerance(names: tuple[str, str], contracts: tuple[Contract, Contract]) -> Tolerance:
    """The larger of the tolerances that both were proven by, as their golden vectors carry them.

    A contract carries one: on scores, or on embeddings for a model without scores. A score is scale × cosine, so
    the other is the same length on one axis; on D axes it may be √D times as long.
    """
    scale, width = contracts[0].score_scale, contracts[0].embedding_size
    furthest = math.sqrt(2 * (1 - LEAST_COSINE))
    scores, embeddings = [], []
    for contract in contracts:
        carried = contract.golden.tolerance
        if "scores" in contract.outputs:
            scores.append(carried)
            embeddings.append(min(carried / scale * math.sqrt(width), furthest))
        else:
            scores.append(carried * scale)
            embeddings.append(carried)
    larger = names[0] if scores[0] >= scores[1] else names[1]
    reason = (
        f"the larger of the two that the contracts carry, each measured when its file was proven, here that of "
        f"{larger}; embeddings of a model with scores: that over the score scale {scale:g}, times √{width}, and no "
        f"more than a cosine of {LEAST_COSINE} allows"
    )
    return Tolerance(max(scores), round_up(max(embeddings)), reason)


class _Part:
    """An artefact of which only some outputs are looked at."""

    def __init__(self, backend: Backend, outputs: tuple[Output, ...]) -> None:
        self._backend = backend
        self.contract = backend.contract.replace(outputs=outputs)

    def run(self, inputs: npt.ArrayLike, lengths: npt.ArrayLike) -> Answer:
        return self._backend.run(inputs, lengths)


def _sides(
    names: tuple[str, str], backends: tuple[Backend, Backend], limits: LengthLimits, outputs: tuple[Output, ...]
) -> tuple[_Side, _Side]:
    """Both with the same utterances, each in its own form."""
    contracts = backends[0].contract, backends[1].contract
    frontend = contracts[0].frontend
    kind: InputKind = "waveform" if "waveform" in (contracts[0].input_kind, contracts[1].input_kind) else "features"
    made = synthetic_utterances(frontend, kind, limits)
    sides = []
    for name, backend in zip(names, backends, strict=True):
        heard = made
        if kind != backend.contract.input_kind:
            heard = [
                dataclasses.replace(each, input=compute_features(each.input, frontend).astype(np.float32))
                for each in made
            ]
        hop = 1 if backend.contract.input_kind == "features" else frontend.hop_length
        part = _Part(backend, outputs) if outputs == ("scores",) else backend
        sides.append(_Side(name, part, tuple(heard), tuple(grid_cases(heard, hop))))
    return sides[0], sides[1]


def _alone(side: _Side, outputs: tuple[Output, ...], progress: bool) -> Reference:
    """What `side` says to each utterance alone.

    Without scores in common, utterances are told apart by their cosines with this side's own embeddings of the
    grid, times the score scale, as if they were enrolled.
    """
    scores, embeddings = [], []
    contract = side.backend.contract
    for each in track(side.utterances, f"{os.path.basename(side.name)} alone", len(side.utterances), progress):
        answer = side.backend.run(each.input[None], np.array([len(each.input)]))
        embeddings.append(answer.embedding[0] if "embedding" in outputs else np.zeros(contract.embedding_size))
        scores.append(answer.scores[0] if "scores" in outputs else None)
    embedded = np.stack(embeddings).astype(np.float32)
    weight = (contract.score_scale * embedded.T).astype(np.float32)
    answers = embedded @ weight if "scores" not in outputs else np.stack([each for each in scores if each is not None])
    return Reference(answers.astype(np.float32), embedded, np.zeros(0), np.zeros(0), weight)


def _against(
    side: _Side, right: Reference, cases: Sequence[Case], outputs: tuple[Output, ...], progress: bool
) -> tuple[CaseResult, ...]:
    """Every case of `side`, by its file's name."""

    def shown(items: Sequence[Case], description: str) -> Iterable[Case]:
        return track(items, description, len(items), progress)

    name = os.path.basename(side.name)
    backend = side.backend if "scores" in outputs else Scored(side.backend, right.class_weight)
    found = run_cases(backend, side.utterances, cases, right, shown)
    return tuple(dataclasses.replace(case, kind=f"{name}: {case.kind}") for case in found)
