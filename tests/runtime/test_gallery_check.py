"""Spoiled galleries: what enrolling says, what `check` and `calibrate` find, and how it is mended."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.runtime.test_speech import talk
from tests.runtime.tiny_models import LABELS, TinyModel, embedding_of, tone
from voxport.runtime import (
    Answer,
    Contract,
    Enrolled,
    Gallery,
    GalleryError,
    SpeakerIdentifier,
    Strangers,
    Thresholds,
    Voice,
)
from voxport.runtime.audio.pieces import PIECE_SECONDS
from voxport.runtime.gallery.check import ALIKE, DIFFERENT, bounds_of, own_cosines
from voxport.runtime.gallery.embeddings import read_strangers, write_embeddings
from voxport.runtime.speech import USUAL_RULE, Speech

SIZE = 64
Floats = npt.NDArray[np.floating[Any]]


@pytest.fixture
def contract(tiny: TinyModel) -> Contract:
    return tiny.contract.replace(embedding_size=SIZE)


def people(count: int, utterances: int, seed: int = 0, spread: float = 0.05) -> Floats:
    """Unit vectors (people, utterances, SIZE): cosines about 0.85 within, about 0 between."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, 1, SIZE)) / 8 + spread * generator.normal(size=(count, utterances, SIZE))
    return np.asarray(rows / np.linalg.norm(rows, axis=2, keepdims=True))


def filled(contract: Contract, voices: Floats, first: int = 0) -> Gallery:
    gallery = Gallery(contract)
    gallery.enroll_many({f"p{i}": rows for i, rows in enumerate(voices, first)})
    return gallery


def unit(vector: Floats) -> Floats:
    return np.asarray(vector / np.linalg.norm(vector))


# --- enrolling ----------------------------------------------------------------------------------------


def test_each_utterance_is_told_its_cosines(contract: Contract) -> None:
    voices = people(6, 4)
    gallery = filled(contract, voices[:5, :3])
    means = [unit(rows.sum(axis=0)) for rows in voices[:5, :3]]
    (found,) = gallery.examine("p2", voices[2, 3])
    others = [float(means[i] @ voices[2, 3]) for i in range(5)]
    assert found.own == pytest.approx(others.pop(2), abs=1e-6)
    assert found.nearest_cosine == pytest.approx(max(others), abs=1e-6)
    assert (found.repeated, found.doubt, found.warning) == (False, None, None)
    new = gallery.examine("new", voices[5, :3])
    for i, each in enumerate(new):
        rest = np.delete(voices[5, :3], i, axis=0).sum(axis=0)
        assert each.own == pytest.approx(unit(rest) @ voices[5, i], abs=1e-6)
        assert each.doubt is None
    (alone,) = Gallery(contract).examine("first", voices[0, 0])
    assert (alone.own, alone.nearest, alone.nearest_cosine, alone.doubt) == (None, None, None, None)
    assert len(gallery) == 5  # nothing was changed


def test_two_people_under_one_name_are_noticed(contract: Contract) -> None:
    ada, bob = people(2, 3)
    gallery = Gallery(contract)
    gallery.enroll("Ada", ada)
    (found,) = gallery.examine("Ada", bob[0])
    assert found.own is not None
    assert found.own < DIFFERENT
    assert found.doubt is not None
    assert "is not like the enrolled voice of 'Ada'" in found.doubt
    mixed = Gallery(contract).examine("both", np.stack([ada[0], ada[1], bob[0]]))
    assert [each.doubt is not None for each in mixed][2]
    assert "is not like the other sounds of 'both'" in str(mixed[2].doubt)


def test_an_utterance_of_somebody_else_who_is_enrolled_is_noticed(contract: Contract) -> None:
    voices = people(4, 4)
    gallery = filled(contract, voices[:, :3])
    (found,) = gallery.examine("p0", voices[3, 3])
    assert found.nearest == "p3"
    assert "is more like 'p3'" in str(found.doubt)


