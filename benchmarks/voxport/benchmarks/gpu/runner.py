"""`voxport bench gpu`: every step in a process of its own, within a budget, written down after each."""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from voxport.benchmarks.core.writing import read_json, write_json
from voxport.benchmarks.gpu.report import (
    Ceilings,
    GpuBackend,
    GpuBlock,
    GpuParity,
    GpuReport,
    GpuSettings,
    GpuTraining,
    Status,
    Step,
)
from voxport.benchmarks.gpu.summary import make_notes, make_rows
from voxport.benchmarks.gpu.variants import Variant, variants
from voxport.benchmarks.system.machine import Fact, describe_machine
from voxport.benchmarks.training.report import Phases, TrainSettings
from voxport.benchmarks.worker.job import JobError, run_job
from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import decode, encode

Progress = Callable[[str], None]
Run = Callable[..., Any]  # run_job's signature; tests bring their own

DOCUMENT = "gpu.json"
_STEPS = "voxport.benchmarks.gpu.steps:"
_LEAST = 12.0  # seconds: PyTorch alone needs about as long to start
_RESERVE = 4.0  # seconds of the budget that are kept to write and print
_AGAIN = 60.0  # seconds: what took longer than this once is not run again for another round

# What training is measured in, the most telling first.
TRAININGS: tuple[tuple[str, str, bool, int], ...] = (
    ("fp32, batch 32", "fp32", False, 32),
    ("bf16, batch 32", "bf16", False, 32),
    ("bf16, batch 128", "bf16", False, 128),
    ("tf32, batch 32", "tf32", False, 32),
    ("bf16, batch 128, compiled", "bf16", True, 128),
)


def measure_gpu(
    settings: GpuSettings,
    folder: Path,
    resume: bool = False,
    progress: Progress | None = None,
    run: Run = run_job,
    clock: Callable[[], float] = time.monotonic,
) -> GpuReport:
    """Measure everything that `settings` name into `folder`, and write `folder`/gpu.json after every step.

    Raises:
        VoxportError: the device, the checkpoint or the folder is not usable; whatever else fails is in the report.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="voxport-gpu-") as built:
        request = {"settings": encode(settings), "folder": str(folder), "built": built}
        report = _begin(settings, folder, resume)
        return _Measurement(settings, folder, report, request, progress or _silent, run, clock).measure()


def _silent(what: str) -> None:
    return None


def _begin(settings: GpuSettings, folder: Path, resume: bool) -> GpuReport:
    path = folder / DOCUMENT
    if not path.exists():
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return GpuReport(created, settings, describe_machine())
    if not resume:
        raise VoxportError(f"{path}: exists; give another --out, or --resume to go on with what it lacks")
    report = read_gpu(path)
    same = dataclasses.replace(report.settings, budget_s=settings.budget_s, only=settings.only, rounds=settings.rounds)
    if same != settings:
        raise VoxportError(f"{path}: was measured with other settings; give another --out")
    # What failed or was left out is tried again.
    kept = tuple(step for step in report.steps if step.status == "ok")
    whole = {each.name for each in report.backends if each.status == "ok"}
    done = {step.name for step in kept}
    return dataclasses.replace(
        report,
        settings=settings,
        steps=kept,
        finished=False,
        parity=tuple(each for each in report.parity if each.backend in whole),
        blocks=tuple(each for each in report.blocks if each.backend in whole and _turn(each) in done),
        backends=tuple(each for each in report.backends if each.status == "ok"),
        training=tuple(each for each in report.training if each.status == "ok"),
    )


def _turn(block: GpuBlock) -> str:
    """The name of the step that timed it."""
    return round_name(block.backend, block.round)


def round_name(backend: str, number: int) -> str:
    """The step of a back end's round; rounds count from 0."""
    return backend if number == 0 else f"{backend}, round {number + 1}"


def read_gpu(path: Path) -> GpuReport:
    """Read a document of `voxport bench gpu`. Raises ReportError where it is none."""
    return read_json(path, GpuReport, "voxport bench gpu --out FOLDER")


