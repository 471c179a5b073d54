"""Prove, then name: how every artefact comes to its name, whatever its format.

It is built under a hidden folder beside its destination, held against the checkpoint there, and moved
to its name only when it has passed everything. On any failure, an interruption included, what stood
under that name before still stands.
"""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from voxport.export.network.cohort import as_norm_of, check_as_norm
from voxport.export.quantization.quantizer import QuantizationReport
from voxport.export.staging import Staging, cannot_write, check_output, refuse_source
from voxport.export.verification.bisection_report import Bisection
from voxport.export.verification.compare import scored
from voxport.export.verification.gate import Evidence, GateOptions, Named, gather, judged, named, prove
from voxport.export.verification.report import ParityError, ParityReport, write_report
from voxport.export.verification.tolerance import golden_roundings
from voxport.runtime.backends.base import Backend
from voxport.runtime.contract import OUTPUTS, Array, Contract, Golden, InputKind, Output, Precision, Windowing
from voxport.train.progress import status

Search = Callable[[Path, Evidence, ParityReport], Bisection]


@runtime_checkable
class Closable(Protocol):
    """A back end that holds what the garbage collector does not give back at once, such as a GPU's memory."""

    def close(self) -> None: ...


def _nothing(_: Path) -> None:
    """No further check."""


def _as_it_is(evidence: Evidence) -> Evidence:
    return evidence


@dataclass(frozen=True)
class Target:
    """A kind of artefact. Paths given to these functions end in the artefact's own name, in another folder.

    `write` writes the artefact at a path, with the contract inside it or beside it. It is called twice,
    the second time with the parity figures in the contract, so what takes long is to be built before.
    `load` opens it for the gate. `accept` is the last look at the finished artefact, by the rules of
    whoever uses it; it raises a VoxportError. `beside` are the suffixes of files that belong to it and
    move with it: ".json" for model.plan.json beside model.plan. `folder` says that it is a folder.
    `evidence` may change what the gate asks, where a target cannot take all of it (padding, say).
    `quantization` is what int8 costs each layer, for the report. `search` compares an artefact that does not
    pass part by part.
    """

    write: Callable[[Path, Contract], None]
    load: Callable[[Path], Backend]
    accept: Callable[[Path], None] = _nothing
    beside: tuple[str, ...] = ()
    folder: bool = False
    evidence: Callable[[Evidence], Evidence] = _as_it_is
    outputs: tuple[Output, ...] = OUTPUTS
    quantization: QuantizationReport | None = None
    search: Search | None = None


def prove_and_name(
    source: Named, output: Path, target: Target, kind: InputKind, precision: Precision, options: GateOptions
) -> ParityReport:
    """Write an artefact, prove it equal to the eager network, and only then give it its name.

    The report is written beside it as NAME.parity.json, .md and .png, also where the gate fails.

    Raises:
        ParityError: the artefact's answers are not the eager network's.
        ExportError: `output` exists or cannot be written.
        VoxportError: whatever `target` raises.
    """
    check_output(output, options.force, target.folder)
    evidence = target.evidence(gather(source, kind, options.limits, precision, options.real))
    contract = contract_for(evidence, kind, target.outputs, options.as_norm)
    try:
        with Staging(output, target.beside, target.folder) as staging:
            target.write(staging.artefact, contract)
            report = _gate(target, staging.artefact, evidence, output, options)
            if not report.passed and target.search is not None:
                with status("Searching for the part at fault", options.progress):
                    report = _searched(report, target.search, staging.artefact, evidence)
            write_report(report, report_stem(output))
            if not report.passed:
                kept = staging.keep_failed() if options.keep_failed else None
                raise ParityError(_refusal(report, output, kept), report)
            staging.clear()
            target.write(staging.artefact, contract.replace(parity=report.summary()))
            target.accept(staging.artefact)
            staging.name()
    except OSError as problem:
        raise cannot_write(output, problem) from problem
    return report


