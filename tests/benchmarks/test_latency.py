"""Whole measurements with fake workers: what is measured, compared, kept, and said about failures."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.conftest import FAKE, QUICK, Folder, write_models
from tests.runtime.tiny_models import LABELS
from voxport.benchmarks.core.records import ReportError
from voxport.benchmarks.core.settings import Cell, LatencySettings, TruthSettings, schedule
from voxport.benchmarks.latency.report import BackendReport, LatencyReport, Row, read_report, write_report
from voxport.benchmarks.latency.runner import measure_latency
from voxport.benchmarks.latency.summary import Beside, make_notes, make_rows
from voxport.benchmarks.stats.intervals import decide, speed_up
from voxport.runtime.errors import VoxportError

BACKENDS = ("eager", "eager (control)", "right.onnx", "wrong.onnx")
ROUNDS = 3
CELLS = (Cell(2, 10), Cell(2, 50))
BARE = TruthSettings(limits=False)  # which take seconds; `measured` has them
SETTINGS = LatencySettings(frames=(10,), rounds=1, rule=QUICK, timeout=240, control=False, truth=BARE)


def test_every_backend_was_timed_at_every_cell_in_every_round(measured: LatencyReport) -> None:
    assert measured.cells == CELLS
    assert [(row.cell, row.backend) for row in measured.rows] == [(cell, name) for cell in CELLS for name in BACKENDS]
    assert len(measured.blocks) == ROUNDS * len(CELLS) * len(BACKENDS)
    assert all(row.rounds == ROUNDS for row in measured.rows)
    assert not measured.failures


def test_blocks_ran_one_after_another_in_the_drawn_order(measured: LatencyReport) -> None:
    turns = schedule(BACKENDS, CELLS, ROUNDS, measured.settings.seed)
    wanted = [(turn.round, turn.backend, cell) for turn in turns for cell in turn.cells]
    assert [(block.round, block.backend, block.cell) for block in measured.blocks] == wanted
    ends = [block.started + sum(block.wall_ns) / 1e9 for block in measured.blocks]
    assert all(end <= block.started for end, block in zip(ends, measured.blocks[1:], strict=False))


def test_all_backends_had_the_same_inputs(measured: LatencyReport) -> None:
    for cell in CELLS:
        assert len({block.inputs_digest for block in measured.blocks if block.cell == cell}) == 1


def test_rows_are_what_numpy_makes_of_the_raw_samples(measured: LatencyReport) -> None:
    row = next(row for row in measured.rows if row.backend == "right.onnx" and row.cell == CELLS[0])
    blocks = {
        name: [block for block in measured.blocks if block.backend == name and block.cell == CELLS[0]]
        for name in ("eager", "right.onnx")
    }
    wall = np.concatenate([block.wall_ns for block in blocks["right.onnx"]]) / 1e6
    assert row.samples == wall.size > 44
    assert row.p50_ms == pytest.approx(np.percentile(wall, 50))
    assert row.p90_ms == pytest.approx(np.percentile(wall, 90))
    assert row.max_ms == wall.max()
    assert row.utterances_per_second == pytest.approx(2 * wall.size / (wall.sum() / 1e3))
    assert row.real_time_factor == pytest.approx(np.median(wall) / 1e3 / (2 * 10 * 0.01))
    medians = {name: {block.round: np.median(block.wall_ns) for block in found} for name, found in blocks.items()}
    ratios = [medians["eager"][number] / medians["right.onnx"][number] for number in range(ROUNDS)]
    assert row.speed_up is not None
    assert row.speed_up.ratio == pytest.approx(np.exp(np.mean(np.log(ratios))))
    assert row.verdict == decide(row.speed_up)


def test_too_few_calls_for_a_percentile_are_none(measured: LatencyReport) -> None:
    blocks = [
        dataclasses.replace(block, wall_ns=block.wall_ns[:8], cpu_ns=block.cpu_ns[:8]) for block in measured.blocks
    ]
    specs = [item.spec for item in measured.backends]
    rows = make_rows(specs, measured.cells, blocks, measured.answers, 1, 0.03)
    assert {row.samples for row in rows} == {8 * ROUNDS}
    assert all(row.p50_ms is not None and row.p90_ms is None and row.p99_ms is None for row in rows)


def test_the_speed_up_recomputed_from_a_known_slowdown(measured: LatencyReport) -> None:
    """Blocks whose times are the baseline's, twice as long: exactly half as fast, in every round."""
    own = [block for block in measured.blocks if block.backend == "eager"]
    slow = [
        dataclasses.replace(block, backend="right.onnx", wall_ns=tuple(2 * ns for ns in block.wall_ns)) for block in own
    ]
    specs = [item.spec for item in measured.backends]
    rows = make_rows(specs, measured.cells, [*own, *slow], measured.answers, 1, 0.03)
    ratios = [row.speed_up.ratio for row in rows if row.backend == "right.onnx" and row.speed_up]
    assert ratios == pytest.approx([0.5, 0.5])


