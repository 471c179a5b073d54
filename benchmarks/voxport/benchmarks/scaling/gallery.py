"""Gallery search against the number of enrolled voices: a job of `scaling.runner`."""

import importlib
import importlib.util
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from voxport.benchmarks.scaling.points import Work, make_series, measure_points
from voxport.benchmarks.scaling.report import ScaleSettings
from voxport.runtime.errors import VoxportError
from voxport.runtime.gallery.search import FaissSearch, MatrixSearch, Search
from voxport.runtime.storage.serialization import decode

Float32 = npt.NDArray[np.float32]
TOP = 5
_BLOCK = 1 << 16  # rows made at a time


def gallery_curve(request: dict[str, Any]) -> dict[str, Any]:
    """The five nearest voices: by sorting all cosines, by partition, many questions at once, and by faiss.

    All must find the same voices, which is checked at every size.
    """
    settings = decode(ScaleSettings, request["settings"], "settings")
    rng = np.random.default_rng(settings.seed)
    sizes = settings.of("gallery")
    voices = unit_rows(rng, sizes[-1], settings.embedding)
    questions = unit_rows(rng, settings.questions, settings.embedding)
    works, notes = [], []
    for size in sizes:
        part = voices[:size]  # a view: the smaller galleries cost no memory
        search = MatrixSearch(part)
        check_equal(part, questions[:4], search)
        works += [
            Work("all cosines sorted", size, partial(sort_all, part, questions[0])),
            Work("product, best by partition", size, partial(search, questions[:1], TOP)),
            Work(
                f"{settings.questions} questions in one product",
                size,
                partial(search, questions, TOP),
                parts=settings.questions,
            ),
        ]
    if importlib.util.find_spec("faiss") is not None:
        works += _faiss_works(voices, questions, sizes, settings)
    else:
        notes.append("faiss-cpu is not installed, so its flat index was not compared")
    measure_points(works, settings)
    return {"series": make_series(works), "notes": [*notes, "each way found the same voices at every size"]}


def _faiss_works(voices: Float32, questions: Float32, sizes: tuple[int, ...], settings: ScaleSettings) -> list[Work]:
    faiss: Any = importlib.import_module("faiss")
    faiss.omp_set_num_threads(settings.threads)
    works = []
    for size in sizes:
        search = FaissSearch(voices[:size])
        check_equal(voices[:size], questions[:4], search)
        works.append(Work("faiss, flat index", size, partial(search, questions[:1], TOP)))
        works.append(
            Work(
                f"faiss, {settings.questions} questions at once",
                size,
                partial(search, questions, TOP),
                parts=settings.questions,
            )
        )
    return works


def unit_rows(rng: np.random.Generator, rows: int, width: int) -> Float32:
    """Random float32 unit rows, made in blocks: a million of 256 take 1 GB, and nothing beside it."""
    made = np.empty((rows, width), np.float32)
    for start in range(0, rows, _BLOCK):
        block = made[start : start + _BLOCK]
        block[:] = rng.standard_normal(block.shape, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return made


def sort_all(voices: Float32, question: Float32) -> npt.NDArray[np.int64]:
    """The plain way: every cosine, every one sorted."""
    return np.argsort(-(voices @ question), kind="stable")[:TOP]


def check_equal(voices: Float32, questions: Float32, search: Search) -> None:
    """Raise VoxportError where `search` finds other voices than a full sort, beyond ties in float32."""
    rows, _ = search(questions, TOP)
    for question, found in zip(questions, rows, strict=True):
        expected = sort_all(voices, question)
        away = np.abs(voices[found] @ question - voices[expected] @ question).max()
        if away > 1e-5:
            raise VoxportError(f"a search of {len(voices):,} voices found others than sorting them all does")
