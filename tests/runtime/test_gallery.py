"""Galleries: the arithmetic of enrolment against plain NumPy, answers, calibration, refusals, threads."""

import threading
import unicodedata

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.tiny_models import SIZE, TinyModel, tone
from voxport.runtime import Enrolled, Gallery, GalleryError, SpeakerIdentifier, Thresholds
from voxport.runtime.contract import Contract, Rejection
from voxport.runtime.gallery.state import KEPT_PER_SPEAKER, MAX_NAME

Floats = npt.NDArray[np.float64]


@pytest.fixture
def contract(tiny: TinyModel) -> Contract:
    return tiny.contract


@pytest.fixture
def gallery(contract: Contract) -> Gallery:
    return Gallery(contract)


def people(speakers: int, utterances: int, spread: float = 0.3, seed: int = 0) -> Floats:
    """Embeddings (speakers, utterances, SIZE), of any length, around one direction for each speaker."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(speakers, 1, SIZE))
    return np.asarray(centres + spread * generator.normal(size=(speakers, utterances, SIZE)))


def unit(rows: Floats) -> Floats:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def fill(gallery: Gallery, voices: Floats) -> None:
    gallery.enroll_many({f"speaker {i}": rows for i, rows in enumerate(voices)})


# --- enrolment and answers ----------------------------------------------------------------------------


def test_a_voice_is_the_unit_mean_of_unit_embeddings(gallery: Gallery) -> None:
    voices = people(6, 4)
    fill(gallery, voices)
    probe = people(1, 1, seed=9)[0, 0]
    expected = unit(unit(voices).mean(axis=1)) @ unit(probe)
    matches = gallery.identify(probe, top=6)
    found = {match.speaker: match.cosine for match in matches.ranked}
    assert found == pytest.approx({f"speaker {i}": cosine for i, cosine in enumerate(expected)}, abs=1e-6)
    assert [match.cosine for match in matches.ranked] == sorted(found.values(), reverse=True)
    for name, cosine in found.items():
        assert gallery.verify(name, probe).cosine == pytest.approx(cosine, abs=1e-6)


@given(count=st.integers(2, 9), seed=st.integers(0, 10**6), data=st.data())
def test_enrolling_in_parts_equals_enrolling_at_once(
    tiny: TinyModel, count: int, seed: int, data: st.DataObject
) -> None:
    rows = np.random.default_rng(seed).uniform(0.1, 10, size=(count, SIZE))
    cut = data.draw(st.integers(1, len(rows) - 1))
    whole, parts = Gallery(tiny.contract), Gallery(tiny.contract)
    assert whole.enroll("Ada", rows) == Enrolled("Ada", len(rows))
    parts.enroll("Ada", rows[:cut])
    assert parts.enroll("Ada", rows[cut:]) == Enrolled("Ada", len(rows))
    assert parts.speakers == whole.speakers
    np.testing.assert_allclose(parts._state.sums, whole._state.sums, rtol=1e-14)
    np.testing.assert_array_equal(parts._state.kept, whole._state.kept)


@pytest.mark.parametrize("factor", [1e-300, 1e-20, 1.0, 1e20, 1e300])
def test_the_length_of_an_embedding_does_not_matter(gallery: Gallery, factor: float) -> None:
    fill(gallery, people(3, 2))
    probe = people(1, 1, seed=4)[0, 0]
    expected = gallery.identify(probe)
    scaled = gallery.identify(probe * factor)
    assert [match.speaker for match in scaled.ranked] == [match.speaker for match in expected.ranked]
    assert scaled.best.cosine == pytest.approx(expected.best.cosine, abs=1e-6)


def test_equal_cosines_keep_the_order_of_enrolment(gallery: Gallery) -> None:
    for name in ("c", "a", "b"):
        gallery.enroll(name, np.ones(SIZE))
    assert [match.speaker for match in gallery.identify(np.ones(SIZE)).ranked] == ["c", "a", "b"]


def test_a_removed_speaker_is_gone_with_everything_that_was_kept(gallery: Gallery) -> None:
    voices = people(4, 2)
    fill(gallery, voices)
    gallery.remove("speaker 1")
    assert [entry.speaker for entry in gallery.speakers] == ["speaker 0", "speaker 2", "speaker 3"]
    assert len(gallery) == 3
    assert "speaker 1" not in gallery
    left = voices[[0, 2, 3]]
    np.testing.assert_allclose(gallery._state.kept, unit(left).reshape(-1, SIZE), atol=1e-6)
    assert gallery._state.owners.tolist() == [0, 0, 1, 1, 2, 2]
    for i, name in enumerate(("speaker 0", "speaker 2", "speaker 3")):
        assert gallery.verify(name, unit(left[i]).mean(axis=0)).cosine == pytest.approx(1, abs=1e-6)
    with pytest.raises(GalleryError, match=r"'speaker 1' is not enrolled; enrolled are: speaker 0, speaker 2"):
        gallery.verify("speaker 1", voices[1, 0])
    with pytest.raises(GalleryError, match="not enrolled"):
        gallery.remove("speaker 1")


def test_sounds_of_a_real_model_find_their_speaker(either: TinyModel) -> None:
    identifier = SpeakerIdentifier.load(either.path)
    gallery = Gallery(identifier.contract)
    low, high = tone(0.4, hertz=200.0), tone(0.4, hertz=3000.0, size=0.05)
    gallery.enroll("low", identifier.embed(low, 16000))
    gallery.enroll("high", identifier.embed_batch([high, high], 16000))
    assert gallery.identify(identifier.embed(low, 16000)).best.speaker == "low"
    assert gallery.identify(identifier.embed(high, 16000)).best.speaker == "high"
    assert gallery.verify("high", identifier.embed(high, 16000)).cosine == pytest.approx(1, abs=1e-5)


def test_features_are_embedded_as_their_sound_is(tiny: TinyModel) -> None:
    from voxport.runtime.frontend.log_mel import compute_features

    identifier = SpeakerIdentifier.load(tiny.path)
    sound = tone(0.4)
    features = compute_features(sound, identifier.contract.frontend)
    np.testing.assert_array_equal(identifier.embed_features(features), identifier.embed(sound, 16000))


# --- thresholds ---------------------------------------------------------------------------------------


def test_without_a_threshold_nothing_is_decided(tiny: TinyModel) -> None:
    """The contract's threshold is one of trained class weights; it says nothing about enrolled voices."""
    gallery = Gallery(tiny.contract.replace(rejection=Rejection(0.3, 0.01)))
    fill(gallery, people(2, 2))
    probe = people(1, 1)[0, 0]
    verification, matches = gallery.verify("speaker 0", probe), gallery.identify(probe)
    assert (verification.accepted, verification.threshold) == (None, None)
    assert (matches.known, matches.threshold) == (None, None)


