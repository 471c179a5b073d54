"""Tiny models that several tests of the runtime share. They are read, never changed."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from tests.runtime.tiny_models import TinyModel, make_tiny
from voxport.runtime.contract import InputKind

# The runtime is tested without PyTorch too, as on Python 3.10; these two are about files that PyTorch runs.
collect_ignore = [] if find_spec("torch") else ["test_torch_file.py", "test_torch_model.py"]

# A busy machine is no failure: no property here is about time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A model with feature input."""
    return make_tiny(tmp_path_factory.mktemp("tiny") / "features.onnx")


@pytest.fixture(scope="session")
def tiny_waveform(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """A model with waveform input."""
    return make_tiny(tmp_path_factory.mktemp("tiny") / "waveform.onnx", "waveform")


@pytest.fixture(params=["features", "waveform"])
def either(request: pytest.FixtureRequest, tiny: TinyModel, tiny_waveform: TinyModel) -> TinyModel:
    """Each of the two."""
    kind: InputKind = request.param
    return tiny if kind == "features" else tiny_waveform


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """Where a test may write a model of its own."""
    return tmp_path / "model.onnx"
