"""Streams and timelines among enrolled speakers: the gallery's cosines, its threshold, strangers unknown."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from tests.runtime.test_speech import talk as syllables
from tests.runtime.tiny_models import FRONTEND, TinyModel, make_tiny, tone
from voxport.cli.root import cli
from voxport.runtime import (
    Answer,
    Contract,
    Gallery,
    GalleryError,
    GalleryScorer,
    ShortThresholds,
    SpeakerIdentifier,
    Stream,
    Thresholds,
    Timeline,
    VoxportError,
)
from voxport.runtime.contract import Array
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.gallery.state import State
from voxport.runtime.speech import USUAL_RULE, Speech

# The tiny model's windows are 0.6 s at most.
LOW, HIGH, STRANGER = (tone(3, hertz=hertz) for hertz in (200, 3000, 900))
GAP = np.zeros(16000, np.float32)


@pytest.fixture(scope="module")
def identifier(tiny: TinyModel) -> SpeakerIdentifier:
    return SpeakerIdentifier.load(tiny.path)


@pytest.fixture(scope="module")
def gallery(identifier: SpeakerIdentifier) -> Gallery:
    found = Gallery(identifier.contract)
    found.enroll("Low", identifier.embed(LOW[:9000], 16000))
    found.enroll("High", identifier.embed(HIGH[:9000], 16000))
    return found


@pytest.fixture(scope="module")
def threshold(identifier: SpeakerIdentifier, gallery: Gallery) -> float:
    """Between the enrolled voices and the stranger."""
    stranger = gallery.identify(identifier.embed(STRANGER[:9000], 16000)).best.cosine
    assert stranger < 0.999
    return (stranger + 1) / 2


def test_scores_are_the_cosines_of_an_independent_computation(
    tiny: TinyModel, identifier: SpeakerIdentifier, gallery: Gallery
) -> None:
    windows = [LOW[:9000], HIGH[100:8000], STRANGER[:5000]]
    vectors = [tiny.embedding(compute_features(window, FRONTEND)) for window in windows]
    voices = [tiny.embedding(compute_features(sound[:9000], FRONTEND)) for sound in (LOW, HIGH)]
    scorer = GalleryScorer(identifier, gallery)
    assert scorer.speakers == ("Low", "High")
    assert scorer.threshold is None
    assert np.asarray(scorer(windows)) / scorer.scale == pytest.approx(np.array(vectors) @ np.array(voices).T, abs=1e-5)


def test_a_stream_names_the_enrolled_and_nobody_else(
    identifier: SpeakerIdentifier, gallery: Gallery, threshold: float
) -> None:
    stream = Stream(identifier, scorer=GalleryScorer(identifier, gallery, threshold=threshold))
    sound = np.concatenate([LOW, GAP, STRANGER, GAP, HIGH])
    decisions = [*stream.push(sound), *stream.close()]
    for start, stop, speaker in ((0, 3, "Low"), (4, 7, None), (8, 11, "High")):
        heard = {each.speaker for each in decisions if each.start_s >= start and each.end_s <= stop + 0.05}
        assert heard == {speaker}
    assert {decision.known for decision in decisions} == {True, False}


def test_without_a_threshold_somebody_always_is_the_speaker(identifier: SpeakerIdentifier, gallery: Gallery) -> None:
    stream = Stream(identifier, scorer=GalleryScorer(identifier, gallery))
    decisions = [*stream.push(STRANGER), *stream.close()]
    assert {decision.known for decision in decisions} == {None}
    assert {decision.speaker for decision in decisions} <= {"Low", "High"}


def test_the_gallery_s_calibrated_threshold_is_used(identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    """Calibrated on strangers, saved, loaded: who is like an enrolled voice is known, the strangers are not."""
    gallery = Gallery(identifier.contract)
    gallery.enroll("Low", identifier.embed(LOW[:9000], 16000))
    strangers = identifier.embed_batch([tone(0.5, hertz=hertz) for hertz in range(800, 6000, 40)], 16000)
    thresholds = gallery.calibrate(0.01, strangers, accept_anyway=True)
    assert thresholds.identify is not None
    gallery.save(tmp_path / "people.gallery")
    scorer = GalleryScorer(identifier, Gallery.load(tmp_path / "people.gallery", identifier.contract))
    assert scorer.threshold == thresholds.identify
    known = {hertz: Timeline(identifier, scorer=scorer).segments(tone(3, hertz=hertz), 16000) for hertz in (200, 3000)}
    assert [segment.speaker for segment in known[200]] == ["Low"]
    assert [segment.speaker for segment in known[3000]] == [None]


def test_windows_are_held_to_the_threshold_of_their_length(
    tiny: TinyModel, identifier: SpeakerIdentifier, gallery: Gallery, threshold: float, tmp_path: Path
) -> None:
    """The stranger passes the general threshold and not that of sounds below 1 s, of which the windows are."""
    stranger = gallery.identify(identifier.embed(STRANGER[:9000], 16000)).best
    calibrated = Gallery(identifier.contract)
    calibrated.enroll_many(
        {name: identifier.embed(sound[:9000], 16000) for name, sound in (("Low", LOW), ("High", HIGH))}
    )
    by_length = (ShortThresholds(0.5, None, 0.9999), ShortThresholds(1.0, None, threshold))
    calibrated._change(
        lambda state: state.with_thresholds(Thresholds(None, stranger.cosine - 0.01, by_length=by_length))
    )
    scorer = GalleryScorer(identifier, calibrated)
    assert [scorer.threshold_for(seconds) for seconds in (0.4, 0.6, 1.0, None)] == [
        0.9999, threshold, scorer.threshold, stranger.cosine - 0.01
    ]  # fmt: skip
    assert calibrated.identify(identifier.voice(STRANGER[:9000], 16000)).speaker is None
    stream = Stream(identifier, scorer=scorer)
    decisions = [*stream.push(STRANGER), *stream.close()]
    assert {decision.speaker for decision in decisions} == {None}
    assert [each.speaker for each in Timeline(identifier, scorer=scorer).segments(STRANGER, 16000)] == [None]
    assert [each.speaker for each in Timeline(identifier, scorer=scorer).segments(LOW, 16000)] == ["Low"]
    given = GalleryScorer(identifier, calibrated, threshold=stranger.cosine - 0.01)
    found = Timeline(identifier, scorer=given).segments(STRANGER, 16000)
    assert [each.speaker for each in found] == [stranger.speaker]
    calibrated.save(tmp_path / "people.gallery")
    soundfile.write(tmp_path / "who.wav", STRANGER, 16000)
    arguments = [
        str(tiny.path),
        str(tmp_path / "who.wav"),
        "--gallery",
        str(tmp_path / "people.gallery"),
    ]
    told = CliRunner().invoke(cli, ["timeline", *arguments, "--json"])
    assert json.loads(told.stdout)["threshold"] == threshold


def test_pauses_make_no_window_longer(tmp_path: Path) -> None:
    """Windows of 0.6 s with at most 0.4 s of speech are held to the threshold below 0.5 s, however they are asked."""
    identifier = SpeakerIdentifier.load(make_tiny(tmp_path / "m.onnx", speech=USUAL_RULE).path)
    burst, pause = syllables(0.4), np.zeros(3200, np.float32)
    sound = np.concatenate([burst, pause] * 6)
    voice = identifier.voice(np.concatenate([burst, pause]), 16000)
    assert voice.speech_s is not None
    assert voice.speech_s < 0.5 < voice.duration_s
    gallery = Gallery(identifier.contract)
    gallery.enroll("Talk", voice)
    wholes = Thresholds(None, -1.0, by_length=(ShortThresholds(0.5, None, 1.0),))
    for thresholds, wanted in ((wholes, "Talk"), (replace(wholes, length_of="speech"), None)):
        gallery._change(partial(State.with_thresholds, thresholds=thresholds))
        scorer = GalleryScorer(identifier, gallery)
        assert gallery.identify(replace(voice, embedding=-voice.embedding)).speaker == wanted  # like nobody at all
        stream = Stream(identifier, scorer=scorer)
        decisions = [*stream.push(sound), *stream.close()]
        assert {decision.speaker for decision in decisions} == {wanted}
        assert {each.speaker for each in Timeline(identifier, scorer=scorer).segments(sound, 16000)} == {wanted}


def test_a_voice_without_speech_is_nobodys(identifier: SpeakerIdentifier, gallery: Gallery) -> None:
    voice = replace(identifier.voice(LOW[:9000], 16000), speech=Speech("steady", 0.5, -20.0))
    found = gallery.identify(voice, threshold=-1)
    assert (found.speaker, found.ranked, found.known, found.threshold) == (None, (), False, -1)
    for ask in (lambda: gallery.verify("Low", voice, threshold=-1), lambda: gallery.enroll("Low", voice)):
        with pytest.raises(GalleryError, match="holds no speech: its level hardly moves"):
            ask()


def test_a_scorer_keeps_the_gallery_that_it_was_given(identifier: SpeakerIdentifier) -> None:
    gallery = Gallery(identifier.contract)
    gallery.enroll("Low", identifier.embed(LOW[:9000], 16000))
    scorer = GalleryScorer(identifier, gallery)
    gallery.enroll("High", identifier.embed(HIGH[:9000], 16000))
    assert scorer.speakers == ("Low",)
    assert scorer([HIGH[:9000]]).shape == (1, 1)
    assert GalleryScorer(identifier, gallery).speakers == ("Low", "High")


@pytest.mark.parametrize("threshold", [1.01, -2.0, float("nan")])
def test_a_threshold_that_is_no_cosine_is_refused(
    identifier: SpeakerIdentifier, gallery: Gallery, threshold: float
) -> None:
    with pytest.raises(GalleryError, match="between -1 and 1"):
        GalleryScorer(identifier, gallery, threshold=threshold)


def test_nobody_and_another_model_are_refused(
    identifier: SpeakerIdentifier, gallery: Gallery, model_path: Path
) -> None:
    with pytest.raises(GalleryError, match="empty; enroll"):
        GalleryScorer(identifier, Gallery(identifier.contract))
    other = SpeakerIdentifier.load(make_tiny(model_path, seed=3, checkpoint_sha256="0" * 64).path)
    with pytest.raises(GalleryError, match="another model"):
        GalleryScorer(other, gallery)


def test_a_model_without_that_output_is_refused_at_once(tiny: TinyModel, gallery: Gallery) -> None:
    golden = replace(tiny.contract.golden, embedding=Array.of(tiny.embedding(tiny.contract.golden.input.values)))
    for outputs, makes in (
        (("scores",), lambda model: GalleryScorer(model, gallery)),
        (("embedding",), Stream),
        (("embedding",), Timeline),
    ):
        contract = tiny.contract.replace(outputs=outputs, golden=golden)
        with pytest.raises(VoxportError, match="export it again with --output both"):
            makes(SpeakerIdentifier(Fixed(contract)))


class Fixed:
    """A back end that is never asked."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def run(self, inputs: object, lengths: object) -> Answer:
        raise AssertionError("it was asked")