class _Measurement:
    """One measurement under way."""

    def __init__(
        self,
        settings: GpuSettings,
        folder: Path,
        report: GpuReport,
        request: dict[str, Any],
        progress: Progress,
        run: Run,
        clock: Callable[[], float],
    ) -> None:
        self.settings, self.folder, self.report = settings, folder, report
        self.progress, self.run, self.clock = progress, run, clock
        self.end = clock() + settings.budget_s - _RESERVE
        self.request = request  # of every step: what is asked, where it is written, and where what is built lies

    def measure(self) -> GpuReport:
        """All steps, then further rounds for as long as the budget lasts."""
        plain = self._prepare()
        ways = variants(self.settings, plain)
        for variant in (each for each in ways if not each.costly):
            self._variant(variant, 0)
        self._train(TRAININGS[:2])
        for variant in (each for each in ways if each.costly):
            self._variant(variant, 0)
        self._train(TRAININGS[2:])
        self._more_rounds(ways)
        self._keep(finished=True)
        return self.report

    # --- steps ------------------------------------------------------------------------------------

    def _prepare(self) -> str | None:
        """What every back end needs: an error here ends the run. Returns the plain ONNX file, if one was made."""
        environment = self._must("environment", "environment_step")
        if environment is not None:
            self._keep(environment=tuple(Fact(name, value) for name, value in environment.items()))
        told = self._must("network", "network_step")
        if told is not None:
            plain = told["plain"]
            notes = Fact("plain ONNX export", plain["how"])
            self._keep(
                network=told["network"],
                parameters=told["parameters"],
                environment=(*(each for each in self.report.environment if each.name != notes.name), notes),
            )
        if not self._done("ceilings"):
            found = self._step("ceilings", "ceilings_step", self.request)
            if found is not None:
                self._keep(ceilings=decode(Ceilings, found, "ceilings"))
        file = self.folder / "plain.onnx"
        return str(file) if file.is_file() else None

    def _must(self, name: str, function: str) -> Any:
        """A step without which there is no other. Raises VoxportError with its reason."""
        if self._done(name):
            return None
        answer = self._step(name, function, self.request)
        last = self.report.steps[-1]
        if last.status != "ok":
            raise VoxportError(f"{name}: {last.reason}")
        return answer

    def _done(self, name: str) -> bool:
        return any(step.name == name and step.status == "ok" for step in self.report.steps)

    def _step(self, name: str, function: str, request: dict[str, Any], where: str = _STEPS) -> Any:
        """The step's answer; None where it failed or there is no time left, which is then in the report."""
        left = self.end - self.clock()
        if left < _LEAST:
            self._log(Step(name, "skipped", 0.0, f"the budget of {self.settings.budget_s:.0f} s was spent"))
            return None
        self.progress(f"{name} ({left:.0f} s left)")
        start = self.clock()
        try:
            answer = self.run(where + function, request, min(left, self.settings.step_s), self.settings.threads)
        except JobError as problem:
            self._log(Step(name, "failed", self.clock() - start, str(problem)))
            return None
        self._log(Step(name, "ok", self.clock() - start))
        return answer

    def _log(self, step: Step) -> None:
        self._keep(steps=(*self.report.steps, step))

    def _keep(self, **changes: Any) -> None:
        """Change the report, work its rows out again, and write it."""
        report = dataclasses.replace(self.report, **changes)
        report = dataclasses.replace(report, rows=make_rows(report))
        self.report = dataclasses.replace(report, notes=make_notes(report))
        write_json(encode(self.report), self.folder / DOCUMENT)

    # --- back ends --------------------------------------------------------------------------------

    def _variant(self, variant: Variant, number: int) -> None:
        name = round_name(variant.name, number)
        if self._done(name):
            return
        unfit = variant.unfit(self.settings.device)
        if unfit:
            self._log(Step(name, "skipped", 0.0, unfit))
            backend = GpuBackend(name, variant.spec.precision, variant.how, "skipped", unfit)
            self._keep(backends=(*self.report.backends, backend))
            return
        with tempfile.TemporaryDirectory(prefix="voxport-gpu-") as folder:
            partial = Path(folder, "partial.jsonl")
            request = dict(self.request, variant=encode(variant), round=number, partial=str(partial))
            answer = self._step(name, "variant_step", request)
            parity, blocks = _said(partial)
        status: Status = self.report.steps[-1].status
        changes: dict[str, Any] = {"blocks": (*self.report.blocks, *blocks)}
        if number == 0:
            changes["parity"] = (*self.report.parity, *parity)
            told = answer or {}
            left_out = "; ".join(told.get("left_out", ()))
            backend = GpuBackend(
                name=variant.name,
                precision=variant.spec.precision,
                how=variant.how,
                status=status,
                reason=self.report.steps[-1].reason or left_out,
                build_seconds=told.get("build_seconds"),
                device_bytes=told.get("device_bytes"),
                facts=tuple(Fact(each["name"], each["value"]) for each in told.get("facts", ())),
            )
            changes["backends"] = (*self.report.backends, backend)
        self._keep(**changes)

    def _more_rounds(self, ways: tuple[Variant, ...]) -> None:
        """Rounds 2, 3, … of what went well and starts quickly, in an order drawn for each."""
        seconds = {step.name: step.seconds for step in self.report.steps if step.status == "ok"}
        again = [each for each in ways if each.name in seconds and seconds[each.name] < _AGAIN]
        rng = np.random.default_rng(self.settings.seed)
        for number in range(1, self.settings.rounds):
            expected = sum(seconds[each.name] for each in again)
            if self.end - self.clock() < 1.1 * expected + _LEAST:  # half a round would pair unevenly
                return
            for position in rng.permutation(len(again)):
                self._variant(again[position], number)

    # --- training ---------------------------------------------------------------------------------

    def _train(self, trainings: tuple[tuple[str, str, bool, int], ...]) -> None:
        for label, precision, compiled, batch in trainings:
            name = f"training {label}"
            if not self._done(name) and not self.settings.only:
                self._keep(training=(*self.report.training, self._training(name, precision, compiled, batch)))

    def _training(self, name: str, precision: str, compiled: bool, batch: int) -> GpuTraining:
        settings = self.settings
        if settings.device == "cpu" and precision == "tf32":
            return GpuTraining(name, "skipped", "tf32 needs a GPU")
        try:
            asked = TrainSettings(
                recipe=settings.recipe,
                batch_size=batch,
                precision=precision,  # type: ignore[arg-type]
                compile=compiled,
                device=settings.device,
                threads=settings.threads,
                rounds=1,
                seconds=settings.train_seconds,
                warmup=min(2.0, settings.train_seconds / 2),
            )
        except ValueError as problem:
            return GpuTraining(name, "failed", str(problem))
        request = {"settings": encode(asked), "round": 0}
        told = self._step(name, "train_round", request, "voxport.benchmarks.training.round:")
        last = self.report.steps[-1]
        if told is None:
            return GpuTraining(name, last.status, last.reason)
        found = told["round"]
        rate = found["steps"] / found["seconds"]
        return GpuTraining(
            name,
            "ok",
            steps_per_second=rate,
            gflop=found["gflop"],
            ceiling=found["ceiling"],
            share=rate * found["gflop"] / found["ceiling"],
            phases=decode(Phases, found["phases"], name),
            device_bytes=found["device_bytes"],
        )


def _said(path: Path) -> tuple[tuple[GpuParity, ...], tuple[GpuBlock, ...]]:
    """What a back end's process wrote before it ended, in whatever way; a last line may be cut off."""
    parity, blocks = [], []
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for line in lines:
        try:
            said = json.loads(line)
        except ValueError:
            break
        if "parity" in said:
            parity.append(decode(GpuParity, said["parity"], "parity"))
        if "block" in said:
            blocks.append(decode(GpuBlock, said["block"], "block"))
    return tuple(parity), tuple(blocks)
