"""What every test of this room stands on: pyarrow, which writes the rows."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.runtime.tiny_models import TinyModel
from tests.scale.corpus import model_in, write_corpus

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