def test_a_threshold_is_reached_by_its_own_value(gallery: Gallery) -> None:
    fill(gallery, people(3, 3))
    probe = people(1, 1, seed=5)[0, 0]
    cosine = gallery.verify("speaker 0", probe).cosine
    assert gallery.verify("speaker 0", probe, threshold=cosine).accepted is True
    assert gallery.verify("speaker 0", probe, threshold=float(np.nextafter(cosine, 2))).accepted is False
    best = gallery.identify(probe).best.cosine
    assert gallery.identify(probe, threshold=best).known is True
    assert gallery.identify(probe, threshold=float(np.nextafter(best, 2))).known is False


def test_the_callers_threshold_goes_before_the_gallerys(gallery: Gallery) -> None:
    fill(gallery, people(3, 3))
    gallery.set_thresholds(verify=-1.0, identify=1.0)
    probe = people(1, 1, seed=5)[0, 0]
    assert gallery.verify("speaker 0", probe).accepted is True
    assert gallery.verify("speaker 0", probe, threshold=1.0).accepted is False
    assert gallery.identify(probe).known is False
    assert gallery.identify(probe, threshold=-1.0).known is True


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_calibration_among_the_enrolled_accepts_the_share_that_was_asked_for(gallery: Gallery, rate: float) -> None:
    voices = people(20, 4)
    fill(gallery, voices)
    thresholds = gallery.calibrate(rate)
    assert thresholds == gallery.thresholds
    assert (thresholds.false_accept_rate, thresholds.speakers) == (rate, 20)
    cosines = unit(voices).reshape(-1, SIZE) @ unit(unit(voices).mean(axis=1)).T
    own = np.repeat(np.arange(20), 4)[:, None] == np.arange(20)
    assert thresholds.verify is not None
    assert thresholds.identify is not None
    for threshold, impostors in (
        (thresholds.verify, cosines[~own]),
        (thresholds.identify, np.where(own, -2, cosines).max(axis=1)),
    ):
        allowed = np.floor(rate * impostors.size)
        assert (impostors >= threshold + 1e-6).sum() <= allowed
        assert (impostors >= threshold - 1e-5).sum() > allowed  # and no higher than it must be
    assert thresholds.identify > thresholds.verify


