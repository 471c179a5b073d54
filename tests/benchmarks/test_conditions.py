"""`voxport bench conditions`: the changes themselves, the shares and their intervals, and the document."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxport.benchmarks.conditions.case import case_lists, measure_case
from voxport.benchmarks.conditions.measure import read_files
from voxport.benchmarks.conditions.report import ConditionRow, ConditionsReport, ConditionsSettings, KindRow, Share
from voxport.benchmarks.conditions.runner import CONDITIONS, KINDS, RoomBank
from voxport.benchmarks.conditions.shares import (
    Answered,
    contract_lines,
    equal_error,
    false_accepts,
    paired,
    right,
    wrong_probability,
)
from voxport.benchmarks.documents import read_document
from voxport.benchmarks.reporting.build import build_page
from voxport.benchmarks.reporting.markdown import page_markdown
from voxport.runtime.backends.base import Answer
from voxport.runtime.contract import Array, Contract, Golden
from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.presets import profile
from voxport.runtime.storage.serialization import encode
from voxport.train.effects import draws

RATE = 16000


class Around(RoomBank):
    def voices(self, count: int, generator: np.random.Generator) -> list[np.ndarray]:
        return [generator.standard_normal(RATE).astype(np.float32) for _ in range(count)]


def answered(best: list[int], embeddings: np.ndarray | None = None, cosine: float = 0.9) -> Answered:
    count = len(best)
    cosines = np.full(count, cosine, np.float32)
    return Answered(np.array(best), cosines, np.linspace(0.2, 0.8, count), embeddings, np.array(best) == -2)


def test_every_condition_changes_sound_the_same_way_each_time() -> None:
    sound = (0.1 * np.sin(np.arange(RATE) * 0.1)).astype(np.float32)
    around = Around(RATE, 1)
    for condition in CONDITIONS:
        if "T60 0.8" in condition.name:  # a second of computing, and the same code as T60 0.3
            continue
        first, second = (
            condition.change(sound, around, draws.generator("bench", 1, condition.name, "a.wav")) for _ in range(2)
        )
        np.testing.assert_array_equal(first, second, err_msg=condition.name)
        assert first.dtype == np.float32, condition.name
        assert np.isfinite(first).all(), condition.name
        assert np.array_equal(first, sound) == (condition.name == "clean")
    assert {condition.kind for condition in CONDITIONS} == set(KINDS)
    assert len({condition.name for condition in CONDITIONS}) == len(CONDITIONS)


def test_accuracy_counts_known_speakers_and_its_interval_is_of_the_pairs() -> None:
    labels = np.array([0, 1, 2, 3, -1])
    share = right(answered([0, 1, 2, 3, 0]), answered([0, 1, 0, -2, 0]), labels, seed=1)
    assert share is not None
    assert (share.value, share.difference) == (0.5, -0.5)
    assert share.low == -1.0
    assert share.high == 0.0


def test_a_paired_interval_agrees_with_the_binomial_one() -> None:
    before = np.ones(400, bool)
    after = np.arange(400) >= 100  # 100 of 400 lost
    share = paired(before, after, seed=3)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert share.low == pytest.approx(-0.25 - half, abs=0.006)
    assert share.high == pytest.approx(-0.25 + half, abs=0.006)
    assert paired(before, before, seed=3) == Share(1.0, 0.0, 0.0, 0.0)


def test_false_accepts_and_probabilities_of_wrong_answers() -> None:
    labels = np.array([0, 1, 2, -1])
    clean, changed = answered([0, 1, 2, 0]), answered([0, 0, -2, 0])
    share = false_accepts(clean, changed, labels, 0.5, seed=1)
    assert share is not None
    assert (share.value, share.difference) == (0.5, 0.25)  # a refused file is accepted by nobody
    assert false_accepts(clean, changed, labels, None, seed=1) is None
    assert wrong_probability(changed, labels) == pytest.approx((0.4 + 0.8) / 2)
    assert wrong_probability(answered([0, 1]), np.array([0, 1])) is None


def test_the_equal_error_rate_is_of_other_recordings() -> None:
    rng = np.random.default_rng(0)
    voices = rng.standard_normal((4, 16))
    speakers = np.repeat(np.arange(4), 4)
    near = voices[speakers] + 0.1 * rng.standard_normal((16, 16))
    far = rng.standard_normal((16, 16))  # nothing of the speakers is left
    clean, lost = (
        answered([0] * 16, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
        for rows in (near, far)
    )
    itself = equal_error(clean, clean, speakers, seed=1)
    assert itself == Share(0.0, 0.0, 0.0, 0.0)
    other = equal_error(clean, lost, speakers, seed=1)
    assert other is not None
    assert 0.3 < other.value < 0.7
    assert other.low <= other.difference <= other.high
    assert equal_error(clean, clean, np.arange(16), seed=1) is None  # nobody speaks twice


def test_files_are_spread_over_the_corpus_and_features_are_refused(tmp_path: Path) -> None:
    for speaker in "ab":
        (tmp_path / speaker).mkdir()
        for number in range(3):
            soundfile.write(tmp_path / speaker / f"{number}.wav", np.full(800, 0.1 + number / 10), 8000)
    files = read_files(tmp_path, RATE, limit=4)
    assert sorted(set(files.speakers)) == ["a", "b"]
    assert len(files.sounds) == 4
    assert all(len(sound) == 1600 for sound in files.sounds)
    (tmp_path / "one.csv").write_text("path,speaker\na/0.wav,a\na/1.wav,a\n")
    with pytest.raises(VoxportError, match="at least two are needed"):
        read_files(tmp_path / "one.csv", RATE, None)


def test_the_document_is_read_again_and_shown(tmp_path: Path) -> None:
    share = Share(0.75, -0.25, -0.5, 0.0)
    row = ConditionRow("white noise, 5 dB", "noise", 4, 0, share, None, None, 0.4)
    report = ConditionsReport(
        "2026-01-01T00:00:00+00:00", ConditionsSettings("m.onnx", "data"), "m.onnx", "demo", "homework_mel40",
        4, 2, 4, None, (row, row), (KindRow("noise", 1, 0.75, None),), (),
    )  # fmt: skip
    path = tmp_path / "conditions.json"
    path.write_text(json.dumps(encode(report)))
    assert read_document(path) == report
    text = page_markdown(build_page([path]))
    assert "75.0 % right on clean sound" in text
    assert r"-25.0 \[-50.0, +0.0\]" in text


def write_case(folder: Path) -> None:
    """Two speakers, each a tone of their own; under noise they are mixed up."""
    lines: dict[str, list[str]] = {"clean_clean": [], "clean_noise_snr_5": []}
    tones = {"a": 300.0, "b": 900.0}
    for (name, lists), swapped in zip(lines.items(), (False, True), strict=True):
        for speaker, hertz in tones.items():
            other = next(each for each in tones if each != speaker)
            heard = tones[other] if swapped else hertz
            for number in range(2):
                path = Path("audio", name, f"{speaker}{number}.wav")
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                sound = np.sin(2 * np.pi * heard * np.arange(RATE) / RATE + number)
                soundfile.write(folder / path, 0.1 * sound, RATE)
                lists += [f"1 audio/clean_clean/{speaker}0.wav {path}", f"0 audio/clean_clean/{other}0.wav {path}"]
    (folder / "trials").mkdir()
    for name, lists in lines.items():
        (folder / "trials" / f"{name}.txt").write_text("\n".join(lists) + "\n1 gone.wav missing.wav\n")


class Ears:
    """A model whose embedding is the sound's spectrum; of a back end it has what hearing needs."""

    def __init__(self) -> None:
        golden = Golden(Array.of(np.zeros(RATE)), Array.of(np.zeros(1)), 1e-3)
        self.contract = Contract(
            ("x",), profile("homework_mel40"), "waveform", 20, 1000, "fp32", 401, 1.0, "tones", "0", golden, speech=None
        )

    def run(self, values: np.ndarray, lengths: np.ndarray) -> Answer:
        spectra = np.abs(np.fft.rfft(values[:, :RATE].reshape(len(values), -1, 800), axis=2)).mean(axis=1)
        rows = (spectra / np.linalg.norm(spectra, axis=1, keepdims=True)).astype(np.float32)
        return Answer(np.zeros((len(values), 1), np.float32), rows)


def test_case_is_recognised_by_its_trials_and_its_own_pairs_are_scored(tmp_path: Path) -> None:
    assert case_lists(tmp_path) == {}
    write_case(tmp_path)
    lists = case_lists(tmp_path)
    assert list(lists) == ["clean_clean", "clean_noise_snr_5"]
    report = measure_case(Ears(), lists, ConditionsSettings("ears", str(tmp_path)))  # type: ignore[arg-type]
    clean, noise = report.rows
    assert (clean.name, clean.kind, clean.eer) == ("clean", "clean", Share(0.0, 0.0, 0.0, 0.0))
    assert (noise.name, noise.kind, noise.files) == ("noise snr 5", "noise", 8)
    assert noise.eer == Share(1.0, 1.0, 1.0, 1.0)  # every voice was taken for the other
    assert "2 of 10 recordings are not there" in report.notes[1]
    lines = contract_lines(report.rows, "CASE")
    assert [(line.kind, line.sounds, line.accuracy, line.equal_error_rate) for line in lines] == [
        ("clean", 8, None, 0.0), ("noise", 8, None, 1.0),
    ]  # fmt: skip
