"""Captured graphs and gathered evidence, each made once: a capture takes seconds. They are read, never changed."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.export.remembered import remembered
from tests.export.tiny import OPTIONS, make_checkpoint, write_checkpoint
from voxport.export.graph.capture import to_onnx
from voxport.export.inputs.cases import LengthLimits, Utterance
from voxport.export.inputs.corpus_samples import RealOptions
from voxport.export.targets.onnx_graph import ExportOptions
from voxport.export.targets.onnx_model import export_onnx
from voxport.export.verification.gate import Evidence, Named, gather
from voxport.export.verification.reference import Reference, Track, eager_reference
from voxport.export.verification.report import ParityReport
from voxport.runtime.contract import InputKind
from voxport.train.checkpoint import Checkpoint, checkpoint_sha256

LIMITS = LengthLimits(5, 150)
SMALL = dataclasses.replace(OPTIONS, num_layers=1)


@dataclasses.dataclass(frozen=True)
class Exported:
    """A finished export: the checkpoint, the file, and what the gate said of it."""

    checkpoint: Checkpoint
    checkpoint_path: Path
    model: Path
    report: ParityReport


@pytest.fixture(scope="session", autouse=True)
def shared_captures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """ONNX graphs and eager answers of the same network are made once in a run of the tests, for all its processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "captures"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("onnx_graph", "sherpa.model"):
            patch.setattr(f"voxport.export.targets.{module}.to_onnx", remembered(folder))
        patch.setattr("voxport.export.verification.gate.eager_reference", remembered_reference(folder))
        yield


def remembered_reference(folder: Path) -> Callable[..., Reference]:
    """`eager_reference` with a memory in `folder`, by all that it depends on: the network, the frontend, the inputs."""

    def answer(checkpoint: Checkpoint, utterances: Sequence[Utterance], track: Track) -> Reference:
        digest = hashlib.sha256(repr((checkpoint.recipe.model, checkpoint.frontend)).encode())
        arrays = [*(value.numpy() for value in checkpoint.state.values()), *(each.input for each in utterances)]
        for array in arrays:
            digest.update(repr((array.shape, array.dtype)).encode() + array.tobytes())
        path = folder / f"{digest.hexdigest()}.npz"
        if not path.is_file():
            found = eager_reference(checkpoint, utterances, track)
            part = path.with_suffix(f".{os.getpid()}.part")
            with part.open("wb") as file:
                np.savez(file, **vars(found))
            part.rename(path)
        with np.load(path) as content:
            return Reference(**content)

    return answer


@pytest.fixture
def fresh_captures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the capture itself."""
    for module in ("onnx_graph", "sherpa.model"):
        monkeypatch.setattr(f"voxport.export.targets.{module}.to_onnx", to_onnx)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model with feature input."""
    return _export(tmp_path_factory.mktemp("features"), make_checkpoint(SMALL), "features")


@pytest.fixture(scope="session")
def exported_sound(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A model with waveform input, of the frontend with the most steps in its graph."""
    return _export(tmp_path_factory.mktemp("waveform"), make_checkpoint(SMALL, "psf_fbank40"), "waveform")


def _export(folder: Path, checkpoint: Checkpoint, kind: InputKind) -> Exported:
    path = write_checkpoint(folder / "model.pt", checkpoint)
    options = ExportOptions(input_kind=kind, min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames)
    report = export_onnx(path, folder / "model.onnx", options)
    return Exported(checkpoint, path, folder / "model.onnx", report)


@pytest.fixture(scope="session")
def evidence(exported: Exported) -> Evidence:
    """The gate's inputs and the eager answers to them, for the model with feature input."""
    path = exported.checkpoint_path
    source = Named(exported.checkpoint, str(path), checkpoint_sha256(path))
    return gather(source, "features", LIMITS, "fp32", RealOptions())


@pytest.fixture
def no_capture(monkeypatch: pytest.MonkeyPatch, exported: Exported) -> Callable[[], None]:
    """For tests of what surrounds a capture: the graph of `exported` in its place."""
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    return lambda: monkeypatch.setattr("voxport.export.targets.onnx_graph.capture", lambda *_: graph)
