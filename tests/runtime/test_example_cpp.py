"""The C++ example, built with this machine's compiler against ONNX Runtime's wheel, answers as Python does.

It needs cmake, a C++ compiler, nlohmann/json, and ONNX Runtime's headers: the system's (Debian's libonnxruntime-dev),
or those of a release that the environment variable ONNXRUNTIME_ROOT names. Any version up to the wheel's will do. They
are in the iOS framework of the npm package com.github.asus4.onnxruntime too.
"""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runtime.test_speech import melody, noise, talk, tones
from tests.runtime.tiny_models import FRONTEND, LABELS, TinyModel, make_tiny, save, tiny_graph, tone
from voxport.runtime import SpeakerIdentifier
from voxport.runtime.contract import Array, LengthTemperature, Rejection
from voxport.runtime.length_range import LengthRange
from voxport.runtime.speech import REASONS, USUAL_RULE, Silence, find_speech

SOURCE = Path(__file__).parents[2] / "examples" / "cpp"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def missing() -> str | None:
    """Why the example cannot be built here."""
    for program, package in (("cmake", "cmake"), ("c++", "g++"), ("make", "make")):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: {package})"
    system = [Path("/usr/include"), Path("/usr/local/include")]
    if not any((folder / "nlohmann" / "json.hpp").exists() for folder in system):
        return "nlohmann/json is not installed (Debian: nlohmann-json3-dev)"
    named = [Path(os.environ["ONNXRUNTIME_ROOT"])] if "ONNXRUNTIME_ROOT" in os.environ else []
    places = [
        root / part for root in (*named, *system) for part in ("", "include", "onnxruntime", "include/onnxruntime")
    ]
    if not any((place / "onnxruntime_cxx_api.h").exists() for place in places):
        return "ONNX Runtime's C++ headers are not installed; set ONNXRUNTIME_ROOT to an unpacked release"
    return None


