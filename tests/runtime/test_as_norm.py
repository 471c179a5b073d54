"""Adaptive score normalisation in galleries: against the published formula in float64, wherever a gallery is changed,
kept, calibrated and asked.

The reference follows Matějka et al. (2017) as WeSpeaker's scoring does: the nearest of the cohort are chosen for each
side by itself, and the deviation is that of the population.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from click.testing import CliRunner, Result
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.runtime.test_gallery import people, unit
from tests.runtime.test_gallery_file import members, npy, rewrite
from tests.runtime.tiny_models import LABELS, SCALE, SIZE, TinyModel, make_tiny, tone
from voxport.cli.root import cli
from voxport.runtime import (
    Contract,
    ContractError,
    Gallery,
    GalleryError,
    GalleryScorer,
    SpeakerIdentifier,
    Timeline,
    read_contract,
)
from voxport.runtime.contract import AsNorm, check_contract
from voxport.runtime.gallery.search import MatrixSearch, Normalization

Floats = npt.NDArray[np.float64]

COHORT = np.random.default_rng(5).normal(size=(9, SIZE))
TOP = 4


def expected(enrolled: Floats, tested: Floats, cohort: Floats = COHORT, top: int = TOP) -> Floats:
    """Normalised scores (tested, enrolled) of unit rows."""
    sides = []
    for rows in (enrolled, tested):
        nearest = np.sort(rows @ unit(cohort).T, axis=1)[:, ::-1][:, :top]
        sides.append((np.mean(nearest, axis=1), np.std(nearest, axis=1)))
    (mean_e, std_e), (mean_t, std_t) = sides
    cosines = tested @ enrolled.T
    return np.asarray(0.5 * ((cosines - mean_e) / std_e + (cosines - mean_t[:, None]) / std_t[:, None]))


def contract_with(tiny: TinyModel, top: int = TOP, cohort: Floats = COHORT) -> Contract:
    labels = tuple(f"trained {i}" for i in range(len(cohort)))
    return tiny.contract.replace(labels=labels, as_norm=AsNorm.of(top, cohort))


@pytest.fixture(scope="module")
def contract(tiny: TinyModel) -> Contract:
    return contract_with(tiny)


@pytest.fixture
def gallery(contract: Contract) -> Gallery:
    """Six people, each enrolled from three utterances."""
    found = Gallery(contract)
    found.enroll_many({f"speaker {i}": rows for i, rows in enumerate(people(6, 3))})
    return found


VOICES = unit(unit(people(6, 3)).mean(axis=1))


def agree(gallery: Gallery, voices: Floats) -> None:
    """Whether the gallery answers as the formula does for these voices, in the order of its names."""
    tested = unit(people(4, 1, seed=7)[:, 0])
    scores = expected(voices, tested)
    names = [each.speaker for each in gallery.speakers]
    for row, found in zip(scores, gallery.identify_many(tested, top=len(names)), strict=True):
        assert [match.speaker for match in found.ranked] == [names[i] for i in np.argsort(-row)]
        by_name = {match.speaker: match.score for match in found.ranked}
        assert [by_name[name] for name in names] == pytest.approx(row, abs=2e-2)


def test_answers_are_the_formula_s(gallery: Gallery) -> None:
    agree(gallery, VOICES)
    tested = unit(people(4, 1, seed=7)[:, 0])
    scores = expected(VOICES, tested)
    for probe, row, cosines in zip(tested, scores, tested @ VOICES.T, strict=True):
        for i in range(6):
            found = gallery.verify(f"speaker {i}", probe, threshold=0.5)
            assert found.cosine == pytest.approx(cosines[i], abs=1e-6)
            assert found.score == found.normalized == pytest.approx(row[i], abs=2e-2)  # the cohort is kept in float16
            assert found.accepted == (found.score >= 0.5)
        best = gallery.identify(probe, top=1)
        same = gallery.verify(best.best.speaker, probe)
        assert (best.best.cosine, best.best.score) == pytest.approx((same.cosine, same.score), abs=1e-5)


def test_with_the_cohort_as_it_is_kept_the_answers_are_the_formula_s_to_the_last_digits(gallery: Gallery) -> None:
    assert gallery.as_norm is not None
    kept = gallery.as_norm.stored.astype(np.float64)
    np.testing.assert_allclose(unit(kept), unit(COHORT), atol=4e-4)  # half a unit in float16's last place, near 1
    tested = unit(people(4, 1, seed=7)[:, 0])
    scores = expected(VOICES, tested, kept)
    found = [[gallery.verify(f"speaker {i}", probe).score for i in range(6)] for probe in tested]
    np.testing.assert_allclose(found, scores, rtol=1e-4, atol=1e-4)


def test_the_cohort_s_cosines_are_the_model_s_own_scores(tiny: TinyModel) -> None:
    """The scores of a model are score_scale × cosine: no other cohort is in the contract than the head's."""
    rule = AsNorm.of(2, tiny.classes.T)
    identifier = SpeakerIdentifier.load(tiny.path)
    sound = tone(0.5)
    own = identifier.scores(sound, 16000).astype(np.float64) / SCALE
    voice = identifier.embed(sound, 16000)
    np.testing.assert_allclose(voice @ rule.speakers.T, own, atol=1e-3)
    best = np.sort(own)[-2:]
    assert rule.moments(voice[None])[0].tolist() == pytest.approx([best.mean(), best.std()], abs=1e-3)