def test_one_person_under_a_second_name_is_noticed(contract: Contract) -> None:
    voices = people(4, 4)
    gallery = filled(contract, voices[:, :3])
    (found,) = gallery.examine("again", voices[1, 3])
    assert "is enrolled already, as 'p1'" in str(found.doubt)
    gallery.set_thresholds(identify=0.0)
    stranger = voices[1, 0] * 0.3 + people(1, 1, 9)[0, 0]
    (warned,) = gallery.examine("like p1", stranger)
    assert warned.doubt is None
    assert "would be taken for 'p1' too" in str(warned.warning)


def test_one_recording_counts_once(contract: Contract) -> None:
    voices = people(2, 3)
    gallery = Gallery(contract)
    assert gallery.enroll("Ada", voices[0][[0, 0, 1, 0]]) == Enrolled("Ada", 2, repeated=2)
    assert gallery.enroll("Ada", voices[0][[1, 2]] * 3) == Enrolled("Ada", 3, repeated=1)
    expected = unit(voices[0].sum(axis=0))
    assert gallery.verify("Ada", expected).cosine == pytest.approx(1, abs=1e-6)
    assert len(gallery.state.kept) == 3
    (found,) = gallery.examine("Ada", voices[0, 1])
    assert (found.repeated, found.doubt, found.warning) == (True, None, "is there already, and counts once")
    many = np.concatenate([np.repeat(people(1, 1, 5)[0], 2500, axis=0), people(1, 1, 6)[0]])
    assert gallery.enroll("many", many).utterances == 2


# --- check and calibrate ------------------------------------------------------------------------------


