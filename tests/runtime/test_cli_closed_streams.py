"""Commands whose standard streams are closed, as daemons and cron jobs have them, or go to a full disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runtime.tiny_models import SIZE, TinyModel, tone
from voxport.runtime import Gallery, SpeakerIdentifier

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell closes the streams")


def run(redirection: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """The command with a shell's redirection behind it."""
    command = [sys.executable, "-W", "error", "-m", "voxport.cli", *map(str, arguments)]
    shell = ["sh", "-c", f'"$@" {redirection}', "sh", *command]
    return subprocess.run(shell, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "who.wav", tone(0.4), 16000)
    return tmp_path / "who.wav"


@pytest.fixture
def people(tmp_path: Path, tiny: TinyModel, sound: Path) -> Path:
    gallery = Gallery(tiny.contract)
    gallery.enroll("Ada", SpeakerIdentifier.load(tiny.path).embed(sound))
    gallery.enroll("Bo", -np.ones(SIZE))
    gallery.save(tmp_path / "people")
    return tmp_path / "people"


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code_and_leave_no_traceback(
    tiny: TinyModel, people: Path, sound: Path, redirection: str
) -> None:
    result = run(redirection, "verify", people, "--model", tiny.path, "Bo", sound, "--threshold", 0.5)
    assert (result.returncode, result.stderr) == (3, "")
    result = run(redirection, "identify", tiny.path, sound, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert bool(result.stdout) == (redirection == "2>&-")


def test_nothing_that_is_printed_gets_into_a_file_that_took_the_number_of_a_closed_stream(
    tiny: TinyModel, people: Path, sound: Path
) -> None:
    assert run("<&- >&- 2>&-", "enroll", people, "--model", tiny.path, "Cy", sound, "--accept-anyway").returncode == 0
    assert [each.speaker for each in Gallery.load(people, tiny.contract).speakers] == ["Ada", "Bo", "Cy"]
    rttm = sound.with_name("who.rttm")
    assert run(">&- 2>&-", "timeline", tiny.path, sound, "--rttm", rttm, "--min-segment", 0.1).returncode == 0
    assert all(line.startswith("SPEAKER who 1 ") for line in rttm.read_text().splitlines())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_disk_is_said_in_words(tiny: TinyModel, sound: Path) -> None:
    for command in ("identify", "stream"):
        result = run("> /dev/full", command, tiny.path, sound)
        assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "error: No space left on device")
        assert "Traceback" not in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are Unicode")
def test_a_file_whose_name_is_no_utf_8_is_answered(tiny: TinyModel, sound: Path) -> None:
    strange = os.path.join(os.fsencode(sound.parent), b"voil\xe0.wav")
    os.rename(sound, strange)
    command: list[str | bytes] = [sys.executable, "-m", "voxport.cli", "identify", str(tiny.path), strange]
    for options in ([], ["--json"]):
        result = subprocess.run([*command, *options], capture_output=True, check=False, timeout=120)
        assert (result.returncode, result.stderr) == (0, b"")
        assert b"voil\\udce0.wav" in result.stdout
    assert json.loads(result.stdout)["results"][0]["file"] == os.fsdecode(strange)


def test_names_that_the_output_s_encoding_does_not_have_are_printed_as_escapes(tiny: TinyModel, sound: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "voxport.cli", "inspect", str(tiny.path), "--no-verify"]
    result = subprocess.run(command, capture_output=True, check=False, timeout=120, env=environment)
    assert (result.returncode, result.stderr) == (0, b"")
    assert "Дмитрий".encode("ascii", "backslashreplace") in result.stdout
