"""Arrays of any type, shape, step and value, at any rate: an answer or an error of ours, and the array unchanged."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.runtime.tiny_models import FRONTEND, LABELS, TinyModel
from voxport.runtime import Identification, SpeakerIdentifier, VoxportError

SHAPES = st.one_of(  # the first four are mostly of a length that the models take, which must not be rare
    st.tuples(st.integers(3000, 9000)),
    st.tuples(st.integers(3000, 9000), st.integers(1, 8)),
    st.tuples(st.integers(15, 60), st.just(FRONTEND.n_mels)),
    st.tuples(st.integers(1, 3), st.integers(5, 60), st.just(FRONTEND.n_mels)),
    st.tuples(st.integers(0, 12000)),
    st.tuples(st.integers(0, 9000), st.integers(0, 10)),
    st.tuples(st.integers(0, 70), st.just(FRONTEND.n_mels)),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
)
DTYPES = st.one_of(
    st.sampled_from(["<f4", "<f8"]),
    st.sampled_from(["<f4", "<f8", "<f2", ">f4", "<i2", ">i2", "<i4", "longdouble"]),
    hnp.scalar_dtypes().map(lambda dtype: dtype.str),
)
VALUES = st.sampled_from([0, 1, -1, 0.5, 1e-45, 1e30, 1e300, 32767, -(2**31), math.nan, math.inf, -math.inf])
RATES = st.one_of(
    st.just(16000),
    st.sampled_from([16000, 8000, 44100, 4000, 192000, np.int32(16000)]),
    st.integers(-(10**20), 10**20),
    st.sampled_from([None, 16000.0, "16000", True, math.nan, [16000]]),
)
ODD = st.sampled_from([False, False, True])
BUSY = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    """An array that may be strange in every way at once; big ones repeat a few values."""
    dtype = np.dtype(draw(DTYPES))
    shape = draw(SHAPES)
    seed = draw(st.integers(0, 2**16))
    array: Any = np.random.default_rng(seed).uniform(-1, 1, shape)
    if dtype.kind in "iu":
        array = array * draw(st.sampled_from([1, 100, 2.0**14]))
    with np.errstate(all="ignore"):
        array = np.asarray(array).astype(dtype) if dtype.kind not in "mMSU" else np.zeros(shape, dtype)
        if array.size and draw(ODD) and dtype.kind in "fiu":
            value = draw(VALUES)
            if dtype.kind == "f" or (math.isfinite(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max):
                array.flat[draw(st.integers(0, array.size - 1))] = value
    if array.ndim and draw(ODD):
        array = array[:: draw(st.sampled_from([-1, 2, 3, -2]))]
    if draw(ODD):
        array = array.T
    if draw(st.booleans()):
        array.flags.writeable = False
    return array


def answer_or_error(question: Any, *arguments: Any) -> Any:
    try:
        return question(*arguments)
    except VoxportError:
        return None


@pytest.fixture(scope="module")
def identifiers(tiny: TinyModel, tiny_waveform: TinyModel) -> list[SpeakerIdentifier]:
    return [SpeakerIdentifier.load(tiny.path), SpeakerIdentifier.load(tiny_waveform.path)]


@BUSY
@given(array=arrays(), rate=RATES)
def test_samples(identifiers: list[SpeakerIdentifier], array: Any, rate: Any) -> None:
    before = array.tobytes()
    for identifier in identifiers:
        found = answer_or_error(identifier.identify, array, rate)
        if found is not None:
            assert isinstance(found, Identification)
            assert len(found.ranked) == len(LABELS)
            assert all(math.isfinite(each.score) for each in found.ranked)
        scores = answer_or_error(identifier.scores_batch, [array, array], rate)
        assert (scores is None) == (found is None)
    assert array.tobytes() == before


@BUSY
@given(array=arrays())
def test_features(identifiers: list[SpeakerIdentifier], array: Any) -> None:
    before = array.tobytes()
    found = answer_or_error(identifiers[0].scores_features, array)
    assert found is None or np.isfinite(found).all() or np.abs(array.astype(np.float64)).max() > 1e15
    assert array.tobytes() == before


@st.composite
def batches(draw: st.DrawFn) -> tuple[Any, Any]:
    """Features and lengths that nearly fit each other, or anything."""
    if draw(ODD):
        return draw(arrays()), draw(arrays())
    rows, frames = draw(st.integers(1, 3)), draw(st.integers(5, 60))
    features = np.ones((rows, frames, FRONTEND.n_mels), draw(st.sampled_from(["<f4", "<f4", "<f8", ">f4", "<i4"])))
    lengths = [draw(st.integers(4 if draw(ODD) else 5, frames + draw(ODD))) for _ in range(rows + draw(ODD))]
    return features[:, :: draw(st.sampled_from([1, 1, -1]))], np.array(lengths)


@BUSY
@given(batch=batches())
def test_batches_of_a_backend(identifiers: list[SpeakerIdentifier], batch: tuple[Any, Any]) -> None:
    for identifier in identifiers:
        found = answer_or_error(identifier.backend.run, *batch)
        assert found is None or found.scores.shape == (len(batch[0]), len(LABELS))


@BUSY
@given(
    sound=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=12,
    )
)
def test_what_is_no_array_at_all(identifiers: list[SpeakerIdentifier], sound: Any) -> None:
    for identifier in identifiers:
        assert answer_or_error(identifier.identify, sound, 16000) is None
    assert answer_or_error(identifiers[0].identify_features, sound) is None
