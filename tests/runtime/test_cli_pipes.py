"""`voxport identify` in a shell's pipes, some of its files failing: what stands where, and the exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, tone
from voxport.runtime import SpeakerIdentifier

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")

# Both exit codes of a pipe, without bash: the command's own goes to descriptor 3.
BOTH = 'exec 4>&1; code=$( { { "$@" 3>&-; echo $? >&3; } | {reader} >&4; } 3>&1 ); echo "code $code"'


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """good, bad, good, missing."""
    soundfile.write(tmp_path / "1.wav", tone(0.4, hertz=200.0), 16000)
    (tmp_path / "2.wav").write_text("no sound")
    soundfile.write(tmp_path / "3.wav", tone(0.4, hertz=3000.0), 16000)
    return [str(tmp_path / f"{i}.wav") for i in (1, 2, 3, 4)]


def piped(reader: str, *arguments: object) -> tuple[list[str], str, int]:
    """The lines that `reader` gives, what stands on stderr, and the exit code of the command before the pipe."""
    command = [sys.executable, "-m", "voxport.cli", "identify", *map(str, arguments)]
    script = BOTH.replace("{reader}", reader)
    done = subprocess.run(["sh", "-c", script, "sh", *command], capture_output=True, text=True, check=True, timeout=120)
    *lines, last = done.stdout.splitlines()
    return lines, done.stderr, int(last.removeprefix("code "))


def test_the_answers_go_down_the_pipe_and_the_rest_beside_it(tiny: TinyModel, files: list[str]) -> None:
    lines, errors, code = piped("cat", tiny.path, *files, "--json")
    assert code == 1
    report = json.loads("\n".join(lines))
    identifier = SpeakerIdentifier.load(tiny.path)
    best = {entry["file"]: entry["ranked"][0]["speaker"] for entry in report["results"]}
    assert best == {name: identifier.identify(name).best.speaker for name in (files[0], files[2])}
    assert [entry["file"] for entry in report["errors"]] == [files[1], files[3]]
    assert [line.partition(": ")[2].partition(": ")[0] for line in errors.splitlines()[:2]] == [files[1], files[3]]
    assert errors.splitlines()[2:] == ["2 of 4 files could not be answered"]


def test_the_exit_code_says_whether_all_were_answered(tiny: TinyModel, files: list[str]) -> None:
    for chosen, options, code, last in (
        ([0, 2], ["--json"], 0, None),
        ([0, 1], [], 1, "1 of 2 files could not be answered"),
        ([1, 3], ["--json"], 1, "2 of 2 files could not be answered"),
    ):
        lines, errors, found = piped("cat", tiny.path, *(files[i] for i in chosen), *options)
        assert found == code
        assert (errors.splitlines()[-1] if errors else None) == last
        assert lines, "a report in JSON always comes, and is whole"
        assert sum("results" in line for line in lines) == len(options)


def test_names_from_another_command(tiny: TinyModel, files: list[str]) -> None:
    script = f'printf "%s\\0" {" ".join(files)} | xargs -0 "$@"'
    command = [sys.executable, "-m", "voxport.cli", "identify", str(tiny.path), "--top", "1"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 123  # xargs's word for "a command ended with 1 to 125"
    assert sum(name in done.stdout for name in files) == 2
    assert "2 of 4 files could not be answered" in done.stderr


def test_a_reader_that_leaves_early_ends_it_in_one_line(tiny: TinyModel, files: list[str]) -> None:
    _, errors, code = piped("true", tiny.path, *files[:1] * 3, "--json")
    assert code in (0, 1)  # 0 where the pipe took the report before the reader had left
    assert len(errors.splitlines()) <= 1
    assert "Traceback" not in errors