def test_only_rounds_that_both_have_are_paired(measured: LatencyReport) -> None:
    blocks = [block for block in measured.blocks if block.backend != "right.onnx" or block.round in (0, 2)]
    specs = [item.spec for item in measured.backends]
    rows = make_rows(specs, measured.cells, blocks, measured.answers, 1, 0.03)
    row = next(row for row in rows if row.backend == "right.onnx")
    assert row.speed_up is not None
    assert (row.rounds, row.speed_up.rounds, row.verdict) == (2, 2, "undecided")


def test_the_control_runs_the_same_thing_under_another_name(measured: LatencyReport) -> None:
    baseline, control = (next(b for b in measured.backends if b.spec.name == name) for name in BACKENDS[:2])
    assert (baseline.spec.role, control.spec.role) == ("baseline", "control")
    assert dataclasses.replace(control.spec, name="eager", role="baseline") == baseline.spec
    row = next(row for row in measured.rows if row.backend == control.spec.name)
    assert row.speed_up is not None
    assert row.verdict in ("equivalent", "undecided", "faster", "slower")


def test_answers_are_compared_and_other_answers_get_no_verdict(measured: LatencyReport) -> None:
    right = [row for row in measured.rows if row.backend == "right.onnx"]
    wrong = [row for row in measured.rows if row.backend == "wrong.onnx"]
    for row in right:
        assert row.answer is not None
        assert row.answer.same
        assert row.answer.max_abs is not None
        assert row.answer.max_abs < 1e-4
        assert row.answer.top1 == 1.0
        assert row.answer.allowed == 2e-3  # twice the contract's tolerance
    for row in wrong:
        assert row.answer is not None
        assert not row.answer.same
        assert row.answer.max_abs == pytest.approx(1.0, abs=1e-4)
        assert row.verdict == "answers differ"
    assert measured.compared("right.onnx")
    assert not measured.compared("wrong.onnx")
    assert measured.not_compared == ("wrong.onnx",)
    assert any("answers differ" in note and "wrong.onnx" in note for note in measured.notes)


def test_the_document_says_what_was_measured_and_where(measured: LatencyReport, tmp_path: Path) -> None:
    (boundary,) = measured.boundaries
    assert boundary.text.startswith("features in, scores out; float32 arrays in host memory")
    assert measured.machine.python
    model = next(item for item in measured.backends if item.spec.name == "right.onnx")
    assert len(model.sha256) == 64
    assert model.opened is not None
    assert model.opened.speakers == len(LABELS)
    assert {version.name for version in model.opened.versions} >= {"numpy", "onnxruntime", "voxport"}
    assert all(0 < item.opened.harness_ns < 1_000_000 for item in measured.backends if item.opened)
    path = tmp_path / "latency.json"
    write_report(measured, path)
    assert read_report(path) == measured
    assert list(tmp_path.iterdir()) == [path]


def test_unstable_rounds_stay_and_are_marked(measured: LatencyReport) -> None:
    blocks = [
        dataclasses.replace(block, warmup=dataclasses.replace(block.warmup, stable=block.round != 2 or i % 2 == 0))
        for i, block in enumerate(measured.blocks)
    ]
    specs = [item.spec for item in measured.backends]
    rows = make_rows(specs, measured.cells, blocks, measured.answers, 1, 0.03)
    assert sum(row.unstable_rounds for row in rows) == 4
    assert all(row.rounds == ROUNDS for row in rows)
    notes = make_notes(dataclasses.replace(measured, rows=rows))
    assert any(note.startswith("unstable") and "(1 of 3)" in note for note in notes)
    steady = tuple(dataclasses.replace(row, unstable_rounds=0) for row in rows)
    notes = make_notes(dataclasses.replace(measured, rows=steady))
    assert "every warm-up settled: no row is unstable" in notes


def test_a_trace_is_as_unsteady_as_its_calls_of_one_length(measured: LatencyReport) -> None:
    trace = Cell(1, 50, trace=True)
    rng = np.random.default_rng(1)

    def rows(noise: float) -> tuple[Row, ...]:
        lengths = np.array([1e6, 40e6, 3e6, 25e6])
        blocks = []
        for block in (block for block in measured.blocks if block.cell == CELLS[0]):
            times = np.tile(lengths, 5) * (1 + noise * rng.standard_normal(20))
            walls = tuple(int(value) for value in times)
            blocks.append(dataclasses.replace(block, cell=trace, wall_ns=walls, cpu_ns=walls, utterances=1))
        specs = [item.spec for item in measured.backends]
        return make_rows(specs, (trace,), blocks, (), 1, 0.03, Beside(trace=4))

    assert all(row.spread < 0.05 for row in rows(0.01))
    assert all(row.spread > 0.2 for row in rows(0.3))


def test_a_model_of_another_checkpoint_is_told(measured: LatencyReport) -> None:
    own = next(item.sha256 for item in measured.backends if item.spec.role == "baseline")
    same = tuple(dataclasses.replace(item, checkpoint_sha256=own) for item in measured.backends)
    assert not any("not exported from this checkpoint" in note for note in make_notes(_with(measured, same)))
    other = (*same[:-1], dataclasses.replace(same[-1], checkpoint_sha256="f" * 64))
    found = [note for note in make_notes(_with(measured, other)) if "not exported from this checkpoint" in note]
    assert len(found) == 1
    assert found[0].startswith("wrong.onnx was not exported")


