"""What every test of every room stands on."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Before anything imports torch or ONNX Runtime: the tests' models are tiny, and threads that wait for
# each other cost more than they bring. The gate asks for two all the same; where those spin while they wait, an
# export takes three to seven times the processor's time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same examples each time, so that a change is judged by what it changes, however slow the machine; and a decoder
# written in C that dies of a new one takes the worker with all its tests. `make fuzz` looks for new ones.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests leave the user's cache of features alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOXPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# The files whose tests are few and long. They are begun first: at the end the other cores would wait for them.
LONG = (
    "test_rtx_matrix",
    "test_privacy",
    "test_demo",
    "test_fit_together",
    "test_fit",
    "test_fit_stops",
    "test_doctor",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--no-loadscope-reorder`, which gives out files in this order."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
