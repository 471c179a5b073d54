"""What one timed call is in each scenario, with the worker in this process and a clock that the test drives."""

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.worker import NumpyBackend
from tests.runtime.tiny_models import FRONTEND, make_tiny
from voxport.benchmarks.core.inputs import call_rows, join, make_inputs
from voxport.benchmarks.core.protocol import (
    Answered,
    Ask,
    Cold,
    Colded,
    Draw,
    Drawn,
    Failed,
    Message,
    Open,
    Opened,
    Time,
    Timed,
    from_line,
    to_line,
)
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec, Load, ServerRule
from voxport.benchmarks.core.timing import BlockRule, Clock
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.worker.server import Worker

TRACE = (10, 40, 25, 60, 12)
INPUTS = InputSpec(FRONTEND, seed=1, pool=3, trace=TRACE)
RULE = BlockRule(seconds=1.0, warmup_seconds=0.0, warmup_cap=1.0, window_seconds=0.01, window_calls=2, min_calls=5)
SPEC = BackendSpec("eager", "eager", "", "baseline", "features", "cpu", 1)
MS = 1_000_000


@dataclass
class Steady:
    """10 ms a call; remembers the shapes that it was called with."""

    now: int = 0
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    frontend: Any = FRONTEND
    speakers: int = 2

    def run(self, inputs: Any, lengths: Any) -> Any:
        self.now += 10 * MS
        self.shapes.append(inputs.shape)
        return np.tile(lengths[:, None].astype(np.float32), (1, 2))

    def facts(self) -> tuple[Fact, ...]:
        return ()

    def worker(self) -> Worker:
        def sleep(seconds: float) -> None:
            self.now += round(seconds * 1e9)

        clock = Clock(wall=lambda: self.now, cpu=lambda: self.now // 2, sleep=sleep)
        return Worker(lambda spec: self, lambda spec: None, clock)


def opened(backend: Steady) -> Worker:
    worker = backend.worker()
    assert isinstance(worker.reply(Open(SPEC, INPUTS)), Opened)
    return worker


def timed(worker: Worker, cell: Cell, load: Load) -> Timed:
    answer = worker.reply(Time(cell, RULE, load))
    assert isinstance(answer, Timed), answer
    return answer


def test_rows_of_a_trace_follow_it() -> None:
    assert call_rows(INPUTS, Cell(1, 60, trace=True), Load()) == ((10,), (40,), (25,), (60,), (12,))
    assert call_rows(INPUTS, Cell(2, 60, trace=True), Load()) == ((10, 40), (25, 60))
    assert call_rows(INPUTS, Cell(8, 60, trace=True), Load()) == ((*TRACE, *TRACE[:3]),)
    assert call_rows(INPUTS, Cell(2, 30), Load()) == ((30, 30),) * 3


def test_offline_sorts_what_it_knows_beforehand() -> None:
    load = Load("offline", queries=7)
    assert call_rows(INPUTS, Cell(3, 60, trace=True), load) == ((60, 40, 40), (25, 12, 10), (10,))
    assert call_rows(INPUTS, Cell(4, 30), load) == ((30,) * 4, (30,) * 3)


@pytest.mark.parametrize("kind", ["features", "waveform"])
def test_padding_is_zero_and_told(kind: Any) -> None:
    inputs = make_inputs(INPUTS, Cell(2, 60, trace=True), kind)
    for array, row in zip(inputs.arrays, inputs.rows, strict=True):
        assert array.shape[1] == row.max()
        for values, count in zip(array, row, strict=True):
            assert np.abs(values[:count]).max() > 0
            assert not values[count:].any()
    assert inputs.utterances == 4
    seconds = (10 + 40 + 25 + 60) / 2 * FRONTEND.hop_length / FRONTEND.sample_rate
    assert inputs.audio_seconds == pytest.approx(seconds)
    again = make_inputs(INPUTS, Cell(2, 60, trace=True), kind)
    assert inputs.digest == again.digest


def test_queries_that_wait_are_joined_with_their_lengths() -> None:
    inputs = make_inputs(INPUTS, Cell(1, 60, trace=True), "features")
    batch, lengths = join(inputs.arrays[:3], inputs.rows[:3])
    assert batch.shape == (3, 40, FRONTEND.n_mels)
    assert lengths.tolist() == [10, 40, 25]
    np.testing.assert_array_equal(batch[2, :25], inputs.arrays[2][0])
    assert not batch[0, 10:].any()


def test_single_stream_calls_in_turn() -> None:
    backend = Steady()
    block = timed(opened(backend), Cell(1, 60, trace=True), Load())
    assert set(block.wall_ns) == {10 * MS}
    assert block.utterances == 1
    assert [shape[1] for shape in backend.shapes[-5:]] != [60] * 5


def test_offline_times_whole_passes() -> None:
    backend = Steady()
    block = timed(opened(backend), Cell(4, 30), Load("offline", queries=10))
    assert set(block.wall_ns) == {30 * MS}  # three batches
    assert block.utterances == 10
    assert block.audio_seconds == pytest.approx(10 * 30 * FRONTEND.hop_length / FRONTEND.sample_rate)
    assert {shape[0] for shape in backend.shapes} == {4, 2}


def test_server_holds_a_rate_below_what_it_could_do_at_best() -> None:
    backend = Steady()
    load = Load("server", server=ServerRule(bound_ms=50.0), seed=3)
    block = timed(opened(backend), Cell(1, 60, trace=True), load)
    assert block.served is not None
    assert 40 < block.served.rate < 85  # 100 per second would keep it busy all the time
    assert {shape[0] for shape in backend.shapes} == {1}
    held = [probe for probe in block.served.probes if probe.rate == block.served.rate]
    assert held[0].held
    assert held[0].queries == len(block.wall_ns) >= 459
    assert np.quantile(block.wall_ns, 0.99) <= 50 * MS


def test_a_later_round_begins_where_the_last_one_ended() -> None:
    load = Load("server", server=ServerRule(bound_ms=50.0), seed=3)
    first = timed(opened(Steady()), Cell(1, 30), load).served
    assert first is not None
    again = timed(opened(Steady()), Cell(1, 30), dataclasses.replace(load, guess=first.rate)).served
    assert again is not None
    assert again.probes[0].rate == first.rate
    assert again.rate == pytest.approx(first.rate, rel=0.04)
    assert len(again.probes) <= 3 < len(first.probes)


def test_a_server_that_may_batch_holds_more() -> None:
    rule = ServerRule(bound_ms=50.0)
    rates = []
    for batch in (1, 4):
        block = timed(opened(Steady()), Cell(batch, 30), Load("server", server=rule))
        assert block.served is not None
        rates.append(block.served.rate)
    assert rates[1] > 2 * rates[0]


def test_a_bound_below_one_call_holds_nothing() -> None:
    block = timed(opened(Steady()), Cell(1, 30), Load("server", server=ServerRule(bound_ms=5.0)))
    assert block.served is not None
    assert block.served.rate == 0.0


def test_answers_of_ragged_calls_are_in_order() -> None:
    answer = opened(Steady()).reply(Ask(Cell(2, 60, trace=True), Load()))
    assert isinstance(answer, Answered)
    assert answer.scores.values[:, 0].tolist() == [10, 40, 25, 60]
    joined = opened(Steady()).reply(Ask(Cell(4, 60, trace=True), Load("server")))
    assert isinstance(joined, Answered)
    assert joined.scores.values[:, 0].tolist() == list(TRACE)


def test_a_cold_start_has_four_steps(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "m.onnx")
    np.savez(tmp_path / "model.npz", project=tiny.project, classes=tiny.classes)
    imported: list[BackendSpec] = []
    own = 10**12
    worker = Worker(lambda spec: NumpyBackend(str(tmp_path / "model.npz")), imported.append, own_imports_ns=own)
    before = time.monotonic_ns()
    answer = worker.reply(Cold(SPEC, INPUTS, Cell(1, 30), Cell(1, 31)))
    assert isinstance(answer, Colded)
    assert before <= answer.ready + own <= time.monotonic_ns()  # what the harness loaded for itself is no cold start
    sample = answer.sample
    assert imported == [SPEC]
    assert min(sample.load, sample.first, sample.new_shape or 0) > 0
    assert sample.process == 0  # the parent's to fill in
    alone = worker.reply(Cold(SPEC, INPUTS, Cell(1, 30), None))
    assert isinstance(alone, Colded)
    assert alone.sample.new_shape is None


def test_lengths_are_drawn_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lengths.txt"
    path.write_text("3 20\n35 500\n")
    request = Draw(str(path), INPUTS, 200, min_frames=10, max_frames=60)
    drawn = Worker().reply(request)
    assert isinstance(drawn, Drawn)
    assert set(drawn.lengths) == {20, 35, 60}
    assert Worker().reply(request) == drawn
    assert "cut to 60" in drawn.note
    for text, expected in (("12 x", "found x"), ("", "found nothing"), ("3 4", "none of 2 lengths has 10 frames")):
        path.write_text(text)
        failed = Worker().reply(request)
        assert isinstance(failed, Failed)
        assert failed.mistake
        assert expected in failed.message


def test_lengths_are_drawn_from_a_corpus(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from tests.train.corpora import write_homework
    from voxport.train.data import CorpusOptions, open_corpus

    folder = write_homework(tmp_path / "corpus")
    known = {one.frames for one in open_corpus(folder, CorpusOptions(FRONTEND, progress=False)).utterances}
    drawn = Worker().reply(Draw(str(folder), INPUTS, 50, min_frames=1, max_frames=10_000))
    assert isinstance(drawn, Drawn), drawn
    assert set(drawn.lengths) <= known
    assert len(set(drawn.lengths)) > 1


@pytest.mark.parametrize(
    "message",
    [
        Time(Cell(1, 30, trace=True), RULE, Load("server", server=ServerRule(bound_ms=3.0))),
        Draw("x", INPUTS, 3, 1, 2),
        Cold(SPEC, INPUTS, Cell(1, 30), None),
        Opened(2, "x", 1.0, (), (), 3),
    ],
)
def test_messages_survive_the_pipe(message: Message) -> None:
    assert from_line(to_line(message)) == message
