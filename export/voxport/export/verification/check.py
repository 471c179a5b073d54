"""Do two forms of one network give the same answers? The question as programs and `voxport export check` ask it."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.export.inputs.corpus_samples import RealOptions
from voxport.export.verification.accuracy import AccuracyOptions
from voxport.export.verification.bisection import bisect_onnx
from voxport.export.verification.compare import scored
from voxport.export.verification.gate import gather, judged, named, prove
from voxport.export.verification.pairs import check_pair, digest_check
from voxport.export.verification.report import Check, ParityReport
from voxport.runtime.backends.formats import is_checkpoint
from voxport.runtime.backends.load import load_backend, load_reference
from voxport.runtime.backends.options import BackendOptions

Pathlike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What to compare besides synthetic sounds. All but `progress` needs the checkpoint.

    `real` says how many real utterances of the checkpoint's corpus are taken; None takes the usual number where
    there is a checkpoint. `accuracy` names a labelled set to judge by besides. With `bisect` an ONNX file is also
    compared part by part, whether it passes or not; see `bisection`.
    `runs` says how the artefact is run; None: where its proof holds for certain.
    """

    real: RealOptions | None = None
    accuracy: AccuracyOptions | None = None
    bisect: bool = False
    progress: bool = False
    runs: BackendOptions | None = None


def check(first: Pathlike, second: Pathlike, options: CheckOptions | None = None) -> ParityReport:
    """Hold two forms of one network against each other: an artefact and its checkpoint, in any order, or two artefacts.

    Against a checkpoint, eager PyTorch on each utterance alone is the reference; see `gate`. Of two artefacts each
    is the reference for the other, over the lengths that both promise; see `pairs`.

    Returns:
        The report; its `passed` says whether they agree, and its `failures` where they do not.

    Raises:
        ExportError: both are checkpoints, they do not belong together, or there is no such labelled set; two
            artefacts, and an option that needs the checkpoint.
        ContractError: a file is missing or damaged, has no contract, or its graph is not what the contract promises.
        BackendError: what is needed to run it is not there.
        CheckpointError: the checkpoint cannot be read.
    """
    options = options or CheckOptions()
    model, other = (second, first) if is_checkpoint(first) else (first, second)
    if is_checkpoint(model):
        raise ExportError(f"{first} and {second} are both checkpoints; export one and give the artefact")
    if is_checkpoint(other):
        return _check_checkpoint(model, other, options)
    needing = {
        "runs": options.runs,
        "bisect": options.bisect,
        "accuracy": options.accuracy,
        "real": options.real and options.real.count,
    }
    if given := [name for name, value in needing.items() if value]:
        raise ExportError(f"{first} and {second} are both artefacts, and {', '.join(given)} needs the checkpoint")
    return check_pair(model, other, options.progress)


def _check_checkpoint(model: Pathlike, checkpoint: Pathlike, options: CheckOptions) -> ParityReport:
    if options.accuracy is not None:
        options.accuracy.check()
    backend = load_reference(model) if options.runs is None else load_backend(model, options.runs, verify=False)
    contract, told = backend.contract, backend.explain()
    limits = LengthLimits(contract.min_frames, contract.max_frames)
    real = options.real or RealOptions(progress=options.progress)
    evidence = gather(named(checkpoint), contract.input_kind, limits, contract.precision, real, told.computed)
    report = prove(backend, evidence, os.fspath(model), options.progress)
    digest = digest_check(model, "digest")
    versions = ", ".join(f"{name} {version}" for name, version in told.versions)
    ran = [] if options.runs is None else [Check("run by", True, f"{told.backend} in {told.precision}, {versions}")]
    failures = (*report.failures, *([] if digest.passed else [f"digest: {digest.detail}"]))
    report = dataclasses.replace(report, passed=not failures, failures=failures, checks=(*report.checks, *ran, digest))
    if options.bisect:
        report = dataclasses.replace(report, bisection=bisect_onnx(Path(model), evidence, report.cases))
    return judged(report, scored(backend, evidence.reference.class_weight), evidence.checkpoint, options.accuracy, None)