def test_a_gallery_judges_by_its_own_cosines(contract: Contract) -> None:
    gallery = filled(contract, people(8, 4))
    own = own_cosines(gallery.state)
    for i in range(0, 32, 5):
        rows = people(8, 4)[i // 4]
        rest = np.delete(rows, i % 4, axis=0).sum(axis=0)
        assert own[i] == pytest.approx(unit(rest) @ rows[i % 4], abs=1e-6)
    bounds = bounds_of(gallery.state)
    assert 0.3 < bounds.different < float(np.quantile(own, 0.05)) <= bounds.alike + 1e-9
    gallery.set_thresholds(verify=0.2)
    assert bounds_of(gallery.state).different == 0.2
    small = bounds_of(filled(contract, people(2, 2)).state)
    assert (small.different, small.alike) == (DIFFERENT, ALIKE)


def test_check_finds_what_was_spoiled_and_merging_and_removing_mend_it(contract: Contract) -> None:
    voices = people(9, 6)
    gallery = filled(contract, voices[:8, :4])
    assert gallery.check().sound
    gallery.enroll("p0 again", voices[0, 4:])
    gallery.enroll("p1", voices[8, :1])
    found = gallery.check()
    assert [(pair.first, pair.second) for pair in found.pairs] == [("p0", "p0 again")]
    assert [(misfit.speaker, misfit.utterance) for misfit in found.misfits] == [("p1", 5)]
    assert not found.sound
    merged = gallery.merge("p0", ["p0 again"])
    assert merged == Enrolled("p0", 6)
    assert "p0 again" not in gallery
    assert gallery.verify("p0", unit(voices[0].sum(axis=0))).cosine == pytest.approx(1, abs=1e-6)
    gallery.remove("p1")
    gallery.enroll("p1", voices[1])
    assert gallery.check().sound
    assert np.bincount(gallery.state.owners).tolist() == [5, 4, 4, 4, 4, 4, 4, 5]


def test_merging_keeps_the_right_owners(contract: Contract) -> None:
    """The absorbed name stands before, between and behind: what is kept must follow."""
    voices = people(5, 2)
    for into, gone in ((3, 1), (0, 4), (4, 0)):
        gallery = filled(contract, voices)
        gallery.merge(f"p{into}", [f"p{gone}"])
        for i in range(5):
            if i == gone:
                continue
            name = f"p{i}"
            rows = voices[[i, gone]].reshape(-1, SIZE) if i == into else voices[i]
            mine = gallery.state.kept[gallery.state.owners == gallery.state.index[name]]
            np.testing.assert_allclose(np.sort(mine, axis=0), np.sort(rows, axis=0), atol=1e-6)
    for names in (["p0"], ["p1", "p1"]):
        with pytest.raises(GalleryError, match="given twice"):
            filled(contract, voices).merge("p0", names)
    with pytest.raises(GalleryError, match="'nobody' is not enrolled"):
        filled(contract, voices).merge("p0", ["nobody"])


def test_renaming(contract: Contract) -> None:
    gallery = filled(contract, people(3, 2))
    gallery.rename("p1", "Ada")
    assert [each.speaker for each in gallery.speakers] == ["p0", "Ada", "p2"]
    gallery.rename("Ada", "Ada")
    with pytest.raises(GalleryError, match="'p2' is enrolled already"):
        gallery.rename("Ada", "p2")
    with pytest.raises(GalleryError, match="control characters"):
        gallery.rename("Ada", "a\nb")
    with pytest.raises(GalleryError, match="'p1' is not enrolled"):
        gallery.rename("p1", "x")


def test_one_person_under_two_names_does_not_move_the_threshold(contract: Contract) -> None:
    voices = people(17, 4)
    gallery = filled(contract, voices[:16])
    before = gallery.calibrate(0.05)
    gallery.enroll("twin", voices[3][:2] + 1e-2 * people(1, 2, 7)[0])
    with pytest.raises(
        GalleryError, match=r"names that are one voice .*: 'p3' and 'twin' \(0\.\d+\); .*--accept-anyway"
    ):
        gallery.calibrate(0.05)
    assert gallery.thresholds == before
    spoiled = gallery.calibrate(0.05, accept_anyway=True)
    assert spoiled.identify is not None
    assert before.identify is not None
    assert spoiled.identify > before.identify + 0.2
    gallery.merge("p3", ["twin"])
    mended = gallery.calibrate(0.05)
    assert mended.identify == pytest.approx(before.identify, abs=0.05)


def test_a_stranger_who_is_enrolled_is_named(contract: Contract) -> None:
    voices = people(16, 5)
    gallery = filled(contract, voices[:, :4])
    strangers = people(60, 1, seed=3)[:, 0]
    thresholds = gallery.calibrate(0.05, strangers)
    with pytest.raises(GalleryError, match=r"strangers who are enrolled .*: 'impostor 60' and 'p7'"):
        gallery.calibrate(0.05, np.concatenate([strangers, voices[7, 4:]]))
    assert gallery.thresholds == thresholds


def test_names_of_the_models_training_make_the_rate_untrue(contract: Contract, tmp_path: Path) -> None:
    voices = people(8, 4)
    gallery = Gallery(contract)
    gallery.enroll_many(dict(zip((*LABELS[:3], *"abcde"), voices, strict=True)))
    notes = gallery.calibrate(0.1).notes
    assert notes[0].startswith("the rate is untrue: 3 of 8 enrolled have names of the model's training speakers")
    assert gallery.check().trained == LABELS[:3]
    gallery.rename(LABELS[0], "somebody")  # the voice stays one that training knows
    gallery.save(tmp_path / "g")
    again = Gallery.load(tmp_path / "g", None)
    assert again.check().trained == ("somebody", *LABELS[1:3])
    assert again.thresholds.notes == notes
    strangers = [f"corpus/{LABELS[0]}/{i}.wav" for i in range(20)] + [f"corpus/x/{LABELS[1]}.wav"] * 20
    rows = people(40, 1, seed=4)[:, 0].astype(np.float32)
    write_embeddings(tmp_path / "s.npz", strangers, rows, contract.checkpoint_sha256, contract.labels)
    read = read_strangers(tmp_path / "s.npz", contract.checkpoint_sha256, SIZE)
    assert (read.trained, read.names) == (20, tuple(strangers))
    assert "20 of 40 strangers lie in folders" in gallery.calibrate(0.1, read).notes[0]


@pytest.mark.parametrize(("folders", "rough"), [(1, False), (2, True), (19, True), (20, False)])
def test_few_strangers_make_a_rough_rate_and_that_is_said(contract: Contract, folders: int, rough: bool) -> None:
    rows, none = people(40, 1, seed=4)[:, 0].astype(np.float32), np.zeros(0, np.float32)
    names = tuple(f"strangers/{i % folders}/{i}.wav" for i in range(40))
    strangers = Strangers(rows, np.zeros(40, np.float32), names, rows[:0], none)
    notes = filled(contract, people(8, 4)).calibrate(0.1, strangers).notes
    said = [note for note in notes if note.startswith(f"the rate is rough: the strangers' sounds lie in {folders} ")]
    assert len(said) == rough


def test_short_sounds_have_thresholds_of_their_own(contract: Contract) -> None:
    """Short pieces that are less like anybody and more like everybody: the usual threshold lets too many through."""
    generator = np.random.default_rng(2)
    common = unit(generator.normal(size=SIZE))
    gallery = Gallery(contract)

    def voice(vector: Floats, seconds: float, pieces: tuple[Voice, ...] = ()) -> Voice:
        return Voice(unit(vector).astype(np.float32), seconds, 1, pieces)

    for i, rows in enumerate(people(10, 3)):
        gallery.enroll(f"p{i}", [voice(row + 0.2 * common, 3.0) for row in rows])
    strangers = [
        voice(row + 0.2 * common, 3.0, (voice(row + common, 0.75), voice(row + 0.5 * common, 1.5)))
        for row in people(100, 1, seed=8)[:, 0]
    ]
    found = gallery.calibrate(0.05, strangers)
    assert [short.below_s for short in found.by_length] == [1.0, 2.0]
    assert found.notes == ()
    for seconds in (3.0, 0.75, 1.5):
        asked = [stranger if seconds == 3.0 else stranger.pieces[0 if seconds == 0.75 else 1] for stranger in strangers]
        accepted = [bool(gallery.verify(f"p{i}", each).accepted) for i in range(10) for each in asked]
        assert sum(accepted) == 50, seconds
        assert sum(bool(gallery.identify(each).known) for each in asked) == 5
    naive = sum(bool(gallery.verify("p0", each.pieces[0].embedding).accepted) for each in strangers)
    assert naive > 10  # what the usual threshold would have let through, of 100
    assert gallery.verify("p0", strangers[0].embedding, seconds=0.75).threshold == found.by_length[0].verify
    assert gallery.verify("p0", strangers[0].embedding).threshold == found.verify
    assert found.for_length(1.0) is found.by_length[1]
    assert found.for_length(2.0) is found.for_length(None) is found
    none = gallery.calibrate(0.05, np.stack([each.embedding for each in strangers]))
    assert none.by_length == ()
    assert "sounds below 1 s have no threshold of their own" in none.notes[-1]


def test_pieces_and_lengths_are_kept_and_come_back(tiny_waveform: TinyModel, tmp_path: Path) -> None:
    model = tiny_waveform.contract.replace(max_frames=500)
    identifier = SpeakerIdentifier(Wide(model))
    sound = np.concatenate([tone(2.0, size=0.1), tone(1.0, size=0.8, hertz=900.0), tone(1.0, size=0.1)])
    voice = identifier.voice(sound, 16000, pieces=PIECE_SECONDS)
    assert [piece.duration_s for piece in voice.pieces] == list(PIECE_SECONDS)
    loud = sound[32000 : 32000 + 12000]
    np.testing.assert_allclose(voice.pieces[0].embedding, identifier.embed(loud, 16000), atol=1e-3)
    assert identifier.voice(tone(0.7), 16000, pieces=PIECE_SECONDS).pieces == ()
    gallery = Gallery(model)
    gallery.enroll("Ada", [voice])
    gallery.save(tmp_path / "g")
    state = Gallery.load(tmp_path / "g", model).state
    assert state.whole.seconds.tolist() == [4.0]
    np.testing.assert_allclose(state.pieces.seconds, PIECE_SECONDS)
    assert gallery.describe("Ada").pieces == 2
    gallery.remove("Ada")
    assert len(gallery.state.pieces.vectors) == 0


class Wide:
    """A model that takes seconds of sound, computed by NumPy."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract

    def run(self, inputs: Any, lengths: Any) -> Answer:
        project = np.random.default_rng(0).normal(size=(3, self.contract.embedding_size))
        rows = [embedding_of(row[:length], project) for row, length in zip(inputs, lengths, strict=True)]
        return Answer(np.zeros((len(rows), len(LABELS)), np.float32), np.array(rows, np.float32))


def spoken(vector: Floats, seconds: float, speech_s: float, pieces: tuple[Voice, ...] = ()) -> Voice:
    """A voice in a sound of so many seconds, of which `speech_s` are active speech."""
    return Voice(unit(vector).astype(np.float32), seconds, 1, pieces, speech=Speech(None, speech_s, -20.0))


def calibrated_by_speech(contract: Contract) -> tuple[Gallery, list[Voice]]:
    """Ten people, and a hundred strangers whose pieces are the more like everybody the shorter they are."""
    common = unit(np.random.default_rng(2).normal(size=SIZE))
    gallery = Gallery(contract)
    for i, rows in enumerate(people(10, 3)):
        gallery.enroll(f"p{i}", [spoken(row + 0.2 * common, 9.0, 3.0) for row in rows])
    strangers = [
        spoken(row + 0.2 * common, 9.0, 3.0, (spoken(row + common, 2.5, 0.7), spoken(row + 0.5 * common, 2.5, 1.4)))
        for row in people(100, 1, seed=8)[:, 0]
    ]
    gallery.calibrate(0.05, strangers)
    return gallery, strangers


def test_pauses_make_no_sound_longer(contract: Contract, tmp_path: Path) -> None:
    """0.7 s of speech in 2.5 s of sound are held to the threshold below 1 s, which keeps its rate there."""
    gallery, strangers = calibrated_by_speech(contract)
    found = gallery.thresholds
    assert (found.length_of, [short.below_s for short in found.by_length]) == ("speech", [1.0, 2.0])
    for place, used in ((0, found.by_length[0]), (1, found.by_length[1]), (None, found)):
        asked = [stranger if place is None else stranger.pieces[place] for stranger in strangers]
        assert {gallery.identify(each).threshold for each in asked} == {used.identify}
        assert {gallery.verify("p3", each).threshold for each in asked} == {used.verify}
        assert sum(bool(gallery.identify(each).known) for each in asked) == 5
    bare = strangers[0].embedding  # of which the caller alone knows how much was spoken
    assert gallery.verify("p3", bare, seconds=0.7).threshold == found.by_length[0].verify
    assert gallery.verify("p3", bare).threshold == found.verify
    gallery.save(tmp_path / "g")
    again = Gallery.load(tmp_path / "g", contract)
    assert again.thresholds == found
    assert again.calibrate(0.05, strangers) == found
    assert again.state.whole.spoken.tolist() == [3.0] * 30


def test_strangers_in_a_file_count_by_speech_too(contract: Contract, tmp_path: Path) -> None:
    gallery, strangers = calibrated_by_speech(contract)
    found = gallery.thresholds
    files = [f"{i}.wav" for i in range(100)]
    write_embeddings(tmp_path / "s.npz", files, strangers, contract.checkpoint_sha256)
    read = read_strangers(tmp_path / "s.npz", contract.checkpoint_sha256, SIZE)
    assert gallery.calibrate(0.05, read) == found
    with np.load(tmp_path / "s.npz") as arrays:  # as files of before were, which count the whole sound
        content = {name: arrays[name] for name in arrays if name not in ("spoken", "piece_spoken")}
    np.savez(tmp_path / "old.npz", **content)
    old = gallery.calibrate(0.05, read_strangers(tmp_path / "old.npz", contract.checkpoint_sha256, SIZE))
    assert (old.length_of, old.by_length) == ("sound", ())  # the pieces' sounds are of 2.5 s
    assert gallery.identify(strangers[0].pieces[0]).threshold == old.identify


def test_pieces_without_speech_are_no_trial(contract: Contract) -> None:
    """They are nobody's when they are asked about, so they say nothing of who would be accepted."""
    gallery, strangers = calibrated_by_speech(contract)
    found = gallery.thresholds
    noise = replace(strangers[0].pieces[0], speech=Speech("steady", 0.75, -20.0))
    assert gallery.calibrate(0.05, [replace(each, pieces=(*each.pieces, noise)) for each in strangers]) == found


def test_a_recording_that_silence_follows_has_the_threshold_of_its_speech(
    tiny_waveform: TinyModel, contract: Contract
) -> None:
    rule = tiny_waveform.contract.replace(max_frames=1500, speech=USUAL_RULE, embedding_size=SIZE)
    identifier = SpeakerIdentifier(Wide(rule))
    gallery, _ = calibrated_by_speech(contract)
    used = gallery.thresholds
    quiet = np.zeros(2 * 16000, np.float32)
    for seconds, wanted in ((0.8, used.by_length[0]), (1.6, used.by_length[1]), (3.5, used)):
        sound = talk(seconds)
        for padded in (sound, np.concatenate([sound, quiet]), np.concatenate([quiet, sound, quiet])):
            voice = identifier.voice(padded, 16000)
            assert gallery.identify(voice).threshold == wanted.identify
            assert gallery.verify("p0", voice).threshold == wanted.verify
    no_rule = SpeakerIdentifier(Wide(rule.replace(speech=None)))  # nobody looks for speech: the sound's length counts
    assert gallery.identify(no_rule.voice(np.concatenate([talk(0.8), quiet]), 16000)).threshold == used.identify


def test_a_gallery_of_the_second_version_keeps_its_meaning(contract: Contract, tmp_path: Path) -> None:
    """Its lengths are those of sounds, pauses included; so they stay until speakers are enrolled and counted anew."""
    gallery, strangers = calibrated_by_speech(contract)
    gallery.save(tmp_path / "new")
    with np.load(tmp_path / "new") as arrays:
        content = {name: arrays[name] for name in arrays if name not in ("spoken", "piece_spoken")}
    header = json.loads(bytes(content["header"])) | {"version": 2}
    del header["thresholds"]["length_of"]
    content["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with open(tmp_path / "old", "wb") as file:
        np.savez(file, **content)
    old = Gallery.load(tmp_path / "old", contract)
    assert old.thresholds == replace(gallery.thresholds, length_of="sound")
    assert old.identify(strangers[0].pieces[0]).threshold == old.thresholds.identify  # 2.5 s of sound
    assert old.identify(strangers[0].embedding, seconds=0.9).threshold == old.thresholds.by_length[0].identify
    old.enroll("new", [spoken(people(1, 1, 4)[0, 0], 4.0, 3.0)])
    assert old.calibrate(0.05).length_of == "sound"  # of the older utterances nobody knows how much was spoken
    old.save(tmp_path / "old")
    assert Gallery.load(tmp_path / "old", contract).state.whole.spoken.tolist() == [0.0] * 30 + [3.0]


def test_a_gallery_of_the_first_version_is_read(contract: Contract, tmp_path: Path) -> None:
    gallery = filled(contract, people(3, 2))
    gallery.save(tmp_path / "new")
    with np.load(tmp_path / "new") as arrays:
        content = {name: arrays[name] for name in ("header", "names", "counts", "sums", "kept", "owners")}
    header = json.loads(bytes(content["header"])) | {"version": 1}
    header["thresholds"] = {"verify": 0.5, "identify": None, "false_accept_rate": None, "speakers": 0}
    content["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with open(tmp_path / "old", "wb") as file:
        np.savez(file, **content)
    old = Gallery.load(tmp_path / "old", contract)
    assert old.speakers == gallery.speakers
    assert old.thresholds == Thresholds(verify=0.5)
    assert old.state.whole.seconds.tolist() == [0.0] * 6
    old.enroll("p3", people(1, 1, 4)[0])
    old.save(tmp_path / "old")
    assert len(Gallery.load(tmp_path / "old", contract)) == 4


def test_strangers_may_be_given_ready(contract: Contract) -> None:
    gallery = filled(contract, people(4, 2))
    rows = people(40, 1, 5)[:, 0].astype(np.float32)
    none = np.zeros(0, np.float32)
    strangers = Strangers(rows, np.zeros(40, np.float32), tuple(map(str, range(40))), rows[:0], none)
    assert gallery.calibrate(0.1, strangers).verify == gallery.calibrate(0.1, rows).verify
