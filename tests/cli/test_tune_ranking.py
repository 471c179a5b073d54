"""`voxport tune`: who is chosen, what chance is not ranked by, and what another machine changed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.latency.report import Block
from voxport.cli.tune.candidates import CANDIDATES, settings_of
from voxport.cli.tune.ranking import Place, rank
from voxport.cli.tune.report import Machine, Proof, TuneReport, as_json, changes, read_tune

CELLS = (Cell(1, 128), Cell(1, 400))


def blocks(speeds: dict[str, float], noise: float, rounds: int = 6) -> list[Block]:
    """Times of `speeds` milliseconds at the first cell and four times as much at the second, from a fixed seed.

    Processor time is one and a half times as much with 2 threads.
    """
    draw = np.random.default_rng(5)
    found = []
    for number in range(rounds):
        for name, speed in speeds.items():
            for factor, cell in zip((1.0, 4.0), CELLS, strict=True):
                drift = draw.normal(1, noise)
                times = tuple(int(1e6 * speed * factor * drift * value) for value in draw.normal(1, 0.01, 9))
                found.append(a_block(name, cell, number, times))
    return found


def a_block(name: str, cell: Cell, number: int, times: tuple[int, ...]) -> Block:
    from voxport.benchmarks.core.timing import Warmup

    values: dict[str, Any] = {field.name: None for field in dataclasses.fields(Block)}
    spent = tuple(time * 3 // 2 for time in times) if name.endswith("2 threads") else times
    values |= {"round": number, "backend": name, "cell": cell, "wall_ns": times, "cpu_ns": spent, "started": 0.0}
    values |= {"warmup": Warmup(True, 9, 0.1, 0.0, 1), "utterances": 1, "audio_seconds": 1.0, "device_ns": ()}
    return Block(**values)


def test_the_fastest_is_chosen_and_the_others_stand_behind_it() -> None:
    timed = blocks({"eager": 8.0, "exact": 4.0, "rounded": 2.0}, noise=0.01)
    first, second = rank(timed, ["exact", "rounded"], "eager")
    assert (first.name, first.verdict, second.name, second.verdict) == ("rounded", "chosen", "exact", "slower")
    assert first.behind is None
    assert second.behind is not None
    assert second.behind[1] < 2.0 < second.behind[2]
    assert first.against[1] < 4.0 < first.against[2]
    assert first.milliseconds == pytest.approx((2.0, 8.0), rel=0.05)


def test_what_chance_explains_is_not_ranked_and_the_most_precise_is_chosen() -> None:
    timed = blocks({"eager": 8.0, "exact": 4.0, "rounded": 3.98, "slow": 7.0}, noise=0.03)
    places = rank(timed, ["exact", "rounded", "slow"], "eager")
    assert [(place.name, place.verdict) for place in places] == [
        ("exact", "chosen"),
        ("rounded", "as fast"),
        ("slow", "slower"),
    ]
    with pytest.raises(ValueError, match="at least two rounds"):
        rank(blocks({"eager": 8.0, "exact": 4.0}, 0.01, rounds=1), ["exact"], "eager")


def test_numbers_of_threads_are_ranked_by_the_time_that_passes() -> None:
    one, two = (settings_of(CANDIDATES[:1], counts)[-1].name for counts in ((1,), (2, 1)))
    assert (one, two) == ("fp32.onnx, 1 thread", "fp32.onnx, 2 threads")
    assert [each.threads for each in settings_of(CANDIDATES[:1], (2, 1))] == [1, 2]
    first, second = rank(blocks({"eager": 8.0, one: 4.0, two: 3.0}, noise=0.01), [one, two], "eager")
    assert (first.name, second.verdict) == (two, "slower")
    assert first.milliseconds == pytest.approx((3.0, 12.0), rel=0.05)
    assert first.processor == pytest.approx((4.5, 18.0), rel=0.05)
    alike = rank(blocks({"eager": 8.0, one: 4.0, two: 3.98}, noise=0.03), [one, two], "eager")
    assert [(place.name, place.verdict) for place in alike] == [(one, "chosen"), (two, "as fast")]


def test_a_round_in_which_a_candidate_failed_counts_for_nobody() -> None:
    timed = blocks({"eager": 8.0, "exact": 4.0, "rounded": 2.0}, noise=0.01)
    timed = [one for one in timed if (one.backend, one.round, one.cell) != ("rounded", 3, CELLS[1])]
    assert rank(timed, ["exact", "rounded"], "eager")[0].name == "rounded"


def a_report(cpu: str = "Alpha", chosen: str = "a.onnx", ratio: float = 2.0, **other: Any) -> TuneReport:
    place = Place(chosen, "chosen", (1.5,), (1.5,), (ratio, ratio - 0.1, ratio + 0.1), None)
    proof = Proof(chosen, True, 1e-5, 1e-4, None, None)
    machine = Machine(cpu, ("avx2", "avx512_vnni") if cpu == "Alpha" else ("avx2",), 2.0, ("onnxruntime 1.32.0",))
    made = TuneReport("now", "m.onnx", "ab", machine, (1,), "wall", ("1 × 128",), "each", (proof,), (place,), "it is")
    return dataclasses.replace(made, **other)


def test_another_machine_says_what_changed(tmp_path: Path) -> None:
    before, after = a_report(), a_report("Beta", "b.onnx", 1.5)
    (tmp_path / "tune.json").write_text(as_json(before), encoding="utf-8")
    assert read_tune(tmp_path / "tune.json") == before
    assert changes(before, before) == ()
    assert changes(before, after) == (
        "processor: Alpha → Beta",
        "chosen: a.onnx → b.onnx",
        "instructions: without avx512_vnni",
    )
    assert changes(before, a_report(ratio=1.5)) == ("a.onnx: 2.00× → 1.50× eager PyTorch's speed",)
    for other, said in (
        ({"threads": (1, 2)}, "threads tried: 1 → 1, 2"),
        ({"clock": "cpu"}, "clock: wall → cpu"),
        ({"cells": ("1 × 400",)}, "lengths: 1 × 128 → 1 × 400"),
        ({"checkpoint_sha256": "cd"}, "checkpoint: ab → cd"),
    ):
        told = changes(before, a_report(ratio=1.5, **other))
        assert told[0] == said
        # With more numbers of threads eager PyTorch still has one; else the ratios are to something else.
        assert (len(told) > 1) == ("threads" in other)
    (tmp_path / "tune.json").write_text(json.dumps({"kind": "other"}))
    assert read_tune(tmp_path / "tune.json") is None
    assert read_tune(tmp_path / "absent.json") is None
