"""What every command shares."""

import dataclasses
import importlib.machinery
import importlib.util
import json
import math
import os
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from voxport.cli.common import emit_json, example, let_threads_sleep, needs, show_table
from voxport.runtime.errors import BackendError


@dataclasses.dataclass(frozen=True)
class Report:
    path: Path
    share: float
    counts: tuple[int, ...]


def test_emit_json_writes_dataclasses_paths_and_numpy_values(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"report": Report(Path("a/b"), 0.5, (1, 2)), "mean": np.float32(0.25), "row": np.arange(3), "이름": "에리"}
    emit_json(report)
    assert json.loads(capsys.readouterr().out) == {
        "report": {"path": str(Path("a/b")), "share": 0.5, "counts": [1, 2]},
        "mean": 0.25,
        "row": [0, 1, 2],
        "이름": "에리",
    }


def test_emit_json_has_no_number_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json([math.nan, -math.inf, np.array([np.inf, 1.0])])
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == [None, None, [None, 1.0]]


def test_a_table_in_a_pipe_is_aligned_for_wide_letters(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("Who", ("speaker", "score"), [("에리", 1.5), ("Bora", 10.25)])
    assert capsys.readouterr().out.splitlines() == [
        "Who",
        "speaker  score",
        "-------  -----",
        "에리       1.5",
        "Bora     10.25",
    ]


def test_a_table_may_be_empty(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("Nobody", ("speaker",), [])
    assert capsys.readouterr().out.splitlines() == ["Nobody", "speaker", "-------"]


def test_a_table_with_a_row_too_short_is_a_bug() -> None:
    with pytest.raises(ValueError):
        show_table("", ("a", "b"), [("only one",)])


def test_a_missing_package_names_the_pip_command() -> None:
    @needs("train", "audio")
    def command() -> None:
        raise ModuleNotFoundError("No module named 'not_there.nn'", name="not_there.nn")

    with pytest.raises(BackendError, match=r'package not_there, .*pip install "voxport\[train,audio\]"'):
        command()


def test_a_missing_module_of_ours_is_a_bug() -> None:
    @needs("train")
    def command() -> None:
        raise ModuleNotFoundError("No module named 'voxport.train.gone'", name="voxport.train.gone")

    with pytest.raises(ModuleNotFoundError):
        command()


@pytest.mark.parametrize(("there", "extras"), [(True, "export"), (False, "export,cpu")])
def test_a_second_onnxruntime_is_never_advised(monkeypatch: pytest.MonkeyPatch, there: bool, extras: str) -> None:
    """Where onnxruntime-gpu provides the module, `cpu` would overwrite it."""
    spec = importlib.machinery.ModuleSpec("onnxruntime", None) if there else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)

    @needs("export", "cpu")
    def command() -> None:
        raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")

    with pytest.raises(BackendError) as caught:
        command()
    assert str(caught.value).endswith(f'pip install "voxport[{extras}]"')


def test_needs_keeps_what_click_reads() -> None:
    @click.command()
    @click.option("--n", type=int)
    @needs("train")
    def double(n: int) -> None:
        """Double N."""
        click.echo(2 * n)

    assert double.help == "Double N."
    assert CliRunner().invoke(double, ["--n", "4"]).output == "8\n"


def test_examples_survive_clicks_wrapping() -> None:
    long = "voxport train fit --data corpus/of/many/speakers --recipe sap_am_bn_3layers --out runs/a/long/name/here"

    @click.command(epilog=example(f"\n    {long}\n    voxport inspect m.onnx\n"))
    def command() -> None:
        """Do it."""

    lines = CliRunner().invoke(command, ["--help"], terminal_width=60).output.splitlines()
    assert [line.strip() for line in lines[-3:]] == ["Example:", long, "voxport inspect m.onnx"]


def test_a_users_own_wait_policy_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
