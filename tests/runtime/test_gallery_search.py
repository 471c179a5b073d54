"""The exact search against a full stable sort in float64, and against faiss where it is installed."""

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from voxport.runtime.errors import BackendError
from voxport.runtime.gallery.search import FaissSearch, MatrixSearch

Float32 = npt.NDArray[np.float32]


def unit(rows: int, size: int = 16, seed: int = 0) -> Float32:
    values = np.random.default_rng(seed).standard_normal((rows, size))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize("block_bytes", [4, 64, 1000, 1 << 20])
@pytest.mark.parametrize("questions", [1, 5])
@pytest.mark.parametrize("top", [1, 7, 400])
def test_the_best_are_those_of_a_full_sort(block_bytes: int, questions: int, top: int) -> None:
    voices, asked = unit(301), unit(questions, seed=1)
    exact = asked.astype(np.float64) @ voices.T.astype(np.float64)
    rows, cosines = MatrixSearch(voices, block_bytes)(asked, top)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :top]
    assert rows.shape == cosines.shape == (questions, min(top, 301))
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(cosines, np.take_along_axis(exact, expected, axis=1), atol=1e-6)


@pytest.mark.parametrize("block_bytes", [12, 1 << 20])
def test_equal_cosines_keep_the_order_of_rows(block_bytes: int) -> None:
    voices = np.tile(unit(2), (50, 1))  # every second row is the same voice
    rows, _ = MatrixSearch(voices, block_bytes)(voices[1:2], 4)
    np.testing.assert_array_equal(rows, [[1, 3, 5, 7]])


def test_memory_does_not_grow_with_the_voices() -> None:
    voices, asked = unit(60_000, 4), unit(32, 4, seed=1)
    tracemalloc.start()
    MatrixSearch(voices, block_bytes=1 << 18)(asked, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20  # all cosines at once would be 7.7 MB


def test_faiss_finds_the_same() -> None:
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    voices, asked = unit(2000), unit(9, seed=1)
    rows, cosines = MatrixSearch(voices)(asked, 5)
    found, alike = FaissSearch(voices)(asked, 5)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(alike, cosines, atol=1e-6)


def test_without_faiss_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(BackendError, match="pip install faiss-cpu"):
        FaissSearch(unit(3))
