"""What every test of every room stands on."""

import os
from collections.abc import Iterator

import pytest

# Before anything imports torch or ONNX Runtime: the tests' models are tiny, and threads that wait for
# each other cost more than they bring. The gate asks for two all the same; where those spin while they wait, an
# export takes three to seven times the processor's time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's cache of features alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