@given(seed=st.integers(0, 10**6), top=st.integers(2, len(COHORT)))
def test_who_is_enrolled_and_who_is_asked_may_change_places(tiny: TinyModel, seed: int, top: int) -> None:
    one, two = unit(np.random.default_rng(seed).normal(size=(2, SIZE)))
    contract = contract_with(tiny, top)
    assert contract.as_norm is not None
    assume(contract.as_norm.moments(np.stack([one, two]))[:, 1].min() > 0.01)  # else float32's digits run out
    scores = []
    for enrolled, asked in ((one, two), (two, one)):
        gallery = Gallery(contract)
        gallery.enroll("Ada", enrolled)
        scores.append(gallery.verify("Ada", asked).score)
    assert scores[0] == pytest.approx(scores[1], rel=1e-4, abs=1e-4)
    kept = contract.as_norm.stored.astype(np.float64)
    assert scores[0] == pytest.approx(expected(one[None], two[None], kept, top)[0, 0], rel=1e-3, abs=1e-3)


def test_statistics_follow_every_change(gallery: Gallery) -> None:
    def right() -> None:
        norm = gallery.state.norm
        assert norm is not None
        np.testing.assert_allclose(norm.moments, norm.rule.moments(gallery.state.voices), atol=1e-9)
        assert len(norm.moments) == len(gallery)

    right()
    more = people(8, 2, seed=3)
    gallery.enroll("speaker 2", more[0])
    gallery.enroll_many({"new": more[1], "speaker 0": more[2]})
    right()
    gallery.merge("speaker 1", ["speaker 4", "new"])
    right()
    gallery.remove("speaker 0")
    gallery.rename("speaker 5", "Ada")
    right()
    assert gallery.thresholds.as_norm == TOP


def test_a_search_in_blocks_finds_what_one_product_finds(contract: Contract) -> None:
    voices, questions = (unit(np.random.default_rng(i).normal(size=(50, SIZE))).astype(np.float32) for i in range(2))
    norm = Normalization.of(contract.as_norm, voices)
    assert norm is not None
    rows, scores = MatrixSearch(voices, block_bytes=4 * 50 * 7)(questions, 5, norm.adjusting(questions))
    whole = norm.scores(questions @ voices.T, questions)
    np.testing.assert_array_equal(rows, np.argsort(-whole, axis=1)[:, :5])
    np.testing.assert_allclose(scores, np.sort(whole, axis=1)[:, ::-1][:, :5], rtol=1e-4, atol=1e-4)


# --- the file, and which model it is for -----------------------------------------------------------------


