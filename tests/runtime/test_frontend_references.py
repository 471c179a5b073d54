"""Every frontend against the library whose features it claims to compute.

float64 references are met in every band. float32 references (kaldi-native-fbank, torchaudio as it is
used) are met where float32 has something to say: their own rounding stands some 120 dB under the loudest
sound of a frame, so bands more than 60 dB under the frame's loudest band are printed but not asserted.
"""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.optional_packages import import_or_skip
from voxport.runtime.audio.decode import read_audio
from voxport.runtime.frontend.log_mel import compute_features, mel_filterbank, num_frames, window
from voxport.runtime.frontend.presets import PROFILES
from voxport.runtime.frontend.spec import Frontend

torch = pytest.importorskip("torch")
torchaudio = import_or_skip("torchaudio")
kaldi = import_or_skip("torchaudio.compliance.kaldi")
knf = pytest.importorskip("kaldi_native_fbank")
psf = pytest.importorskip("python_speech_features")
signal = pytest.importorskip("scipy.signal")

Array = npt.NDArray[np.float64]
Reference = Callable[[Array], Array]

RATE = 16000
DATA = Path(os.environ.get("VOXPORT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SPEECH = DATA / "librispeech10"
RESOLVED_DB = 60.0


def synthetic_signals() -> dict[str, Array]:
    random = np.random.default_rng(7)
    noise = random.standard_normal(2 * RATE)
    time = np.arange(2 * RATE) / RATE
    tones = sum(0.1 * np.sin(2 * np.pi * hz * time) for hz in (123.0, 997.0, 3001.0, 6500.0))
    return {
        "noise": 0.1 * noise,
        "loud noise, clipped": np.clip(0.9 * noise, -1, 1),
        "tone 440 Hz": 0.5 * np.sin(2 * np.pi * 440 * time),
        "four tones": np.asarray(tones),
        "tones in noise": tones + 1e-3 * noise,
        "offset": 0.3 + 0.01 * noise,
        "click": np.where(np.arange(2 * RATE) == RATE, 1.0, 0.0),
        "near silence": 1e-4 * noise,
        "under the floor": 1e-7 * noise,
        "silence": np.zeros(2 * RATE),
    }


def speech_signals() -> dict[str, Array]:
    files = sorted(SPEECH.glob("*/*.flac"))[::17]
    return {f"speech {file.stem}": read_audio(file, RATE).astype(np.float64) for file in files}


def boundary_signals() -> dict[str, Array]:
    noise = 0.1 * np.random.default_rng(8).standard_normal(2000)
    lengths = (400, 401, 479, 480, 481, 559, 560, 561, 639, 640, 719, 720, 721, 880, 1359, 1360, 1361)
    return {f"{length} samples": noise[:length] for length in lengths}


# ------------------------------------------------------------------------------------- float64 references


@pytest.fixture
def torch_in_float64() -> object:
    """Make torchaudio compute its filterbanks in float64 too; it follows the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def torchaudio_mel40(samples: Array) -> Array:
    transform = torchaudio.transforms.MelSpectrogram(RATE, n_fft=400, hop_length=160, n_mels=40, f_min=50.0)
    mel = transform(torch.from_numpy(samples).to(torch.get_default_dtype()))
    return np.asarray(mel.T.clamp_min(1e-9).log().double())


def torchaudio_speech40(samples: Array) -> Array:
    """Sound that was itself multiplied by the gain to 20 dB, then as above; silence below -50 dB stays quiet."""
    transform = torchaudio.transforms.MelSpectrogram(RATE, n_fft=400, hop_length=160, n_mels=40, f_min=50.0)
    sound = torch.from_numpy(samples).to(torch.get_default_dtype())
    frames = transform(sound).sum(dim=0)
    level = frames.sum() ** 2 / frames.sqrt().sum() ** 2 if frames.any() else torch.zeros(())
    loud = sound * 10 ** ((20 - max(10 * math.log10(level + 1e-99), -50)) / 20)
    return np.asarray(transform(loud).T.clamp_min(1e-6).log().double())


def torchaudio_fbank80(samples: Array) -> Array:
    scaled = torch.from_numpy(samples)[None] * 32768
    options = {"num_mel_bins": 80, "high_freq": -400.0, "snip_edges": False, "dither": 0.0, "subtract_mean": True}
    return np.asarray(kaldi.fbank(scaled, **options))


def scipy_nemo40(samples: Array) -> Array:
    """The features of sherpa-onnx's `nemo` path, frame by frame, with SciPy and torchaudio's Slaney filters."""
    hann = signal.get_window("hann", 400, fftbins=True)
    filters = torchaudio.functional.melscale_fbanks(257, 0.0, 7600.0, 40, RATE, norm="slaney", mel_scale="slaney")
    rows = []
    for start in range(0, len(samples) - 399, 160):
        frame = samples[start : start + 400]
        emphasised = signal.lfilter([1, -0.97], [1], frame, zi=[-0.97 * frame[0]])[0]
        spectrum = np.fft.fft(np.concatenate([emphasised * hann, np.zeros(112)]))[:257]
        rows.append(np.log(np.maximum(np.abs(spectrum) ** 2 @ filters.numpy(), 2.0**-23)))
    log_mel = np.array(rows)
    variance = np.maximum((log_mel**2).mean(axis=0) - log_mel.mean(axis=0) ** 2, 1e-5)
    return np.asarray((log_mel - log_mel.mean(axis=0)) / (np.sqrt(variance) + 1e-5))


def psf_fbank40(samples: Array) -> Array:
    energies, _ = psf.fbank(samples, RATE, winlen=0.025, winstep=0.01, nfilt=40, nfft=512, preemph=0.97)
    decibels = 20 * np.log10(np.maximum(energies, 1e-5))
    return np.asarray(decibels - decibels.mean(axis=0))


FLOAT64: dict[str, Reference] = {
    "homework_mel40": torchaudio_mel40,
    "speech_mel40": torchaudio_speech40,
    "kaldi_fbank80": torchaudio_fbank80,
    "nemo_mel40": scipy_nemo40,
    "psf_fbank40": psf_fbank40,
}


# ------------------------------------------------------------------------------------- float32 references


def knf_options(n_mels: int) -> object:
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.mel_opts.num_bins = n_mels
    options.mel_opts.high_freq = -400
    return options


def knf_features(samples: Array, options: object) -> Array:
    fbank = knf.OnlineFbank(options)
    fbank.accept_waveform(RATE, samples.astype(np.float32).tolist())
    fbank.input_finished()
    return np.array([fbank.get_frame(i) for i in range(fbank.num_frames_ready)], np.float64)


def knf_wespeaker80(samples: Array) -> Array:
    options = knf_options(80)
    options.frame_opts.snip_edges = False  # type: ignore[attr-defined]
    return knf_features(samples * 32768, options)


def knf_nemo40(samples: Array) -> Array:
    options = knf_options(40)
    options.frame_opts.window_type = "hann"  # type: ignore[attr-defined]
    options.frame_opts.remove_dc_offset = False  # type: ignore[attr-defined]
    options.mel_opts.low_freq = 0  # type: ignore[attr-defined]
    options.mel_opts.is_librosa = True  # type: ignore[attr-defined]
    return knf_features(samples, options)


FLOAT32: dict[str, Reference] = {
    "homework_mel40": torchaudio_mel40,
    "kaldi_fbank80": knf_wespeaker80,
    "nemo_mel40": knf_nemo40,
}


def resolved(features: Array, frontend: Frontend) -> npt.NDArray[np.bool_]:
    """Where a band is at most 60 dB under its frame's loudest band; `features` are not normalised."""
    per_decibel = 0.1 * np.log(10) if frontend.log == "ln" else 2.0  # 20·log10 of an energy: 2 units per dB
    return np.asarray(features >= features.max(axis=1, keepdims=True) - RESOLVED_DB * per_decibel)


# --------------------------------------------------------------------------------------------------- tests


def float64_difference(frontend: Frontend, samples: Array) -> float:
    reference = FLOAT64[frontend.name](samples)
    ours = compute_features(samples, frontend, np.float64)
    assert ours.shape == reference.shape
    return float(np.abs(ours - reference).max())


def float32_difference(frontend: Frontend, samples: Array) -> tuple[float, float]:
    """The largest difference within 60 dB of the frame's loudest band, and anywhere."""
    unnormalised = replace(frontend, normalize="none")
    samples = samples.astype(np.float32).astype(np.float64)
    reference = FLOAT32[frontend.name](samples)
    ours = compute_features(samples, unnormalised, np.float64).astype(np.float64)
    assert ours.shape == reference.shape
    difference = np.abs(ours - reference)
    return float(difference[resolved(ours, frontend)].max()), float(difference.max())


def report(capsys: pytest.CaptureFixture[str], title: str, rows: dict[str, list[str]]) -> None:
    lines = [f"  {name:16}" + "".join(f"{cell:>40}" for cell in cells) for name, cells in rows.items()]
    with capsys.disabled():
        sys.stdout.write("\n".join(["", title, *lines, ""]))


@pytest.fixture(params=["synthetic", "boundaries", "speech"])
def signals(request: pytest.FixtureRequest) -> dict[str, Array]:
    if request.param == "speech":
        found = speech_signals() if SPEECH.is_dir() else {}
        if not found:
            pytest.skip(f"no recorded speech at {SPEECH}; set VOXPORT_TEST_DATA to the folder of librispeech10")
        return found
    return synthetic_signals() if request.param == "synthetic" else boundary_signals()


@pytest.mark.usefixtures("torch_in_float64")
def test_equals_the_float64_references(signals: dict[str, Array], capsys: pytest.CaptureFixture[str]) -> None:
    worst: dict[str, tuple[float, str]] = {}
    for name, frontend in PROFILES.items():
        worst[name] = max((float64_difference(frontend, samples), label) for label, samples in signals.items())
    report(
        capsys,
        "max |difference| from float64 references, all bands (log units; psf: dB; limit 1e-4)",
        {name: [f"{value:.1e} ({label})"] for name, (value, label) in worst.items()},
    )
    assert all(value < 1e-4 for value, _ in worst.values()), worst


def test_equals_the_float32_references(signals: dict[str, Array], capsys: pytest.CaptureFixture[str]) -> None:
    near: dict[str, tuple[float, str]] = {}
    anywhere: dict[str, tuple[float, str]] = {}
    for name in FLOAT32:
        found = {label: float32_difference(PROFILES[name], samples) for label, samples in signals.items()}
        near[name] = max((pair[0], label) for label, pair in found.items())
        anywhere[name] = max((pair[1], label) for label, pair in found.items())
    report(
        capsys,
        "max |difference| from float32 references (log units): within 60 dB (limit 1e-3), in all bands",
        {name: [f"{value:.1e} ({label})" for value, label in (near[name], anywhere[name])] for name in FLOAT32},
    )
    assert all(value < 1e-3 for value, _ in near.values()), near


@pytest.mark.parametrize("length", [80, 81, 159, 160, 200, 239, 240, 399])
def test_kaldi_reflects_more_than_once_in_a_signal_shorter_than_a_window(length: int) -> None:
    samples = 0.1 * np.random.default_rng(length).standard_normal(length)
    near, _ = float32_difference(PROFILES["kaldi_fbank80"], samples)
    assert near < 1e-3


@pytest.mark.parametrize("length", [1, 159, 399, 400])
def test_python_speech_features_pads_one_window(length: int) -> None:
    samples = 0.1 * np.random.default_rng(length).standard_normal(length)
    frontend = replace(PROFILES["psf_fbank40"], normalize="none")
    energies, _ = psf.fbank(samples, RATE, nfilt=40, nfft=512, preemph=0.97)
    assert num_frames(frontend, length) == 1
    expected = 20 * np.log10(np.maximum(energies, 1e-5))
    np.testing.assert_allclose(compute_features(samples, frontend, np.float64), expected, atol=1e-9)


@pytest.mark.usefixtures("torch_in_float64")
def test_filterbanks_equal_their_libraries() -> None:
    htk = torchaudio.functional.melscale_fbanks(201, 50.0, 8000.0, 40, RATE)
    slaney = torchaudio.functional.melscale_fbanks(257, 0.0, 7600.0, 40, RATE, norm="slaney", mel_scale="slaney")
    banks, _ = kaldi.get_mel_banks(80, 512, RATE, 20.0, -400.0, 100.0, -500.0, 1.0)
    np.testing.assert_allclose(mel_filterbank(PROFILES["homework_mel40"]), htk.numpy(), atol=1e-12)
    np.testing.assert_allclose(mel_filterbank(PROFILES["nemo_mel40"]), slaney.numpy(), atol=1e-12)
    np.testing.assert_allclose(mel_filterbank(PROFILES["kaldi_fbank80"])[:-1], banks.T.numpy(), atol=1e-5)
    np.testing.assert_allclose(mel_filterbank(PROFILES["psf_fbank40"]), psf.get_filterbanks(40, 512, RATE).T, atol=0)


def test_whole_bin_filters_equal_python_speech_features_where_corners_coincide() -> None:
    crowded = replace(PROFILES["psf_fbank40"], n_mels=120)  # more filters than low bins: sides of no width
    np.testing.assert_array_equal(mel_filterbank(crowded), psf.get_filterbanks(120, 512, RATE).T)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hann_periodic", signal.get_window("hann", 400, fftbins=True)),
        ("hann", signal.get_window("hann", 400, fftbins=False)),
        ("hamming", signal.get_window("hamming", 400, fftbins=False)),
        ("povey", signal.get_window("hann", 400, fftbins=False) ** 0.85),
        ("rectangular", np.ones(400)),
    ],
)
def test_windows_equal_scipy(name: str, expected: Array) -> None:
    frontend = replace(PROFILES["homework_mel40"], window=name)  # type: ignore[arg-type]
    np.testing.assert_allclose(window(frontend), expected, atol=1e-14)
