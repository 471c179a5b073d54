"""`voxport gallery`, and what `enroll` says of a gallery that is being spoiled."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runtime.test_cli_gallery import report, run
from tests.runtime.tiny_models import LABELS, SIZE, TinyModel, tone
from voxport.runtime import ContractError, Gallery, SpeakerIdentifier


@pytest.fixture
def people(tmp_path: Path, tiny: TinyModel) -> Path:
    """Three people along three axes, one of whom has the name of a speaker of the training."""
    path = tmp_path / "people.gallery"
    with Gallery.edit(path, tiny.contract) as gallery:
        for i, name in enumerate(("Ada", "Bob", LABELS[0])):
            rows = np.full((2, SIZE), 0.01)
            rows[:, i] += (1, 2)
            rows[1, 7] = 0.1
            gallery.enroll(name, rows)
    return path


@pytest.fixture
def sounds(tmp_path: Path) -> dict[str, Path]:
    """Two of which the tiny model finds alike, and one that it finds unlike them."""
    found = {}
    low, far = tone(0.4, hertz=200.0), tone(0.4, hertz=3500.0, size=0.001)
    for name, sound in (("low", low), ("near", low + far), ("far", far)):
        found[name] = tmp_path / f"{name}.wav"
        soundfile.write(found[name], sound, 16000, "FLOAT")
    return found


def test_list_and_show(people: Path) -> None:
    lines = run("gallery", "list", people).stdout.splitlines()
    assert [line.split() for line in lines[3:6]] == [["Ada", "2"], ["Bob", "2"], [LABELS[0], "2"]]
    assert report("gallery", "list", people)["speakers"][1] == {"speaker": "Bob", "utterances": 2, "repeated": 0}
    found = report("gallery", "show", people, "Bob")["speaker"]
    assert (found["utterances"], found["trained"], len(found["own"])) == (2, False, 2)
    assert found["own"][0] == pytest.approx(found["own"][1])
    assert {match["speaker"] for match in found["nearest"]} == {"Ada", LABELS[0]}
    page = run("gallery", "show", people, LABELS[0]).stdout
    assert "a name of the model's training" in page
    assert f"error: {people}: 'Eve' is not enrolled" in run("gallery", "show", people, "Eve", code=1).stderr


def test_rename_remove_and_merge_are_done_whole_or_not_at_all(people: Path) -> None:
    run("gallery", "rename", people, "Ada", "Ada L.")
    assert [each["speaker"] for each in report("gallery", "list", people)["speakers"]] == ["Ada L.", "Bob", LABELS[0]]
    before = people.read_bytes()
    for arguments, message in (
        (("rename", "Ada L.", "Bob"), "'Bob' is enrolled already"),
        (("rename", "Eve", "x"), "'Eve' is not enrolled"),
        (("remove", "Bob", "Eve"), "'Eve' is not enrolled"),
        (("merge", "Bob", "Ada L."), "are not alike"),
        (("merge", "Bob", "Bob"), "given twice"),
    ):
        command, *rest = arguments
        assert message in run("gallery", command, people, *rest, code=1).stderr
        assert people.read_bytes() == before
    found = report("gallery", "merge", people, "Bob", "Ada L.", "--accept-anyway")
    assert [(each["speaker"], each["utterances"]) for each in found["speakers"]] == [("Bob", 4), (LABELS[0], 2)]
    run("gallery", "remove", people, "Bob", LABELS[0])
    assert report("gallery", "list", people)["speakers"] == []
    missing = people.with_name("absent")
    for command in ("list", "check"):
        assert "there is no such file" in run("gallery", command, missing, code=1).stderr


def test_check_exits_with_3_where_names_have_to_be_mended(people: Path) -> None:
    found = report("gallery", "check", people)
    assert (found["sound"], found["pairs"], found["misfits"], found["trained"]) == (True, [], [], [LABELS[0]])
    with Gallery.edit(people, None) as gallery:
        gallery.enroll("Twin", np.eye(SIZE)[:1] + 0.02)
        gallery.enroll("Bob", np.eye(SIZE)[4:5])
    found = report("gallery", "check", people, code=3)
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [("Ada", "Twin")]
    assert [(each["speaker"], each["utterance"]) for each in found["misfits"]] == [("Bob", 3)]
    page = run("gallery", "check", people, code=3).stdout
    assert "one voice: 'Ada' and 'Twin'" in page
    assert "not one voice: utterance 3 of 'Bob'" in page
    assert "1 pairs of one voice, 1 utterances that do not fit" in page


def test_enroll_says_what_each_file_is_like_and_refuses_what_does_not_fit(
    tiny: TinyModel, sounds: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "g"
    identifier = SpeakerIdentifier.load(tiny.path)
    voices = {name: identifier.embed(sound) for name, sound in sounds.items()}
    near, far = (float(voices["low"] @ voices[name]) for name in ("near", "far"))
    assert near > far + 0.05
    run("enroll", path, "--model", tiny.path, "Ada", sounds["low"])
    with Gallery.edit(path, None) as gallery:
        gallery.set_thresholds(verify=(near + far) / 2)
    (found,) = report("enroll", path, "--model", tiny.path, "Ada", sounds["near"])["files"]
    assert found["own"] == pytest.approx(near, abs=1e-5)
    assert (found["nearest"], found["repeated"], found["doubt"], found["windows"]) == (None, False, None, 1)
    assert found["duration_s"] == pytest.approx(0.4)
    before = path.read_bytes()
    result = run("enroll", path, "--model", tiny.path, "Ada", sounds["far"], code=1)
    assert f"warning: {sounds['far']}: is not like the enrolled voice of 'Ada'" in result.stderr
    assert "nothing was enrolled" in result.stderr
    assert path.read_bytes() == before
    result = run("enroll", path, "--model", tiny.path, "Eve", sounds["low"], code=1)
    assert "is enrolled already, as 'Ada'" in result.stderr
    found = report("enroll", path, "--model", tiny.path, "Eve", sounds["low"], "--accept-anyway")
    assert found["enrolled"]["speaker"] == "Eve"
    assert found["files"][0]["nearest"] == "Ada"
    assert "is enrolled already" in found["files"][0]["doubt"]
    result = run("enroll", path, "--model", tiny.path, "Ada", sounds["low"])
    assert "is there already, and counts once" in result.stderr
    assert "utterances: 2" in result.stdout


def test_calibrating_names_strangers_by_their_files(
    tiny: TinyModel, people: Path, sounds: dict[str, Path], tmp_path: Path
) -> None:
    run("enroll", people, "--model", tiny.path, "Low", sounds["low"], "--accept-anyway")
    run("embed", tiny.path, sounds["near"], sounds["far"], "-o", tmp_path / "s.npz")
    result = run("enroll", people, "--calibrate", 0.5, "--strangers", tmp_path / "s.npz", code=1)
    assert f"'{sounds['near']}' and 'Low'" in result.stderr
    assert "--accept-anyway" in result.stderr
    run("enroll", people, "--calibrate", 0.5, "--strangers", tmp_path / "s.npz", "--accept-anyway")
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["seconds"].tolist() == pytest.approx([0.4, 0.4])
        assert arrays["trained"].tolist() == [0, 0]


# --- the order of MODEL and GALLERY -------------------------------------------------------------------


def test_model_comes_first_and_other_orders_are_told_by_content(
    tiny: TinyModel, sounds: dict[str, Path], tmp_path: Path
) -> None:
    low, near = sounds["low"], sounds["near"]
    asked = {}
    for number, order in enumerate(("{m} {g}", "{g} --model {m}", "{g} {m}")):
        path = tmp_path / f"{number}.gallery"
        run("enroll", tiny.path, path, "Ada", low)
        places = [part.format(m=tiny.path, g=path) for part in order.split()]
        run("enroll", *places, "Ada", near)
        found = report("verify", *places, "Ada", low, near, "--threshold", 0.1)
        assert (found["gallery"], found["model"]) == (str(path), str(tiny.path))
        asked[order] = [entry["cosine"] for entry in found["results"]]
        assert Gallery.load(path, None).speakers[0].utterances == 2
    assert len({tuple(each) for each in asked.values()}) == 1


def test_a_gallery_or_arrays_in_the_model_s_place_are_called_what_they_are(people: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "voices.npz", embeddings=np.zeros((1, SIZE)))
    for given, words in (
        (people, f"a gallery of enrolled speakers, not a model; .* voxport gallery list {people}"),
        (tmp_path / "voices.npz", "arrays of NumPy .*, not a model"),
    ):
        with pytest.raises(ContractError, match=words):
            SpeakerIdentifier.load(given)
    assert "a gallery of enrolled speakers, not a model" in run("inspect", people, code=1).stderr


def test_a_gallery_without_thresholds_says_what_that_means_for_strangers(
    people: Path, tiny: TinyModel, sounds: dict[str, Path]
) -> None:
    words = f"note: {people} has no threshold, so a stranger is given the name of whoever is most alike"
    assert words in run("identify", tiny.path, sounds["far"], "--gallery", people).stderr
    assert words not in run("identify", tiny.path, sounds["far"], "--gallery", people, "--threshold", 0.5).stderr


def test_gallery_calibrate_is_what_enroll_calibrate_is(people: Path, tiny: TinyModel, tmp_path: Path) -> None:
    with Gallery.edit(people, None) as gallery:
        gallery.enroll("Eve", np.eye(SIZE)[5:6] + 0.1)
    one = report("enroll", people, "--calibrate", 0.2)["thresholds"]
    assert report("gallery", "calibrate", people, 0.2)["thresholds"] == one
    assert "calibrated for a false-accept rate of 0.2" in run("gallery", "calibrate", people, 0.2).stdout
    assert "needs at least 1,000 comparisons" in run("gallery", "calibrate", people, 0.001, code=1).stderr
    assert run("gallery", "calibrate", people, 0, code=2).stderr
