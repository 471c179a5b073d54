"""The frontend inside the graph against the NumPy frontend, each row as if it were alone."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from voxport.export.network.frontend import FrontendGraph, num_frames
from voxport.export.network.spectrum import Bins, TwoStepSpectrum, WholeSpectrum, best_block
from voxport.runtime.frontend import log_mel as numpy_frontend
from voxport.runtime.frontend.presets import PROFILES
from voxport.runtime.frontend.spec import Frontend
from voxport.train.models.frontend import TorchFrontend

HOMEWORK, KALDI, PSF = (PROFILES[name] for name in ("homework_mel40", "kaldi_fbank80", "psf_fbank40"))
# What no profile uses, so that no part of a definition is passed over.
OTHERS = {
    "magnitudes": dataclasses.replace(HOMEWORK, power=1.0, spectrum_scale=0.25),
    "window inside a longer transform": dataclasses.replace(HOMEWORK, n_fft=512, win_length=320, hop_length=100),
    "odd sizes": dataclasses.replace(HOMEWORK, n_fft=401, win_length=401, hop_length=133),
    "hop longer than the window": dataclasses.replace(PROFILES["nemo_mel40"], win_length=150, hop_length=200),
    "window of whole hops": dataclasses.replace(KALDI, win_length=480, hop_length=160),
    "levelled magnitudes": dataclasses.replace(HOMEWORK, power=1.0, level=5.0, normalize="mean_std"),
    "decibels, reflected": dataclasses.replace(HOMEWORK, log="db", floor=1e-7, normalize="mean_std"),
    "dc and emphasis over the signal": dataclasses.replace(PSF, remove_dc=True, window="hamming", sample_scale=3.0),
}
FRONTENDS = {**PROFILES, **OTHERS}


@pytest.mark.parametrize("frontend", FRONTENDS.values(), ids=FRONTENDS)
def test_counts_of_frames(frontend: Frontend) -> None:
    shortest = numpy_frontend.min_samples(frontend, 1)
    samples = list(range(shortest, shortest + 1500))
    wanted = [numpy_frontend.num_frames(frontend, count) for count in samples]
    assert num_frames(frontend, torch.tensor(samples)).tolist() == wanted
    if frontend.framing != "pad_end":  # which is symbolic only inside a capture
        assert [num_frames(frontend, count) for count in samples] == wanted


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("frontend", FRONTENDS.values(), ids=FRONTENDS)
def test_each_padded_row_is_framed_as_if_alone(frontend: Frontend, garbage: float) -> None:
    shortest, hop = numpy_frontend.min_samples(frontend, 1), frontend.hop_length
    lengths = [shortest, shortest + 1, shortest + hop - 1, shortest + hop, 3 * hop + 517, 4321]
    rng = np.random.default_rng(3)
    rows = [0.1 * rng.normal(size=length) + 0.02 for length in lengths]
    batch = np.full((len(rows), max(lengths) + 3 * hop + 7), garbage)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    features, counts = FrontendGraph(frontend)(torch.from_numpy(batch), torch.tensor(lengths))
    assert features.isfinite().all()
    for i, samples in enumerate(rows):
        wanted = numpy_frontend.compute_features(samples, frontend, np.float64)
        assert int(counts[i]) == len(wanted)
        np.testing.assert_allclose(features[i, : len(wanted)].numpy(), wanted, rtol=0, atol=1e-8)


@pytest.mark.parametrize("frontend", PROFILES.values(), ids=PROFILES)
def test_float32_is_close(frontend: Frontend, record_property: Callable[[str, object], None]) -> None:
    samples = (0.1 * np.random.default_rng(5).normal(size=32000)).astype(np.float32)
    graph = FrontendGraph(frontend).float()
    features, counts = graph(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    assert features.dtype == torch.float32
    wanted = numpy_frontend.compute_features(samples, frontend, np.float64)
    worst = np.abs(features[0, : int(counts[0])].numpy() - wanted).max()
    record_property("max_abs_difference", float(worst))
    assert worst < 1e-3


def test_silence_is_the_floor() -> None:
    features, _ = FrontendGraph(HOMEWORK).float()(torch.zeros(1, 4000), torch.tensor([4000]))
    torch.testing.assert_close(features, torch.full_like(features, math.log(1e-9)))


@pytest.mark.parametrize("frontend", FRONTENDS.values(), ids=FRONTENDS)
def test_two_steps_and_one_give_the_same_energies(frontend: Frontend) -> None:
    bins = Bins.of(frontend)
    signal = torch.from_numpy(np.random.default_rng(7).normal(size=(2, 20 * frontend.hop_length)))
    plain = dataclasses.replace(frontend, remove_dc=False, preemphasis_over="signal")
    whole = WholeSpectrum(plain, bins)
    for block in (8, 10, 16, 20, 40):
        if frontend.n_fft % (2 * block) or frontend.hop_length % block:
            continue
        steps = TwoStepSpectrum(plain, bins, block)
        wanted = whole(signal[:, : 4 * plain.hop_length + whole.samples])
        torch.testing.assert_close(
            steps(signal[:, : 4 * plain.hop_length + steps.samples]), wanted, rtol=1e-9, atol=1e-9
        )


def test_two_steps_are_taken_where_they_are_fewer_and_right() -> None:
    blocks = {name: best_block(frontend, len(Bins.of(frontend).used)) for name, frontend in FRONTENDS.items()}
    # The mean of a frame, and a past that ends with it, are in no window; 401 has no block that the hop has too.
    whole = {"kaldi_fbank80", "nemo_mel40", "window of whole hops", "hop longer than the window", "odd sizes"}
    assert {name for name, block in blocks.items() if block is None} == {*whole, "dc and emphasis over the signal"}
    assert (blocks["homework_mel40"], blocks["psf_fbank40"]) == (20, 16)


@pytest.mark.parametrize("name", [name for name, each in FRONTENDS.items() if each.normalize != "none"])
def test_a_band_on_its_floor_is_exactly_zero_over_a_long_sound(name: str) -> None:
    """Its mean in float32 is otherwise off by 6e-4 dB at 20 s, and a norm that knows it constant magnifies that."""
    frontend = FRONTENDS[name]
    samples = torch.zeros(1, 20 * frontend.sample_rate)
    features, _ = FrontendGraph(frontend).float()(samples, torch.tensor([samples.shape[1]]))
    assert not features.any()
    assert not TorchFrontend(frontend)(samples).any()
