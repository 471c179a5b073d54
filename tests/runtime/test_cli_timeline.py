"""`voxport timeline`: table, JSON, RTTM, the picture, and files that cannot be answered."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.runtime.tiny_models import TinyModel, make_tiny, tone
from voxport.cli.root import cli
from voxport.cli.runtime.timeline import clock
from voxport.cli.runtime.timeline_plot import draw_timeline
from voxport.runtime import Segment, SpeakerIdentifier, Timeline
from voxport.runtime.contract import Rejection

PNG = b"\x89PNG\r\n\x1a\n"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["timeline", *map(str, arguments)])


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    path = tmp_path / "the meeting.wav"
    sound = np.concatenate([tone(2, hertz=200), np.zeros(24000, np.float32), tone(2, hertz=3000)])
    soundfile.write(path, sound, 16000)
    return path


def test_json_holds_what_the_library_answers(either: TinyModel, meeting: Path) -> None:
    result = run(either.path, meeting, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    segments = Timeline(SpeakerIdentifier.load(either.path)).segments(meeting)
    assert len(segments) >= 2
    assert report == {
        "model": str(either.path),
        "file": str(meeting),
        "duration_s": 5.5,
        "segments": [vars(segment) for segment in segments],
    }


def test_the_table_has_a_row_for_each_segment(tiny: TinyModel, meeting: Path) -> None:
    result = run(tiny.path, meeting)
    segments = Timeline(SpeakerIdentifier.load(tiny.path)).segments(meeting)
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("0:00:")]
    assert [row[:2] for row in rows] == [[clock(each.start_s), clock(each.end_s)] for each in segments]
    assert [row[4] for row in rows] == [each.speaker for each in segments]


def test_rttm_and_picture_are_written_whole(tiny: TinyModel, meeting: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    out.mkdir()
    result = run(tiny.path, meeting, "--rttm", out / "m.rttm", "--plot", out / "m.png", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    lines = (out / "m.rttm").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(report["segments"])
    for line, segment in zip(lines, report["segments"], strict=True):
        fields = line.split()
        assert fields[:3] == ["SPEAKER", "the_meeting", "1"]
        assert float(fields[3]) == pytest.approx(segment["start_s"], abs=1e-3)
        assert float(fields[4]) == pytest.approx(segment["end_s"] - segment["start_s"], abs=1e-3)
        assert fields[7] == segment["speaker"]
    assert (out / "m.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in out.iterdir()) == ["m.png", "m.rttm"]


def test_a_stranger_is_shown_as_unknown(model_path: Path, meeting: Path, tmp_path: Path) -> None:
    make_tiny(model_path, rejection=Rejection(1.0, 0.01))
    result = run(model_path, meeting, "--rttm", tmp_path / "m.rttm")
    assert "(unknown)" in result.stdout
    assert " unknown <NA> <NA>" in (tmp_path / "m.rttm").read_text()


def test_silence_is_said_in_words(tiny: TinyModel, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    soundfile.write(tmp_path / "still.wav", np.zeros(32000), 16000)
    result = run(tiny.path, tmp_path / "still.wav", "--rttm", tmp_path / "m.rttm", "--plot", tmp_path / "m.svg")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'still.wav'}: nobody speaks in its 2.0 s\n"
    assert (tmp_path / "m.rttm").read_text() == ""
    assert b"<svg" in (tmp_path / "m.svg").read_bytes()


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    tiny: TinyModel, meeting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Timeline, "segments", lambda *_, **__: pytest.fail("it worked for nothing"))
    for option, name in (("--rttm", "no/m.rttm"), ("--plot", "no/m.png"), ("--plot", "m.xyz"), ("--rttm", ".")):
        assert run(tiny.path, meeting, option, tmp_path / name).exit_code == 1


def test_without_matplotlib_the_extra_is_named_before_the_work(
    tiny: TinyModel, meeting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(tiny.path, meeting, "--plot", tmp_path / "m.png", "--json")
    assert result.exit_code == 1
    assert 'pip install "voxport[bench]"' in result.stderr
    assert result.stdout == ""
    assert run(tiny.path, meeting, "--json").exit_code == 0


def test_without_a_picture_matplotlib_is_not_imported(tiny: TinyModel, meeting: Path) -> None:
    code = (
        "import sys; from voxport.cli.root import cli;"
        f"cli(['timeline', {str(tiny.path)!r}, {str(meeting)!r}], standalone_mode=False);"
        "assert not {'matplotlib', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_bar_is_shown_to_a_person_only(tiny: TinyModel, meeting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Listening" not in run(tiny.path, meeting).stderr
    monkeypatch.setattr("voxport.cli.runtime.timeline.is_shown", lambda: True)
    shown: list[int] = []
    with click.progressbar(length=1) as any_bar:
        kind = type(any_bar)
    update = kind.update

    def spy(bar: Any, steps: int) -> None:
        shown.append(steps)
        update(bar, steps)

    monkeypatch.setattr(kind, "update", spy)
    assert run(tiny.path, meeting).exit_code == 0
    assert sum(shown) == 5  # whole seconds of 5.5


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00.00"), (59.999, "0:01:00.00"), (3661.5, "1:01:01.50")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize("seconds", [0.5, 400_000.0])
def test_pictures_of_any_length_and_any_names(tmp_path: Path, seconds: float) -> None:
    pytest.importorskip("matplotlib")
    names = [f"speaker {i}" for i in range(60)] + [None, "$x_{", "에리", "x" * 200]
    step = seconds / len(names)
    segments = [Segment(i * step, (i + 0.5) * step, name, 20.0, 0.9) for i, name in enumerate(names)]
    draw_timeline(segments, seconds, "a $title$ of " + "many words " * 20, tmp_path / "m.png")
    assert (tmp_path / "m.png").read_bytes().startswith(PNG)