def test_calibration_with_strangers_compares_them_with_everybody(gallery: Gallery) -> None:
    fill(gallery, people(5, 2))
    strangers = people(100, 1, seed=8)[:, 0]
    thresholds = gallery.calibrate(0.05, strangers, accept_anyway=True)  # in 8 dimensions some are much alike
    identified = [gallery.identify(stranger).known for stranger in strangers]
    assert sum(bool(known) for known in identified) == 5
    verified = [gallery.verify(f"speaker {i}", stranger).accepted for i in range(5) for stranger in strangers]
    assert sum(bool(accepted) for accepted in verified) == 25
    assert thresholds.speakers == 5


def test_a_rate_finer_than_the_observations_gives_no_threshold(gallery: Gallery) -> None:
    """30 utterances are 270 comparisons: 1 % of those can be seen, 1 % of 30 strangers cannot."""
    fill(gallery, people(10, 3))
    thresholds = gallery.calibrate(0.01)
    assert thresholds.verify is not None
    assert thresholds.identify is None
    assert gallery.identify(np.ones(SIZE)).known is None
    with pytest.raises(GalleryError, match=r"0.001 needs at least 1,000 comparisons .* there are 270"):
        gallery.calibrate(0.001)
    assert gallery.thresholds == thresholds


@pytest.mark.parametrize("speakers", [0, 1])
def test_calibration_needs_somebody_to_compare_with(gallery: Gallery, speakers: int) -> None:
    fill(gallery, people(speakers, 3))
    with pytest.raises(GalleryError, match="enroll"):
        gallery.calibrate(0.5)


def test_a_person_enrolled_twice_makes_calibration_fail_rather_than_reject_everybody(gallery: Gallery) -> None:
    for name in "abcd":
        gallery.enroll(name, np.ones(SIZE))
    with pytest.raises(GalleryError, match="enrolled twice"):
        gallery.calibrate(0.5, accept_anyway=True)
    assert gallery.thresholds == Thresholds()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_a_rate_that_is_none_is_refused(gallery: Gallery, rate: float) -> None:
    fill(gallery, people(3, 3))
    with pytest.raises(GalleryError, match="between 0 and 1"):
        gallery.calibrate(rate)


@pytest.mark.parametrize("threshold", [1.5, -1.01, float("nan"), float("inf")])
def test_a_threshold_that_is_no_cosine_is_refused(gallery: Gallery, threshold: float) -> None:
    fill(gallery, people(2, 1))
    with pytest.raises(GalleryError, match="between -1 and 1"):
        gallery.verify("speaker 0", np.ones(SIZE), threshold=threshold)
    with pytest.raises(GalleryError, match="between -1 and 1"):
        gallery.identify(np.ones(SIZE), threshold=threshold)
    with pytest.raises(GalleryError, match="between -1 and 1"):
        gallery.set_thresholds(verify=threshold)


