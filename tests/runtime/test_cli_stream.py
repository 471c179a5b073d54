"""`voxport stream`: raw PCM and files, line by line, and ends that are not clean."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.runtime.tiny_models import TinyModel, make_tiny, tone
from voxport.cli.root import cli
from voxport.runtime import Decision, SpeakerIdentifier, Stream
from voxport.runtime.contract import Rejection

SOUND = np.concatenate([tone(1, hertz=200), np.zeros(16000, np.float32), tone(1.05, hertz=3000)])
PCM = (SOUND * 32767).astype("<i2")
VOXPORT = [sys.executable, "-m", "voxport.cli"]


def run(*arguments: object, sound: bytes = b"") -> Result:
    return CliRunner().invoke(cli, ["stream", *map(str, arguments)], input=sound)


def expected(model: TinyModel, samples: npt.NDArray[Any], rate: int = 16000) -> list[Decision]:
    stream = Stream(SpeakerIdentifier.load(model.path), rate)
    return [*stream.push(samples), *stream.close()]


def as_lines(decisions: list[Decision]) -> list[dict[str, Any]]:
    return [
        {
            "speaker": decision.speaker,
            "start_s": decision.start_s,
            "end_s": decision.end_s,
            "ranked": [vars(candidate) for candidate in decision.ranked],
            "known": decision.known,
            "firm": decision.firm,
            "channel": decision.channel,
        }
        for decision in decisions
    ]


def test_raw_pcm_gives_a_line_of_json_for_each_decision(either: TinyModel) -> None:
    result = run(either.path, "--json", sound=PCM.tobytes())
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == as_lines(expected(either, PCM))
    assert len(lines) > 4


def test_other_formats_rates_and_channels(tiny: TinyModel) -> None:
    stereo = np.repeat(SOUND[:, None], 2, axis=1)
    options = ("--format", "f32", "--channels", 2, "--rate", 44100, "--json")
    result = run(tiny.path, *options, sound=stereo.astype("<f4").tobytes())
    assert [json.loads(line) for line in result.stdout.splitlines()] == as_lines(expected(tiny, SOUND, 44100))


def test_a_file_is_played_through(tiny: TinyModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", PCM, 16000)
    lines = run(tiny.path, tmp_path / "talk.wav", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == as_lines(expected(tiny, PCM))


def test_lines_for_people_and_firm_ones_alone(tiny: TinyModel) -> None:
    decisions = expected(tiny, PCM)
    every = run(tiny.path, sound=PCM.tobytes()).stdout.splitlines()
    firm = run(tiny.path, "--firm", sound=PCM.tobytes()).stdout.splitlines()
    assert len(every) == len(decisions)
    assert [line for line in every if "firm" in line] == firm
    assert len(firm) == sum(decision.firm for decision in decisions) > 0
    assert decisions[0].best.speaker in every[0]


def test_a_stranger_is_unknown(model_path: Path) -> None:
    make_tiny(model_path, rejection=Rejection(1.0, 0.01))
    assert "(unknown; most like " in run(model_path, sound=PCM.tobytes()).stdout
    line = run(model_path, "--json", sound=PCM.tobytes()).stdout.splitlines()[0]
    assert json.loads(line)["speaker"] is None


@pytest.mark.parametrize(("kind", "size", "extra"), [("s16", 2, 1), ("f32", 4, 3)])
def test_a_sample_that_is_not_whole_is_left_out_and_said_so(tiny: TinyModel, kind: str, size: int, extra: int) -> None:
    raw = PCM.tobytes() if kind == "s16" else SOUND.tobytes()
    clean = run(tiny.path, "--format", kind, sound=raw)
    result = run(tiny.path, "--format", kind, sound=raw + b"\x01" * extra)
    assert result.exit_code == 0
    assert result.stdout == clean.stdout
    assert clean.stderr == ""
    assert f"ended within a sample: {extra} of {size} bytes" in result.stderr


@pytest.mark.parametrize("sound", [b"", b"\0", bytes(64000)])
def test_nothing_to_hear_is_no_error(tiny: TinyModel, sound: bytes) -> None:
    result = run(tiny.path, sound=sound)
    assert result.exit_code == 0
    assert result.stdout == ""
    said = f"note: no decision in {len(sound) // 2 / 16000:.2f} s of sound: too short, silence, or too little speech"
    assert result.stderr.splitlines()[-1] == said


def test_decisions_that_are_not_firm_are_missed_in_words(tiny: TinyModel) -> None:
    result = run(tiny.path, "--firm", sound=PCM[:8000].tobytes())
    assert result.stdout == ""
    assert result.stderr == "note: no firm decision in 0.50 s of sound: too short, silence, or too little speech\n"


@pytest.mark.skipif(os.name != "posix", reason="a shell closes it")
@pytest.mark.parametrize("kind", ["s16", "f32"])
def test_standard_input_may_be_closed(tiny: TinyModel, kind: str) -> None:
    command = [*VOXPORT, "stream", str(tiny.path), "--format", kind]
    result = subprocess.run(["sh", "-c", '"$@" <&-', "sh", *command], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == ("error: standard input is no pipe; send raw PCM into one, or name a sound FILE\n")


@pytest.mark.parametrize(
    ("arguments", "sound", "says"),
    [
        (["--format", "f32"], np.array([0.0] * 9 + [np.nan], "<f4").tobytes(), "the chunk at 0.000 s: holds NaN"),
        (["--format", "f32"], np.full(9, 500.0, "<f4").tobytes(), "expected [-1, 1]"),
        (["--rate", "100"], PCM.tobytes(), "sample_rate: 100 Hz"),
        ([], b"RIFF" + bytes(1000), "a WAV file, but raw PCM is expected"),
        ([], b"fLaC", "a FLAC file"),
    ],
)
def test_mistakes_are_told_in_a_line(tiny: TinyModel, arguments: list[str], sound: bytes, says: str) -> None:
    result = run(tiny.path, *arguments, sound=sound)
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_what_was_decided_before_a_fault_stays_printed(tiny: TinyModel) -> None:
    raw = SOUND.tobytes() + np.full(40000, np.nan, "<f4").tobytes()
    result = run(tiny.path, "--format", "f32", "--json", sound=raw)
    assert result.exit_code == 1
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert 4 < len(found) <= len(expected(tiny, SOUND))
    assert found == as_lines(expected(tiny, SOUND))[: len(found)]


def start(model: TinyModel, *arguments: str) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    command = [*VOXPORT, "stream", str(model.path), *arguments]
    # Without buffers nothing is left to be written when a pipe that has broken is closed.
    return subprocess.Popen(command, 0, stdin=pipe, stdout=pipe, stderr=pipe, preexec_fn=heed_interrupts)


def heed_interrupts() -> None:
    """A shell starts its background jobs deaf to SIGINT, and children inherit that: not so this one."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_decisions_come_while_the_sound_does_and_an_interrupt_is_clean(tiny: TinyModel) -> None:
    with start(tiny, "--json") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(PCM[:16000].tobytes())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["start_s"] == 0  # and the pipe is still open
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        message = process.stderr.read().decode()
    assert message.strip() == "interrupted"


def test_a_reader_that_goes_away_is_no_fault(tiny: TinyModel) -> None:
    with start(tiny, "--json") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(PCM[:16000].tobytes())
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        try:
            for _ in range(40):
                process.stdin.write(PCM.tobytes())
            process.stdin.close()
        except BrokenPipeError:  # it has gone, as it should
            pass
        process.wait(60)
        message = process.stderr.read().decode()
    assert message == ""
    assert process.returncode == 1


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are a POSIX matter")
def test_a_terminal_is_no_sound(tiny: TinyModel) -> None:
    leader, follower = os.openpty()
    try:
        command = [*VOXPORT, "stream", str(tiny.path)]
        result = subprocess.run(command, stdin=follower, capture_output=True, text=True, timeout=60)
    finally:
        os.close(leader)
        os.close(follower)
    assert result.returncode == 1
    assert "raw PCM" in result.stderr
