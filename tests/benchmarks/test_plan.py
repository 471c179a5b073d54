"""The order of turns, the grid, and the inputs that all backends share."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.conftest import Folder
from tests.runtime.tiny_models import FRONTEND
from voxport.benchmarks.core.inputs import make_inputs, voice
from voxport.benchmarks.core.settings import Cell, InputSpec, LatencySettings, schedule
from voxport.benchmarks.latency.candidates import choose_cells, gather
from voxport.runtime.errors import LengthError, VoxportError
from voxport.runtime.frontend.log_mel import compute_features, num_frames

CELLS = (Cell(1, 10), Cell(1, 20), Cell(4, 10))
NAMES = ("eager", "control", "model")


def test_every_backend_has_one_turn_in_every_round_at_every_cell() -> None:
    turns = schedule(NAMES, CELLS, 6, seed=3)
    assert Counter((turn.round, turn.backend) for turn in turns) == Counter((r, n) for r in range(6) for n in NAMES)
    assert [turn.round for turn in turns] == sorted(turn.round for turn in turns)
    assert all(sorted(turn.cells, key=str) == sorted(CELLS, key=str) for turn in turns)


def test_order_is_drawn_for_each_round_and_cells_alike_for_all_backends() -> None:
    turns = schedule(NAMES, CELLS, 200, seed=3)
    first = Counter(turn.backend for turn in turns[:: len(NAMES)])
    assert all(40 < first[name] < 95 for name in NAMES)  # a third each, four standard errors
    by_round = {number: {turn.cells for turn in turns if turn.round == number} for number in range(200)}
    assert all(len(orders) == 1 for orders in by_round.values())
    assert len(set().union(*by_round.values())) == 6
    assert turns == schedule(NAMES, CELLS, 200, seed=3) != schedule(NAMES, CELLS, 200, seed=4)


@pytest.mark.parametrize("kind", ["features", "waveform"])
def test_inputs_are_like_speech_distinct_and_reproducible(kind: str) -> None:
    spec, cell = InputSpec(FRONTEND, seed=1, pool=4), Cell(3, 30)
    inputs = make_inputs(spec, cell, kind)  # type: ignore[arg-type]
    values = np.stack(inputs.arrays)
    assert values.dtype == np.float32
    assert len({array.tobytes() for array in inputs.arrays}) == 4
    assert np.isfinite(values).all()
    assert values.std() > 0.01
    assert not (np.abs(values[values != 0]) < np.finfo(np.float32).tiny).any()  # denormals are slow
    assert inputs.lengths.tolist() == [values.shape[2]] * 3
    assert inputs.digest == make_inputs(spec, cell, kind).digest  # type: ignore[arg-type]
    assert inputs.digest != make_inputs(InputSpec(FRONTEND, seed=2, pool=4), cell, kind).digest  # type: ignore[arg-type]
    assert inputs.audio_seconds == pytest.approx(3 * 30 * FRONTEND.hop_length / FRONTEND.sample_rate)


def test_features_come_from_the_waveforms_through_the_runtimes_frontend() -> None:
    spec, cell = InputSpec(FRONTEND, seed=1, pool=2), Cell(2, 40)
    features, sound = make_inputs(spec, cell, "features"), make_inputs(spec, cell, "waveform")
    assert num_frames(FRONTEND, int(sound.lengths[0])) == 40
    for batch, waves in zip(features.arrays, sound.arrays, strict=True):
        for row, wave in zip(batch, waves, strict=True):
            np.testing.assert_array_equal(row, compute_features(wave, FRONTEND))


def test_a_voice_has_its_energy_where_voices_have_it() -> None:
    sound = voice(16000, 16000, np.random.default_rng(1))
    assert sound.shape == (16000,)
    assert 0.2 <= np.abs(sound).max() <= 0.9
    power = np.abs(np.fft.rfft(sound)) ** 2
    assert power[80:4000].sum() > 0.8 * power.sum()


def test_default_lengths_are_those_that_the_models_take(models: Folder) -> None:
    paths, checkpoint = models("a.onnx", max_frames=500)
    settings = LatencySettings(batches=(1, 8))
    cells = choose_cells(settings, gather(paths, checkpoint, settings))
    assert cells == (Cell(1, 128), Cell(1, 400), Cell(8, 128), Cell(8, 400))
    (short,), checkpoint = models("b.onnx", max_frames=60)
    assert choose_cells(LatencySettings(), gather([short], checkpoint, settings)) == (Cell(1, 60),)


def test_a_length_outside_the_contract_is_refused_before_anything_runs(models: Folder) -> None:
    paths, checkpoint = models("a.onnx")
    settings = LatencySettings(frames=(30, 61))
    with pytest.raises(LengthError, match=r"--frames 61: a.onnx takes 5 to 60 frames"):
        choose_cells(settings, gather(paths, checkpoint, settings))


def test_models_without_a_common_length_are_refused(models: Folder) -> None:
    (low,), _ = models("low.onnx", min_frames=5, max_frames=10)
    (high,), checkpoint = models("high.onnx", min_frames=20, max_frames=30)
    with pytest.raises(LengthError, match=r"share no length"):
        choose_cells(LatencySettings(), gather([low, high], checkpoint, LatencySettings()))


def test_subjects_are_baseline_control_and_models(models: Folder, tmp_path: Path) -> None:
    (first,), _ = models("m.onnx")
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / "m.onnx"
    second.write_bytes(first.read_bytes())
    (wave,), checkpoint = models("w.onnx", kind="waveform")
    subjects = gather([first, second, wave, wave], checkpoint, LatencySettings())
    assert [(subject.spec.name, subject.spec.role, subject.spec.input_kind) for subject in subjects] == [
        ("eager features", "baseline", "features"),
        ("eager features (control)", "control", "features"),
        (str(first), "candidate", "features"),
        (str(second), "candidate", "features"),
        ("eager waveform", "baseline", "waveform"),
        ("eager waveform (control)", "control", "waveform"),
        (f"{wave} #1", "candidate", "waveform"),
        (f"{wave} #2", "candidate", "waveform"),
    ]
    alone = gather([first], checkpoint, LatencySettings(control=False))
    assert [subject.spec.name for subject in alone] == ["eager", "m.onnx"]


def test_unusable_files_are_named(models: Folder, tmp_path: Path) -> None:
    paths, checkpoint = models("a.onnx")
    with pytest.raises(VoxportError, match=r"nowhere.pt: no such checkpoint"):
        gather(paths, tmp_path / "nowhere.pt", LatencySettings())
    with pytest.raises(VoxportError, match=r"missing.onnx"):
        gather([tmp_path / "missing.onnx"], checkpoint, LatencySettings())
    with pytest.raises(VoxportError, match=r"at least one model"):
        gather([], checkpoint, LatencySettings())


@pytest.mark.parametrize(
    "change", [{"batches": ()}, {"batches": (0,)}, {"frames": ()}, {"frames": (0,)}, {"rounds": 0}, {"timeout": 0.0}]
)
def test_impossible_settings(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"positive|at least"):
        LatencySettings(**change)  # type: ignore[arg-type]