def test_only_a_few_utterances_of_a_speaker_are_kept(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.runtime.gallery.state.KEPT", 12)
    fill(gallery, people(4, 4))
    assert np.bincount(gallery._state.owners).tolist() == [4, 4, 4]  # the fourth found no room
    gallery.remove("speaker 0")
    gallery.enroll("speaker 1", people(1, 9)[0])
    assert np.bincount(gallery._state.owners).tolist() == [KEPT_PER_SPEAKER, 4]
    assert gallery.speakers[0] == Enrolled("speaker 1", 13)


# --- refusals -----------------------------------------------------------------------------------------

BAD_EMBEDDINGS = [
    (np.ones(SIZE + 1), "come from another model"),
    (np.ones((2, SIZE + 1)), "come from another model"),
    (np.ones((1, 1, SIZE)), "found float64 of shape"),
    (np.ones(SIZE, np.int64), "found int64"),
    (np.array(["a"] * SIZE), "found <U1"),
    (np.array([None] * SIZE), "found object"),
    (np.ones(SIZE, np.complex64), "found complex64"),
    (np.float64(1.0), "of shape"),
    ([[1.0] * SIZE, [1.0]], "expected an array of numbers"),
    (np.zeros(SIZE), "all zeros"),
    (np.full(SIZE, np.nan), "NaN or infinite"),
    (np.array([np.inf] + [1.0] * (SIZE - 1)), "NaN or infinite"),
    (np.ones((0, SIZE)), "no embedding was given"),
    (np.broadcast_to(np.float32(1), (80_000_000_000, SIZE)), "80,000,000,000 embeddings at once are too many"),
]


@pytest.mark.parametrize(("embedding", "message"), BAD_EMBEDDINGS)
def test_what_is_no_embedding_is_refused_and_changes_nothing(
    gallery: Gallery, embedding: npt.ArrayLike, message: str
) -> None:
    fill(gallery, people(2, 2))
    before = gallery._state
    for act in (
        lambda: gallery.enroll("Ada", embedding),
        lambda: gallery.enroll_many({"Bob": np.ones(SIZE), "Ada": embedding}),
        lambda: gallery.identify(embedding),
        lambda: gallery.verify("speaker 0", embedding),
        lambda: gallery.calibrate(0.5, embedding),
    ):
        with pytest.raises(GalleryError, match=message):
            act()
    assert gallery._state is before


def test_several_voices_are_not_one(gallery: Gallery) -> None:
    fill(gallery, people(2, 2))
    with pytest.raises(GalleryError, match="expected one embedding, found 2"):
        gallery.identify(np.ones((2, SIZE)))


def test_utterances_that_cancel_each_other_out_have_no_voice(gallery: Gallery) -> None:
    voice = people(1, 1)[0, 0]
    with pytest.raises(GalleryError, match="'Ada': the utterances cancel each other out"):
        gallery.enroll("Ada", np.stack([voice, -voice]))
    assert len(gallery) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "blank"),
        (" \u3000", "blank"),
        ("a\nb", "control characters"),
        ("\x1b[2Jx", "control characters"),
        ("a\u202eb", "control characters"),
        ("a\u2028b", "control characters"),
        ("\ud800", "control characters"),
        ("x" * (MAX_NAME + 1), "at most 200"),
        ("x" * 10_000_000, "at most 200"),
        (7, "a speaker's name is text"),
        (None, "a speaker's name is text"),
    ],
)
def test_a_name_that_does_not_print_is_refused(gallery: Gallery, name: str, message: str) -> None:
    with pytest.raises(GalleryError, match=message) as caught:
        gallery.enroll(name, np.ones(SIZE))
    assert len(str(caught.value)) < 300
    assert name not in gallery


@pytest.mark.parametrize("name", ["에리", "Ådne", "ด.ช. สมชาย", "👩‍👩‍👧", "عمر", 'O\'Neil "Sam" \\', "x" * MAX_NAME])
def test_a_name_may_be_of_any_script_and_is_one_however_it_was_typed(gallery: Gallery, name: str) -> None:
    gallery.enroll(unicodedata.normalize("NFD", name)[:MAX_NAME], np.ones(SIZE))
    gallery.enroll(unicodedata.normalize("NFC", name), np.arange(1.0, SIZE + 1))
    assert gallery.speakers == (Enrolled(unicodedata.normalize("NFC", name), 2),)
    assert unicodedata.normalize("NFD", name) in gallery


