"""Training rate: intervals, one real round of a tiny network, and what is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.benchmarks.test_scale import TINY
from voxport.benchmarks.training import runner as train_rate
from voxport.benchmarks.training.report import TrainSettings, rate_of
from voxport.benchmarks.worker.job import JobError
from voxport.runtime.errors import BackendError, VoxportError
from voxport.runtime.storage.serialization import encode


@pytest.fixture
def settings(tmp_path: Path) -> TrainSettings:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return TrainSettings(
        recipe=str(path), batch_size=3, frames=20, speakers=7, rounds=2, seconds=0.01, warmup=0.001, threads=1
    )


def test_a_rates_interval_covers_the_truth_in_95_of_100() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(600):
        rate = rate_of((8 * np.exp(rng.normal(0, 0.1, 5))).tolist())
        assert rate.low is not None
        assert rate.high is not None
        hits += rate.low <= 8 <= rate.high
    assert 0.92 < hits / 600 < 0.98
    assert rate_of([3.0]).low is None


def test_one_round_of_a_tiny_network(settings: TrainSettings) -> None:
    pytest.importorskip("torchaudio")
    from voxport.benchmarks.training.round import train_round
    from voxport.train.models.speaker_net import count_parameters
    from voxport.train.recipe import load_recipe

    told = train_round({"settings": encode(settings), "round": 0})
    found = told["round"]
    assert told["parameters"] == count_parameters(load_recipe(settings.recipe).model, 40, 7)
    assert found.steps >= 2
    assert found.seconds > 0
    assert min(found.phases.data, found.phases.forward, found.phases.backward, found.phases.optimiser) > 0
    assert math.isfinite(found.loss)
    assert found.ceiling > 0
    # Linear layers alone: forward once, and twice backward (but for the first layer's input).
    linear = 2 * 3 * 20 * (40 * 16 + 2 * 2 * 16 * 16 + 4 * 16 * 16)
    assert found.gflop * 1e9 > 2.5 * linear


def test_precisions_that_a_cpu_lacks_are_refused(settings: TrainSettings) -> None:
    pytest.importorskip("torchaudio")
    from voxport.benchmarks.training.round import train_round

    for precision in ("tf32", "fp16"):
        with pytest.raises(BackendError, match=f"training in {precision} needs a GPU"):
            train_round({"settings": {**encode(settings), "precision": precision}, "round": 0})


def round_of(rate: float) -> dict[str, Any]:
    phases = {"data": 0.02, "forward": 0.05, "backward": 0.08, "optimiser": 0.01}
    return {
        "round": {
            "steps": 10, "seconds": 10 / rate, "warmup_steps": 2, "first_step": 1.0, "phases": phases, "gflop": 5.0,
            "ceiling": 50.0, "ceiling_note": "so", "resident": None, "device_bytes": None, "loss": 1.0, "facts": [],
        },
        "parameters": 9, "speakers": 7, "versions": {"torch": "2"},
    }  # fmt: skip


def test_a_round_that_crashes_is_told_and_the_others_count(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [JobError("was ended by SIGKILL"), round_of(4.0), round_of(5.0)]

    def run(where: str, request: dict[str, Any], timeout: float, threads: int) -> Any:
        answer = answers[request["round"]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(train_rate, "run_job", run)
    report = train_rate.measure_training(TrainSettings(**{**encode(settings), "rounds": 3}))
    assert report.failures == ("round 1: was ended by SIGKILL",)
    assert report.rate is not None
    assert report.rate.value == pytest.approx(math.sqrt(20))
    assert report.share is not None
    assert report.share.value == pytest.approx(math.sqrt(20) * 5 / 50)
    assert any("data takes 12% of a step" in note for note in report.notes)


def test_a_mistake_ends_the_run_and_so_does_failure_throughout(
    settings: TrainSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for problem, message in ((JobError("no such recipe", mistake=True), "no such recipe"), (JobError("x"), "round 1")):

        def run(*_: object, problem: JobError = problem) -> Any:
            raise problem

        monkeypatch.setattr(train_rate, "run_job", run)
        with pytest.raises(VoxportError, match=message):
            train_rate.measure_training(settings)
