"""Growth curves: timing under a fake clock, every curve in miniature, and the windows' mean against NumPy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.tiny_models import make_tiny
from voxport.benchmarks.scaling import runner as scale_module
from voxport.benchmarks.scaling.chunks import SEPARATE, WHOLE, windowed_scores
from voxport.benchmarks.scaling.gallery import check_equal, gallery_curve, unit_rows
from voxport.benchmarks.scaling.points import Work, difference, make_series, measure_points
from voxport.benchmarks.scaling.report import CURVES, Point, ScaleSettings, Series, Sizes
from voxport.benchmarks.worker.job import JobError
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.errors import VoxportError
from voxport.runtime.gallery.search import MatrixSearch
from voxport.runtime.identifier import SpeakerIdentifier
from voxport.runtime.storage.serialization import encode

TINY = """summary = "tiny"
[model]
num_layers = 1
d_model = 16
num_heads = 2
ffn_dim = 16
kernel_size = 5
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


class FakeTime:
    """A clock that stands still but while somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def work(self, seconds: float) -> Callable[[], object]:
        def call() -> None:
            self.now += seconds

        return call


def test_points_have_their_times_and_exponent() -> None:
    time = FakeTime()
    works = [Work("square", n, time.work(1e-6 * n * n)) for n in (100, 200, 400, 800)]
    works += [Work("shared", n, time.work(1e-3 * n), parts=n) for n in (1, 2, 4, 8)]
    measure_points(works, ScaleSettings(rounds=3, seconds=0.5), time)
    square, shared = make_series(works)
    assert [point.ms for point in square.points] == pytest.approx([10, 40, 160, 640], rel=1e-3)
    assert square.growth is not None
    assert square.growth.exponent == pytest.approx(2, abs=1e-3)
    assert [point.ms for point in shared.points] == pytest.approx([1] * 4, rel=1e-2)
    assert all(len(work.rounds_ms) == 3 for work in works)


def test_what_takes_too_long_ends_its_series_and_says_so() -> None:
    time = FakeTime()
    works = [Work("slow", n, time.work(float(n))) for n in (1, 10, 100)] + [Work("quick", 100, time.work(0.001))]
    measure_points(works, ScaleSettings(rounds=1, seconds=0.1, patience=5.0), time)
    slow, quick = make_series(works)
    assert [point.size for point in slow.points] == [1, 10]
    assert slow.ended == "a call at 10 took 10 s"
    assert [point.size for point in quick.points] == [100]


def test_a_difference_is_what_is_left() -> None:
    whole = Series("whole", (Point(1, 5.0, (5.0, 6.0)), Point(2, 9.0, (9.0, 9.0)), Point(3, 1.0, (1.0, 1.0))))
    part = Series("part", (Point(1, 2.0, (2.0, 3.0)), Point(2, 4.0, (4.0, 4.0)), Point(3, 2.0, (2.0, 2.0))))
    rest = difference("rest", whole, part)
    assert rest.derived
    assert [(point.size, point.ms) for point in rest.points] == [(1, 3.0), (2, 5.0)]


def test_the_gallery_curve_measures_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (Sizes("gallery", (3, 50, 400)),)
    settings = ScaleSettings(sizes=sizes, embedding=8, questions=5, rounds=2, seconds=0.002)
    told = gallery_curve({"settings": encode(settings)})
    names = [series.name for series in told["series"]]
    assert names[:3] == ["all cosines sorted", "product, best by partition", "5 questions in one product"]
    assert all([point.size for point in series.points] == [3, 50, 400] for series in told["series"])


def test_a_search_that_finds_others_is_found_out() -> None:
    voices = unit_rows(np.random.default_rng(1), 50, 8)
    check_equal(voices, voices[:3], MatrixSearch(voices))
    with pytest.raises(VoxportError, match="found others"):
        check_equal(voices, voices[:3], MatrixSearch(voices[::-1]))


def test_windows_answer_with_the_mean_of_their_scores(tmp_path: Path) -> None:
    make_tiny(tmp_path / "m.onnx", "waveform", min_frames=5, max_frames=400)
    identifier = SpeakerIdentifier(OnnxModel.load(tmp_path / "m.onnx"))
    sound = np.random.default_rng(3).uniform(-0.5, 0.5, 7 * 16000).astype(np.float32)
    parts = [sound[start : start + 32000] for start in (0, 32000, 64000)] + [sound[-32000:]]
    expected = np.mean([identifier.scores(part, 16000) for part in parts], axis=0)
    np.testing.assert_allclose(windowed_scores(identifier, sound, 2.0), expected, atol=1e-4)


def in_process(where: str, request: dict[str, Any], timeout: float, threads: int | None = None) -> Any:
    """`run_job` without the process."""
    import importlib

    module, _, name = where.partition(":")
    return encode(getattr(importlib.import_module(module), name)(request))


def test_every_curve_in_miniature(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_module, "run_job", in_process)
    sizes = (
        Sizes("length", (10, 20, 40)),
        Sizes("batch", (1, 2)),
        Sizes("speakers", (5, 50, 500)),
        Sizes("gallery", (3, 30)),
        Sizes("chunks", (2, 4)),
    )
    settings = ScaleSettings(recipe=recipe, sizes=sizes, embedding=8, batch_frames=20, rounds=1, seconds=0.001)
    report = scale_module.measure_scale(settings)
    assert [(curve.name, curve.failure) for curve in report.curves] == [(name, "") for name in CURVES]
    found = {curve.name: [series.name for series in curve.series] for curve in report.curves}
    assert found["length"][:2] == ["whole network", "attention alone"]
    assert found["speakers"] == ["head as it is trained", "weights normalised once"]
    assert {WHOLE, SEPARATE} <= set(found["chunks"])
    assert any("peak memory" in note for curve in report.curves for note in curve.notes)


def test_a_curve_that_fails_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(where: str, request: dict[str, Any], timeout: float, threads: int | None = None) -> Any:
        if "gallery" in where:
            raise JobError("was ended by SIGKILL")
        return {"model": "m", "versions": {}} if "describe" in where else {"series": [], "notes": []}

    monkeypatch.setattr(scale_module, "run_job", run)
    report = scale_module.measure_scale(ScaleSettings())
    assert [curve.failure for curve in report.curves] == ["", "", "", "was ended by SIGKILL", ""]