def begin(checkpoint_path: str | os.PathLike[str], output: Path, options: GateOptions) -> Named:
    """The checkpoint of an export to the file `output`; what building cannot mend is refused before it.

    Raises:
        ExportError: `output` exists, cannot be written, or is the checkpoint; there is no such labelled set; scores
            cannot be normalised by so many of its speakers.
        CheckpointError: the checkpoint cannot be read.
    """
    refuse_source(output, Path(checkpoint_path))
    check_output(output, options.force)
    if options.accuracy is not None:
        options.accuracy.check()
    source = named(checkpoint_path)
    check_as_norm(source.checkpoint, options.as_norm, source.path)
    return source


def _gate(target: Target, artefact: Path, evidence: Evidence, output: Path, options: GateOptions) -> ParityReport:
    backend = target.load(artefact)
    try:
        report = prove(backend, evidence, str(output), options.progress)
        with_scores = scored(backend, evidence.reference.class_weight)
        return judged(report, with_scores, evidence.checkpoint, options.accuracy, target.quantization)
    finally:
        if isinstance(backend, Closable):  # the device's memory, before the finished artefact is loaded again
            backend.close()


def _searched(report: ParityReport, search: Search, artefact: Path, evidence: Evidence) -> ParityReport:
    """`report` with the comparison part by part."""
    try:
        return dataclasses.replace(report, bisection=search(artefact, evidence, report))
    except Exception:  # a wrong graph may fail anywhere in it, and why it does not pass is told already
        return report


def report_stem(output: Path) -> Path:
    """Where the report of `output` goes, but for its suffix: model.onnx → model.parity."""
    return output.with_suffix(".parity")


def contract_for(
    evidence: Evidence, kind: InputKind, outputs: tuple[Output, ...] = OUTPUTS, as_norm: int | None = None
) -> Contract:
    """The contract of an artefact of `kind`, its golden vector taken from the evidence; parity is not in it yet."""
    checkpoint, golden = evidence.checkpoint, evidence.golden
    scored = "scores" in outputs
    own = evidence.tolerance.score if scored else evidence.tolerance.embedding
    rounded = golden_roundings(checkpoint, evidence.utterances, own, scored)
    return Contract(
        labels=checkpoint.labels,
        frontend=checkpoint.frontend,
        input_kind=kind,
        min_frames=evidence.limits.min_frames,
        max_frames=evidence.limits.max_frames,
        precision=evidence.precision,
        embedding_size=evidence.reference.embeddings.shape[1],
        score_scale=checkpoint.recipe.model.am_scale,
        recipe=checkpoint.recipe.name,
        checkpoint_sha256=evidence.checkpoint_sha256,
        golden=Golden(
            input=Array.of(evidence.utterances[golden].input),
            scores=Array.of(evidence.reference.scores[golden]),
            tolerance=own,
            embedding=None if scored else Array.of(evidence.reference.embeddings[golden]),
            tolerance_bf16=rounded.get("bf16"),
            tolerance_fp16=rounded.get("fp16"),
        ),
        rejection=checkpoint.rejection,
        temperature=checkpoint.temperature,
        conditions=checkpoint.conditions,
        temperature_by_length=checkpoint.temperature_by_length,
        as_norm=as_norm_of(checkpoint, as_norm),
        outputs=outputs,
        windowing=Windowing.for_export(checkpoint.frontend, evidence.limits.min_frames, evidence.limits.max_frames),
    )


def _refusal(report: ParityReport, output: Path, kept: Path | None) -> str:
    """Why no artefact was written, for a person; `kept` is the failed one, if it was kept."""
    end = f"it was kept as {kept}"
    if kept is None:
        end = "nothing was written; --keep-failed keeps the file for inspection"
    more = f" (and {len(report.failures) - 1} more)" if len(report.failures) > 1 else ""
    if report.bisection is not None:
        more += f"; {report.bisection.blame}"
    page = report_stem(output).with_name(f"{report_stem(output).name}.md")
    return f"{output}: parity failed: {report.failures[0]}{more}; see {page}; {end}"
