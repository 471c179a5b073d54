"""What every test of this room stands on: pyarrow, which writes the rows."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime.tiny_models import TinyModel
from tests.scale.corpus import model_in, write_corpus

if TYPE_CHECKING:
    from tests.scale.served import Served

collect_ignore_glob = [] if find_spec("pyarrow") else ["test_score*.py"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("scale") / "corpus")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return model_in(tmp_path_factory.mktemp("scale"))


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory, corpus: Path, model: TinyModel) -> Path:
    """The folder of a run that nothing disturbed."""
    from voxport.scale.scoring.options import ScoreOptions
    from voxport.scale.scoring.run import score

    out = tmp_path_factory.mktemp("scale") / "scored"
    score(corpus, model.path, out, ScoreOptions(engine="local", workers=1, part_rows=4))
    return out


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, model: TinyModel) -> "Iterator[Served]":
    """A service that several tests ask; none of them leaves a voice there."""
    pytest.importorskip("uvicorn")
    from tests.scale.served import running
    from voxport.scale.service.options import Limits, ServiceOptions

    limits = Limits(max_bytes=400_000, max_seconds=60, body_s=1.0, stream_idle_s=1.0, queue=8)
    with running(ServiceOptions(model.path, engine="local", port=0, limits=limits)) as found:
        yield found
