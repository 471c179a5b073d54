"""A measurement with fake workers that several tests look at, and a tiny real checkpoint."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.packaging_tools import ROOT
from tests.runtime.tiny_models import FRONTEND, make_tiny
from voxport.benchmarks.core.settings import LatencySettings
from voxport.benchmarks.core.timing import BlockRule
from voxport.benchmarks.latency.report import LatencyReport
from voxport.benchmarks.latency.runner import measure_latency
from voxport.runtime.contract import InputKind

FAKE = (sys.executable, str(ROOT / "tests" / "fakes" / "worker.py"))
QUICK = BlockRule(  # few enough calls that no p99 can be told
    seconds=0.01, warmup_seconds=0.0, warmup_cap=1.0, window_seconds=0.001, window_calls=2, min_calls=30, max_calls=100
)

Folder = Callable[..., tuple[list[Path], Path]]


def write_models(paths: list[Path], checkpoint: Path, kind: InputKind = "features", **changes: Any) -> Path:
    """Write equal models at `paths`, and at `checkpoint` their weights as the fake eager PyTorch reads them."""
    for path in paths:
        tiny = make_tiny(path, kind, **changes)
    np.savez(checkpoint, project=tiny.project, classes=tiny.classes)
    return checkpoint


@pytest.fixture
def models(tmp_path: Path) -> Folder:
    """Write tiny models of these names, all equal, and the "checkpoint" that they agree with."""

    def write(*names: str, kind: InputKind = "features", **changes: object) -> tuple[list[Path], Path]:
        paths = [tmp_path / name for name in names]
        return paths, write_models(paths, tmp_path / f"{kind}.npz", kind, **changes)

    return write


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> LatencyReport:
    """Three rounds of a right and a wrong model at two lengths."""
    folder = tmp_path_factory.mktemp("measured")
    paths = [folder / "right.onnx", folder / "wrong.onnx"]
    checkpoint = write_models(paths, folder / "model.npz")
    settings = LatencySettings(batches=(2,), frames=(10, 50), rounds=3, rule=QUICK, timeout=60)
    return measure_latency(paths, checkpoint, settings, command=FAKE)


@pytest.fixture(scope="session")
def real_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network of the reference's kind, small, as a checkpoint file."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchaudio")
    from voxport.train.checkpoint import Checkpoint, save_checkpoint
    from voxport.train.data import Split
    from voxport.train.models.speaker_net import build_network
    from voxport.train.recipe import ModelOptions, Recipe

    torch.manual_seed(1)
    recipe = Recipe("tiny", "for tests", ModelOptions(1, d_model=16, num_heads=2, ffn_dim=16, kernel_size=5))
    state = build_network(recipe.model, FRONTEND.n_mels, 5).state_dict()
    labels = ("Anna", "Bora", "Chén", "Дмитрий", "에리")
    path = tmp_path_factory.mktemp("run") / "model.pt"
    save_checkpoint(Checkpoint(recipe, FRONTEND, labels, state, Split(("a",), ("b",)), 1, {}), path)
    return path