def test_the_file_keeps_the_rule_and_answers_as_before(gallery: Gallery, contract: Contract, tmp_path: Path) -> None:
    path, again = tmp_path / "people.gallery", tmp_path / "again.gallery"
    gallery.calibrate(0.2)
    gallery.save(path)
    read = Gallery.load(path, contract)
    assert (read.as_norm, read.thresholds) == (contract.as_norm, gallery.thresholds)
    agree(read, VOICES)
    read.save(again)
    assert again.read_bytes() == path.read_bytes()
    with np.load(path) as arrays:
        np.testing.assert_allclose(arrays["cohort"], unit(COHORT), atol=4e-4)
        header = json.loads(bytes(arrays["header"]))
    assert (header["version"], header["thresholds"]["as_norm"]) == (4, TOP)


def test_a_gallery_of_cosines_is_written_for_older_readers_too(tiny: TinyModel, tmp_path: Path) -> None:
    plain = Gallery(tiny.contract)
    plain.enroll("Ada", np.ones(SIZE))
    plain.save(tmp_path / "plain.gallery")
    with np.load(tmp_path / "plain.gallery") as arrays:
        assert "cohort" not in arrays
        header = json.loads(bytes(arrays["header"]))
    assert header["version"] == 3
    assert "as_norm" not in header["thresholds"]
    found = plain.verify("Ada", np.ones(SIZE))
    assert (found.normalized, found.score) == (None, found.cosine)


