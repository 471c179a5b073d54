"""Stored features that the declared frontend cannot have made: the error says which frontend to pass."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from voxport.runtime.frontend.log_mel import compute_features
from voxport.runtime.frontend.presets import PROFILES, profile
from voxport.runtime.frontend.spec import Frontend
from voxport.train.data import Corpus, CorpusError, CorpusOptions, open_corpus
from voxport.train.data.frontend_check import appearance, contradiction


def speech_like(seed: int, seconds: float = 0.8, loudness: float = 0.3) -> npt.NDArray[np.float32]:
    """Noise of a voice's spectral slope, in bursts; no silence that would hide a frontend's traits."""
    random = np.random.default_rng(seed)
    white = random.normal(size=int(16000 * seconds))
    brown = np.cumsum(white)
    brown -= np.convolve(brown, np.ones(400) / 400, mode="same")
    bursts = 0.55 + 0.45 * np.sin(np.arange(len(white)) / 16000 * 2 * np.pi * random.uniform(3, 6))
    signal = bursts * (brown / np.abs(brown).max() + 0.01 * white)
    return np.asarray(loudness * signal / np.abs(signal).max(), dtype=np.float32)


def write_stored(folder: Path, made_by: Frontend, storage: type[np.floating] = np.float16) -> Path:
    lines = ["path,speaker"]
    for i in range(8):
        features = compute_features(speech_like(i), made_by)
        np.save(folder / f"{i}.npy", features.astype(storage))
        lines.append(f"{i}.npy,speaker{i % 2}")
    (folder / "list.csv").write_text("\n".join(lines))
    return folder / "list.csv"


def open_as(path: Path, frontend: Frontend) -> Corpus:
    return open_corpus(path, CorpusOptions(frontend, cache=path.parent / "cache", progress=False))


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("storage", [np.float16, np.float32, np.float64])
def test_the_right_frontend_is_accepted(tmp_path: Path, name: str, storage: type[np.floating]) -> None:
    corpus = open_as(write_stored(tmp_path, profile(name), storage), profile(name))
    assert len(corpus.utterances) == 8
    expected = compute_features(speech_like(0), profile(name)).astype(storage).astype(np.float32)
    np.testing.assert_array_equal(corpus.features(0), expected)


@pytest.mark.parametrize(
    ("made_by", "declared"),
    [
        ("psf_fbank40", "homework_mel40"),
        ("homework_mel40", "psf_fbank40"),
        ("nemo_mel40", "psf_fbank40"),
        ("psf_fbank40", "nemo_mel40"),
        ("nemo_mel40", "homework_mel40"),
        ("homework_mel40", "nemo_mel40"),
        ("homework_mel40", "speech_mel40"),
        ("nemo_mel40", "speech_mel40"),
    ],
)
def test_another_frontend_is_refused_and_the_right_one_named(tmp_path: Path, made_by: str, declared: str) -> None:
    path = write_stored(tmp_path, profile(made_by))
    with pytest.raises(CorpusError, match=f"not come from frontend {declared}: 8 of 8") as caught:
        open_as(path, profile(declared))
    assert str(caught.value).endswith(f"Pass the frontend that made them: --frontend {made_by}.")
    assert not list((tmp_path / "cache" / "packs").iterdir()), "nothing of a refused corpus stays in the cache"


def test_the_wrong_number_of_bands_is_told_per_file(tmp_path: Path) -> None:
    path = write_stored(tmp_path, profile("kaldi_fbank80"))
    with pytest.raises(CorpusError, match=r"8 wrong-shape.*\n.*expected \(frames, 40\), found \(\d+, 80\)"):
        open_as(path, profile("homework_mel40"))


def test_values_beyond_the_frontends_range_are_refused() -> None:
    features = compute_features(speech_like(1), profile("homework_mel40"))
    assert contradiction(appearance("x", features), profile("homework_mel40")) is None
    for changed, message in ((features - 25, "log floor"), (features * 8 + 60, "cannot exceed")):
        assert message in (contradiction(appearance("x", changed), profile("homework_mel40")) or "")


def test_full_scale_sound_stays_below_the_ceiling() -> None:
    time = np.arange(16000) / 16000
    loudest = [np.sign(np.sin(2 * np.pi * f * time)) for f in (50, 440, 3000, 7999)] + [np.ones(16000)]
    for frontend in PROFILES.values():
        for samples in loudest:
            raw = Frontend(**{**vars(frontend), "normalize": "none"})
            assert contradiction(appearance("x", compute_features(samples, raw)), raw) is None


def test_silence_contradicts_no_frontend() -> None:
    for frontend in PROFILES.values():
        features = compute_features(np.zeros(16000, dtype=np.float32), frontend)
        assert contradiction(appearance("x", features), frontend) is None
