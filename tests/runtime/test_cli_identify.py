"""`voxport identify`: the table, the JSON, and files that cannot be answered."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.runtime.tiny_models import TinyModel, features, make_tiny, tone
from voxport.cli.root import cli
from voxport.runtime import SpeakerIdentifier
from voxport.runtime.contract import Rejection


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["identify", *map(str, arguments)])


@pytest.fixture
def sounds(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "low.wav", tmp_path / "high.flac"]
    for path, hertz in zip(paths, (200.0, 3000.0), strict=True):
        soundfile.write(path, tone(0.4, hertz=hertz), 16000)
    return paths


def test_json_holds_what_the_library_answers(either: TinyModel, sounds: list[Path]) -> None:
    result = run(either.path, *sounds, "--top", 2, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    identifier = SpeakerIdentifier.load(either.path)
    assert report["errors"] == []
    for entry, path in zip(report["results"], sounds, strict=True):
        expected = identifier.identify(path, top=2)
        assert entry["file"] == str(path)
        assert entry["duration_s"] == pytest.approx(0.4)
        assert entry["known"] is None
        assert [each["speaker"] for each in entry["ranked"]] == [each.speaker for each in expected.ranked]
        assert entry["ranked"][0]["probability"] == pytest.approx(expected.best.probability)


def test_the_table_names_file_speaker_and_probability(tiny: TinyModel, sounds: list[Path]) -> None:
    result = run(tiny.path, sounds[0], "--top", 1, "--threads", 1)
    assert result.exit_code == 0, result.output
    best = SpeakerIdentifier.load(tiny.path).identify(sounds[0]).best
    (line,) = (line for line in result.stdout.splitlines() if str(sounds[0]) in line)
    assert line.split()[-3:] == [best.speaker, f"{best.probability:.1%}", f"{best.score:.2f}"]
    assert "known" not in result.stdout


@pytest.mark.parametrize(("threshold", "word"), [(-1.0, "yes"), (1.0, "no")])
def test_a_model_with_a_threshold_says_whether_the_speaker_is_known(
    model_path: Path, sounds: list[Path], threshold: float, word: str
) -> None:
    make_tiny(model_path, rejection=Rejection(threshold, 0.01))
    result = run(model_path, sounds[0])
    (line,) = (line for line in result.stdout.splitlines() if str(sounds[0]) in line)
    assert line.split()[-1] == word
    assert ("(nobody known)" in line) == (word == "no")  # a stranger's line does not begin with a name
    assert ("most like" in result.stdout) == (word == "no")


def test_a_bad_file_is_named_and_the_others_are_answered(tiny: TinyModel, sounds: list[Path], tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("not a sound")
    soundfile.write(tmp_path / "brief.wav", tone(0.01), 16000)
    bad = [tmp_path / "absent.wav", tmp_path / "notes.wav", tmp_path / "brief.wav", tmp_path / "absent.wav"]
    result = run(tiny.path, bad[0], sounds[0], *bad[1:], sounds[1], "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert [entry["file"] for entry in report["results"]] == [str(path) for path in sounds]
    assert [entry["file"] for entry in report["errors"]] == [str(path) for path in bad]
    lines = result.stderr.splitlines()
    for line, path in zip(lines, bad, strict=False):
        assert line.startswith(f"error: {path}: ")
        assert line.count(str(path)) >= 1
    assert lines[-1] == "4 of 6 files could not be answered"
    assert "Traceback" not in result.stderr


def test_features_are_taken_where_the_model_takes_features(tiny: TinyModel, tmp_path: Path) -> None:
    values = features(20)
    np.save(tmp_path / "who.npy", values)
    result = run(tiny.path, tmp_path / "who.npy", "--top", 1, "--json")
    assert result.exit_code == 0, result.output
    (entry,) = json.loads(result.stdout)["results"]
    assert entry["ranked"][0]["speaker"] == tiny.contract.labels[int(tiny.scores(values).argmax())]


def test_cuda_is_never_replaced_by_the_cpu(tiny: TinyModel, sounds: list[Path]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    result = run(tiny.path, sounds[0], "--device", "cuda")
    assert result.exit_code == 1
    assert "voxport[gpu]" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("missing", "extras"),
    [(["onnxruntime", "soundfile", "soxr"], "cpu,audio"), (["onnxruntime"], "cpu,audio"), (["soxr"], "audio")],
)
def test_missing_packages_are_named_with_one_pip_command_for_all(
    tiny: TinyModel, sounds: list[Path], missing: list[str], extras: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    result = run(tiny.path, sounds[0])
    assert result.exit_code == 1
    assert missing[0] in result.stderr
    assert f'pip install "voxport[{extras}]"' in result.stderr


def test_features_need_no_audio_package(tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, name, None)
    np.save(tmp_path / "who.npy", features(20))
    assert run(tiny.path, tmp_path / "who.npy").exit_code == 0


def test_a_bar_is_shown_at_a_terminal_and_never_in_a_pipe(
    tiny: TinyModel, sounds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = tuple(str(sounds[0]) for _ in range(6))
    plain: Any = run(tiny.path, *many, "--json")
    assert plain.stderr == ""
    seen: list[int] = []
    original = click.progressbar

    def spy(files: tuple[str, ...], **options: Any) -> Any:
        seen.append(len(files))
        return original(files, **options)

    monkeypatch.setattr(click, "progressbar", spy)
    monkeypatch.setattr("voxport.cli.runtime.shared.is_shown", lambda: True)
    assert json.loads(run(tiny.path, *many, "--json").stdout)["errors"] == []
    assert seen == [6]
