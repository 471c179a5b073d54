"""What is added to a parity report before it decides: accuracy on a labelled set, and what int8 costs each layer."""

import dataclasses

from voxport.export.quantization.quantizer import QuantizationReport
from voxport.export.verification.accuracy import AccuracyOptions, accuracy_gate
from voxport.export.verification.reference import class_weights
from voxport.export.verification.report import ParityReport
from voxport.export.verification.scored import scored
from voxport.runtime.backends.base import Backend
from voxport.train.checkpoint import Checkpoint


def judged(
    report: ParityReport,
    backend: Backend,
    checkpoint: Checkpoint,
    accuracy: AccuracyOptions | None,
    quantization: QuantizationReport | None,
) -> ParityReport:
    """`report` with the verdict on accuracy, where a labelled set is given. A failure of int8 names its layers.

    Raises:
        CorpusError: the labelled set cannot be opened.
        ExportError: nothing in it can be used with this model.
    """
    found = None
    if accuracy is not None:
        weight = class_weights(checkpoint.network(), backend.contract.embedding_size)
        found = accuracy_gate(scored(backend, weight), checkpoint, accuracy)
    failures = list(report.failures)
    if found is not None and not found.passed:
        failures.append(found.complaint)
    if failures and quantization is not None:
        failures[0] += f"; {quantization.blame}"
    return dataclasses.replace(
        report, passed=not failures, failures=tuple(failures), accuracy=found, quantization=quantization
    )
