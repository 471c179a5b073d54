"""What Stream and Timeline stand on: windows against NumPy slices, and the energy gate."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.tiny_models import TinyModel, tone
from voxport.runtime.audio.vad import EnergyGate
from voxport.runtime.windowing.windows import Window, WindowOptions, WindowPlan, Windows

RATE, FRAME = 16000, 320


def plan(size: int, hop: int, shortest: int = 800) -> WindowPlan:
    return WindowPlan(RATE, FRAME, size, hop, shortest)


def run(windows: Windows, *chunks: npt.NDArray[np.float32]) -> list[Window]:
    return [window for chunk in chunks for window in windows.push(chunk)]


@given(
    size=st.integers(800, 9000),
    hop_share=st.floats(0.05, 1.0),
    total=st.integers(0, 40000),
    cuts=st.lists(st.integers(0, 40000), max_size=12),
)
@settings(max_examples=60)
def test_windows_are_slices_of_the_sound_and_answer_for_all_of_it(
    size: int, hop_share: float, total: int, cuts: list[int]
) -> None:
    sound = np.random.default_rng(total).uniform(-0.5, 0.5, total).astype(np.float32)
    hop = max(1, int(hop_share * size / FRAME))
    windows = Windows(plan(size, hop), WindowOptions())
    found = run(windows, *np.split(sound, sorted(min(cut, total) for cut in cuts)))
    span = -(-size // FRAME)
    starts = [k * hop * FRAME for k in range(total) if k * hop + span <= total // FRAME]
    assert [window.start for window in found] == starts
    for window in found:
        np.testing.assert_array_equal(window.samples, sound[window.start : window.start + size])
    assert windows.total == total
    tail, fresh = windows.tail()
    if total < 800:
        assert tail is None
        return
    assert tail is not None
    np.testing.assert_array_equal(tail.samples, sound[max(0, total - size) :])
    assert tail.stop == total
    assert fresh == (total > (starts[-1] + size if starts else 0))
    answered = [frame for window in (*found, tail) for frame in range(window.first, window.first + len(window.voiced))]
    assert answered == list(range(-(-total // FRAME)))  # every frame once


@given(sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=40))
@settings(max_examples=30)
def test_the_gate_does_not_depend_on_the_chunks(sizes: list[int]) -> None:
    generator = np.random.default_rng(1)
    sound = (generator.normal(size=40000) * np.repeat(10 ** generator.uniform(-4, -0.5, 125), FRAME)).astype(np.float32)

    def voiced(*chunks: npt.NDArray[np.float32]) -> list[bool]:
        windows = Windows(plan(3200, 5), WindowOptions())
        found = run(windows, *chunks)
        tail, _ = windows.tail()
        assert tail is not None
        return [each for window in (*found, tail) for each in window.voiced]

    assert voiced(*np.split(sound, np.minimum(np.cumsum(sizes), 40000))) == voiced(sound)
    assert 0 < sum(voiced(sound)) < 125


def test_speech_is_the_share_of_open_frames() -> None:
    sound = np.concatenate([np.zeros(3200, np.float32), tone(0.2), np.zeros(3200, np.float32)])
    shares = [window.speech for window in run(Windows(plan(3200, 5), WindowOptions()), sound)]
    assert shares == [0.0, 0.5, 1.0, 0.5, 0.0]


def gate_of(sound: npt.NDArray[np.float32], floor: float = -60.0, reach: float = 30.0) -> npt.NDArray[np.bool_]:
    return np.array(EnergyGate(floor, reach).push(sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME)))


def noise(seconds: float, decibel: float) -> npt.NDArray[np.float32]:
    size = 10 ** (decibel / 20)
    return (size * np.random.default_rng(7).normal(size=round(seconds * RATE))).astype(np.float32)


def test_the_floor_alone_decides_before_there_is_a_level() -> None:
    assert gate_of(noise(0.5, -55)).all()
    assert not gate_of(noise(0.5, -65)).any()
    assert gate_of(noise(0.5, -65), floor=-70).all()


def test_noise_far_below_the_speech_is_silence_even_after_a_long_pause() -> None:
    sound = np.concatenate([noise(5, -20), noise(60, -57)])
    voiced = gate_of(sound)
    assert voiced[:250].all()
    assert not voiced[250:].any()


def test_a_quieter_speaker_is_heard() -> None:
    assert gate_of(np.concatenate([noise(5, -15), noise(5, -40)])).all()


def test_a_click_moves_the_level_little_and_a_shout_is_forgotten() -> None:
    click = np.concatenate([noise(3, -35), noise(0.06, 0), noise(3, -45)])
    assert gate_of(click).all()
    shout = np.concatenate([noise(3, -3), noise(40, -36)])
    voiced = gate_of(shout)
    assert not voiced[150:200].all()
    assert voiced[-50:].all()


def test_a_dc_offset_and_a_step_are_no_sound() -> None:
    offset = np.full(RATE, 0.8, np.float32)
    offset[RATE // 2 :] = -0.3
    assert not gate_of(offset).any()
    assert gate_of(tone(1, size=0.05) + np.float32(0.5)).all()


def test_a_window_longer_than_a_frame_may_be_any_number_of_samples(tiny: TinyModel) -> None:
    # A model of one length only leaves no freedom: 12 frames need 1760 to 1919 samples.
    contract = tiny.contract.replace(min_frames=12, max_frames=12)
    found = WindowPlan.of(WindowOptions(), contract)
    assert (found.size, found.span, found.hop) == (1919, 6, 1)


def test_hops_are_whole_frames_within_the_window(tiny: TinyModel) -> None:
    for hop_s, frames in ((0.02, 1), (0.1, 5), (0.109, 5), (0.3, 15)):
        assert WindowPlan.of(WindowOptions(window_s=0.3, hop_s=hop_s), tiny.contract).hop == frames


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_frames_are_20_ms_at_any_rate(tiny: TinyModel, rate: int) -> None:
    import dataclasses

    frontend = dataclasses.replace(tiny.contract.frontend, sample_rate=rate, f_max=rate / 2)
    found = WindowPlan.of(WindowOptions(), tiny.contract.replace(frontend=frontend))
    assert found.frame == round(rate * 0.02)
    assert found.seconds(50) == pytest.approx(1.0, rel=1e-3)