def test_one_name_composed_in_two_ways_is_given_twice(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="given twice"):
        gallery.enroll_many({"\u00e9": np.ones(SIZE), "e\u0301": np.ones(SIZE)})


def test_an_empty_gallery_knows_nobody(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="empty; enroll"):
        gallery.identify(np.ones(SIZE))
    with pytest.raises(GalleryError, match="enrolled are: nobody"):
        gallery.verify("Ada", np.ones(SIZE))
    assert gallery.enroll_many({}) == ()


def test_top_below_one_is_refused(gallery: Gallery) -> None:
    fill(gallery, people(1, 1))
    with pytest.raises(GalleryError, match="top must be at least 1"):
        gallery.identify(np.ones(SIZE), top=0)


def test_a_full_gallery_says_so(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.runtime.gallery.state.MAX_SPEAKERS", 3)
    fill(gallery, people(3, 1))
    with pytest.raises(GalleryError, match="at most 3 speakers"):
        gallery.enroll("one more", np.ones(SIZE))
    gallery.enroll("speaker 0", np.ones(SIZE))


# --- threads ------------------------------------------------------------------------------------------


def test_readers_see_a_gallery_before_a_change_or_after_it(gallery: Gallery) -> None:
    """A writer adds and removes a pair of opposite voices; a reader must never see one of the two wrong."""
    fill(gallery, people(20, 2))
    axis = np.eye(SIZE)[0]
    wrong: list[object] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            names = {entry.speaker for entry in gallery.speakers}
            found = {match.speaker: match.cosine for match in gallery.identify(axis, top=50).ranked}
            if ("left" in names) != ("right" in names) or ("left" in found) != ("right" in found):
                wrong.append(found)
            if "left" in found and abs(found["left"] + found["right"]) > 1e-6:
                wrong.append(found)
            try:
                cosine = gallery.verify("left", axis).cosine
            except GalleryError:
                continue
            if abs(cosine - 1) > 1e-6:
                wrong.append(cosine)

    def write() -> None:
        for _ in range(150):
            gallery.enroll_many({"left": axis, "right": -axis})
            state = gallery._state
            gallery._change(lambda now: now.remove(now.index["left"]).remove(now.index["right"] - 1))
            if len(state.names) != 22:
                wrong.append(state.names)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for thread in readers:
        thread.start()
    try:
        write()
    finally:
        done.set()
        for thread in readers:
            thread.join()
    assert wrong == []
    assert len(gallery) == 20


def test_no_change_of_several_writers_is_lost(gallery: Gallery) -> None:
    def write(which: int) -> None:
        for turn in range(30):
            voice = 1 + np.random.default_rng((which, turn)).uniform(size=SIZE)
            gallery.enroll(f"{which}-{turn}", voice)
            gallery.enroll("everybody", voice)

    writers = [threading.Thread(target=write, args=(which,)) for which in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    counts = {entry.speaker: entry.utterances for entry in gallery.speakers}
    assert counts.pop("everybody") == 120
    assert counts == {f"{which}-{turn}": 1 for which in range(4) for turn in range(30)}


def test_what_was_enrolled_does_not_follow_the_callers_array(gallery: Gallery) -> None:
    rows = people(1, 2)[0]
    kept = rows.copy()
    gallery.enroll("Ada", rows)
    rows[:] = 7
    assert gallery.verify("Ada", unit(kept).mean(axis=0)).cosine == pytest.approx(1, abs=1e-6)


def test_many_voices_at_once_get_the_answers_that_each_gets_alone(gallery: Gallery) -> None:
    fill(gallery, people(9, 2))
    gallery.set_thresholds(identify=0.5)
    probes = people(4, 1, seed=3)[:, 0]
    together = gallery.identify_many(probes, top=3)
    for matches, probe in zip(together, probes, strict=True):
        alone = gallery.identify(probe, top=3)
        assert [match.speaker for match in matches.ranked] == [match.speaker for match in alone.ranked]
        assert matches.best.cosine == pytest.approx(alone.best.cosine, abs=1e-6)
        assert (matches.threshold, matches.known) == (alone.threshold, alone.known)
