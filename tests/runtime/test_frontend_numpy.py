"""Lengths, edges and refusals of the NumPy frontend."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxport.runtime.errors import AudioError, LengthError, VoxportError
from voxport.runtime.frontend.log_mel import (
    compute_features,
    frame_signal,
    mel_filterbank,
    min_samples,
    num_frames,
    pad_value,
    window,
)
from voxport.runtime.frontend.presets import PROFILES, profile
from voxport.runtime.frontend.spec import Frontend

ALL = pytest.mark.parametrize("frontend", PROFILES.values(), ids=PROFILES.keys())


def noise(length: int, seed: int = 3) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(length)


@st.composite
def frontends(draw: st.DrawFn) -> Frontend:
    """Small frontends of every framing, with odd and even sizes and hops beyond the window."""
    n_fft = draw(st.integers(2, 40))
    return replace(
        PROFILES["homework_mel40"],
        n_fft=n_fft,
        win_length=draw(st.integers(1, n_fft)),
        hop_length=draw(st.integers(1, 50)),
        n_mels=3,
        framing=draw(st.sampled_from(["center_reflect", "snip_edges", "mirror_edges", "pad_end"])),
        window=draw(st.sampled_from(["hann_periodic", "hann", "hamming", "povey", "rectangular"])),
        preemphasis=draw(st.sampled_from([0.0, 0.97])),
        preemphasis_over=draw(st.sampled_from(["frame", "signal"])),
        remove_dc=draw(st.booleans()),
        normalize=draw(st.sampled_from(["none", "mean", "mean_std"])),
        power=draw(st.sampled_from([1.0, 2.0])),
    )


@given(frontends(), st.integers(1, 12))
def test_min_samples_is_the_fewest_that_give_these_frames(frontend: Frontend, frames: int) -> None:
    fewest = min_samples(frontend, frames)
    assert num_frames(frontend, fewest) >= frames
    assert num_frames(frontend, fewest - 1) < frames


@given(frontends(), st.integers(0, 300))
def test_num_frames_is_what_compute_features_gives(frontend: Frontend, length: int) -> None:
    expected = num_frames(frontend, length)
    assert num_frames(frontend, length + 1) >= expected
    if expected == 0:
        with pytest.raises(LengthError, match="too few for one frame"):
            compute_features(noise(length), frontend)
    else:
        features = compute_features(noise(length), frontend)
        assert features.shape == (expected, 3)
        assert np.isfinite(features).all()


@given(frontends(), st.integers(1, 300))
def test_every_frame_holds_the_samples_that_its_framing_names(frontend: Frontend, length: int) -> None:
    frontend = replace(frontend, preemphasis=0.0)
    count = num_frames(frontend, length)
    if count == 0:
        return
    start = {
        "center_reflect": (frontend.n_fft - frontend.win_length) // 2 - frontend.n_fft // 2,
        "mirror_edges": frontend.hop_length // 2 - frontend.win_length // 2,
    }.get(frontend.framing, 0)
    extended = {"center_reflect": "reflect", "mirror_edges": "symmetric"}.get(frontend.framing, "constant")
    samples = np.arange(1.0, length + 1)
    margin = 60
    padded = np.pad(samples, margin, mode=extended)  # type: ignore[call-overload]
    frames = frame_signal(samples, frontend)
    assert frames.shape == (count, frontend.win_length)
    for index in (0, count // 2, count - 1):
        first = margin + start + index * frontend.hop_length
        np.testing.assert_array_equal(frames[index], padded[first : first + frontend.win_length])


@pytest.mark.parametrize(
    ("name", "fewest", "frames", "at_one_second"),  # 201 reflected samples give two frames at once
    [
        ("homework_mel40", 201, 2, 101),
        ("kaldi_fbank80", 80, 1, 100),
        ("nemo_mel40", 400, 1, 98),
        ("psf_fbank40", 1, 1, 99),
    ],
)
def test_lengths_of_the_profiles(name: str, fewest: int, frames: int, at_one_second: int) -> None:
    frontend = profile(name)
    assert min_samples(frontend, 1) == fewest
    assert num_frames(frontend, 16000) == at_one_second
    assert compute_features(noise(fewest), frontend).shape == (frames, frontend.n_mels)
    if fewest > 1:
        with pytest.raises(LengthError, match=f"{fewest - 1} samples are too few .* {name}: at least {fewest} "):
            compute_features(noise(fewest - 1), frontend)


@ALL
def test_no_samples_are_too_few(frontend: Frontend) -> None:
    with pytest.raises(LengthError, match="0 samples are too few"):
        compute_features(np.zeros(0), frontend)


def test_min_samples_refuses_no_frames() -> None:
    with pytest.raises(ValueError, match="frames must be positive"):
        min_samples(profile("nemo_mel40"), 0)


@ALL
def test_silence_is_the_pad_value(frontend: Frontend) -> None:
    features = compute_features(np.zeros(16000), frontend)
    np.testing.assert_allclose(features, pad_value(frontend), rtol=1e-6, atol=1e-9)


def test_pad_values() -> None:
    assert pad_value(profile("homework_mel40")) == pytest.approx(math.log(1e-9))
    assert pad_value(replace(profile("psf_fbank40"), normalize="none")) == pytest.approx(-100.0)
    assert pad_value(profile("kaldi_fbank80")) == 0.0


def test_normalisation_is_over_the_frames_of_each_band() -> None:
    plain = replace(profile("nemo_mel40"), normalize="none")
    raw = compute_features(noise(8000), plain, np.float64)
    mean = compute_features(noise(8000), replace(plain, normalize="mean"), np.float64)
    both = compute_features(noise(8000), replace(plain, normalize="mean_std"), np.float64)
    np.testing.assert_allclose(mean, raw - raw.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(both, mean / (raw.std(axis=0) + 1e-5), atol=1e-12)


def test_the_magnitude_and_both_scales() -> None:
    power = replace(profile("homework_mel40"), floor=1e-30, mel_edges="hz")
    magnitude = replace(power, power=1.0)
    expected = np.sqrt(np.abs(np.fft.rfft(frame_signal(noise(800), power) * window(power))) ** 2)
    np.testing.assert_allclose(
        compute_features(noise(800), magnitude, np.float64), np.log(expected @ mel_filterbank(power)), atol=1e-12
    )
    scaled = compute_features(noise(800), replace(power, spectrum_scale=0.5, sample_scale=2.0), np.float64)
    np.testing.assert_allclose(scaled, compute_features(noise(800), power, np.float64) + math.log(0.5 * 4), atol=1e-12)


def test_a_filter_between_two_bins_is_the_floor() -> None:
    crowded = replace(profile("homework_mel40"), n_mels=150)  # 40 Hz per bin, low filters are narrower
    empty = ~mel_filterbank(crowded).any(axis=0)
    assert empty.any()
    features = compute_features(noise(1600), crowded, np.float64)
    np.testing.assert_allclose(features[:, empty], math.log(1e-9))
    assert (features[:, ~empty] > math.log(1e-9)).all()


@ALL
def test_long_signals_equal_their_pieces(frontend: Frontend) -> None:
    """Blocks of frames leave no seam: frames far from the edges do not depend on what surrounds them."""
    plain = replace(frontend, normalize="none", level=None)
    samples = noise(160 * 300)
    whole = compute_features(samples, plain, np.float64)
    part = compute_features(samples[160 * 50 : 160 * 250], plain, np.float64)
    np.testing.assert_allclose(part[5:150], whole[55:200], atol=1e-9)


@ALL
def test_the_result_is_float32_unless_asked_and_the_samples_stay(frontend: Frontend) -> None:
    samples = noise(4000).astype(np.float32)
    before = samples.copy()
    single = compute_features(samples, frontend)
    double = compute_features(samples, frontend, np.float64)
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    np.testing.assert_array_equal(single, double.astype(np.float32))
    np.testing.assert_array_equal(samples, before)
    np.testing.assert_allclose(compute_features(samples.astype(np.float16), frontend), single, atol=1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(bad: float) -> None:
    samples = noise(4000)
    samples[17] = bad
    with pytest.raises(AudioError, match="sample 17 is"):
        compute_features(samples, profile("homework_mel40"))


@pytest.mark.parametrize("bad", [np.zeros(4000, np.int16), np.zeros((2, 4000)), np.zeros(4000, complex), [0.0] * 4000])
def test_other_types_and_shapes_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(AudioError, match="expected a 1-D array of floats"):
        compute_features(bad, profile("homework_mel40"))


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(VoxportError, match=r"'mfcc'.*" + ", ".join(PROFILES)):
        profile("mfcc")


def test_profiles_are_called_by_their_names() -> None:
    assert all(name == frontend.name for name, frontend in PROFILES.items())
