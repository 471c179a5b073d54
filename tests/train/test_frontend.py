"""The torch frontend gives the NumPy frontend's numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxport.runtime.errors import LengthError
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.frontend.presets import PROFILES
from voxport.runtime.frontend.spec import Frontend
from voxport.train.models.frontend import TorchFrontend

ALL = pytest.mark.parametrize("frontend", PROFILES.values(), ids=PROFILES.keys())
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


def signals(length: int = 16000) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(11).standard_normal(length)
    time = np.arange(length) / 16000
    return {
        "noise": 0.1 * noise,
        "tones": sum(0.1 * np.sin(2 * np.pi * hz * time) for hz in (123.0, 997.0, 3001.0)) + 1e-3 * noise,
        "offset": 0.3 + 0.01 * noise,
        "near silence": 1e-4 * noise,
        "silence": np.zeros(length),
    }


@pytest.mark.parametrize("device", DEVICES)
@ALL
def test_equals_numpy(frontend: Frontend, device: str) -> None:
    batch = np.stack(list(signals().values()))
    expected = np.stack([compute_features(samples, frontend, np.float64) for samples in batch])
    features = TorchFrontend(frontend, torch.float64).to(device)(torch.from_numpy(batch).to(device))
    np.testing.assert_allclose(features.cpu().numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("device", DEVICES)
@ALL
def test_float32_equals_numpy_where_float32_resolves_a_band(frontend: Frontend, device: str) -> None:
    """Within 60 dB of a frame's loudest band; below, float32's own rounding is heard."""
    plain = replace(frontend, normalize="none")
    per_decibel = 0.1 * np.log(10) if frontend.log == "ln" else 2.0
    for label, samples in signals().items():
        single = samples.astype(np.float32)
        expected = compute_features(single, plain, np.float64)
        features = TorchFrontend(plain).to(device)(torch.from_numpy(single).to(device)).cpu().numpy()
        resolved = expected >= expected.max(axis=1, keepdims=True) - 60 * per_decibel
        assert features.dtype == np.float32
        difference = np.abs(features - expected)[resolved].max() / (1 if frontend.log == "ln" else 20 / np.log(10))
        assert difference < 1e-3, label


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(list(PROFILES)), st.integers(0, 700))
def test_equals_numpy_at_every_length(name: str, extra: int) -> None:
    frontend = PROFILES[name]
    samples = signals(min_samples(frontend, 1) + extra)["noise"]
    features = TorchFrontend(frontend, torch.float64)(torch.from_numpy(samples))
    np.testing.assert_allclose(features.numpy(), compute_features(samples, frontend, np.float64), rtol=0, atol=1e-8)


@ALL
def test_an_utterance_does_not_depend_on_its_batch(frontend: Frontend) -> None:
    batch = torch.from_numpy(np.stack(list(signals().values())))
    torch_frontend = TorchFrontend(frontend, torch.float64)
    torch.testing.assert_close(torch_frontend(batch)[1], torch_frontend(batch[1]), rtol=0, atol=1e-9)


@ALL
def test_too_few_samples(frontend: Frontend) -> None:
    fewest = min_samples(frontend, 1)
    with pytest.raises(LengthError, match=f"at least {fewest} are needed"):
        TorchFrontend(frontend)(torch.zeros(2, fewest - 1))


def test_mixed_precision_does_not_reach_the_features() -> None:
    samples = torch.from_numpy(signals()["noise"]).float()
    frontend = TorchFrontend(PROFILES["homework_mel40"])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = frontend(samples)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, frontend(samples), rtol=0, atol=0)


def test_half_precision_samples_are_computed_in_the_tables_type() -> None:
    samples = torch.from_numpy(signals()["noise"]).half()
    frontend = TorchFrontend(PROFILES["homework_mel40"])
    torch.testing.assert_close(frontend(samples), frontend(samples.float()))


@ALL
def test_gradients_reach_the_samples(frontend: Frontend) -> None:
    samples = torch.from_numpy(signals(4000)["noise"]).requires_grad_()
    TorchFrontend(frontend, torch.float64)(samples).square().sum().backward()
    assert samples.grad is not None
    assert torch.isfinite(samples.grad).all()
    assert samples.grad.abs().max() > 0


def test_the_tables_are_no_part_of_a_checkpoint() -> None:
    assert not TorchFrontend(PROFILES["homework_mel40"]).state_dict()
