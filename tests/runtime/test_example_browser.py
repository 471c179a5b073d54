"""The browser page, driven in a headless Chromium: it shows what Python answers. `make browser-test` sets all up.

It needs node, Chromium, and the page's npm packages (`npm ci` in examples/browser). The reader of contracts needs
node alone.
"""

import contextlib
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.runtime.test_example_cpp import embedding_only
from tests.runtime.test_speech import melody, noise, talk
from tests.runtime.tiny_models import FRONTEND, LABELS, TinyModel, make_tiny, save, tiny_graph, tone
from voxport.runtime import SpeakerIdentifier, VoxportError, read_contract
from voxport.runtime.contract import LengthTemperature, Rejection, Windowing
from voxport.runtime.length_range import LengthRange
from voxport.runtime.speech import USUAL_RULE
from voxport.runtime.windowing.cutting import sound_windows

PAGE = Path(__file__).parents[2] / "examples" / "browser"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

Drive = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed")
    return found


@pytest.fixture
def drive(node: str, tmp_path: Path) -> Drive:
    """Run steps in one visit of the page; what it shows after each."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: chromium); CHROMIUM may name it")
    for package in ("onnxruntime-web", "playwright-core"):
        if not (PAGE / "node_modules" / package).is_dir():
            pytest.skip(f"the npm package {package} is not installed; make browser-test installs it")

    def visit(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
        script = tmp_path / "steps.json"
        script.write_text(json.dumps(steps, default=str))
        result = subprocess.run(
            [node, str(PAGE / "drive.mjs"), str(script)], env=os.environ | {"CHROMIUM": str(CHROMIUM)},
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        shown = [json.loads(line) for line in result.stdout.splitlines()]
        assert len(shown) == len(steps)
        assert shown[-1]["foreign"] == []  # it asked nobody but its own server
        return shown

    return visit


def write(path: Path, samples: np.ndarray, rate: int = 16000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype)
    return path


def check_answer(model: TinyModel, shown: dict[str, Any], sound: Path, tolerance: float) -> None:
    expected = SpeakerIdentifier.load(model.path).identify(sound)
    ranked = shown["answer"]["ranked"]
    assert shown["error"] == ""
    assert [each["speaker"] for each in ranked] == [each.speaker for each in expected.ranked]
    assert [each["score"] for each in ranked] == pytest.approx([each.score for each in expected.ranked], abs=tolerance)
    shares = [each.probability for each in expected.ranked]
    assert [each["probability"] for each in ranked] == pytest.approx(shares, abs=tolerance)
    assert shown["answer"]["known"] == expected.known
    assert shown["answer"]["windows"] == expected.windows
    assert shown["rows"] == 5


def test_the_page_shows_what_python_answers(drive: Drive, tiny_waveform: TinyModel, tmp_path: Path) -> None:
    stereo = np.stack([tone(0.45), tone(0.45, hertz=1234.5, size=0.2)], axis=1)
    mono = write(tmp_path / "mono.wav", tone(0.5, hertz=300))
    exact = write(tmp_path / "float.wav", stereo, subtype="FLOAT")
    whole = [mono, write(tmp_path / "both.flac", stereo)]
    resampled = [write(tmp_path / f"{rate}.wav", tone(0.5, rate, 300), rate) for rate in (8000, 44100, 48000)]
    shown = drive(
        [{"model": tiny_waveform.path}, *({"sound": path} for path in (exact, *whole, *resampled)), {"drop": mono}]
    )
    facts = shown[0]["facts"]
    assert all(word in facts for word in ("tiny", str(len(LABELS)), "fp32", "16000 Hz"))
    check_answer(tiny_waveform, shown[1], exact, 1e-4)
    for sound, page in zip(whole, shown[2:], strict=False):
        check_answer(tiny_waveform, page, sound, 5e-3)  # Chromium divides whole numbers above 0 by 32767, not 32768
    for sound, page in zip(resampled, shown[4:], strict=False):
        check_answer(tiny_waveform, page, sound, 0.2)  # the browser's resampler is not soxr: its edges differ
    assert shown[7]["answer"] == shown[2]["answer"]  # dropped or chosen
    assert shown[7]["faults"] == []


def test_long_sounds_are_heard_in_windows_and_silence_is_nobodys(drive: Drive, tmp_path: Path) -> None:
    rule = Windowing(speech_only=True, max_frames=150)
    points = (LengthTemperature(2.0, 12.0), LengthTemperature(40.0, 3.0))
    model = make_tiny(
        tmp_path / "m.onnx", "waveform", max_frames=200, speech=USUAL_RULE, windowing=rule, temperature_by_length=points
    )
    talking = np.concatenate([talk(5, 1), noise(6, 0.02), np.zeros(16000, np.float32), talk(2.3, 2)])
    long = write(tmp_path / "long.wav", talking, subtype="FLOAT")
    wrong = write(tmp_path / "wired.wav", np.stack([0.9 * talk(3), -talk(3)], axis=1), subtype="FLOAT")
    nobody = [
        (write(tmp_path / f"{lacks}{len(sound)}.wav", sound, subtype="FLOAT"), lacks)
        for lacks, sound in (
            ("steady", noise(7)), ("silence", np.zeros(16000 * 4)), ("brief", np.append(talk(0.2), np.zeros(16000))),
            ("steady", noise(1)), ("tonal", melody(4)),
        )
    ]  # fmt: skip
    plain = make_tiny(tmp_path / "plain.onnx", "waveform")  # as files that state no rule: all windows count
    sounds = [long, wrong, *(path for path, _ in nobody)]
    shown = drive(
        [{"model": model.path}, *({"sound": path} for path in sounds), {"model": plain.path}, {"sound": long}]
    )
    for page, path, given in ((shown[1], long, model), (shown[2], wrong, model), (shown[-1], long, plain)):
        check_answer(given, page, path, 1e-3)
        assert page["answer"]["windows"] > 1
    every = len(list(sound_windows(FRONTEND, LengthRange.of_windows(model.contract), rule, iter([talking]))))
    assert shown[1]["answer"]["windows"] < every
    assert f"heard in {shown[1]['answer']['windows']} windows" in shown[1]["rest"]
    assert "channel 2 alone is heard" in shown[2]["rest"]
    for page, (path, lacks) in zip(shown[3:], nobody, strict=False):
        expected = SpeakerIdentifier.load(model.path).identify(path)
        assert expected.speech is not None
        assert page["answer"] == {"ranked": [], "known": False, "lacks": expected.speech.lacks, "windows": 0}
        assert expected.speech.lacks == lacks
        assert page["best"].startswith("Nobody speaks")


def test_strangers_lengths_and_mistakes_are_told_in_words(
    drive: Drive, tiny: TinyModel, tiny_waveform: TinyModel, tmp_path: Path
) -> None:
    graph = tiny_graph("waveform", tiny_waveform.project, -tiny_waveform.classes)
    save(tmp_path / "changed.onnx", graph, tiny_waveform.contract.to_json())
    (tmp_path / "cut.onnx").write_bytes(tiny_waveform.path.read_bytes()[:-9])
    (tmp_path / "notes.wav").write_text("not a sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    picky = make_tiny(tmp_path / "picky.onnx", "waveform", rejection=Rejection(1.0, 0.01))
    allowed = LengthRange.of_sound(picky.contract)
    edges = (allowed.shortest - 1, allowed.shortest, allowed.longest, allowed.longest + 1)
    sounds = [write(tmp_path / f"{count}.wav", tone(2)[:count]) for count in edges]
    steps = [
        ({"sound": sounds[1]}, "Load a model first."),
        ({"model": tiny.path}, "takes features, not sound"),
        ({"model": embedding_only(tmp_path, tiny_waveform)}, "gives embeddings, not speakers"),
        ({"model": tmp_path / "cut.onnx"}, "damaged"),
        ({"model": tmp_path / "changed.onnx"}, "does not give its recorded answer"),
        ({"model": picky.path}, ""),
        ({"sound": sounds[0]}, "is too short for this model, which takes 0.04 s or more"),
        ({"sound": sounds[1]}, ""),
        ({"sound": sounds[2]}, ""),
        ({"sound": sounds[3]}, ""),
        ({"sound": tmp_path / "notes.wav"}, "notes.wav is not a sound that this browser can read"),
        ({"drop": tmp_path / "empty.wav"}, "empty.wav is empty."),
    ]
    shown = drive([step for step, _ in steps])
    for page, (_, words) in zip(shown, steps, strict=True):
        assert words in page["error"]
        assert bool(page["error"]) == bool(words)
        assert page["answer"] is None or not words
    assert [page["enabled"] for page in shown[:6]] == [False, False, False, False, False, True]
    assert [page["answer"]["windows"] for page in shown[7:10]] == [1, 1, 2]
    for page in shown[7:10]:
        assert page["answer"]["known"] is False
        assert page["best"].startswith("Nobody whom the model knows")


# --- its server, in node ------------------------------------------------------------------------------


def test_the_server_gives_the_page_and_nothing_else_and_survives_what_it_is_asked(node: str) -> None:
    serve = [node, str(PAGE / "serve.mjs")]
    with subprocess.Popen([*serve, "0"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            host, _, port = server.stdout.readline().strip().removeprefix("http://").partition(":")

            def ask(path: str) -> tuple[int, bytes]:
                with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
                    connection.request("GET", path)  # as it is: urllib would tidy it
                    reply = connection.getresponse()
                    return reply.status, reply.read()

            outside = ("/../../README.md", "/%2e%2e/%2e%2e/README.md", "/..%2f..%2fREADME.md", "//etc/passwd")
            for path in (*outside, "/absent", "/node_modules", "/%00", "/style.css%00"):
                assert ask(path)[0] == 404, path
            assert ask("/%ff")[0] == 400
            assert ask("/?model=model.onnx") == (200, (PAGE / "index.html").read_bytes())
            taken = subprocess.run([*serve, port], capture_output=True, text=True, check=False, timeout=60)
        finally:
            server.kill()
    assert (taken.returncode, taken.stdout) == (1, "")
    assert taken.stderr == f"error: port {port} is in use; name another: node serve.mjs 8081\n"
    for wrong in ("abc", "-1", "99999", "80.5"):
        result = subprocess.run([*serve, wrong], capture_output=True, text=True, check=False, timeout=60)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"error: port {wrong} is no port; name another: node serve.mjs 8081\n"


# --- the reader of contracts, in node -----------------------------------------------------------------

SECONDS = (0.01, 0.5, 0.9, 1, 1.7, 4, 300)

READER = """
import { readFileSync } from "node:fs";
import { readContract, temperatureFor, UserError } from "%s";
for (const path of JSON.parse(readFileSync(0, "utf8"))) {
  let said;
  try {
    const contract = readContract(new Uint8Array(readFileSync(path)));
    const { labels, shortest, longest, golden } = contract;
    const temperatures = %s.map((length) => temperatureFor(contract, length));
    said = { labels, shortest, longest, input: golden.input.length, scores: [...golden.scores], temperatures };
  } catch (problem) {
    said = problem instanceof UserError ? { refused: problem.message } : { crashed: String(problem) };
  }
  console.log(JSON.stringify(said));
}
"""


def read(node: str, folder: Path, paths: list[Path]) -> list[dict[str, Any]]:
    script = folder / "reader.mjs"
    script.write_text(READER % ((PAGE / "contract.js").as_uri(), list(SECONDS)))
    result = subprocess.run(
        [node, str(script)], input=json.dumps(list(map(str, paths))), capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("framing", ["center_reflect", "snip_edges", "mirror_edges", "pad_end"])
def test_the_reader_finds_what_python_finds(node: str, tmp_path: Path, framing: Any) -> None:
    models = [
        make_tiny(tmp_path / f"{size}.onnx", "waveform", frontend=replace(FRONTEND, framing=framing, win_length=size))
        for size in (399, 400)
    ]
    for model, found in zip(models, read(node, tmp_path, [model.path for model in models]), strict=True):
        allowed = LengthRange.of_sound(model.contract)
        assert found["labels"] == list(LABELS)
        assert (found["shortest"], found["longest"]) == (allowed.shortest, allowed.longest)
        assert found["input"] == model.contract.golden.input.values.size
        assert found["scores"] == model.contract.golden.scores.values.tolist()


def test_the_reader_s_temperatures_are_python_s(node: str, tmp_path: Path) -> None:
    points = (LengthTemperature(0.5, 9.0), LengthTemperature(1.0, 3.0), LengthTemperature(4.0, 1.5))
    some = [((), 1.0), ((), 7.5), (points, 20.0), (points[:1], 1.0)]
    models = [
        make_tiny(tmp_path / f"{i}.onnx", "waveform", temperature=single, temperature_by_length=by_length)
        for i, (by_length, single) in enumerate(some)
    ]
    for model, found in zip(models, read(node, tmp_path, [model.path for model in models]), strict=True):
        expected = [model.contract.temperature_for(seconds) for seconds in SECONDS]
        assert found["temperatures"] == pytest.approx(expected, rel=1e-12)
    graph, text = tiny_graph("waveform", models[2].project, models[2].classes), models[2].contract.to_json()
    wrong = [text.replace('"seconds": 0.5,', seconds) for seconds in ('"seconds": 2.0,', '"seconds": "0.5",', "")]
    for i, changed in enumerate(wrong):
        assert changed != text
        save(tmp_path / f"wrong{i}.onnx", graph, changed)
    for found in read(node, tmp_path, [tmp_path / f"wrong{i}.onnx" for i in range(len(wrong))]):
        assert "does not hold together" in found["refused"]


def test_hostile_files_are_refused_in_words_and_at_once(node: str, tiny_waveform: TinyModel, tmp_path: Path) -> None:
    """Cut at any place, with any bytes changed: refused in words, or read as Python reads it."""
    whole = tiny_waveform.path.read_bytes()
    generator = np.random.default_rng(0)
    cases = [whole[:size] for size in generator.integers(0, len(whole), 150)]
    for _ in range(350):
        changed = np.frombuffer(whole, np.uint8).copy()
        places = generator.integers(0, len(changed), generator.integers(1, 8))
        changed[places] = generator.integers(0, 256, len(places))
        cases.append(changed.tobytes())
    cases += [b"", b"\x72" * 1000, b"\x08\x00" * 300_000, b"\xff" * 20, b"\x72\xff\xff\xff\xff\xff\xff\xff\xff\x7f"]
    cases += [generator.bytes(300) for _ in range(100)]
    paths = []
    for i, case in enumerate(cases):
        paths.append(tmp_path / f"{i}.onnx")
        paths[-1].write_bytes(case)
    answers = read(node, tmp_path, paths)
    assert len(answers) == len(paths)
    assert [answer for answer in answers if "crashed" in answer] == []
    taken = [(path, answer) for path, answer in zip(paths, answers, strict=True) if "refused" not in answer]
    assert 0 < len(taken) < len(paths)
    for path, answer in taken:
        try:
            assert answer["labels"] == list(read_contract(path).labels)
        except VoxportError:  # Python is stricter: it checks every value of a contract
            continue