# --- from the command line ----------------------------------------------------------------------------


@pytest.fixture
def people(gallery: Gallery, tmp_path: Path) -> Path:
    gallery.save(tmp_path / "people.gallery")
    return tmp_path / "people.gallery"


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "talk.wav", np.concatenate([LOW, GAP, STRANGER, GAP, HIGH]), 16000, "FLOAT")
    return tmp_path / "talk.wav"


def run(command: str, *arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [command, *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def test_timeline_and_stream_say_what_the_library_says(
    tiny: TinyModel, identifier: SpeakerIdentifier, gallery: Gallery, people: Path, talk: Path, threshold: float
) -> None:
    scorer = GalleryScorer(identifier, gallery, threshold=threshold)
    options = (tiny.path, talk, "--gallery", people, "--threshold", threshold)
    report: dict[str, Any] = json.loads(run("timeline", *options, "--json").stdout)
    segments = Timeline(identifier, scorer=scorer).segments(talk)
    assert [segment.speaker for segment in segments] == ["Low", None, "High"]
    assert report["segments"] == [vars(segment) for segment in segments]
    assert (report["gallery"], report["threshold"]) == (str(people), threshold)
    lines = [json.loads(line) for line in run("stream", *options, "--json").stdout.splitlines()]
    assert {line["speaker"] for line in lines} == {"Low", None, "High"}
    assert {line["known"] for line in lines} == {True, False}


def test_people_read_cosines(tiny: TinyModel, people: Path, talk: Path, threshold: float) -> None:
    options = (tiny.path, talk, "--gallery", people, "--threshold", threshold)
    table = run("timeline", *options).stdout
    assert "cosine" in table
    assert "probability" not in table
    assert "(unknown)" in table
    first = run("stream", *options).stdout.splitlines()[0]
    cosine = float(first.split()[4 if "firm" in first else -2])
    assert 0.9 < cosine <= 1
    assert first.endswith("  Low")


def test_a_missing_threshold_is_said_once(tiny: TinyModel, people: Path, talk: Path) -> None:
    for command in ("stream", "timeline"):
        result = run(command, tiny.path, talk, "--gallery", people)
        assert result.stderr.count("has no threshold") == 1
        assert "voxport gallery calibrate" in result.stderr


@pytest.mark.parametrize("command", ["stream", "timeline"])
def test_what_cannot_be_is_refused(command: str, tiny: TinyModel, people: Path, talk: Path, tmp_path: Path) -> None:
    assert "--threshold needs --gallery" in run(command, tiny.path, talk, "--threshold", 0.5, code=2).stderr
    missing = run(command, tiny.path, talk, "--gallery", tmp_path / "none.gallery", code=1)
    assert "none.gallery" in missing.stderr
    assert missing.stdout == ""
    other = make_tiny(tmp_path / "other.onnx", seed=3, checkpoint_sha256="0" * 64)
    assert "another model" in run(command, other.path, talk, "--gallery", people, code=1).stderr
