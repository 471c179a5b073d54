"""The work of `voxport tune`, step by step; what an earlier run of the same question finished is not done again."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxport.cli.tune.candidates import (
    ALSO,
    CANDIDATES,
    DYNAMIC,
    FP32,
    NEVER,
    STATIC,
    Candidate,
    Setting,
    make_form,
    settings_of,
    thread_counts,
)
from voxport.cli.tune.ranking import Clock, finding_of, rank
from voxport.cli.tune.report import FILE, Proof, TuneReport, as_json, changes, read_tune, this_machine
from voxport.runtime.errors import VoxportError

if TYPE_CHECKING:
    from voxport.benchmarks.latency.report import LatencyReport
    from voxport.runtime.contract import Contract

Progress = Callable[[int, int, str], None]

FORMS, MADE, PROOFS, LATENCY = "forms", "made.json", "proofs.json", "latency.json"
PICTURE, MODEL = "pareto.png", "model.onnx"
_PROVEN_STEPS = 100  # of the bar; measuring has the rest


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What is to be tuned, and how surely. `frames` None: 128, 400 and 1000, or the trace alone.

    `threads` are the numbers of threads to try, each with every candidate. Processor time adds up over threads, so with
    several numbers wall-clock time ranks.
    """

    model: Path
    checkpoint: Path
    folder: Path
    accuracy_data: Path | None = None
    accuracy_limit: int | None = None
    max_drop: float = 0.2
    calibration: Path | None = None
    trace: str = ""
    frames: tuple[int, ...] | None = None
    threads: tuple[int, ...] = (1,)
    rounds: int = 5
    seconds: float = 1.0
    warmup: float = 0.5
    real: int = 40
    clock: Clock = "wall"
    again: bool = False


