"""Augmentation: copies that depend on recipe and seed alone, the user's folders, features changed as sound would be."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.train.corpora import RECIPE, write_recipe
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import profile
from voxport.train.augmentation.copies import open_copies
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import Corpus, CorpusOptions, CropBatches, open_corpus
from voxport.train.data.crops import Copies
from voxport.train.effects import draws, mel, rooms, signals
from voxport.train.effects.material import find_noises, find_responses
from voxport.train.effects.options import AugmentOptions
from voxport.train.recipe import Recipe, RecipeError, load_recipe
from voxport.train.training.dataloaders import ResidentCrops
from voxport.train.training.fit import FitOptions, fit

RATE = 16000
FRONTEND = profile("speech_mel40")
OPTIONS = AugmentOptions(copies=2, rooms=2, room_t60_s=(0.1, 0.2), codecs=("mu_law", "gsm"), speed_speakers=(0.9,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four speakers, each a pitch of their own, with six sounds of two thirds of a second."""
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    for speaker, pitch in zip("abcd", (90, 140, 200, 280), strict=True):
        (folder / speaker).mkdir()
        for number in range(6):
            phase = 2 * np.pi * pitch * np.arange(int(0.66 * RATE)) / RATE + random.uniform(0, 6)
            sound = sum(np.sin(k * phase) / k for k in range(1, 12)) + 0.1 * random.standard_normal(len(phase))
            soundfile.write(folder / speaker / f"{number}.wav", 0.1 * sound, RATE)
    return folder


def opening(cache: Path) -> CorpusOptions:
    return CorpusOptions(FRONTEND, cache=cache, jobs=1, progress=False)


def copies_of(data: Path, cache: Path, options: AugmentOptions = OPTIONS, seed: int = 7) -> tuple[Corpus, Copies]:
    corpus = open_corpus(data, opening(cache))
    copies = open_copies(corpus, np.arange(0, 24, 2), options, seed, opening(cache))
    assert copies is not None
    return corpus, copies


def test_copies_depend_on_recipe_seed_and_corpus_alone(data: Path, tmp_path: Path) -> None:
    corpus, copies = copies_of(data, tmp_path / "one")
    again = copies_of(data, tmp_path / "one")[1]
    assert again.pack.path == copies.pack.path  # not computed again
    elsewhere = open_copies(corpus, np.arange(0, 24, 2), OPTIONS, 7, opening(tmp_path / "two"))
    assert elsewhere is not None
    np.testing.assert_array_equal(elsewhere.pack.rows, copies.pack.rows)
    other = copies_of(data, tmp_path / "one", seed=8)[1]
    assert other.pack.rows.shape != copies.pack.rows.shape or not np.array_equal(other.pack.rows, copies.pack.rows)
    # An utterance of its own at each place, unchanged ones first; then all of them as slower speakers.
    assert copies.each == 3
    assert copies.speakers.tolist() == [*corpus.speakers[::2], *(corpus.speakers[::2] + 4)]
    for place in range(12):
        np.testing.assert_array_equal(copies.pack.features(3 * place), corpus.features(2 * place))
        slow = compute_features(signals.speed(corpus.samples(2 * place, RATE), 0.9), FRONTEND)
        np.testing.assert_array_equal(copies.pack.features(3 * (12 + place)), slow)
    changed = [not np.array_equal(copies.pack.features(3 * p), copies.pack.features(3 * p + 1)) for p in range(24)]
    assert sum(changed) > 15


