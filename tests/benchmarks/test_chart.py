"""The chart shows what the document holds."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from voxport.benchmarks.core.records import ReportError
from voxport.benchmarks.latency.chart import draw_latency
from voxport.benchmarks.latency.report import LatencyReport

pytest.importorskip("matplotlib")


def test_a_picture_with_every_colour_in_it(measured: LatencyReport, tmp_path: Path) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    path = tmp_path / "chart.png"
    draw_latency(measured, path)
    assert list(tmp_path.iterdir()) == [path]
    pixels = np.round(imread(path)[..., :3] * 255).astype(int).reshape(-1, 3)
    for colour in ("#4d4d4d", "#a6a6a6", "#0072B2", "#D55E00"):
        wanted = np.round(np.array(to_rgb(colour)) * 255).astype(int)
        assert (np.abs(pixels - wanted).max(axis=1) <= 1).sum() > 200


def test_texts_of_the_chart(measured: LatencyReport, tmp_path: Path) -> None:
    """SVG with text as text shows what is written."""
    import matplotlib as mpl

    path = tmp_path / "chart.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw_latency(measured, path)
    text = path.read_text(encoding="utf-8")
    for expected in ("right.onnx", "eager (control)", "answers differ", "batch 2, 50 frames (0.5 s of sound each)"):
        assert expected in text
    assert "features in, scores out" in text


def test_few_calls_and_no_comparison_are_drawn_too(measured: LatencyReport, tmp_path: Path) -> None:
    rows = tuple(
        dataclasses.replace(row, p50_ms=None, p90_ms=None, p99_ms=None, speed_up=None, unstable_rounds=1)
        for row in measured.rows[:1]
    )
    path = tmp_path / "chart.png"
    draw_latency(dataclasses.replace(measured, rows=rows), path)
    assert path.stat().st_size > 1000


def test_nothing_to_draw_or_nowhere_to_draw_it(measured: LatencyReport, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"nothing to draw"):
        draw_latency(dataclasses.replace(measured, rows=()), tmp_path / "x.png")
    with pytest.raises(ReportError, match=r"cannot write the chart"):
        draw_latency(measured, tmp_path / "x.nonsense")
    with pytest.raises(ReportError, match=r"cannot write the chart"):
        draw_latency(measured, tmp_path / "nowhere" / "x.png")
    assert list(tmp_path.iterdir()) == []
