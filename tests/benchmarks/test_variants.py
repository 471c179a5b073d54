"""Further back ends: who takes part, what is not to be had, and what the rows say beside speed."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest

from tests.benchmarks.conftest import FAKE, QUICK, Folder, write_models
from tests.runtime.tiny_models import FRONTEND
from voxport.benchmarks.backends.registry import KINDS, VARIANTS, chosen, import_libraries, open_backend
from voxport.benchmarks.core.protocol import Cold, Colded
from voxport.benchmarks.core.records import Accuracy, ColdSample, Floor, Limits, Probe, ReportError, Served, Work
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec, LatencySettings, TruthSettings
from voxport.benchmarks.latency.candidates import Subject, gather
from voxport.benchmarks.latency.extra_metrics import cold_starts
from voxport.benchmarks.latency.pareto import draw_pareto, frontier, looks_of, truth_of
from voxport.benchmarks.latency.report import LatencyReport, Row
from voxport.benchmarks.latency.runner import measure_latency
from voxport.benchmarks.latency.session import Session, Steps
from voxport.benchmarks.latency.summary import Beside, make_rows
from voxport.benchmarks.system.resources import Energy, Memory
from voxport.benchmarks.worker.client import WorkerError, WorkerProcess
from voxport.cli.bench.latency_options import ALSO
from voxport.runtime.errors import BackendError, VoxportError
from voxport.runtime.privacy import import_openvino


def test_the_command_offers_what_the_room_has() -> None:
    assert (*VARIANTS, "all") == ALSO
    assert chosen(("all",)) == VARIANTS
    with pytest.raises(VoxportError, match=r"no back end is called abacus; there are plain_onnx"):
        chosen(("abacus",))
    assert {variant.kind for variant in VARIANTS.values()} <= set(KINDS)


def test_variants_follow_the_models_and_none_is_there_twice(models: Folder) -> None:
    paths, checkpoint = models("m.onnx")
    subjects = gather(paths, checkpoint, LatencySettings(also=("all",), control=False))
    assert [(one.spec.name, one.spec.kind, one.spec.device) for one in subjects] == [
        ("eager", "eager", "cpu"),
        ("m.onnx", "onnx", "cpu"),
        ("plain_onnx", "plain_onnx", "cpu"),
        ("torchscript", "torchscript", "cpu"),
        ("compile", "compile", "cpu"),
        ("aoti", "aoti", "cpu"),
        ("eager_cuda", "eager", "cuda"),
        ("eager_graphs", "eager_graphs", "cuda"),
        ("compile_graphs", "compile", "cuda"),
        ("m.onnx (cuda)", "onnx", "cuda"),
        ("m.onnx (graphs)", "onnx_graphs", "cuda"),
        ("m.onnx (tensorrt)", "onnx", "tensorrt"),
        ("m.onnx (rtx)", "artefact", "rtx"),
        ("m.onnx (openvino)", "openvino", "cpu"),
        ("m.onnx (openvino_bf16)", "openvino", "cpu"),
    ]
    assert [one.spec.name for one in subjects if not one.spec.optional] == ["eager", "m.onnx"]
    on_gpu = gather(paths, checkpoint, LatencySettings(also=("all",), device="cuda", control=False))
    names = [one.spec.name for one in on_gpu]
    assert "eager_cpu" in names
    assert "m.onnx (cpu)" in names
    assert not {"eager_cuda", "m.onnx (cuda)"} & set(names)


def test_a_missing_package_is_named_with_its_remedy() -> None:
    spec = BackendSpec("m (openvino)", "openvino", "m.onnx", "candidate", "features", "cpu", 1)
    try:
        import_openvino()
    except ImportError:
        for attempt in (open_backend, import_libraries):
            with pytest.raises(
                BackendError,
                match=r"openvino.* is not installed.* pip install .voxport.openvino",
            ):
                attempt(spec)
    with pytest.raises(VoxportError, match=r"unknown back end kind 'abacus'"):
        open_backend(dataclasses.replace(spec, kind="abacus"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> LatencyReport:
    """A whole run with back ends that are not to be had here, a trace, ceilings, and cold starts."""
    folder = tmp_path_factory.mktemp("variants")
    checkpoint = write_models([folder / "right.onnx"], folder / "model.npz")
    (folder / "lengths.txt").write_text("12 30 44 58")
    settings = LatencySettings(
        rounds=1,
        rule=QUICK,
        control=False,
        timeout=240,
        also=("onnx_openvino", "eager_cuda", "onnx_cuda"),
        trace=str(folder / "lengths.txt"),
    )
    return measure_latency([folder / "right.onnx"], checkpoint, settings, command=FAKE)


def test_what_is_not_to_be_had_is_shown_with_its_reason(told: LatencyReport) -> None:
    assert [name for name, _ in told.missing] == ["right.onnx (openvino)", "eager_cuda", "right.onnx (cuda)"]
    assert all(reason.endswith("needs what this machine has not") for _, reason in told.missing)
    assert {row.backend for row in told.rows} == {"eager", "right.onnx"}
    assert told.not_compared == ("right.onnx",)  # one round has no interval; the others are nobody's duty
    assert all(failure.stage == "open" for failure in told.failures)


def test_a_trace_alone_is_timed_and_written_down(told: LatencyReport) -> None:
    assert told.cells == (Cell(1, 58, trace=True),)
    assert set(told.trace) == {12, 30, 44, 58}
    assert any("drawn from 4 lengths of lengths.txt, 12 to 58 frames" in note for note in told.notes)
    check = told.answers[0]
    assert check.same
    (block,) = (block for block in told.blocks if block.backend == "right.onnx")
    assert block.memory is not None
    assert block.memory.resident is None or block.memory.resident > 1 << 20
    assert block.energy is not None
    assert (block.energy.joules is None) == block.energy.source.startswith(("no energy", "the energy"))


class FakeWorker:
    """Answers a cold start with the times that its number tells; the third of "m" crashes."""

    def __init__(self, number: int) -> None:
        self.number, self.started = number, 1_000

    def __enter__(self) -> "FakeWorker":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def ask(self, request: Cold, answer: type[Colded], timeout: float) -> Colded:
        if request.backend.name == "m" and self.number == 5:
            raise WorkerError("ended with exit code 7")
        ms = 1_000_000 * (1 + self.number // 2)
        return Colded(ColdSample(0, ms, 2 * ms, 3 * ms, 4 * ms), ready=1_000 + 5 * ms)


def cold_session(count: int) -> Session:
    subjects = {
        name: Subject(BackendSpec(name, "eager", "", cast(Any, role), "features", "cpu", 1), "", 0)
        for name, role in (("eager", "baseline"), ("twin", "control"), ("m", "candidate"))
    }
    settings = LatencySettings(truth=TruthSettings(cold_starts=count))
    session = Session(
        subjects,
        (Cell(1, 10), Cell(4, 10), Cell(1, 20)),
        InputSpec(FRONTEND, 1),
        settings,
        Steps(lambda *_: None),
        FAKE,
    )
    numbers = iter(range(1000))
    session.start = lambda threads=None: FakeWorker(next(numbers))  # type: ignore[method-assign, assignment, return-value]
    return session


def test_cold_starts_are_medians_of_fresh_processes() -> None:
    session = cold_session(11)
    eager, model = cold_starts(session)
    assert (eager.backend, model.backend) == ("eager", "m")  # not the control
    assert (eager.cell, eager.new_cell) == (Cell(1, 10), Cell(1, 20))
    assert len(eager.samples) == 11
    estimates = (eager.process_ms, eager.imports_ms, eager.load_ms, eager.first_ms, eager.new_shape_ms, eager.total_ms)
    assert [one.median / eager.imports_ms.median for one in estimates if one] == [5.0, 1.0, 2.0, 3.0, 4.0, 11.0]
    assert eager.imports_ms.low is not None
    assert eager.imports_ms.low < eager.imports_ms.median
    assert eager.samples[0].process == 5_000_000  # from the start of the process until it could be asked
    assert len(model.samples) == 2  # what crashed is not tried again, and told
    assert [(one.backend, one.stage, one.reason) for one in session.failures] == [
        ("m", "cold", "ended with exit code 7")
    ]


def test_a_run_without_cold_starts_has_none() -> None:
    assert cold_starts(cold_session(0)) == ()


def rows_of(report: LatencyReport, beside: Beside) -> tuple[Row, ...]:
    specs = [item.spec for item in report.backends]
    return make_rows(specs, report.cells, report.blocks, report.answers, 1, 0.03, beside)


def test_who_lost_accuracy_is_shown_and_not_ranked(measured: LatencyReport) -> None:
    lost = Accuracy("right.onnx", 100, 90, 0.9, 9.0, 0.2, False, "")
    kept = Accuracy("eager", 100, 99, 0.99, 0.0, 0.2, True, "")
    rows = rows_of(measured, Beside((lost, kept)))
    right = [row for row in rows if row.backend == "right.onnx"]
    assert {(row.verdict, row.rank, row.accuracy) for row in right} == {("less accurate", None, 0.9)}
    for row in rows_of(measured, Beside()):
        ranked = row.backend in ("eager", "right.onnx")  # neither the control nor the wrong answers
        assert (row.rank is not None) == ranked
    for cell in measured.cells:
        fair = sorted((row for row in measured.rows if row.cell == cell and row.rank), key=lambda row: row.rank or 0)
        assert [row.rank for row in fair] == [1, 2]
        assert (fair[0].p50_ms or 0) <= (fair[1].p50_ms or 0)


def test_memory_energy_size_and_share_reach_the_row(measured: LatencyReport) -> None:
    cell = measured.cells[0]
    blocks = tuple(
        dataclasses.replace(
            block,
            memory=Memory(100 + block.round, 50, None),
            energy=Energy(2.0 * len(block.wall_ns) * 2, "counted"),  # 2 J for each of two utterances
            device_ns=(3_000_000,) * 7,
        )
        for block in measured.blocks
    )
    floors = (Floor("right.onnx", cell, 1.0, 0.001, 0.0, 0.001, 10.0, 1.0),)
    limits = Limits("cpu", 1, 8.0, None, (Work("right.onnx", cell, (), 0, 0, 0, 0),), floors)
    rows = rows_of(dataclasses.replace(measured, blocks=blocks), Beside((), limits, {"right.onnx": 1234}))
    row = next(row for row in rows if row.backend == "right.onnx" and row.cell == cell)
    assert (row.resident_bytes, row.proportional_bytes, row.device_bytes, row.size_bytes) == (101, 50, None, 1234)
    assert row.joules_per_utterance == pytest.approx(2.0)
    assert row.device_p50_ms == 3.0
    assert row.share == pytest.approx(0.001 / (row.p50_ms or 1.0))
    other = next(row for row in rows if row.backend == "right.onnx" and row.cell != cell)
    assert other.share is None


def test_servers_are_compared_by_rate(measured: LatencyReport) -> None:
    def served(rate: float) -> Served:
        return Served(rate, 50.0, (Probe(rate, 500, 0, 40.0, held=True),))

    rates = {"eager": 40.0, "eager (control)": 40.0, "right.onnx": 60.0, "wrong.onnx": 0.0}
    blocks = [dataclasses.replace(block, served=served(rates[block.backend])) for block in measured.blocks]
    rows = rows_of(dataclasses.replace(measured, blocks=tuple(blocks)), Beside())
    for row in rows:
        assert row.queries_per_second == pytest.approx(rates[row.backend])
        assert row.share is None
    right = next(row for row in rows if row.backend == "right.onnx")
    assert right.speed_up is not None
    assert right.speed_up.ratio == pytest.approx(1.5)
    assert right.rank == 1
    wrong = next(row for row in rows if row.backend == "wrong.onnx")
    assert wrong.speed_up is None  # it held no rate at all
    none = [dataclasses.replace(block, served=served(0.0)) for block in measured.blocks]
    assert all(row.rank is None for row in rows_of(dataclasses.replace(measured, blocks=tuple(none)), Beside()))


def test_the_frontier_is_who_nobody_beats_in_both(measured: LatencyReport) -> None:
    base = next(row for row in measured.rows if row.backend == "right.onnx")
    points = {"a": (1.0, 0.90), "b": (2.0, 0.95), "c": (3.0, 0.93), "d": (4.0, 0.99), "e": (0.5, 0.99)}
    rows = [
        dataclasses.replace(base, backend=name, p50_ms=time, accuracy=right, verdict="undecided")
        for name, (time, right) in points.items()
    ]
    rows[-1] = dataclasses.replace(rows[-1], verdict="less accurate")
    assert [row.backend for row in frontier(rows)] == ["a", "b", "d"]
    assert truth_of(base) == -(base.answer.max_abs or 0) if base.answer else False


def test_candidates_are_measured_with_several_numbers_of_threads(
    models: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, checkpoint = models("a.onnx")
    settings = LatencySettings(frames=(10,), rounds=1, control=False, thread_counts=(1, 2), rule=QUICK, timeout=60)
    started: list[int | None] = []
    start = Session.start

    def counted(session: Session, threads: int | None = None) -> WorkerProcess:
        started.append(threads)
        return start(session, threads)

    monkeypatch.setattr(Session, "start", counted)
    report = measure_latency(paths, checkpoint, settings, command=FAKE)
    assert {row.backend for row in report.rows} == {"eager", "a.onnx, 1 thread", "a.onnx, 2 threads"}
    assert {item.spec.name: item.spec.threads for item in report.backends} == {
        "eager": 1,
        "a.onnx, 1 thread": 1,
        "a.onnx, 2 threads": 2,
    }
    assert started.count(2) == 2, "its answers, and its one round"
    assert settings.threads_told == "threads as named, eager PyTorch with 1 thread"
    with pytest.raises(ValueError, match="must be positive"):
        LatencySettings(thread_counts=(0,))
    mpl, path = pytest.importorskip("matplotlib"), tmp_path / "pareto.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw_pareto(report, path, "cpu")
    text = path.read_text(encoding="utf-8")
    for expected in (
        "a.onnx, 1 thread",
        "a.onnx, 2 threads",
        "processor time of a call",
        "eager PyTorch with 1 thread",
    ):
        assert expected in text
    assert len({colour for colour, _ in looks_of(report, [row.backend for row in report.rows]).values()}) == 2


def test_a_picture_of_truth_against_speed(measured: LatencyReport, tmp_path: Path) -> None:
    mpl = pytest.importorskip("matplotlib")
    path = tmp_path / "pareto.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw_pareto(measured, path)
    text = path.read_text(encoding="utf-8")
    for expected in ("max |Δscore|", "right.onnx", "wrong.onnx", "batch 2 × 10 frames", "not ranked"):
        assert expected in text
    assert "eager (control)" not in text
    with pytest.raises(ReportError, match=r"nothing to draw"):
        draw_pareto(dataclasses.replace(measured, rows=()), path)
