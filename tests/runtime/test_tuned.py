"""A folder that `voxport tune` wrote is a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.tiny_models import TinyModel, features, make_tiny
from voxport.runtime import BackendError, BackendOptions, ContractError, SpeakerIdentifier, load_backend
from voxport.runtime.backends.base import cpu_name
from voxport.runtime.storage.atomic import file_sha256


def tuned(folder: Path, **changes: Any) -> TinyModel:
    model = make_tiny(folder / "model.onnx")
    settings = {
        "kind": "voxport.tuned", "version": 1, "model": "model.onnx", "sha256": file_sha256(model.path),
        "runtime": "onnxruntime", "precision": None, "threads": 3, "cpu": cpu_name(), "why": "it is the fastest",
    } | changes  # fmt: skip
    (folder / "tuned.json").write_text(json.dumps(settings))
    return model


def test_it_is_loaded_as_it_was_tuned(tmp_path: Path) -> None:
    model = tuned(tmp_path)
    identifier, value = SpeakerIdentifier.load(tmp_path), features(20)
    np.testing.assert_allclose(identifier.scores_features(value), model.scores(value), atol=1e-4)
    told = identifier.explain()
    assert (told.backend, told.threads, told.why) == ("ONNX Runtime", 3, f"it is the fastest, on {cpu_name()}")
    assert load_backend(tmp_path, BackendOptions(threads=2)).explain().threads == 2


def test_another_processor_is_told_to_tune_again(tmp_path: Path) -> None:
    tuned(tmp_path, cpu="Zuse Z3")
    why = SpeakerIdentifier.load(tmp_path).explain().why
    assert why.startswith("it is the fastest, on Zuse Z3; this is ")
    assert why.endswith("tune again to know what is fastest here")


def test_what_is_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"a folder, not a file.*no tuned.json"):
        SpeakerIdentifier.load(tmp_path)
    (tmp_path / "tuned.json").write_text("{")
    with pytest.raises(ContractError, match=r"tuned.json: cannot be read"):
        SpeakerIdentifier.load(tmp_path)
    for changes, said in (
        ({"sha256": "0" * 64}, "not the model that was tuned"),
        ({"model": "../model.onnx"}, "model must be a file beside it"),
        ({"version": 2}, "version 2: not one that this voxport reads"),
        ({"runtime": "abacus"}, "runtime: must be one of onnxruntime, openvino"),
        ({"surprise": 1}, "unknown key surprise"),
    ):
        tuned(tmp_path, **changes)
        with pytest.raises(ContractError, match=said):
            SpeakerIdentifier.load(tmp_path)
    tuned(tmp_path)
    with pytest.raises(BackendError, match="was tuned for the CPU; load the model itself on 'cuda'"):
        SpeakerIdentifier.load(tmp_path, device="cuda")
