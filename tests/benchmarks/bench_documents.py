"""Benchmark documents made by hand, for tests of what reads them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tests.packaging_tools import ROOT
from voxport.benchmarks.core.records import Served
from voxport.benchmarks.core.timing import Warmup
from voxport.benchmarks.core.writing import write_json
from voxport.benchmarks.documents import read_document
from voxport.benchmarks.gpu.report import (
    Ceilings,
    GpuBackend,
    GpuBlock,
    GpuParity,
    GpuReport,
    GpuSettings,
    GpuTraining,
    Step,
)
from voxport.benchmarks.gpu.summary import make_notes, make_rows
from voxport.benchmarks.latency.report import LatencyReport
from voxport.benchmarks.latency.summary import make_rows as latency_rows
from voxport.benchmarks.scaling.points import difference, with_growth
from voxport.benchmarks.scaling.report import CURVES, Curve, Point, ScaleReport, ScaleSettings, Series
from voxport.benchmarks.system.machine import Fact, Machine
from voxport.benchmarks.training.report import Phases, TrainReport, TrainRound, TrainSettings, rate_of
from voxport.runtime.storage.serialization import encode

MEASURED = ROOT / "docs" / "results" / "2026-11-23-first-whole-run" / "korean240-latency.json"
MODEL = "model.onnx"  # its candidate
CREATED = "2026-11-23T08:00:00+00:00"
MACHINE = Machine(
    "Linux", "CPython 3.12", "a processor", 2, 2, None, None, None, True, 8_000_000_000, 7_000_000_000, None, 0.1, ()
)


def latency() -> LatencyReport:
    """A real measurement, which is part of the repository."""
    found = read_document(MEASURED)
    assert isinstance(found, LatencyReport)
    return found


def served(report: LatencyReport, rates: Sequence[float]) -> LatencyReport:
    """The same run as a server's, in whose rounds MODEL held these rates; everybody else held 20 a second."""
    settings = dataclasses.replace(report.settings, scenario="server")
    blocks = tuple(
        dataclasses.replace(block, served=Served(rates[block.round] if block.backend == MODEL else 20.0, 50.0, ()))
        for block in report.blocks
    )
    report = dataclasses.replace(report, settings=settings, blocks=blocks)
    specs = [item.spec for item in report.backends]
    rows = latency_rows(specs, report.cells, blocks, report.answers, 1, 0.03)
    return dataclasses.replace(report, rows=rows)


def train(rates: tuple[float, ...] = (5.0, 5.1, 4.9, 5.05, 4.95)) -> TrainReport:
    rounds = tuple(
        TrainRound(
            steps=20,
            seconds=20 / rate,
            warmup_steps=3,
            first_step=0.9,
            phases=Phases(0.001, 0.06, 0.12, 0.02),
            gflop=10.0,
            ceiling=100.0,
            ceiling_note="the best product",
            resident=700_000_000,
            device_bytes=None,
            loss=3.0,
        )
        for rate in rates
    )
    share = rate_of([each.rate * each.gflop / each.ceiling for each in rounds])
    rate = rate_of([each.rate for each in rounds])
    versions = (Fact("torch", "2.11.0"),)
    return TrainReport(
        CREATED, TrainSettings(), MACHINE, 0.2, 3_000_000, 600, versions, rate, share, rounds, (), ("x",)
    )


def scale() -> ScaleReport:
    def series(name: str, power: float) -> Series:
        points = tuple(Point(n, 0.01 * n**power, (0.01 * n**power,) * 3) for n in (10, 20, 40, 80, 160))
        return with_growth(Series(name, points, ended="a call took long"))

    curves = []
    for name in CURVES:
        whole, part = series("whole network", 1.9), series("attention alone", 1.5)
        made = (whole, part, difference("all but attention", whole, part))
        curves.append(Curve(name, f"curve {name}", "things", "a call", made, ("a note",)))
    curves.append(Curve("chunks", "broken", "seconds", "a call", failure="was ended by SIGKILL"))
    return ScaleReport(CREATED, ScaleSettings(), MACHINE, None, "a model", tuple(curves), ("a note",))


def gpu() -> GpuReport:
    settings = GpuSettings(device="cpu", batches=(1, 4), frames=(50,))
    blocks = tuple(
        GpuBlock(
            number, name, cell, Warmup(True, 9, 0.1, 0.01, 5_000_000), (nanoseconds,) * 50, (nanoseconds // 2,) * 5
        )
        for number in range(5)
        for name, nanoseconds in (("eager fp32", 2_000_000 + number), ("eager bf16", 1_000_000 + number))
        for cell in settings.cells
    )
    parity = tuple(
        GpuParity(name, cell, 1e-5, 1e-6, 1.0, 1e-4, same=name == "eager fp32")
        for name in ("eager fp32", "eager bf16")
        for cell in settings.cells
    )
    backends = (
        GpuBackend("eager fp32", "fp32", "PyTorch, as it is", "ok", "", 0.5, 10_000_000, (Fact("torch", "2.11"),)),
        GpuBackend("eager bf16", "bf16", "PyTorch, as it is", "ok"),
        GpuBackend("compile fp32", "fp32", "torch.compile, default", "failed", "it crashed"),
    )
    training = (
        GpuTraining("training fp32", "ok", "", 9.0, 20.0, 400.0, 0.45, Phases(0.01, 0.02, 0.03, 0.01), 1_000_000),
        GpuTraining("training bf16", "skipped", "the budget was spent"),
    )
    report = GpuReport(
        created=CREATED,
        settings=settings,
        machine=MACHINE,
        network="fresh",
        parameters=100,
        environment=(Fact("torch", "2.11"), Fact("providers", "CPUExecutionProvider")),
        ceilings=Ceilings((Fact("fp32", "100.0"),), 20.0, None, (Fact("1 × 50", "0.1"),)),
        backends=backends,
        parity=parity,
        blocks=blocks,
        training=training,
        steps=(Step("eager fp32", "ok", 2.0), Step("compile fp32", "failed", 9.0, "it crashed")),
        finished=True,
    )
    report = dataclasses.replace(report, rows=make_rows(report))
    return dataclasses.replace(report, notes=make_notes(report))


def write(document: object, path: Path) -> Path:
    write_json(encode(document), path)
    return path
