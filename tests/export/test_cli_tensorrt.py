"""`voxport export tensorrt` as a user types it, on a machine without TensorRT."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.export.conftest import Exported
from voxport.cli.root import cli

LENGTHS = ("--min-frames", "5", "--max-frames", "150")


@pytest.fixture(autouse=True)
def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["export", "tensorrt", *map(str, arguments)])


def test_a_dry_run_tells_shapes_profiles_and_key(
    exported: Exported, tmp_path: Path, no_capture: Callable[[], None]
) -> None:
    no_capture()
    asked = (exported.checkpoint_path, "-o", tmp_path / "model.plan", *LENGTHS, "--buckets", "40", "--batch", "1,2,4")
    shown = run(*asked, "--dry-run")
    assert shown.exit_code == 0, shown.output
    for text in ("lengths: int64 (batch)", "1×5×40 … 2×40×40 … 4×40×40", "1×41×40 … 2×150×40 … 4×150×40"):
        assert text in shown.stdout
    assert 'tensorrt is not installed; a TensorRT plan needs it and an NVIDIA GPU: pip install "voxport[tensorrt]"' in (
        shown.stdout
    )
    told = json.loads(run(*asked, "--dry-run", "--json").stdout)
    assert told["key"].endswith("-?")
    assert told["key"] in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_without_tensorrt_it_says_what_is_missing(exported: Exported, tmp_path: Path) -> None:
    result = run(exported.checkpoint_path, "-o", tmp_path / "model.plan")
    assert result.exit_code == 1
    assert "here something is missing: tensorrt is not installed" in result.stderr
    assert "--dry-run shows what would be built" in result.stderr
    assert "Traceback" not in result.output