def test_batches_mix_clean_and_changed_in_the_share_that_was_asked_for(data: Path, tmp_path: Path) -> None:
    corpus, copies = copies_of(data, tmp_path)
    batches = CropBatches(corpus, np.arange(0, 24, 2), 8, 30, 3, "repeat", copies)
    clean_starts = copies.pack.offsets[::3]
    plans = [batches.plan(step) for step in range(300)]
    shares = np.mean([np.isin(plan.starts, clean_starts).mean() for plan in plans])
    assert shares == pytest.approx(OPTIONS.clean, abs=0.03)  # four standard errors of 2400 draws
    assert {int(s) for plan in plans for s in plan.starts} == set(copies.pack.offsets.tolist())
    for plan in plans[:20]:
        rows = np.searchsorted(copies.pack.offsets, plan.starts)
        np.testing.assert_array_equal(copies.speakers[rows // 3], plan.speakers)
    resident = ResidentCrops(batches, torch.device("cpu"))
    for step in (0, 17):
        np.testing.assert_array_equal(resident.batch(step, slice(None))[0].numpy(), batches.batch(step)[0])
    again = CropBatches(corpus, np.arange(0, 24, 2), 8, 30, 3, "repeat", copies._replace(clean=1.0))
    assert np.isin(again.plan(0).starts, clean_starts).all()


def recipe_of(folder: Path) -> Recipe:
    text = RECIPE.replace("steps = 24", "steps = 16").replace('frontend = "homework_mel40"\n', "")
    recipe = load_recipe(str(write_recipe(folder, text.replace("[model]", '[model]\nhead = "am_softmax"'))))
    return dataclasses.replace(recipe, augment=OPTIONS)


def test_a_run_on_changed_sounds_resumes_to_the_same_weights_and_knows_its_limits(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    whole = fit(data, recipe, FitOptions(tmp_path / "whole", opening(tmp_path), device="cpu", progress=False))
    short = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=16))
    options = FitOptions(tmp_path / "killed", opening(tmp_path), device="cpu", progress=False)

    original = CropBatches.batch
    with pytest.MonkeyPatch.context() as patch:

        def watched(self: CropBatches, step: int, rows: slice = slice(None)) -> object:
            if step == 12:
                raise RuntimeError("killed")
            return original(self, step, rows)

        patch.setattr(CropBatches, "batch", watched)
        with pytest.raises(RuntimeError, match="killed"):
            fit(data, short, options)
    resumed = fit(data, short, dataclasses.replace(options, resume=True))
    one, two = load_checkpoint(whole.model), load_checkpoint(resumed.model)
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)
    # The speakers at other speeds helped to train; the model does not know them.
    assert one.state["head.weight"].shape[0] == len(one.labels) == 4
    assert one.recipe.augment == OPTIONS
    assert [line.kind for line in one.conditions] == [
        "clean", "codec", "microphone", "noise", "reverberation", "playback",
    ]  # fmt: skip
    assert one.conditions == two.conditions == whole.conditions
    assert one.temperature == two.temperature >= 1
    assert one.rejection is not None
    assert "changed in 5 ways" in (one.rejection.calibrated_on or "")


def test_recipes_say_what_is_changed_and_refuse_what_cannot_be(tmp_path: Path) -> None:
    table = '\n[augment]\ncopies = 3\nnoise = 0.9\nnoise_snr_db = [0, 10]\ncodecs = ["mu_law"]\n'
    recipe = load_recipe(str(write_recipe(tmp_path, RECIPE + table)))
    assert recipe.augment == AugmentOptions(copies=3, noise=0.9, noise_snr_db=(0.0, 10.0), codecs=("mu_law",))
    assert recipe.augment_for(sounds=False) == recipe.augment_for(sounds=True) == recipe.augment
    plain = load_recipe(str(write_recipe(tmp_path)))
    assert plain.augment is None
    assert plain.augment_for(sounds=False) is None
    assert plain.augment_for(sounds=True) == AugmentOptions()
    for line, said in (
        ("noise = 1.5", "noise is a probability from 0 to 1, found 1.5"),
        ("noise_snr_db = [10, 0]", "noise_snr_db is a range"),
        ('codecs = ["speex"]', "codecs are some of mu_law"),
        ("room = 0.7\nplayback = 0.6", "exclude each other"),
        ("noises = 1", "unknown key noises"),
    ):
        with pytest.raises(RecipeError, match=said):
            load_recipe(str(write_recipe(tmp_path, f"{RECIPE}\n[augment]\n{line}\n")))