def _with(report: LatencyReport, backends: tuple[BackendReport, ...]) -> LatencyReport:
    return dataclasses.replace(report, backends=backends)


def test_a_control_that_differs_from_itself_is_told(measured: LatencyReport) -> None:
    sure = speed_up([[2.0, 2.0]] * 5, [[1.0, 1.0]] * 5, seed=0)
    rows = tuple(
        dataclasses.replace(row, speed_up=sure, verdict="faster") if row.backend == BACKENDS[1] else row
        for row in measured.rows
    )
    notes = make_notes(dataclasses.replace(measured, rows=rows))
    assert any("came out faster than itself" in note for note in notes)


def test_a_busy_machine_is_told(measured: LatencyReport) -> None:
    quiet = dataclasses.replace(measured.machine, load_average=0.0, cores_allowed=8, cpu_quota=None)
    assert not any("load average" in note for note in make_notes(dataclasses.replace(measured, machine=quiet)))
    busy = dataclasses.replace(quiet, load_average=7.5)
    assert any("7.5 on 8 cores" in note for note in make_notes(dataclasses.replace(measured, machine=busy)))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> tuple[LatencyReport, list[tuple[int, int, str]]]:
    """A measurement in which most models fail, each in its own way, and its progress."""
    folder = tmp_path_factory.mktemp("troubled")
    paths = [folder / f"{name}.onnx" for name in ("crash", "hang", "late-crash", "nan", "right")]
    settings = LatencySettings(frames=(10,), rounds=3, rule=QUICK, timeout=10, control=False, truth=BARE)
    steps: list[tuple[int, int, str]] = []
    checkpoint = write_models(paths, folder / "model.npz")
    return measure_latency(paths, checkpoint, settings, lambda *step: steps.append(step), FAKE), steps


Troubled = tuple[LatencyReport, list[tuple[int, int, str]]]


def test_failures_are_recorded_and_the_others_go_on(troubled: Troubled) -> None:
    report, _ = troubled
    crash = next(failure for failure in report.failures if failure.backend == "crash.onnx")
    assert (crash.stage, crash.round) == ("answer", None)
    assert "the accelerator is on fire" in crash.reason
    assert {row.backend for row in report.rows} == {"eager", "nan.onnx", "right.onnx"}
    assert all(row.rounds == 3 for row in report.rows)
    assert report.not_compared == ("crash.onnx", "hang.onnx", "late-crash.onnx", "nan.onnx")
    assert any(note.startswith("failed: crash.onnx") for note in report.notes)


def test_a_silent_worker_is_given_up(troubled: Troubled) -> None:
    (failure,) = (failure for failure in troubled[0].failures if failure.backend == "hang.onnx")
    assert failure.reason == "gave no answer within 10 s"


def test_a_crash_while_timing_is_tried_once_more(troubled: Troubled) -> None:
    failures = [failure for failure in troubled[0].failures if failure.backend == "late-crash.onnx"]
    assert [(failure.stage, failure.round) for failure in failures] == [("time", 0), ("time", 1)]
    assert all("SIGABRT" in failure.reason for failure in failures)


def test_answers_that_are_no_numbers_differ(troubled: Troubled) -> None:
    check = next(check for check in troubled[0].answers if check.backend == "nan.onnx")
    assert (check.max_abs, check.same) == (None, False)
    row = next(row for row in troubled[0].rows if row.backend == "nan.onnx")
    assert row.verdict == "answers differ"


def test_progress_counts_up_to_its_end(troubled: Troubled) -> None:
    steps = troubled[1]
    assert [step[0] for step in steps] == list(range(len(steps)))
    assert steps[-1][0] == steps[-1][1]


def test_waveform_models_are_timed_from_the_waveform(models: Folder) -> None:
    paths, checkpoint = models("right.onnx", kind="waveform")
    report = measure_latency(paths, checkpoint, SETTINGS, command=FAKE)
    assert report.boundaries[0].text.startswith("waveform in, scores out")
    assert report.answers[0].same
    assert [row.backend for row in report.rows] == ["eager", "right.onnx"]
    assert report.not_compared == ("right.onnx",)  # one round has no interval


def test_a_users_mistake_ends_the_run_at_once(models: Folder) -> None:
    paths, _ = models("right.onnx")
    with pytest.raises(VoxportError, match=r"^eager: .*right\.onnx"):
        measure_latency(paths, paths[0], SETTINGS)  # a model is no checkpoint; the real worker says so


def test_unreadable_documents_are_refused(tmp_path: Path, measured: LatencyReport) -> None:
    path = tmp_path / "x.json"
    for text in ("{", "[]", '{"kind": "voxport.latency", "version": 99}', '{"kind": "voxport.latency", "version": 1}'):
        path.write_text(text)
        with pytest.raises(ReportError, match=r"x\.json"):
            read_report(path)
    with pytest.raises(ReportError, match=r"cannot be written"):
        write_report(measured, tmp_path / "nowhere" / "x.json")