def wheel_library() -> Path:
    """libonnxruntime of the wheel that Python uses, so that both run the same kernels."""
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None
    assert found.origin is not None
    libraries = sorted(Path(found.origin).parent.glob("capi/libonnxruntime.so.1.*"))
    if not libraries:
        pytest.skip("onnxruntime's wheel has no shared library of its own before version 1.20, and not on this system")
    return libraries[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Build the example once; a function that runs it."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cpp")
    root, build = folder / "onnxruntime", folder / "build"
    (root / "lib").mkdir(parents=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # the second is its soname, which wheels leave out
        (root / "lib" / name).symlink_to(wheel_library())
    headers = os.environ.get("ONNXRUNTIME_ROOT", "")
    command(["cmake", "-S", SOURCE, "-B", build, f"-DONNXRUNTIME_ROOT={root};{headers}", "-DCMAKE_BUILD_TYPE=Debug"])
    made = command(["cmake", "--build", build])
    assert "warning" not in made.stdout.lower() + made.stderr.lower(), made.stdout + made.stderr

    def program(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(build / "voxport_identify"), *map(str, arguments)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return program


def command(words: list[object]) -> "subprocess.CompletedProcess[str]":
    result = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=900)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def write(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    soundfile.write(path, samples, rate, "PCM_16")
    return path


@pytest.mark.parametrize("channels", [1, 2])
def test_it_ranks_as_python_does(run: Run, tiny_waveform: TinyModel, tmp_path: Path, channels: int) -> None:
    sound = np.stack([tone(0.45), tone(0.45, hertz=1234.5)][:channels], axis=1)
    path = write(tmp_path / "who.wav", sound)
    expected = SpeakerIdentifier.load(tiny_waveform.path).identify(path)
    result = run(tiny_waveform.path, path)
    assert result.returncode == 0, result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[2] for row in rows] == [each.speaker for each in expected.ranked]
    assert {row[2] for row in rows} == set(LABELS)  # Chén, Дмитрий, 에리: UTF-8 all the way
    assert [float(row[1]) for row in rows] == pytest.approx([each.score for each in expected.ranked], abs=1e-4)
    assert [float(row[0]) for row in rows] == pytest.approx([each.probability for each in expected.ranked], abs=1e-5)
    assert run(tiny_waveform.path, path, 2).stdout.splitlines() == result.stdout.splitlines()[:2]


def test_its_lengths_are_the_contract_s_to_the_sample(run: Run, tiny_waveform: TinyModel, tmp_path: Path) -> None:
    allowed = LengthRange.of_sound(tiny_waveform.contract)
    edges = [
        (allowed.shortest - 1, "short"),
        (allowed.shortest, ""),
        (allowed.longest, ""),
        (allowed.longest + 1, "long"),
    ]
    for count, word in edges:
        result = run(tiny_waveform.path, write(tmp_path / "edge.wav", tone(2)[:count]))
        assert result.returncode == (1 if word else 0)
        assert (f"is too {word} for this model, which takes 0.04 s to 0.60 s; " in result.stderr) == bool(word)
        assert ("voxport identify" in result.stderr) == (word == "long")


@pytest.mark.parametrize(("threshold", "known"), [(-1.0, True), (1.0, False)])
def test_a_stranger_is_told_from_the_contract_s_threshold(
    run: Run, tmp_path: Path, threshold: float, known: bool
) -> None:
    model = make_tiny(tmp_path / "m.onnx", "waveform", rejection=Rejection(threshold, 0.01))
    result = run(model.path, write(tmp_path / "who.wav", tone(0.3)))
    assert result.stdout.startswith("nobody whom the model knows") == (not known)


def test_probabilities_are_at_the_contract_s_temperature(run: Run, tmp_path: Path) -> None:
    model = make_tiny(tmp_path / "m.onnx", "waveform", temperature=7.5)
    path = write(tmp_path / "who.wav", tone(0.45))
    expected = SpeakerIdentifier.load(model.path).identify(path)
    rows = [line.split("\t") for line in run(model.path, path).stdout.splitlines()]
    assert [float(row[0]) for row in rows] == pytest.approx([each.probability for each in expected.ranked], abs=1e-5)
    flat = make_tiny(tmp_path / "flat.onnx", "waveform")
    assert run(flat.path, path).stdout.splitlines()[0].split("\t")[0] != rows[0][0]


def test_a_contract_may_have_a_temperature_for_each_length(run: Run, tmp_path: Path) -> None:
    """At, between and beyond its points, and before its single temperature."""
    points = (LengthTemperature(0.2, 9.0), LengthTemperature(0.4, 3.0), LengthTemperature(0.5, 1.5))
    model = make_tiny(tmp_path / "m.onnx", "waveform", temperature=20.0, temperature_by_length=points)
    identifier = SpeakerIdentifier.load(model.path)
    for seconds in (0.1, 0.2, 0.27, 0.4, 0.43, 0.55):
        path = write(tmp_path / "who.wav", tone(seconds))
        rows = [line.split("\t") for line in run(model.path, path).stdout.splitlines()]
        expected = [each.probability for each in identifier.identify(path).ranked]
        assert [float(row[0]) for row in rows] == pytest.approx(expected, abs=1e-5)
    text = model.contract.to_json()
    assert '"seconds": 0.2,' in text
    graph = tiny_graph("waveform", model.project, model.classes)
    save(tmp_path / "falling.onnx", graph, text.replace('"seconds": 0.2,', '"seconds": 0.6,'))
    result = run(tmp_path / "falling.onnx", path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "do not rise in length" in result.stderr


def test_a_sound_without_speech_is_nobody_s(run: Run, tmp_path: Path) -> None:
    """The same verdict as Python's, and the same reason."""
    model = make_tiny(tmp_path / "m.onnx", "waveform", speech=USUAL_RULE, max_frames=400)
    silent = np.zeros(32000, np.float32)
    sounds = {
        "talk": talk(2.0), "late": np.concatenate([silent, talk(1.5)]), "offset": 0.5 * talk(2.0) + np.float32(0.3),
        "silent": silent, "noise": noise(2.0), "dial": tones(2.0, 350, 440), "melody": melody(2.0),
        "brief": np.concatenate([talk(0.2), silent]),
    }  # fmt: skip
    lacks: set[Silence | None] = set()
    for name, sound in sounds.items():
        path = write(tmp_path / f"{name}.wav", sound)
        lack = find_speech(soundfile.read(path, dtype="float32")[0], 16000, USUAL_RULE).lacks
        shown = run(model.path, path).stdout
        if lack is None:
            assert shown.count("\n") == len(LABELS)
        else:
            assert shown == f"nobody: the sound holds no speech: {REASONS[lack]}\n"
        lacks.add(lack)
    assert {None, "silence", "brief", "steady", "tonal"} <= lacks


def test_a_contract_that_claims_another_rate_is_refused(run: Run, tiny_waveform: TinyModel, tmp_path: Path) -> None:
    graph = tiny_graph("waveform", tiny_waveform.project, tiny_waveform.classes)
    graph.name = FRONTEND.title
    other = tiny_waveform.contract.replace(frontend=replace(FRONTEND, sample_rate=32000))
    save(tmp_path / "right.onnx", graph, tiny_waveform.contract.to_json())
    save(tmp_path / "wrong.onnx", graph, other.to_json())
    assert run(tmp_path / "right.onnx", write(tmp_path / "16k.wav", tone(0.3))).returncode == 0
    result = run(tmp_path / "wrong.onnx", write(tmp_path / "32k.wav", tone(0.3, 32000), 32000))
    assert (result.returncode, result.stdout) == (1, "")
    assert f"the contract claims 32000 Hz, the graph was made for {FRONTEND.title}" in result.stderr


def test_what_it_cannot_use_is_refused_in_words(
    run: Run, tiny: TinyModel, tiny_waveform: TinyModel, tmp_path: Path
) -> None:
    good = write(tmp_path / "good.wav", tone(0.3))
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:-100])
    soundfile.write(tmp_path / "float.wav", tone(0.3), 16000, "FLOAT")
    (tmp_path / "text.wav").write_text("RIFF of the sea")
    graph = tiny_graph("waveform", tiny_waveform.project, -tiny_waveform.classes)  # answers other than recorded
    save(tmp_path / "changed.onnx", graph, tiny_waveform.contract.to_json())
    save(tmp_path / "bare.onnx", graph)
    save(tmp_path / "broken.onnx", graph, "{}")
    cases = [
        (tiny_waveform.path, write(tmp_path / "8k.wav", tone(0.3, 8000), 8000), "8000 Hz, the model takes 16000 Hz"),
        (tiny_waveform.path, cut, "is cut short"),
        (tiny_waveform.path, tmp_path / "float.wav", "is not 16-bit PCM"),
        (tiny_waveform.path, tmp_path / "text.wav", "is no WAV file"),
        (tiny_waveform.path, tmp_path / "none.wav", "cannot be read"),
        (tiny.path, good, "the model takes features"),
        (tmp_path / "changed.onnx", good, "no longer gives its recorded answer"),
        (tmp_path / "bare.onnx", good, "has no voxport contract"),
        (tmp_path / "broken.onnx", good, "broken.onnx: "),
        (tmp_path / "none.onnx", good, "none.onnx"),
        (embedding_only(tmp_path, tiny_waveform), good, "gives embeddings, not speakers"),
    ]
    for model, sound, words in cases:
        result = run(model, sound)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert words in result.stderr
    assert run().returncode == 2


def embedding_only(folder: Path, model: TinyModel) -> Path:
    """A model file whose contract says that it has no scores."""
    contract = model.contract
    golden = replace(contract.golden, embedding=Array.of(model.embedding(contract.golden.input.values)))
    text = contract.replace(outputs=("embedding",), golden=golden).to_json()
    save(folder / "embedding.onnx", tiny_graph("waveform", model.project, model.classes), text)
    return folder / "embedding.onnx"


def test_the_lengths_of_every_framing(run: Run, tmp_path: Path) -> None:
    """Its count of samples is Python's, whichever way a frontend frames."""
    for framing in ("center_reflect", "snip_edges", "mirror_edges", "pad_end"):
        model = make_tiny(tmp_path / "m.onnx", "waveform", frontend=replace(FRONTEND, framing=framing))
        allowed = LengthRange.of_sound(model.contract)
        sounds = [write(tmp_path / f"{count}.wav", tone(2)[:count]) for count in (allowed.longest, allowed.longest + 1)]
        assert [run(model.path, sound).returncode for sound in sounds] == [0, 1]
