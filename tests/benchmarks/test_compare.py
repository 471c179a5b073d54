"""`voxport bench compare`: what it refuses, what it calls worse, and its exit codes."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.benchmarks.bench_documents import MODEL, gpu, latency, scale, served, train, write
from voxport.benchmarks.core.writing import write_json
from voxport.benchmarks.latency.report import LatencyReport
from voxport.cli.root import cli
from voxport.runtime.storage.serialization import encode


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["bench", "compare", *map(str, words)])


def slowed(report: LatencyReport, factor: float, only: str | None = None) -> LatencyReport:
    """The same run with every call `factor` times as long, of one back end or of all."""
    blocks = tuple(
        dataclasses.replace(block, wall_ns=tuple(round(factor * value) for value in block.wall_ns))
        if only in (None, block.backend)
        else block
        for block in report.blocks
    )
    return dataclasses.replace(report, blocks=blocks)


@pytest.fixture
def pair(tmp_path: Path) -> Callable[[object, object], tuple[Path, Path]]:
    return lambda first, second: (write(first, tmp_path / "a.json"), write(second, tmp_path / "b.json"))


Pair = Callable[[object, object], tuple[Path, Path]]


def test_a_run_is_like_itself(pair: Pair) -> None:
    result = run(*pair(latency(), latency()), "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["regressions"] == []
    for each in told["comparison"]["differences"]:
        assert each["ratio"]["ratio"] == pytest.approx(1)
        assert each["change"] in ("equivalent", "undecided")


def test_what_became_slower_fails_the_gate(pair: Pair) -> None:
    result = run(*pair(latency(), slowed(latency(), 2.5, MODEL)))
    assert result.exit_code == 1
    assert f"worse: {MODEL} at 1 × 128 (slower)" in result.stdout
    assert "eager (control)" in result.stdout


def test_a_threshold_lets_small_changes_pass(pair: Pair) -> None:
    paths = pair(latency(), slowed(latency(), 2.5, MODEL))
    assert run(*paths, "--threshold", 95).exit_code == 1  # 2.5 times is 150 %
    assert run(*paths, "--threshold", 3).exit_code == 1
    slightly = pair(latency(), slowed(latency(), 1.05, MODEL))
    assert run(*slightly, "--threshold", 50).exit_code == 0


def test_what_became_faster_passes(pair: Pair) -> None:
    result = run(*pair(slowed(latency(), 2.5, MODEL), latency()), "--json")
    assert result.exit_code == 0
    changes = {each["backend"]: each["change"] for each in json.loads(result.stdout)["comparison"]["differences"]}
    assert changes[MODEL] == "faster"


def test_a_machine_that_is_slower_as_a_whole_cancels_with_relative(pair: Pair) -> None:
    paths = pair(latency(), slowed(latency(), 2.5))
    plain = run(*paths)
    assert plain.exit_code == 1
    assert "the baseline itself changed" in plain.stdout
    assert run(*paths, "--relative").exit_code == 0


def test_a_model_that_is_gone_or_answers_otherwise_fails_the_gate(pair: Pair) -> None:
    report = latency()
    rows = tuple(row for row in report.rows if row.backend != MODEL)
    gone = run(*pair(report, dataclasses.replace(report, rows=rows)))
    assert (gone.exit_code, f"{MODEL} at 1 × 128 (gone)" in gone.stdout) == (1, True)
    rows = tuple(
        dataclasses.replace(row, verdict="answers differ") if row.backend == MODEL else row for row in report.rows
    )
    wrong = run(*pair(report, dataclasses.replace(report, rows=rows)))
    assert (wrong.exit_code, f"{MODEL} at 1 × 128 (answers differ)" in wrong.stdout) == (1, True)


def test_a_server_is_compared_by_the_rates_that_it_held(pair: Pair) -> None:
    good, worse = ((rate, rate + 0.1, rate - 0.1, rate, rate + 0.05, rate) for rate in (30.0, 20.0))
    slower = run(*pair(served(latency(), good), served(latency(), worse)))
    assert (slower.exit_code, f"{MODEL} at 1 × 128 (slower)" in slower.stdout) == (1, True), slower.output
    assert "33.3" in slower.stdout  # ms between queries, at 30 a second
    assert run(*pair(served(latency(), worse), served(latency(), good))).exit_code == 0
    assert run(*pair(served(latency(), good), served(latency(), good)), "--clock", "cpu").exit_code == 1


@pytest.mark.parametrize("relative", [(), ("--relative",)])
def test_a_server_that_holds_no_rate_any_more_is_worse(pair: Pair, relative: tuple[str, ...]) -> None:
    good, none = (30.0,) * 6, (30.0, 0.0, 30.0, 30.0, 30.0, 30.0)
    worse = run(*pair(served(latency(), good), served(latency(), none)), *relative)
    assert (worse.exit_code, f"{MODEL} at 1 × 128 (slower)" in worse.stdout) == (1, True), worse.output
    for other in (good, none):
        result = run(*pair(served(latency(), none), served(latency(), other)), *relative)
        assert result.exit_code == 0, result.output


def optional(report: LatencyReport, kind: str) -> LatencyReport:
    """The same run, in which MODEL is a further back end of this kind that `--also` named."""
    backends = tuple(
        dataclasses.replace(item, spec=dataclasses.replace(item.spec, kind=kind, optional=True))
        if item.spec.name == MODEL
        else item
        for item in report.backends
    )
    return dataclasses.replace(report, backends=backends)


def without(report: LatencyReport, asked: bool) -> LatencyReport:
    """The same run, in which MODEL could not be timed, or was not even asked for."""
    rows = tuple(row for row in report.rows if row.backend != MODEL)
    backends = tuple(item for item in report.backends if asked or item.spec.name != MODEL)
    return dataclasses.replace(report, rows=rows, backends=backends)


def test_only_what_is_ours_and_was_asked_for_is_gated(pair: Pair) -> None:
    whole = optional(latency(), "openvino")
    assert run(*pair(whole, slowed(whole, 2.5, MODEL))).exit_code == 1
    assert run(*pair(whole, without(whole, asked=True))).exit_code == 1
    assert run(*pair(whole, without(whole, asked=False))).exit_code == 0
    compiled = optional(latency(), "compile")  # what PyTorch makes of the checkpoint
    assert run(*pair(compiled, slowed(compiled, 2.5, MODEL))).exit_code == 0
    assert run(*pair(compiled, without(compiled, asked=True))).exit_code == 0


def test_a_file_of_another_name_is_pointed_out(pair: Pair) -> None:
    first = write(latency(), pair(latency(), latency())[0])
    second = first.with_name("c.json")
    second.write_text(first.read_text(encoding="utf-8").replace(f'"{MODEL}"', '"other.onnx"'), encoding="utf-8")
    result = run(first, second)
    assert result.exit_code == 1
    assert f"only before {MODEL}; only after other.onnx" in result.stdout


def changed(report: LatencyReport, part: str, **values: Any) -> LatencyReport:
    return dataclasses.replace(report, **{part: dataclasses.replace(getattr(report, part), **values)})


REFUSED: dict[str, tuple[Callable[[LatencyReport], object], str]] = {
    "processor": (lambda r: changed(r, "machine", cpu="another"), "machine, cpu: AMD EPYC before, another after"),
    "cores": (lambda r: changed(r, "machine", cores_allowed=1), "machine, cores_allowed"),
    "memory": (lambda r: changed(r, "machine", memory=1), "machine, memory"),
    "threads": (lambda r: changed(r, "settings", threads=2), "settings, threads: 1 before, 2 after"),
    "seed": (lambda r: changed(r, "settings", seed=9), "settings, seed"),
    "scenario": (lambda r: dataclasses.replace(r, scenario="other"), "scenario"),
    "boundary": (
        lambda r: dataclasses.replace(r, boundaries=tuple(dataclasses.replace(b, text="x") for b in r.boundaries)),
        "timed boundary",
    ),
    "cells": (lambda r: dataclasses.replace(r, cells=r.cells[:1]), "cells: 1 × 128, 1 × 400, 1 × 1000 before"),
    "samples": (lambda r: dataclasses.replace(r, blocks=()), "the document after holds no samples"),
    "inputs": (
        lambda r: dataclasses.replace(r, blocks=tuple(dataclasses.replace(b, inputs_digest="x") for b in r.blocks)),
        "was timed on other values",
    ),
    "version": (lambda r: {**encode(r), "version": 99}, "version: 1 before, 99 after"),
    "kind": (lambda r: train(), "kind: 'voxport.latency' before, 'voxport.train' after"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_comparable_is_refused_and_named(name: str, pair: Pair) -> None:
    change, message = REFUSED[name]
    result = run(*pair(latency(), change(latency())))
    assert (result.exit_code, message in result.stderr) == (2, True), result.output


@pytest.mark.parametrize("made", [scale, gpu], ids=["scale", "gpu"])
def test_kinds_that_are_not_compared_say_so(made: Callable[[], object], pair: Pair) -> None:
    result = run(*pair(made(), made()))
    assert (result.exit_code, "documents are not compared" in result.stderr) == (2, True)


def test_training_is_compared(pair: Pair) -> None:
    slower = train(tuple(0.5 * rate for rate in (5.0, 5.1, 4.9, 5.05, 4.95)))
    assert run(*pair(train(), train())).exit_code == 0
    result = run(*pair(train(), slower))
    assert (result.exit_code, "(slower)" in result.stdout) == (1, True)
    assert run(*pair(train(), train()), "--relative").exit_code == 1  # a mistake, told as one


def test_markdown_holds_no_markup_of_the_file(tmp_path: Path) -> None:
    text = json.dumps(encode(latency())).replace(MODEL, "<script>|x")
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        write_json(json.loads(text), path)
    result = run(*paths, "--markdown", tmp_path / "c.md")
    assert result.exit_code == 0
    written = (tmp_path / "c.md").read_text(encoding="utf-8")
    assert "<script>" not in written
    assert "&lt;script&gt;\\|x" in written
