"""Bulk scoring on Ray Data. Ray takes seconds to start, so it is started once."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.runtime.tiny_models import TinyModel
from tests.scale.corpus import deadly_decoder, rows_of, start

pytest.importorskip("ray.data")


def test_ray_gives_the_same_rows_and_replaces_an_actor_that_dies(
    corpus: Path, model: TinyModel, scored: Path, tmp_path: Path
) -> None:
    deadly = deadly_decoder(tmp_path / "deadly")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    out = tmp_path / "out"
    options = ("--workers", "1", "--part-rows", "16", "--json")
    run = start(corpus, model.path, out, *options, env=deadly | {"TMPDIR": str(temporary), "HOME": str(temporary)})
    said, problem = run.communicate(timeout=900)
    assert run.returncode == 0, problem
    assert json.loads(said)["engine"] == "ray"
    for row, wanted in zip(rows_of(out), rows_of(scored), strict=True):
        if row["id"] == "0007.flac":
            assert "the process that read it died" in row["error"]
            continue
        assert (row["id"], row["speaker"], row["error"]) == (wanted["id"], wanted["speaker"], wanted["error"])
        if wanted["error"] is None:
            np.testing.assert_allclose(row["embedding"], wanted["embedding"], atol=1e-5)
    assert list(temporary.iterdir()) == [], "Ray's folder is left"