class Tuning:
    """One run of the command."""

    def __init__(self, options: TuneOptions, progress: Progress) -> None:
        """Raises VoxportError where the model is none that can be tuned."""
        from voxport.runtime.backends.formats import format_of, read_contract
        from voxport.train.checkpoint import checkpoint_sha256

        self.options, self._progress = options, progress
        self.contract: Contract = read_contract(options.model)
        if format_of(options.model).name != "onnx" or self.contract.precision != "fp32":
            raise VoxportError(
                f"{options.model}: give the ONNX model in fp32; its int8 forms are made from the checkpoint, with the "
                "same input and lengths"
            )
        self._sha = checkpoint_sha256(options.checkpoint)
        if self._sha != self.contract.checkpoint_sha256:
            raise VoxportError(f"{options.model}: was not exported from {options.checkpoint}; export it again")
        self.machine = this_machine()
        self._threads = thread_counts(options.threads, options.clock, self.machine.cores)
        self._forms = options.folder / FORMS

    def run(self) -> TuneReport:
        """Make the forms, prove the candidates, time those that passed, choose, and write the folder."""
        options = self.options
        self._forms.mkdir(parents=True, exist_ok=True)
        before = read_tune(options.folder / FILE)
        missing = self._make_forms()
        proofs = self._prove(missing)
        passed = [each for each in CANDIDATES if proofs[each.name].passed]
        if not passed:
            told = "; ".join(f"{name}: {proof.problem}" for name, proof in proofs.items())
            raise VoxportError(f"no form of {options.model} is proven here: {told}")
        measured, settings = self._measure(passed), settings_of(passed, self._threads)
        places = rank(measured.blocks, [each.name for each in settings], "eager", options.clock)
        report = TuneReport(
            created=measured.created,
            model=str(options.model),
            checkpoint_sha256=self._sha,
            machine=self.machine,
            threads=self._threads,
            clock=options.clock,
            cells=tuple(str(cell) for cell in sorted(measured.cells, key=lambda cell: cell.frames)),
            lengths=f"as in {options.trace}" if options.trace else "each counts alike",
            proofs=tuple(proofs[each.name] for each in CANDIDATES),
            places=places,
            finding=finding_of(places, options.clock, self._threads[0]),
        )
        if before is not None:
            report = dataclasses.replace(report, changed=changes(before, report))
        self._write(report, next(each for each in settings if each.name == report.chosen), measured)
        return report

    def _make_forms(self) -> dict[str, str]:
        """The files of all forms; why there is none, by form."""
        place, key, missing = self._forms / MADE, self._form_key(), {}
        known = _read_json(place)
        _copy(self.options.model, self._forms / FP32)
        for number, form in enumerate((STATIC, DYNAMIC)):
            path = self._forms / form
            self._progress(number, 10, f"exporting {form}")
            if known.get(form) == key and _is_whole(path):
                continue
            path.unlink(missing_ok=True)
            try:
                make_form(form, self.options.checkpoint, self.contract, path, self.options.calibration)
            except VoxportError as problem:
                missing[form] = str(problem)
                continue
            known[form] = key
            _write_text(place, json.dumps(known, indent=1) + "\n")
        return missing

    def _form_key(self) -> str:
        """What makes an exported form another one: the network, what the model takes and gives, and how it is made."""
        from importlib import metadata

        one = self.contract
        taken = (one.input_kind, one.outputs, one.min_frames, one.max_frames, one.as_norm)
        return _digest(self._sha, taken, str(self.options.calibration), metadata.version("voxport"))

    def _prove(self, missing: dict[str, str]) -> dict[str, Proof]:
        """What the gate says of each candidate; of unchanged files, on an unchanged machine, it is not asked again."""
        from voxport.export.inputs.corpus_samples import RealOptions
        from voxport.export.verification.accuracy import AccuracyOptions
        from voxport.export.verification.several import Judge

        options, place = self.options, self.options.folder / PROOFS
        known, most = {} if options.again else _read_json(place), self._threads[-1]
        found: dict[str, Proof] = {}
        judge: Judge | None = None
        for number, each in enumerate(CANDIDATES):
            self._progress(2 + number, 10, f"proving {each.name}")
            if each.form in missing:
                found[each.name] = Proof(each.name, False, None, None, None, None, missing[each.form])
                continue
            judged = (options.accuracy_data, options.accuracy_limit, options.max_drop, options.real)
            key = self._key(self._forms / each.form, each.name, most, *map(str, judged))
            if key in known:
                found[each.name] = Proof(**known[key])
                continue
            accuracy = None
            if options.accuracy_data is not None:
                accuracy = AccuracyOptions(options.accuracy_data, options.max_drop, options.accuracy_limit)
            judge = judge or Judge(options.checkpoint, RealOptions(options.real), accuracy)
            found[each.name] = _proof(judge, each, self._forms, most)
            known[key] = dataclasses.asdict(found[each.name])
            _write_text(place, json.dumps(known, indent=1) + "\n")
        return found

    def _measure(self, passed: Sequence[Candidate]) -> "LatencyReport":
        """By the rules of `bench latency`: fresh processes in rounds, after equal answers."""
        from voxport.benchmarks import BlockRule, LatencySettings, TruthSettings, measure_latency, write_report
        from voxport.benchmarks.latency.report import read_report

        options, place = self.options, self.options.folder / LATENCY
        names = {each.name for each in passed}
        key = self._key(*(self._forms / each.form for each in passed), *sorted(names), options)
        known = _read_json(options.folder / "measured.json")
        if known.get("key") == key and place.is_file() and not options.again:
            return read_report(place)
        forms = list(dict.fromkeys(each.form for each in passed))
        every = {*(one for form in forms for one in (form, f"{form} (openvino)", f"{form} (openvino_bf16)")), *NEVER}
        settings = LatencySettings(
            frames=options.frames,
            rounds=options.rounds,
            threads=self._threads[0],
            thread_counts=self._threads,
            control=False,
            rule=BlockRule.lasting(options.seconds, options.warmup),
            trace=options.trace,
            also=ALSO,
            leave_out=tuple(sorted(every - names)),
            truth=TruthSettings(limits=False),
        )
        report = measure_latency([self._forms / form for form in forms], options.checkpoint, settings, self._progress)
        write_report(report, place)
        _write_text(options.folder / "measured.json", json.dumps({"key": key}) + "\n")
        return report

    def _key(self, *parts: object) -> str:
        """What makes a result another one: files by their bytes, the machine, the voxport."""
        from voxport.runtime.storage.atomic import file_sha256

        plain = [file_sha256(each) if isinstance(each, Path) else each for each in parts]
        return _digest(*plain, self._sha, self.machine)

    def _write(self, report: TuneReport, chosen: Setting, measured: "LatencyReport") -> None:
        """The model and its settings, then the documents and the picture; the settings last but for what only tells."""
        from voxport.benchmarks.latency.pareto import draw_pareto
        from voxport.runtime.backends.tuned import FILE as SETTINGS
        from voxport.runtime.backends.tuned import Tuned
        from voxport.runtime.storage.atomic import file_sha256
        from voxport.runtime.storage.serialization import encode

        folder, runs = self.options.folder, chosen.candidate
        _copy(self._forms / runs.form, folder / MODEL)
        tuned = Tuned(
            model=MODEL,
            sha256=file_sha256(folder / MODEL),
            runtime=runs.runtime,
            precision=runs.precision,
            threads=chosen.threads,
            cpu=report.machine.cpu,
            why=report.finding,
        )
        _write_text(folder / SETTINGS, json.dumps(encode(tuned), indent=1, ensure_ascii=False) + "\n")
        _write_text(folder / FILE, as_json(report))
        draw_pareto(measured, folder / PICTURE, self.options.clock)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether the file is there, and as it was written."""
    from voxport.runtime.backends.formats import check_digest

    try:
        return check_digest(path)
    except VoxportError:
        return False


def _proof(judge: Any, each: Candidate, forms: Path, threads: int) -> Proof:
    """What the gate says; what is not to be had here is no candidate, and the reason is kept."""
    from voxport.runtime.errors import BackendError

    try:
        told = judge.prove(each.way(forms, threads))
    except BackendError as missing:
        return Proof(each.name, False, None, None, None, None, str(missing))
    worst = None if told.agreement is None else told.agreement.max_abs_score
    eager, own = (None, None) if told.accuracy is None else (told.accuracy.eager, told.accuracy.artefact)
    problem = None if told.passed else told.failures[0]
    return Proof(each.name, told.passed, worst, told.tolerance.score, eager, own, problem)


def _copy(source: Path, target: Path) -> None:
    from voxport.runtime.storage.atomic import writing

    with writing(target) as part:
        shutil.copyfile(source, part)


def _write_text(path: Path, text: str) -> None:
    from voxport.runtime.storage.atomic import write_text

    write_text(path, text)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
