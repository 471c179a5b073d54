"""Which shapes a plan is built for, and the key under which it is found again."""

import dataclasses
from itertools import pairwise

import pytest

from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.export.targets.trt.profiles import BatchRange, shape_profiles
from voxport.export.targets.trt.settings import Machine, PlanSettings, engine_key
from voxport.runtime.frontend.log_mel import num_frames
from voxport.runtime.frontend.presets import PROFILES, profile

FRONTEND = profile("homework_mel40")
LIMITS = LengthLimits(20, 3000)
MACHINE = Machine("GPU A (compute capability 9.0)", "10.9.0", "CUDA 12.8")


def test_one_profile_takes_all_lengths_and_is_tuned_for_four_seconds() -> None:
    (found,) = shape_profiles(FRONTEND, "features", LIMITS, BatchRange(1, 4, 16))
    assert found.shapes() == {
        "features": ((1, 20, 40), (4, 400, 40), (16, 3000, 40)),
        "lengths": ((1,), (4,), (16,)),
    }
    assert str(found) == "1×20×40 … 4×400×40 … 16×3000×40"


@pytest.mark.parametrize(("low", "high", "tuned"), [(20, 300, 300), (500, 3000, 500), (7, 7, 7)])
def test_four_seconds_are_cut_to_the_lengths(low: int, high: int, tuned: int) -> None:
    (found,) = shape_profiles(FRONTEND, "features", LengthLimits(low, high), BatchRange())
    assert found.lengths == (low, tuned, high)


@pytest.mark.parametrize(
    ("buckets", "spans"),
    [
        ((200, 400, 1000), [(20, 200), (201, 400), (401, 1000), (1001, 3000)]),
        ((3000,), [(20, 3000)]),
        ((20, 21), [(20, 20), (21, 21), (22, 3000)]),
    ],
)
def test_buckets_end_profiles_that_are_tuned_for_their_longest(
    buckets: tuple[int, ...], spans: list[tuple[int, int]]
) -> None:
    found = shape_profiles(FRONTEND, "features", LIMITS, BatchRange(), buckets)
    assert [each.lengths for each in found] == [(low, high, high) for low, high in spans]


@pytest.mark.parametrize("name", sorted(PROFILES))
@pytest.mark.parametrize(("low", "extra", "buckets"), [(2, 0, ()), (5, 145, (20, 60)), (20, 2980, (200, 400, 1000))])
def test_samples_of_every_frontend_are_all_in_one_profile(
    name: str, low: int, extra: int, buckets: tuple[int, ...]
) -> None:
    """Each count of samples that gives allowed frames lies in exactly one profile; no other count lies in any."""
    frontend, limits = profile(name), LengthLimits(low, low + extra)
    found = shape_profiles(frontend, "waveform", limits, BatchRange(), buckets)
    for before, after in pairwise(found):
        assert after.lengths[0] == before.lengths[2] + 1
    first, last = found[0].lengths[0], found[-1].lengths[2]
    frames = [num_frames(frontend, samples) for samples in (first, last, last + 1)]
    assert frames == [low, low + extra, low + extra + 1]
    assert first == 1 or num_frames(frontend, first - 1) < low
    assert all(each.shapes()["waveform"][0] == (1, each.lengths[0]) for each in found)
    assert all(each.lengths[0] <= each.lengths[1] <= each.lengths[2] for each in found)


@pytest.mark.parametrize(
    ("buckets", "message"),
    [
        ((400, 200), "buckets 400,200: they must rise, but 400 is followed by 200"),
        ((200, 200), "must rise"),
        ((10, 400), "bucket 10: lies outside the model's 20 to 3000 frames"),
        ((3001,), "bucket 3001: lies outside"),
    ],
)
def test_impossible_buckets_are_refused(buckets: tuple[int, ...], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        shape_profiles(FRONTEND, "features", LIMITS, BatchRange(), buckets)


def test_lengths_that_no_sound_has_are_refused() -> None:
    """Frames centred on samples that are reflected at the ends come in twos at least."""
    with pytest.raises(ExportError, match=r"no sound gives 1 to 1 frames of homework_mel40"):
        shape_profiles(FRONTEND, "waveform", LengthLimits(1, 1), BatchRange())


@pytest.mark.parametrize("numbers", [(0, 1, 2), (2, 1, 3), (1, 4, 2)])
def test_impossible_batches_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ExportError, match="1 ≤ MIN ≤ OPT ≤ MAX must hold"):
        BatchRange(*numbers)


def test_a_tensor_that_is_too_large_for_tensorrt_is_refused() -> None:
    with pytest.raises(ExportError, match=r"2,147,520,000 elements, TensorRT takes at most 2,147,483,647"):
        shape_profiles(FRONTEND, "features", LIMITS, BatchRange(1, 1, 17896))
    shape_profiles(FRONTEND, "features", LIMITS, BatchRange(1, 1, 17895))


# --- the key ------------------------------------------------------------------------------------------


def settings(**changes: object) -> PlanSettings:
    made = PlanSettings("fp16", shape_profiles(FRONTEND, "features", LIMITS, BatchRange()))
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "fp32"}, {"version_compatible": True}, {"hardware": "ampere"}, {"workspace_mib": 64},
        {"profiles": shape_profiles(FRONTEND, "features", LIMITS, BatchRange(1, 1, 9))},
        {"profiles": shape_profiles(FRONTEND, "features", LIMITS, BatchRange(), (400,))},
    ],
)  # fmt: skip
def test_each_setting_makes_another_key(changes: dict[str, object]) -> None:
    one, other = engine_key(b"graph", settings(), MACHINE), engine_key(b"graph", settings(**changes), MACHINE)
    assert [a == b for a, b in zip(one.split("-"), other.split("-"), strict=True)] == [True, False, True]


@pytest.mark.parametrize(
    "changes", [{"gpu": "GPU A (compute capability 8.9)"}, {"tensorrt": "10.9.1"}, {"cuda": "CUDA 13.0"}]
)
def test_each_fact_of_the_machine_makes_another_key(changes: dict[str, str]) -> None:
    one = engine_key(b"graph", settings(), MACHINE)
    other = engine_key(b"graph", settings(), dataclasses.replace(MACHINE, **changes))
    assert [a == b for a, b in zip(one.split("-"), other.split("-"), strict=True)] == [True, True, False]


def test_the_graph_makes_the_first_part_and_equal_builds_have_equal_keys() -> None:
    assert engine_key(b"graph", settings(), MACHINE) == engine_key(b"graph", settings(), MACHINE)
    assert engine_key(b"other", settings(), None).split("-")[1:] == [
        engine_key(b"g", settings(), None).split("-")[1],
        "?",
    ]


def test_a_workspace_of_nothing_is_refused() -> None:
    with pytest.raises(ExportError, match="workspace 0 MiB"):
        settings(workspace_mib=0)
