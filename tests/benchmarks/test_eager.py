"""The eager PyTorch baseline is the checkpoint's network, nothing more and nothing less."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.conftest import QUICK
from tests.runtime.tiny_models import FRONTEND, make_tiny
from voxport.benchmarks.backends.registry import open_backend
from voxport.benchmarks.core.inputs import make_inputs
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec, LatencySettings, TruthSettings
from voxport.benchmarks.latency.runner import measure_latency
from voxport.runtime.errors import BackendError

torch = pytest.importorskip("torch")

INPUTS, CELL = InputSpec(FRONTEND, seed=1, pool=2), Cell(3, 25)


@pytest.fixture
def spec(real_checkpoint: Path) -> BackendSpec:
    return BackendSpec("eager", "eager", str(real_checkpoint), "baseline", "features", "cpu", torch.get_num_threads())


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes this setting once per process, and only before it has run anything."""
    monkeypatch.setattr(torch, "set_num_interop_threads", lambda count: None)


def test_eager_is_the_network(spec: BackendSpec) -> None:
    from voxport.train.checkpoint import load_checkpoint

    inputs = make_inputs(INPUTS, CELL, "features")
    network = load_checkpoint(spec.path).network()
    with torch.no_grad():
        wanted = network(torch.from_numpy(inputs.arrays[0])).numpy()
    backend = open_backend(spec)
    found = backend.run(inputs.arrays[0], inputs.lengths)
    assert found.dtype == np.float32
    assert found.shape == (3, 5) == (CELL.batch, backend.speakers)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert backend.frontend == FRONTEND


def test_eager_waveform_includes_the_frontend(spec: BackendSpec) -> None:
    features, sound = make_inputs(INPUTS, CELL, "features"), make_inputs(INPUTS, CELL, "waveform")
    from_features = open_backend(spec).run(features.arrays[1], features.lengths)
    backend = open_backend(dataclasses.replace(spec, input_kind="waveform"))
    from_sound = backend.run(sound.arrays[1], sound.lengths)
    np.testing.assert_allclose(from_sound, from_features, atol=5e-3)  # the frontends agree to 1e-3


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu_is_refused(spec: BackendSpec) -> None:
    from voxport.benchmarks.backends.eager import EagerBackend

    with pytest.raises(BackendError, match=r"device cuda was asked for, but PyTorch .* finds no usable GPU"):
        EagerBackend(dataclasses.replace(spec, device="cuda"))


def test_the_measuring_process_never_imports_torch() -> None:
    code = "import sys, voxport.benchmarks.latency.runner, voxport.benchmarks.worker.server; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_exported_model_agrees_and_a_foreign_one_does_not(real_checkpoint: Path, tmp_path: Path) -> None:
    """The whole way: checkpoint, export, worker processes, real PyTorch against the real runtime."""
    from voxport.export.targets.onnx_graph import ExportOptions
    from voxport.export.targets.onnx_model import export_onnx

    own, foreign = tmp_path / "own.onnx", tmp_path / "foreign.onnx"
    export_onnx(real_checkpoint, own, ExportOptions(min_frames=20, max_frames=40))
    make_tiny(foreign)
    truth = TruthSettings(limits=False)
    settings = LatencySettings(frames=(20,), rounds=1, rule=QUICK, control=False, truth=truth)
    report = measure_latency([own, foreign], real_checkpoint, settings)
    assert [(row.backend, row.verdict) for row in report.rows] == [
        ("eager", "baseline"),
        ("own.onnx", "undecided"),  # one round decides nothing
        ("foreign.onnx", "answers differ"),
    ]
    digests = {item.spec.name: item.checkpoint_sha256 for item in report.backends}
    assert digests["own.onnx"] == digests["eager"] != digests["foreign.onnx"]
    eager = report.backends[0].opened
    assert eager is not None
    assert {fact.name: fact.value for fact in eager.facts}["threads"] == "1"
    assert {version.name for version in eager.versions} >= {"torch", "numpy"}
