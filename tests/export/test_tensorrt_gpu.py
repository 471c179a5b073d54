"""On a real GPU with a real TensorRT: whole exports. Each test skips by itself and says why."""

from pathlib import Path

import pytest

from tests.export.conftest import Exported
from voxport.export.targets.trt.export import PlanExportOptions, export_tensorrt
from voxport.export.targets.trt.profiles import BatchRange
from voxport.export.targets.trt.settings import find_machine
from voxport.runtime.backends.load import load_backend
from voxport.runtime.contract import Precision


@pytest.fixture(autouse=True)
def machine() -> None:
    found, missing = find_machine()
    if found is None:
        pytest.skip(f"no TensorRT plan can be built here: {'; '.join(missing)}")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_plan_passes_both_proofs(exported: Exported, tmp_path: Path, precision: Precision) -> None:
    options = PlanExportOptions(
        precision=precision, min_frames=5, max_frames=150, batch=BatchRange(1, 2, 8), buckets=(40, 80)
    )
    found = export_tensorrt(exported.checkpoint_path, tmp_path / "model.plan", options)
    assert found.parity.passed
    assert (found.precision.half_share >= 0.5) == (precision == "fp16")
    backend = load_backend(tmp_path / "model.plan")
    assert backend.contract.precision == precision


def test_the_caches_save_the_second_build(exported: Exported, tmp_path: Path) -> None:
    options = PlanExportOptions(
        min_frames=5, max_frames=150, timings=tmp_path / "trt.timings", engines=tmp_path / "engines"
    )
    first, second = (
        export_tensorrt(exported.checkpoint_path, tmp_path / f"{name}.plan", options) for name in ("one", "two")
    )
    assert (first.cached, second.cached) == (False, True)
    assert (tmp_path / "one.plan").read_bytes() == (tmp_path / "two.plan").read_bytes()
    assert (tmp_path / "trt.timings").stat().st_size > 0


def test_a_waveform_plan_computes_its_features(exported_sound: Exported, tmp_path: Path) -> None:
    options = PlanExportOptions(input_kind="waveform", min_frames=5, max_frames=150)
    assert export_tensorrt(exported_sound.checkpoint_path, tmp_path / "sound.plan", options).parity.passed