def test_folders_of_musan_and_openslr_28_are_recognised(tmp_path: Path) -> None:
    def sound(*parts: str) -> Path:
        path = tmp_path.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.full(800, 0.1), RATE)
        return path

    noise, music = sound("musan", "noise", "free-sound", "n.wav"), sound("musan", "music", "jazz", "m.wav")
    sound("musan", "speech", "us-gov", "s.wav")
    for folder in (tmp_path / "musan", tmp_path):
        found = find_noises(folder)
        assert (found.files, found.layout) == ((music, noise), "MUSAN, noise and music")
    point = sound("rirs", "RIRS_NOISES", "pointsource_noises", "noise-0.wav")
    room = sound("rirs", "RIRS_NOISES", "simulated_rirs", "smallroom", "Room001", "Room001-00001.wav")
    real = sound("rirs", "RIRS_NOISES", "real_rirs_isotropic_noises", "RVB2014_type1_rir_largeroom1_near_angla.wav")
    sound("rirs", "RIRS_NOISES", "real_rirs_isotropic_noises", "RVB2014_type1_noise_largeroom1_1.wav")
    assert find_noises(tmp_path / "rirs").files == (point,)
    assert find_responses(tmp_path / "rirs").files == (real, room)
    plain = sound("plain", "x.flac")
    assert find_noises(tmp_path / "plain").files == find_responses(tmp_path / "plain").files == (plain,)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VoxportError, match="holds no sound files"):
        find_noises(tmp_path / "empty")


def test_training_calibration_and_bench_share_no_random_numbers() -> None:
    uses: tuple[draws.Use, ...] = ("training", "calibration", "bench")
    firsts = [draws.generator(use, 1, "white noise", "a.wav").random(4) for use in uses]
    for one, two in itertools.combinations(firsts, 2):
        assert not np.isclose(one, two).any()


@pytest.mark.parametrize("t60", [0.2, 0.7])
def test_a_quick_room_decays_as_asked_and_reverberates_as_the_exact_one(t60: float) -> None:
    import pyroomacoustics  # type: ignore[import-untyped]

    response = rooms.room_response(t60, RATE, draws.generator("training", 1, "r", str(t60)), rooms.QUICK_ORDER)
    measured = pyroomacoustics.experimental.measure_rt60(response.astype(float), RATE, decay_db=30)
    assert measured == pytest.approx(t60, rel=0.1)
    if t60 < 0.5:  # the exact one takes seconds beyond
        exact = rooms.room_response(t60, RATE, draws.generator("training", 1, "r", str(t60)))
        ratios = [np.square(each[:80]).sum() / np.square(each[80:]).sum() for each in (response, exact)]
        assert 10 * np.log10(ratios[0] / ratios[1]) == pytest.approx(0, abs=1.0)  # dB, direct to reverberant


@pytest.mark.parametrize("name", ["homework_mel40", "speech_mel40", "psf_fbank40", "kaldi_fbank80"])
def test_features_are_changed_as_the_sound_would_have_changed_them(name: str, data: Path) -> None:
    frontend = profile(name)
    random = np.random.default_rng(5)
    sound = np.concatenate([soundfile.read(data / "a" / f"{i}.wav", dtype="float32")[0] for i in range(6)])
    sound *= (0.2 + np.abs(np.sin(np.arange(len(sound)) / 2500))).astype(np.float32)
    before = compute_features(sound, frontend)
    energies, exact = mel.energies_of(before, frontend), mel.exact_energies(before, frontend) is not None
    np.testing.assert_allclose(mel.features_of(energies, frontend, exact), before, atol=0.02)
    noisy = compute_features(signals.add(sound, signals.coloured_noise(len(sound), 0, random), 5.0), frontend)
    noise = mel.noise_energies(len(energies), 0.0, frontend, random)
    guessed = mel.features_of(mel.mixed(energies, noise, 5.0), frontend, exact)
    assert np.square(guessed - noisy).mean() < 0.7 * np.square(before - noisy).mean()  # the noises differ
    faster = compute_features(signals.speed(sound, 1.1), frontend)
    guessed = mel.features_of(mel.faster(energies, 1.1, frontend), frontend, exact)[: len(faster)]
    assert abs(len(guessed) - len(faster)) <= 2
    mean_before, mean_after, mean_guess = (rows.mean(axis=0) for rows in (before, faster, guessed))
    if frontend.normalize == "none":
        assert np.square(mean_guess - mean_after).mean() < np.square(mean_before - mean_after).mean()


