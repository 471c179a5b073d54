"""Workers: what they answer, and what is said about those that do not."""

import io
import json
import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import FAKE, QUICK, Folder
from tests.runtime.tiny_models import FRONTEND
from voxport.benchmarks.core.protocol import (
    Answered,
    Ask,
    Failed,
    Open,
    Opened,
    ProtocolError,
    Time,
    Timed,
    from_line,
    to_line,
)
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec
from voxport.benchmarks.worker.client import WorkerError, WorkerProcess
from voxport.benchmarks.worker.server import Worker, serve

INPUTS = InputSpec(FRONTEND, seed=1, pool=3)
CELL = Cell(2, 12)


def spec(path: Path, kind: str = "onnx") -> BackendSpec:
    return BackendSpec("it", kind, str(path), "candidate", "features", "cpu", 1)


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def test_a_worker_opens_answers_and_times(models: Folder) -> None:
    (path,), checkpoint = models("right.onnx")
    answers = []
    for subject in (spec(path), spec(checkpoint, "eager")):
        with WorkerProcess(1, FAKE) as worker:
            opened = worker.ask(Open(subject, INPUTS), Opened, 60)
            answers.append(worker.ask(Ask(CELL), Answered, 60))
            timed = worker.ask(Time(CELL, QUICK), Timed, 60)
        assert opened.speakers == 5
        assert opened.frontend_digest == FRONTEND.digest
        assert {version.name for version in opened.versions} >= {"numpy", "voxport"}
        assert opened.facts[0].value == "1"
        assert 0 < opened.harness_ns < 1_000_000
        assert len(timed.wall_ns) == len(timed.cpu_ns) >= QUICK.min_calls
        assert min(timed.wall_ns) > 0
        assert timed.inputs_digest == answers[-1].inputs_digest
        assert timed.peak_memory is None or timed.peak_memory > 1 << 20
    onnx, numpy = answers
    assert onnx.inputs_digest == numpy.inputs_digest
    assert onnx.scores.values.shape == (3 * 2, 5)
    assert abs(onnx.scores.values - numpy.scores.values).max() < 1e-3


def test_a_crash_is_told_with_its_last_words(models: Folder) -> None:
    (path,), _ = models("crash.onnx")
    with WorkerProcess(1, FAKE) as worker:
        worker.ask(Open(spec(path), INPUTS), Opened, 60)
        with pytest.raises(WorkerError, match=r"exit code 7.*the accelerator is on fire") as caught:
            worker.ask(Ask(CELL), Answered, 60)
        with pytest.raises(WorkerError, match=r"exit code 7"):  # and it stays so
            worker.ask(Ask(CELL), Answered, 60)
    assert not caught.value.mistake


def test_a_signal_is_named() -> None:
    killed = WorkerProcess(1, script("import os; os.kill(os.getpid(), 9)"))
    with killed as worker, pytest.raises(WorkerError, match=r"SIGKILL \(out of memory, perhaps\)"):
        worker.ask(Ask(CELL), Answered, 60)


def test_silence_ends_and_the_worker_with_it() -> None:
    asleep = WorkerProcess(1, script("import time; time.sleep(600)"))
    with pytest.raises(WorkerError, match=r"no answer within 0 s"), asleep as worker:
        worker.ask(Ask(CELL), Answered, 0.2)
    assert asleep._process.returncode == -9


@pytest.mark.parametrize("answer", ["hello", "[]", '{"timed": {}}', '{"answered": {"scores": 1}}'])
def test_nonsense_is_refused(answer: str) -> None:
    talks = WorkerProcess(1, script(f"input(); print({answer!r})"))
    with talks as worker, pytest.raises(WorkerError, match=r"expected|missing|unknown"):
        worker.ask(Ask(CELL), Answered, 60)


def test_a_wrong_kind_of_answer_is_refused() -> None:
    echo = WorkerProcess(1, script("print(input())"))
    with echo as worker, pytest.raises(WorkerError, match=r"answered Ask where Answered"):
        worker.ask(Ask(CELL), Answered, 60)


def test_a_users_mistake_is_told_as_one(tmp_path: Path) -> None:
    with WorkerProcess(1) as worker:
        with pytest.raises(WorkerError, match=r"missing\.onnx") as caught:
            worker.ask(Open(spec(tmp_path / "missing.onnx"), INPUTS), Opened, 60)
        assert caught.value.mistake
        with pytest.raises(WorkerError, match=r"before it was told what to open"):
            worker.ask(Ask(CELL), Answered, 60)


def test_unknown_kinds_of_backend_are_refused(tmp_path: Path) -> None:
    reply = Worker().reply(Open(spec(tmp_path / "x", kind="abacus"), INPUTS))
    assert isinstance(reply, Failed)
    assert "unknown back end kind 'abacus'" in reply.message


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    # An earlier test may have needed it.
    monkeypatch.delitem(sys.modules, "voxport.benchmarks.backends.eager", raising=False)
    reply = Worker().reply(Open(spec(tmp_path / "x", kind="eager"), INPUTS))
    assert isinstance(reply, Failed)
    assert reply.mistake
    assert 'pip install "voxport[train]"' in reply.message


def test_a_bug_comes_with_its_traceback() -> None:
    def opener(_: BackendSpec) -> object:
        raise ZeroDivisionError("by zero")

    reply = Worker(opener).reply(Open(spec(Path("x")), INPUTS))  # type: ignore[arg-type]
    assert isinstance(reply, Failed)
    assert not reply.mistake
    assert reply.message == "ZeroDivisionError: by zero"
    assert "Traceback" in reply.detail


def test_a_worker_survives_a_line_that_is_no_request() -> None:
    sink = io.StringIO()
    serve(io.StringIO("nonsense\n" + to_line(Failed("?", True))), sink, Worker())
    replies = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert [next(iter(reply)) for reply in replies] == ["failed", "failed"]


@pytest.mark.parametrize(
    "message", [Open(spec(Path("x")), INPUTS), Time(CELL, QUICK), Ask(CELL), Failed("no", True, "why")]
)
def test_messages_survive_the_pipe(message: Open | Time | Ask | Failed) -> None:
    line = to_line(message)
    assert line.count("\n") == 1
    assert from_line(line) == message


@pytest.mark.parametrize("line", ["", "{", "{}", '{"open": 1, "ask": 2}', '{"sing": {}}', '{"ask": {"cell": 3}}'])
def test_broken_lines_are_no_messages(line: str) -> None:
    with pytest.raises(ProtocolError):
        from_line(line)
