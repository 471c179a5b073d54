"""Work in a process of its own: answers, mistakes, crashes, and what hangs."""

import sys
import tempfile
import time
from pathlib import Path

import pytest

from voxport.benchmarks.worker.job import JobError, exit_reason, last_lines, run_command, run_job


def test_a_job_answers_with_plain_values() -> None:
    answer = run_job("voxport.benchmarks.training.report:TrainSettings", {"recipe": "é"}, timeout=60, threads=1)
    assert answer["recipe"] == {"recipe": "é"}  # a job's function takes the request as its one argument


def test_a_job_that_raises_says_what() -> None:
    with pytest.raises(JobError, match="TypeError") as crash:
        run_job("voxport.benchmarks.stats.power_law:fit_growth", {}, timeout=60)
    assert not crash.value.mistake


def test_only_functions_of_ours_are_run() -> None:
    with pytest.raises(JobError, match="a job is a function below"):
        run_job("os:abort", {}, timeout=60)


def test_what_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    sign = tmp_path / "alive"
    child = f"import time; time.sleep(4); open({str(sign)!r}, 'w')"
    call = f"subprocess.call([sys.executable, '-c', {child!r}])"
    parent = f"import subprocess, sys; print('last words', flush=True); {call}"
    with tempfile.TemporaryFile() as log:
        with pytest.raises(JobError, match="gave no answer within 2 s: last words"):
            run_command([sys.executable, "-c", parent], log, timeout=2)
        time.sleep(3)
    assert not sign.exists()


def test_warnings_are_no_last_words() -> None:
    """PyTorch's log tells much that is no reason for anything."""
    words = "W1123 14:50:18.218000 22090 torch/utils/flop_counter.py:29] triton not found", "Killed by nobody"
    with tempfile.TemporaryFile() as log:
        log.write("\n".join((words[1], words[0], "", words[0])).encode())
        assert last_lines(log) == ": Killed by nobody"


@pytest.mark.skipif(not hasattr(__import__("os"), "killpg"), reason="signals end processes on POSIX systems")
def test_how_a_process_ended_is_told() -> None:
    with tempfile.TemporaryFile() as log:
        code = run_command([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], log, timeout=30)
        assert exit_reason(code, log).startswith("was ended by SIGKILL (out of memory, perhaps)")
