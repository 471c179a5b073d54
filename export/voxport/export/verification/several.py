"""Several ways to run artefacts of one checkpoint, each held against it, with the eager answers computed once."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voxport.export.inputs.cases import LengthLimits
from voxport.export.inputs.corpus_samples import RealOptions
from voxport.export.verification.accuracy import AccuracyOptions
from voxport.export.verification.compare import scored
from voxport.export.verification.gate import Evidence, Named, gather, judged, named, prove
from voxport.export.verification.report import ParityReport
from voxport.export.verification.tolerance import tolerance_of
from voxport.runtime.backends.load import load_backend
from voxport.runtime.backends.options import BackendOptions
from voxport.runtime.contract import Contract, Precision, Rounding


@dataclass(frozen=True)
class Way:
    """A model file, and how it is run."""

    name: str
    model: Path
    runs: BackendOptions


class Judge:
    """Proves one way after another against a checkpoint.

    All must take the same kind of input and the same lengths, as exports of one network with the same options do.
    """

    def __init__(
        self, checkpoint: Path, real: RealOptions, accuracy: AccuracyOptions | None, progress: bool = False
    ) -> None:
        """Raises CheckpointError where the checkpoint cannot be read, CorpusError where the labelled set cannot."""
        if accuracy is not None:
            accuracy.check()
        self._source: Named = named(checkpoint)
        self._real, self._accuracy, self._progress = real, accuracy, progress
        self._evidence: dict[tuple[object, ...], Evidence] = {}
        self._known: dict[tuple[object, ...], dict[int, int]] = {}  # whom the eager network names in the labelled set

    def prove(self, way: Way) -> ParityReport:
        """The whole gate, and accuracy where a labelled set was given.

        Raises:
            ContractError: the file is missing or damaged, or has no contract.
            BackendError: what is needed to run it that way is not there.
        """
        backend = load_backend(way.model, way.runs, verify=False)
        contract, computed = backend.contract, backend.explain().computed
        evidence = self._for(contract, contract.precision, computed)
        report = prove(backend, evidence, f"{way.model} ({way.name})", self._progress)
        known = self._known.setdefault((contract.input_kind, contract.min_frames, contract.max_frames), {})
        answering = scored(backend, evidence.reference.class_weight)
        return judged(report, answering, evidence.checkpoint, self._accuracy, None, known)

    def _for(self, contract: Contract, precision: Precision, computed: Rounding | None) -> Evidence:
        """The evidence, whose tolerance alone depends on what is computed in."""
        place = (contract.input_kind, contract.min_frames, contract.max_frames)
        if place not in self._evidence:
            limits = LengthLimits(contract.min_frames, contract.max_frames)
            self._evidence[place] = gather(self._source, contract.input_kind, limits, "fp32", self._real)
        own = self._evidence[place]
        if (precision, computed) == ("fp32", None):
            return own
        if (*place, precision, computed) not in self._evidence:
            shown: Callable[..., object] = lambda items, _: items  # noqa: E731 - what `tolerance_of` asks for
            bound = tolerance_of(precision, own.checkpoint, own.utterances, own.reference, shown, computed)  # type: ignore[arg-type]
            changed = dataclasses.replace(own, precision=precision, tolerance=bound)
            self._evidence[(*place, precision, computed)] = changed
        return self._evidence[(*place, precision, computed)]