def test_a_floor_that_shows_gives_the_energies_back() -> None:
    frontend = profile("psf_fbank40")
    sound = np.concatenate([np.zeros(4000), np.random.default_rng(3).normal(size=16000) * 0.01, np.zeros(4000)])
    wanted = np.exp(compute_features(sound, dataclasses.replace(frontend, normalize="none", log="ln"), np.float64))
    found = mel.exact_energies(compute_features(sound, frontend).astype(np.float16).astype(np.float32), frontend)
    assert found is not None
    np.testing.assert_allclose(found, wanted, rtol=0.01)


def test_gain_lifts_what_was_heard_and_not_the_floor() -> None:
    """As the louder sound's features, but for what is hidden in them: it stays on the floor."""
    frontend = profile("psf_fbank40")
    sound = np.concatenate([np.zeros(4000), np.random.default_rng(3).normal(size=16000) * 0.002, np.zeros(4000)])
    known = mel.exact_energies(compute_features(sound, frontend), frontend)
    assert known is not None
    above = known > frontend.floor
    assert 0.1 < above.mean() < 0.9
    names = ("speed", "room", "playback", "noise", "babble", "band", "codec", "tilt", "tempo")
    options = dataclasses.replace(AugmentOptions(gain=1.0, gain_db=(12.0, 12.0)), **dict.fromkeys(names, 0.0))  # type: ignore[arg-type]
    heard = mel.audible(known, frontend)
    louder = mel.change_energies(heard, options, frontend, lambda *_: [], np.random.default_rng(0))
    plain = dataclasses.replace(frontend, normalize="none")
    wanted = compute_features(sound * 10 ** (12 / 20), plain)
    found, low = mel.features_of(louder, plain, True), np.float32(20 * np.log10(frontend.floor))
    clearly = known > 1.1 * frontend.floor
    np.testing.assert_allclose(found[clearly], wanted[clearly], atol=0.01)
    assert (found[known <= frontend.floor] == low).all()
    assert (wanted[known <= frontend.floor] > low + 1).any()  # which the louder sound would have shown


def test_energies_mix_at_the_ratio_and_decay_at_the_time_that_were_asked_for() -> None:
    frontend = profile("homework_mel40")
    random = np.random.default_rng(1)
    energies, noise = random.random((50, 40)), mel.noise_energies(4000, -1.0, frontend, random)
    added = mel.mixed(energies, noise[:50], 7.0) - energies
    assert 10 * np.log10(energies.mean() / added.mean()) == pytest.approx(7.0)
    spectrum = noise.mean(axis=0) / (mel.noise_energies(4000, 0.0, frontend, random).mean(axis=0))
    centres = mel._centres(frontend)
    fitted = np.polyfit(np.log(centres[5:]), np.log(spectrum[5:]), 1)[0]
    assert fitted == pytest.approx(-1.0, abs=0.05)  # energy goes with frequency ** slope
    click = np.zeros((100, 40))
    click[0] = 1
    heard = mel.reverberant(click, 0.5, 3.0, 0.01)
    assert 10 * np.log10(heard[1, 0] / heard[51, 0]) == pytest.approx(60.0)  # 50 frames of 10 ms later
    assert 10 * np.log10(1 / heard[1:, 0].sum()) == pytest.approx(3.0, abs=0.01)