def test_a_model_that_compares_otherwise_is_refused_and_converting_mends_it(
    tiny: TinyModel, gallery: Gallery, contract: Contract, tmp_path: Path
) -> None:
    path, cosines = tmp_path / "people.gallery", contract.replace(as_norm=None)
    gallery.set_thresholds(2.5, 3.5)
    gallery.save(path)
    for other in (cosines, contract_with(tiny, TOP + 1)):
        with pytest.raises(GalleryError, match=r"normalised by the 4 nearest of 9 .* voxport gallery convert"):
            Gallery.load(path, other)
    with Gallery.edit(path, None) as opened:
        assert opened.convert(cosines)
    plain = Gallery.load(path, cosines)
    assert (plain.thresholds.verify, plain.thresholds.as_norm) == (None, None)
    assert plain.identify(VOICES[3]).best.normalized is None
    with pytest.raises(GalleryError, match="compares voices by cosine, and the model by cosine, normalised by the 4"):
        Gallery.load(path, contract)
    plain.set_thresholds(0.5, 0.6)
    assert plain.convert(contract)
    assert not plain.convert(contract)
    assert (plain.thresholds.verify, plain.thresholds.as_norm) == (None, TOP)
    agree(plain, VOICES)
    with pytest.raises(GalleryError, match="another model"):
        plain.convert(contract.replace(checkpoint_sha256="0" * 64))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cohort.npy": None}, "do not agree on whether"),
        ({"cohort.npy": npy(np.zeros((9, SIZE), "<f2"))}, "not of unit length"),
        ({"cohort.npy": npy(np.full((9, SIZE), np.nan, "<f2"))}, "not of unit length"),
        ({"cohort.npy": npy(unit(COHORT[:3]).astype("<f2"))}, "top must be between 2 and the 3 speakers"),
        ({"cohort.npy": npy(unit(COHORT).astype("<f4"))}, "cohort is not of type <f2"),
    ],
)
def test_a_forged_rule_is_refused(gallery: Gallery, tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    path = tmp_path / "people.gallery"
    gallery.save(path)
    content = {name: value for name, value in (members(path) | changes).items() if value is not None}
    rewrite(path, content)
    with pytest.raises(GalleryError, match=match):
        Gallery.load(path, None)


# --- thresholds -----------------------------------------------------------------------------------------


def test_calibration_holds_the_rate_on_normalised_scores(gallery: Gallery) -> None:
    strangers = unit(people(40, 1, seed=11)[:, 0])
    found = gallery.calibrate(0.05, strangers)
    scores = expected(VOICES, strangers, np.asarray(gallery.as_norm.stored, np.float64))  # type: ignore[union-attr]
    assert found.as_norm == TOP
    for threshold, impostors in ((found.verify, scores.ravel()), (found.identify, scores.max(axis=1))):
        assert threshold is not None
        allowed = int(0.05 * len(impostors))
        assert (impostors >= threshold + 1e-3).sum() <= allowed
        assert (impostors >= threshold - 2e-3).sum() >= allowed
    asked = [gallery.identify(row) for row in strangers]
    assert sum(bool(each.known) for each in asked) == 2
    assert all(each.threshold == found.identify for each in asked)


def test_one_voice_under_two_names_is_still_found_by_cosine(contract: Contract) -> None:
    gallery = Gallery(contract)
    gallery.enroll_many({f"speaker {i}": rows for i, rows in enumerate(people(3, 3, 0.05))})
    judged = gallery.check()
    gallery.set_thresholds(verify=5.0)
    assert gallery.check() == judged  # by cosines, whatever the thresholds are
    gallery.enroll("again", people(3, 1, 0.04)[2])
    assert [(pair.first, pair.second) for pair in gallery.check().pairs] == [("speaker 2", "again")]
    with pytest.raises(GalleryError, match="names that are one voice"):
        gallery.calibrate(0.2)
    assert gallery.calibrate(0.2, accept_anyway=True).as_norm == TOP


def test_a_warning_before_enrolling_is_in_the_threshold_s_own_measure(gallery: Gallery) -> None:
    near = people(6, 3)[0, 0] + 0.5 * people(6, 3)[1, 0]
    score = gallery.verify("speaker 0", near).score
    for threshold, warned in ((score - 0.01, True), (score + 0.01, False)):
        gallery.set_thresholds(identify=threshold)
        (likeness,) = gallery.examine("new", near)
        assert (likeness.warning is not None and "normalised score" in likeness.warning) is warned


def test_thresholds_are_in_the_gallery_s_measure(tiny: TinyModel, gallery: Gallery) -> None:
    gallery.set_thresholds(3.0, 7.5)
    assert gallery.verify("speaker 0", VOICES[0], threshold=-40.0).accepted
    plain = Gallery(tiny.contract)
    plain.enroll("Ada", np.ones(SIZE))
    for refused, wrong in ((plain, 1.5), (gallery, 1000.0), (gallery, float("nan"))):
        name = refused.speakers[0].speaker
        with pytest.raises(GalleryError, match="threshold is a"):
            refused.set_thresholds(wrong)
        with pytest.raises(GalleryError, match="threshold is a"):
            refused.verify(name, np.ones(SIZE), threshold=wrong)
        with pytest.raises(GalleryError, match="threshold is a"):
            refused.identify(np.ones(SIZE), threshold=wrong)


# --- the contract ---------------------------------------------------------------------------------------


def test_the_contract_carries_the_rule_and_leaves_it_out_otherwise(tiny: TinyModel, contract: Contract) -> None:
    assert "as_norm" not in tiny.contract.to_json()
    assert Contract.from_json(contract.to_json(), "m") == contract
    assert contract.as_norm is not None
    with pytest.raises(ValueError, match="compares none"):
        contract.replace(outputs=("scores",))
    with pytest.raises(ValueError, match=r"must hold 9 speakers × 8 numbers, found \(8, 8\)"):
        contract.replace(as_norm=AsNorm.of(2, COHORT[:8]))
    for top in (1, 10):
        with pytest.raises(ValueError, match=f"between 2 and the 9 speakers, found {top}"):
            replace(contract.as_norm, top=top)
    with pytest.raises(ValueError, match="is not of 9 × 8 numbers"):
        replace(contract.as_norm, cohort=contract.as_norm.cohort[:-4])


def test_a_damaged_cohort_is_refused_where_the_contract_is_read(contract: Contract) -> None:
    rule = contract.as_norm
    assert rule is not None
    for cohort, match in (("!" * len(rule.cohort), "as_norm cohort"), ("A" * len(rule.cohort), "not of unit length")):
        with pytest.raises(
            ContractError, match=rf"model\.onnx: as_norm cohort.*{match.removeprefix('as_norm cohort')}"
        ):
            check_contract(contract.replace(as_norm=replace(rule, cohort=cohort)), "model.onnx")


# --- streams and commands -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """The tiny model, exported to normalise scores."""
    path = tmp_path_factory.mktemp("as_norm") / "model.onnx"
    return make_tiny(path, as_norm=AsNorm.of(3, tiny.classes.T))


def test_windows_are_scored_and_decided_as_sounds_are(model: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(model.path)
    low, high, stranger = (tone(3, hertz=hertz) for hertz in (200, 3000, 900))
    gallery = Gallery(identifier.contract)
    gallery.enroll_many({"Low": identifier.embed(low[:9000], 16000), "High": identifier.embed(high[:9000], 16000)})
    windows = [low[:9000], stranger[:9000]]
    scorer = GalleryScorer(identifier, gallery)
    scores = scorer(windows) / scorer.scale
    for row, window in zip(scores, windows, strict=True):
        voice = identifier.embed(window, 16000)
        assert row.tolist() == pytest.approx([gallery.verify(name, voice).score for name in ("Low", "High")], rel=1e-4)
    norm = gallery.state.norm
    assert norm is not None
    # Scores stay as large as those of cosines: what a change of speaker costs keeps its meaning.
    assert scorer.scale * np.median(1 / norm.moments[:, 1]) == pytest.approx(model.contract.score_scale)
    best = [gallery.identify(identifier.embed(each[:9000], 16000)).best for each in (low, stranger, high)]
    threshold = (best[1].score + min(best[0].score, best[2].score)) / 2
    assert best[1].score < threshold
    gap = np.zeros(16000, np.float32)
    timeline = Timeline(identifier, scorer=GalleryScorer(identifier, gallery, threshold=threshold))
    found = timeline.segments(np.concatenate([low, gap, stranger, gap, high]), 16000)
    assert [each.speaker for each in found] == [best[0].speaker, None, best[2].speaker]


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result


def test_commands_say_what_voices_are_compared_by(model: TinyModel, tiny: TinyModel, tmp_path: Path) -> None:
    people, low, high = tmp_path / "people.gallery", tmp_path / "low.wav", tmp_path / "high.wav"
    for path, hertz in ((low, 200), (high, 3000)):
        soundfile.write(path, tone(0.5, hertz=hertz), 16000, "FLOAT")
    for name, path in (("Low", low), ("High", high)):
        run("enroll", model.path, people, name, path, "--accept-anyway")
    assert "normalised by the 3 nearest of 5 training speakers" in run("inspect", model.path).stdout
    report = json.loads(run("inspect", model.path, "--json").stdout)
    assert report["contract"]["as_norm"] == {"top": 3, "shape": [len(LABELS), SIZE]}
    assert "normalised by the 3 nearest" in run("gallery", "list", people).stdout
    found = json.loads(run("verify", model.path, people, "Low", low, "--threshold", 1.5, "--json").stdout)["results"][0]
    expected_score = Gallery.load(people, read_contract(model.path)).verify(
        "Low", SpeakerIdentifier.load(model.path).embed(low)
    )
    assert found["normalized"] == pytest.approx(expected_score.score, rel=1e-4)
    assert (found["threshold"], found["accepted"]) == (1.5, found["normalized"] >= 1.5)
    assert "normalised" in run("identify", model.path, low, "--gallery", people).stdout
    assert "normalised" in run("timeline", model.path, low, "--gallery", people).stdout
    refused = run("verify", tiny.path, people, "Low", low, "--threshold", 0.5, code=1).stderr
    assert "voxport gallery convert" in refused
    assert "now compared by cosine" in run("gallery", "convert", people, tiny.path).stdout
    assert "already compared by cosine" in run("gallery", "convert", tiny.path, people).stdout
    run("verify", tiny.path, people, "Low", low, "--threshold", 0.5)
    for command in (("verify", tiny.path, people, "Low", low), ("identify", tiny.path, low, "--gallery", people)):
        assert "a cosine between -1 and 1, found 1.5" in run(*command, "--threshold", 1.5, code=1).stderr
