"""The parts of Timeline: the smoother against every path there is, turns, and RTTM."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxport.runtime.streaming import viterbi as smoothing
from voxport.runtime.streaming.rttm import rttm_lines
from voxport.runtime.streaming.segments import Segment, Turn, TurnBuilder, tidy, voiced_runs
from voxport.runtime.streaming.viterbi import PathSmoother

Rows = npt.NDArray[np.float64]


def smooth(rows: Rows, penalty: float) -> list[int]:
    smoother = PathSmoother(penalty)
    path = [speaker for row in rows for speaker in smoother.push(row)]
    return path + smoother.finish()


def gain(path: Sequence[int], rows: Rows, penalty: float) -> float:
    best = rows.max(axis=1)
    rewards = [max(row[speaker] - top, -penalty) for speaker, row, top in zip(path, rows, best, strict=True)]
    changes = sum(one != other for one, other in itertools.pairwise(path))
    return float(sum(rewards) - penalty * changes)


@given(seed=st.integers(0, 10**6), windows=st.integers(1, 6), penalty=st.sampled_from([0.05, 0.3, 1.0]))
@settings(max_examples=60)
def test_no_path_is_better(seed: int, windows: int, penalty: float) -> None:
    rows = np.random.default_rng(seed).uniform(-0.5, 0.9, (windows, 3))
    found = smooth(rows, penalty)
    best = max(gain(path, rows, penalty) for path in itertools.product(range(3), repeat=windows))
    assert gain(found, rows, penalty) == pytest.approx(best)


def test_without_a_penalty_every_window_speaks_for_itself() -> None:
    rows = np.random.default_rng(0).uniform(size=(50, 4))
    assert smooth(rows, 0.0) == list(rows.argmax(axis=1))


def test_one_odd_window_never_makes_two_changes_but_a_turn_does() -> None:
    sure, other = [0.9, -0.9], [-0.9, 0.9]
    for penalty in (0.1, 0.25, 1.0):
        assert smooth(np.array([sure] * 5 + [other] + [sure] * 5), penalty) == [0] * 11
        assert smooth(np.array([sure] * 5 + [other] * 3 + [sure] * 5), penalty) == [0] * 5 + [1] * 3 + [0] * 5


def test_deciding_early_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(1).uniform(size=(2000, 5))
    rows[np.arange(2000), np.arange(2000) // 40 % 5] += 0.3
    early = smooth(rows, 0.25)
    monkeypatch.setattr(smoothing, "LAG", 10**6)
    assert smooth(rows, 0.25) == early


def test_a_path_that_is_finished_does_not_bind_the_next() -> None:
    smoother = PathSmoother(100.0)
    smoother.push(np.array([1.0, 0.0]))
    assert smoother.finish() == [0]
    assert smoother.finish() == []
    smoother.push(np.array([0.0, 0.1]))
    assert smoother.finish() == [1]


# --- turns --------------------------------------------------------------------------------------------


def test_voiced_runs_are_counted_from_the_start() -> None:
    assert list(voiced_runs(7, [False, True, True, False, True])) == [(8, 10), (11, 12)]
    assert list(voiced_runs(0, [])) == []


def test_windows_join_to_turns_over_short_silence_only() -> None:
    builder = TurnBuilder(max_gap=2)
    builder.add(0, [True] * 5, 0, 10.0, 0.5)
    builder.add(5, [False, False, True, True, True], 0, 20.0, 0.7)
    builder.add(10, [True, False, False, False, True], 0, 30.0, 0.9)
    builder.add(15, [True] * 5, 1, 40.0, 1.0)
    builder.add(20, [False] * 5, 1, 99.0, 1.0)
    assert [(turn.start, turn.stop, turn.speaker, turn.windows) for turn in builder.turns] == [
        (0, 11, 0, 3),
        (14, 15, 0, 1),
        (15, 20, 1, 1),
    ]
    assert builder.turns[0].score == 60.0
    assert builder.turns[2].score == 40.0


def turns(*given: tuple[int, int, int]) -> list[Turn]:
    return [Turn(start, stop, speaker, float(stop - start), 0.5, 1) for start, stop, speaker in given]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ([(0, 9, 0)], [(0, 9, 0)]),
        ([(0, 2, 0)], []),  # alone
        ([(0, 10, 0), (10, 12, 1), (12, 30, 2)], [(0, 10, 0), (10, 30, 2)]),  # joins the longer
        ([(0, 20, 0), (10, 12, 1), (12, 20, 2)], [(0, 20, 0), (12, 20, 2)]),
        ([(0, 10, 0), (10, 12, 1), (13, 30, 0)], [(0, 30, 0)]),  # neighbours meet
        ([(0, 10, 0), (20, 22, 1), (40, 50, 0)], [(0, 10, 0), (40, 50, 0)]),  # far from both
        ([(0, 10, 0), (10, 12, 1)], [(0, 12, 0)]),
        ([(0, 2, 0), (2, 12, 1)], [(0, 12, 1)]),
        ([(0, 2, 0), (2, 4, 1), (4, 6, 0), (6, 8, 1)], [(0, 8, 0)]),
        ([(0, 8, 0), (11, 19, 0), (24, 32, 0)], [(0, 19, 0), (24, 32, 0)]),
        ([], []),
    ],
)
def test_short_turns_join_a_neighbour_or_are_left_out(
    given: list[tuple[int, int, int]], left: list[tuple[int, int, int]]
) -> None:
    found = tidy(turns(*given), max_gap=3, min_length=5)
    assert [(turn.start, turn.stop, turn.speaker) for turn in found] == left


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12), st.integers(0, 2)), max_size=30))
def test_tidy_turns_do_not_overlap_and_are_long_enough(steps: list[tuple[int, int, int]]) -> None:
    given, at = [], 0
    for gap, length, speaker in steps:
        given.append((at + gap, at + gap + length, speaker))
        at += gap + length
    found = tidy(turns(*given), max_gap=2, min_length=6)
    assert all(turn.stop - turn.start >= 6 for turn in found)
    assert all(one.stop <= other.start for one, other in itertools.pairwise(found))
    assert all(one.speaker != other.speaker or other.start - one.stop > 2 for one, other in itertools.pairwise(found))
    assert {turn.speaker for turn in found} <= {speaker for _, _, speaker in steps}


# --- RTTM ---------------------------------------------------------------------------------------------


def test_rttm_has_ten_fields_whatever_the_names() -> None:
    speakers = ["Ada Lovelace", "Ada_Lovelace", "에리", "unknown", None, "tab\tname", "  "]
    segments = [Segment(i + 0.0004, i + 0.5, speaker, 20.0, 0.9) for i, speaker in enumerate(speakers)]
    lines = rttm_lines(segments, "board meeting 3")
    fields = [line.split() for line in lines]
    assert all(len(each) == 10 for each in fields)
    assert lines[2] == "SPEAKER board_meeting_3 1 2.000 0.500 <NA> <NA> 에리 <NA> <NA>"
    assert [each[7] for each in fields] == [
        "Ada_Lovelace_2", "Ada_Lovelace", "에리", "unknown", "unknown_2", "tab_name", "_",
    ]  # fmt: skip
    assert rttm_lines([], "x") == []


def test_rttm_times_are_start_and_duration() -> None:
    segments = [Segment(0.02, 1.5, "A", 1.0, 1.0), Segment(3599.98, 3700.0, None, 1.0, 1.0)]
    times = [line.split()[3:5] for line in rttm_lines(segments, "m")]
    assert times == [["0.020", "1.480"], ["3599.980", "100.020"]]
