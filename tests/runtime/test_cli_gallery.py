"""`voxport embed`, `enroll`, `verify` and `identify --gallery`: answers, exit codes, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.runtime.tiny_models import SIZE, TinyModel, features, make_tiny, tone
from voxport.cli.root import cli
from voxport.runtime import Gallery, SpeakerIdentifier


def run(command: str, *arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [command, *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def report(command: str, *arguments: object, code: int = 0) -> Any:
    return json.loads(run(command, *arguments, "--json", code=code).stdout)


@pytest.fixture
def low(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "low.wav", tone(0.4, hertz=200.0), 16000)
    return tmp_path / "low.wav"


@pytest.fixture
def high(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "high.flac", tone(0.4, hertz=3000.0, size=0.05), 16000)
    return tmp_path / "high.flac"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "notes.wav").write_text("not a sound")
    return tmp_path / "notes.wav"


@pytest.fixture
def people(tmp_path: Path, tiny: TinyModel, low: Path, high: Path) -> Path:
    """A gallery of two, without thresholds."""
    path = tmp_path / "people.gallery"
    run("enroll", path, "--model", tiny.path, "Low", low)
    run("enroll", path, "--model", tiny.path, "High", high, high, "--accept-anyway")  # the tiny model finds them alike
    return path


# --- embed --------------------------------------------------------------------------------------------


def test_embed_gives_the_vectors_of_the_library(either: TinyModel, low: Path, high: Path, tmp_path: Path) -> None:
    identifier = SpeakerIdentifier.load(either.path)
    expected = np.stack([identifier.embed(low), identifier.embed(high)])
    found = report("embed", either.path, low, high)
    assert found["checkpoint_sha256"] == either.contract.checkpoint_sha256
    assert found["embedding_size"] == SIZE
    assert [entry["file"] for entry in found["results"]] == [str(low), str(high)]
    np.testing.assert_allclose([entry["embedding"] for entry in found["results"]], expected, atol=1e-6)
    run("embed", either.path, low, high, "-o", tmp_path / "voices.npz")
    with np.load(tmp_path / "voices.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["embeddings"], expected, atol=1e-6)
        assert arrays["files"].tolist() == [str(low), str(high)]
        assert str(arrays["checkpoint_sha256"]) == either.contract.checkpoint_sha256


def test_embed_shows_how_alike_the_voices_are(tiny: TinyModel, low: Path, high: Path) -> None:
    identifier = SpeakerIdentifier.load(tiny.path)
    cosine = float(identifier.embed(low) @ identifier.embed(high))
    lines = run("embed", tiny.path, low, high, low).stdout.splitlines()
    assert lines[-1].split() == ["3", str(low), "1.0000", f"{cosine:.4f}", "1.0000"]


def test_embed_takes_features_where_the_model_does(tiny: TinyModel, tmp_path: Path) -> None:
    values = features(20)
    np.save(tmp_path / "who.npy", values)
    (entry,) = report("embed", tiny.path, tmp_path / "who.npy")["results"]
    np.testing.assert_allclose(entry["embedding"], tiny.embedding(values), atol=1e-5)


def test_embed_leaves_out_what_cannot_be_used_and_says_so(
    tiny: TinyModel, low: Path, bad: Path, tmp_path: Path
) -> None:
    result = run("embed", tiny.path, bad, low, "-o", tmp_path / "voices.npz", code=1)
    assert f"error: {bad}: " in result.stderr
    assert result.stderr.splitlines()[-1] == "1 of 2 files could not be answered"
    with np.load(tmp_path / "voices.npz") as arrays:
        assert arrays["files"].tolist() == [str(low)]


# --- enroll -------------------------------------------------------------------------------------------


def test_enroll_makes_a_gallery_and_adds_to_it(tiny: TinyModel, people: Path, low: Path) -> None:
    soundfile.write(people.with_name("again.wav"), tone(0.4, hertz=205.0), 16000)
    found = report("enroll", people, "--model", tiny.path, "Low", low, people.with_name("again.wav"))
    assert found["enrolled"] == {"speaker": "Low", "utterances": 2, "repeated": 1}  # one recording counts once
    assert [(each["speaker"], each["utterances"]) for each in found["speakers"]] == [("Low", 2), ("High", 1)]
    identifier = SpeakerIdentifier.load(tiny.path)
    gallery = Gallery.load(people, identifier.contract)
    both = identifier.embed(low) + identifier.embed(people.with_name("again.wav"))
    expected = float(identifier.embed(low) @ both) / float(np.linalg.norm(both))
    assert gallery.verify("Low", identifier.embed(low)).cosine == pytest.approx(expected, abs=1e-5)


def test_enroll_lists_and_removes_without_a_model(people: Path) -> None:
    page = run("enroll", people, "--list").stdout
    assert [line.split() for line in page.splitlines()[3:5]] == [["Low", "1"], ["High", "1"]]
    assert "thresholds: none" in page
    assert "removed Low" in run("enroll", people, "--remove", "Low").stdout
    assert [entry["speaker"] for entry in report("enroll", people, "--list")["speakers"]] == ["High"]
    assert "'Low' is not enrolled" in run("enroll", people, "--remove", "Low", code=1).stderr


def test_enroll_calibrates_and_says_what_it_could_not(people: Path) -> None:
    result = run("enroll", people, "--calibrate", 0.01, "--accept-anyway", code=1)
    assert "needs at least 100 comparisons" in result.stderr
    page = run("enroll", people, "--calibrate", 0.5, "--accept-anyway").stdout
    thresholds = report("enroll", people, "--list")["thresholds"]
    assert f"verify: accepted from a cosine of {thresholds['verify']:.4f} on" in page
    assert (thresholds["false_accept_rate"], thresholds["speakers"]) == (0.5, 2)
    run("enroll", people, "--remove", "Low")
    assert "now there are 1: calibrate again" in run("enroll", people, "--list").stdout


def test_a_threshold_for_identify_that_nothing_could_show_is_missing(
    tiny: TinyModel, people: Path, low: Path, high: Path, tmp_path: Path
) -> None:
    """Four speakers of one utterance each: twelve comparisons, four strangers."""
    path = tmp_path / "four"
    for number, hertz in enumerate((200.0, 900.0, 2000.0, 3500.0)):
        soundfile.write(tmp_path / "x.wav", tone(0.4, hertz=hertz, size=0.1 + 0.2 * number), 16000)
        run("enroll", path, "--model", tiny.path, f"S{number}", tmp_path / "x.wav", "--accept-anyway")
    page = run("enroll", path, "--calibrate", 0.1, "--accept-anyway").stdout
    assert "identify: no threshold" in page
    assert "needs 10 utterances" in page


def test_enroll_calibrates_with_strangers(
    tiny: TinyModel, people: Path, low: Path, high: Path, tmp_path: Path, model_path: Path
) -> None:
    sounds = [tmp_path / f"{i}.wav" for i in range(10)]
    for i, path in enumerate(sounds):
        soundfile.write(path, tone(0.4, hertz=300.0 + 300 * i, size=0.05 * (i + 1)), 16000)
    voices = tmp_path / "voices.npz"
    run("embed", tiny.path, *sounds, "-o", voices)
    run("enroll", people, "--calibrate", 0.1, "--strangers", voices, "--accept-anyway")
    found = report("identify", tiny.path, *sounds, "--gallery", people)
    assert sum(entry["known"] for entry in found["results"]) == 1
    message = "--strangers are for --calibrate"
    assert message in run("enroll", people, "--list", "--strangers", voices, code=2).stderr
    before = people.read_bytes()
    run("embed", make_tiny(model_path, checkpoint_sha256="0" * 64).path, *sounds, "-o", voices)
    result = run("enroll", people, "--calibrate", 0.1, "--strangers", voices, code=1)
    assert f"{voices}: made with another model (checkpoint 000000000000, not " in result.stderr
    for path in (low, tmp_path / "absent"):
        result = run("enroll", people, "--calibrate", 0.1, "--strangers", path, code=1)
        assert result.stderr.startswith(f"error: {path}: ")
    assert people.read_bytes() == before


def test_nothing_is_enrolled_where_one_file_cannot_be_used(
    tiny: TinyModel, people: Path, low: Path, bad: Path, tmp_path: Path
) -> None:
    before = people.read_bytes()
    result = run("enroll", people, "--model", tiny.path, "Eve", low, bad, code=1)
    assert f"error: {bad}: " in result.stderr
    assert "1 of 2 files could not be used; nothing was enrolled" in result.stderr
    assert people.read_bytes() == before
    run("enroll", tmp_path / "new", "--model", tiny.path, "Eve", bad, code=1)
    assert not (tmp_path / "new").exists()


def test_another_models_gallery_is_refused_by_every_command(
    people: Path, low: Path, tmp_path: Path, model_path: Path
) -> None:
    other = make_tiny(model_path, checkpoint_sha256="0" * 64).path
    before = people.read_bytes()
    for command in (
        ("enroll", people, "--model", other, "Eve", low),
        ("enroll", people, "--model", other, "--remove", "Low"),
        ("enroll", people, "--model", other, "--list"),
        ("verify", people, "--model", other, "Low", low),
        ("identify", other, low, "--gallery", people),
    ):
        result = run(*map(str, command), code=1)
        assert result.stderr.startswith(f"error: {people}: enrolled with another model")
        assert result.stdout == ""
    assert people.read_bytes() == before


# --- verify -------------------------------------------------------------------------------------------


def test_verify_exits_with_0_where_all_are_accepted_and_3_where_one_is_not(
    tiny: TinyModel, people: Path, low: Path, high: Path
) -> None:
    found = report("verify", people, "--model", tiny.path, "Low", low, "--threshold", 0.99)
    (entry,) = found["results"]
    assert entry == {
        "file": str(low),
        "speaker": "Low",
        "cosine": pytest.approx(1, abs=1e-5),
        "normalized": None,
        "threshold": 0.99,
        "accepted": True,
        "duration_s": 0.4,
        "windows": 1,
        "channel": None,
        "notes": [],
        "speech": None,
    }
    found = report("verify", people, "--model", tiny.path, "Low", low, high, "--threshold", 0.99, code=3)
    assert [entry["accepted"] for entry in found["results"]] == [True, False]


def test_verify_uses_the_gallerys_threshold(tiny: TinyModel, people: Path, low: Path, high: Path) -> None:
    for threshold, code in ((-1.0, 0), (1.0, 3)):
        with Gallery.edit(people, None) as gallery:
            gallery.set_thresholds(verify=threshold, identify=0.0)
        page = run("verify", people, "--model", tiny.path, "Low", high, code=code).stdout
        assert page.splitlines()[-1].split()[-2:] == [f"{threshold:.4f}", "no" if code else "yes"]


def test_verify_without_a_threshold_shows_the_cosine_and_is_an_error(tiny: TinyModel, people: Path, low: Path) -> None:
    """A script that opens a door on 0 must not open it."""
    result = run("verify", people, "--model", tiny.path, "Low", low, code=1)
    assert "1.0000" in result.stdout
    assert "no threshold to decide with; give --threshold" in result.stderr


def test_verify_of_a_bad_file_is_an_error_whatever_the_others_are(
    tiny: TinyModel, people: Path, low: Path, high: Path, bad: Path
) -> None:
    for other in (low, high):
        result = run("verify", people, "--model", tiny.path, "Low", other, bad, "--threshold", 0.99, code=1)
        assert f"error: {bad}: " in result.stderr
        assert str(other) in result.stdout


# --- identify -----------------------------------------------------------------------------------------


def test_identify_looks_among_the_enrolled(tiny: TinyModel, people: Path, low: Path, high: Path) -> None:
    found = report("identify", tiny.path, low, high, "--gallery", people)
    assert found["gallery"] == str(people)
    assert [entry["ranked"][0]["speaker"] for entry in found["results"]] == ["Low", "High"]
    assert [entry["known"] for entry in found["results"]] == [None, None]
    page = run("identify", tiny.path, low, "--gallery", people, "--threshold", 0.9, "--top", 1).stdout
    assert page.splitlines()[-1].split() == [str(low), "Low", "1.0000", "yes"]
