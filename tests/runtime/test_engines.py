"""What every engine promises alike: answers, padding, refusals, threads, pickles, and what it says of itself.

What one engine alone does is tested beside it, in `test_onnx_model`, `test_ov_model`, `test_torch_model`,
`test_plan_model` and `test_rtx_model`.
"""

import gc
import math
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.engines import ENGINES, Engine, Plan
from tests.runtime.tiny_models import FRONTEND, LABELS, SIZE, TinyModel, features
from voxport.runtime import SpeakerIdentifier, read_contract
from voxport.runtime.backends.options import LoadedBackend
from voxport.runtime.contract import Array, Golden
from voxport.runtime.errors import BackendError, ContractError, LengthError, VoxportError
from voxport.runtime.inspection import inspect_model
from voxport.runtime.length_range import LengthRange

N = FRONTEND.n_mels


@pytest.fixture(scope="module", params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Each engine on a machine that has it, GPUs being fake."""
    wanted: type[Engine] = request.param
    if not issubclass(wanted, Plan) and find_spec(wanted.module) is None:
        pytest.skip(f"{wanted.module} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp(wanted.name)
        patch.setenv("VOXPORT_CACHE", str(folder / "cache"))
        made = wanted(folder, patch)
        yield made
        made.forget()


@pytest.fixture(scope="module")
def model(engine: Engine) -> LoadedBackend:
    """A model of features, which no test changes."""
    return engine.load(engine.write()[0])


@pytest.fixture(scope="module")
def tiny(engine: Engine) -> TinyModel:
    """What `model` is in NumPy."""
    return engine.write()[1]


def inputs_of(tiny: TinyModel, frames: list[int]) -> list[Any]:
    """Features of so many frames, or sound that gives about as many."""
    if tiny.contract.input_kind == "features":
        return list(features(frames, seed=sum(frames)))
    hop, allowed = tiny.contract.frontend.hop_length, LengthRange.of_input(tiny.contract)
    sizes = [min(max(count * hop - 73, allowed.shortest), allowed.longest) for count in frames]
    generator = np.random.default_rng(sum(frames))
    return [generator.uniform(-0.5, 0.5, size).astype(np.float32) for size in sizes]


def padded(rows: list[Any], more: int, garbage: float) -> tuple[Any, list[int]]:
    batch = np.full((len(rows), max(map(len, rows)) + more, *rows[0].shape[1:]), garbage, np.float32)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    return batch, [len(row) for row in rows]


# --- answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["features", "waveform"])
def test_batches_of_any_length_size_and_padding_are_answered_as_numpy_answers_each_row(
    engine: Engine, kind: Any
) -> None:
    path, tiny = engine.write(kind)
    loaded = engine.load(path)
    for frames in ([5], [60], [7], [5, 31, 59], [9] * 11, [60, 7, 33, 20, 19], [5]):
        rows = inputs_of(tiny, frames)
        for more, garbage in ((0, 0.0), (3, 1e6), (200, math.nan)):
            answer = loaded.run(*padded(rows, more, garbage))
            assert answer.scores.shape == (len(rows), len(LABELS))
            assert answer.embedding.shape == (len(rows), SIZE)
            assert answer.scores.dtype == answer.embedding.dtype == np.float32
            np.testing.assert_allclose(answer.scores, [tiny.scores(row) for row in rows], rtol=0, atol=2e-4)
            np.testing.assert_allclose(answer.embedding, [tiny.embedding(row) for row in rows], rtol=0, atol=1e-5)


def test_arrays_of_any_layout_and_lists_are_the_same_input(model: LoadedBackend) -> None:
    values = features(20)
    wanted = model.run(values[None], [20]).scores
    frozen = values[None].copy()
    frozen.flags.writeable = False
    wide = np.zeros((1, 20, 2 * N), np.float32)
    wide[:, :, ::2] = values
    for same in (
        frozen, wide[:, :, ::2], np.asfortranarray(values[None]), values[None].astype(np.float64), [values.tolist()]
    ):  # fmt: skip
        np.testing.assert_array_equal(model.run(same, [20]).scores, wanted)


def test_threads_may_share_a_model(model: LoadedBackend, tiny: TinyModel) -> None:
    rows = features([5 + 7 * turn % 56 for turn in range(48)])
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda row: model.run(row[None], [len(row)]).scores[0], rows))
    for scores, row in zip(answers, rows, strict=True):
        np.testing.assert_allclose(scores, tiny.scores(row), rtol=0, atol=2e-4)


# --- what run() refuses -------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "word"), [(1, "short"), (4, "short"), (61, "long"), (10_000, "long")])
def test_a_length_out_of_range_is_told_in_frames_and_seconds(model: LoadedBackend, frames: int, word: str) -> None:
    limits = r"5 frames \(0\.04 s\) to 60 frames \(0\.59 s\)"
    with pytest.raises(LengthError, match=rf"{frames} frames \([\d.]+ s\) .*too {word}.* {limits}"):
        model.run(np.zeros((1, frames, N), np.float32), [frames])


def test_the_row_of_a_bad_length_is_named(model: LoadedBackend) -> None:
    with pytest.raises(LengthError, match="item 2 of the batch: 3 frames"):
        model.run(np.zeros((4, 20, N), np.float32), [20, 20, 3, 2])


@pytest.mark.parametrize(("samples", "allowed"), [(639, False), (640, True), (9599, True), (9600, False)])
def test_the_range_in_samples_is_exactly_that_in_frames(engine: Engine, samples: int, allowed: bool) -> None:
    # Centred frames: 1 + samples // 160. 5 frames need 640 samples, 9600 samples give 61 frames.
    loaded = engine.load(engine.write("waveform")[0], verify=False)
    if allowed:
        assert np.isfinite(loaded.run(np.full((1, samples), 0.1, np.float32), [samples]).scores).all()
    else:
        with pytest.raises(LengthError, match=f"{1 + samples // 160} frames"):
            loaded.run(np.full((1, samples), 0.1, np.float32), [samples])


@pytest.mark.parametrize(
    ("inputs", "lengths"),
    [
        (np.zeros((20, N), np.float32), [20]),
        (np.zeros((1, 20, N + 1), np.float32), [20]),
        (np.zeros((0, 20, N), np.float32), np.zeros(0, np.int64)),
        (np.zeros((1, 20, N), np.float32), [20, 20]),
        (np.zeros((1, 20, N), np.float32), [[20]]),
        (np.zeros((1, 20, N), np.float32), 20),
        (np.zeros((1, 20, N), np.float32), [21]),
        (np.zeros((1, 20, N), np.float32), [20.0]),
        (np.zeros((1, 20, N), np.complex64), [20]),
        (np.zeros((1, 20, N), object), [20]),
        (np.full((1, 20, N), "x"), [20]),
        ([[[1.0, 2.0], [3.0]]], [20]),
        (None, [20]),
        (np.zeros((1, 20, N), np.float32), None),
        (np.zeros((1, 20, N), np.float32), [-1]),
        (np.zeros((1, 20, N), np.float32), [2**63 - 1]),
    ],
)
def test_wrong_types_and_shapes_are_refused(model: LoadedBackend, inputs: Any, lengths: Any) -> None:
    with pytest.raises(VoxportError):
        model.run(inputs, lengths)


@pytest.mark.parametrize(
    ("inputs", "lengths", "message"),
    [
        ((1, 20, N), (80_000_000_000,), "expected one length for each of 1 rows"),
        ((80_000_000_000, 20, N), (80_000_000_000,), "is larger than the 536,870,912 numbers that run at once"),
        ((80_000_000_000, 0, N), (80_000_000_000,), "is larger than the"),
        ((1, 80_000_000_000, N), (1,), "is larger than the"),
        ((80_000_000_000, 20, N + 1), (2,), "expected features: float32"),
    ],
)
def test_shapes_that_no_memory_holds_are_refused_before_anything_is_copied(
    model: LoadedBackend, inputs: tuple[int, ...], lengths: tuple[int, ...], message: str
) -> None:
    """A broadcast view of one number may claim any shape."""
    batch, counts = np.broadcast_to(np.float32(0), inputs), np.broadcast_to(np.int64(20), lengths)
    for given in (counts, counts[::-1], np.broadcast_to(np.int32(20), lengths)):
        with pytest.raises(VoxportError, match=message):
            model.run(batch, given)


# --- what load() refuses ------------------------------------------------------------------------------


def test_a_model_that_no_longer_gives_its_recorded_answer_is_refused(engine: Engine, tiny: TinyModel) -> None:
    golden = tiny.contract.golden
    shifted = Array.of(golden.scores.values + np.float32(0.01))
    path, _ = engine.write(golden=Golden(golden.input, shifted, 0.02))
    engine.load(path)
    path, _ = engine.write(golden=Golden(golden.input, shifted, 0.009))
    with pytest.raises(ContractError, match=r"no longer gives its recorded answer: max .Δscore. 0\.01") as caught:
        engine.load(path)
    assert str(caught.value).startswith(str(path))
    assert engine.load(path, verify=False).contract.labels == LABELS


@pytest.mark.parametrize(
    ("source", "scores", "message"),
    [
        (np.zeros((12, 39)), np.zeros(5), "golden input"),
        (np.zeros(12), np.zeros(5), "golden input"),
        (np.ones((12, 40)), np.zeros(4), "golden scores"),
        (np.ones((3, 40)), np.zeros(5), "golden vector: .*3 frames"),
    ],
)
def test_a_golden_vector_that_does_not_fit_its_contract_is_refused(
    engine: Engine, source: Any, scores: Any, message: str
) -> None:
    path, _ = engine.write(golden=Golden(Array.of(source), Array.of(scores), 1e-3))
    with pytest.raises(ContractError, match=message):
        engine.load(path)


@pytest.mark.parametrize("changes", [{"labels": LABELS[:-1]}, {"embedding_size": 9}])
def test_a_contract_that_promises_other_outputs_is_refused(
    engine: Engine, changes: dict[str, Any], tiny: TinyModel
) -> None:
    golden = tiny.contract.golden
    scores = golden.scores.values[: len(changes.get("labels", LABELS))]
    path, _ = engine.write(golden=Golden(golden.input, Array.of(scores), golden.tolerance), **changes)
    with pytest.raises(VoxportError, match=r"promises|should be") as caught:
        engine.load(path)
    assert path.name in str(caught.value)


def test_what_cannot_be_had_is_refused(engine: Engine) -> None:
    path, _ = engine.write()
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"device": engine.no_device}, f"device '{engine.no_device}'|'{engine.no_device}' was asked for"),
        ({"precision": "int8"}, "precision int8 was asked for, the (model|plan|engine) is fp32"),
    )
    for options, message in refused:
        with pytest.raises(BackendError, match=message):
            engine.load(path, **options)


def test_a_file_that_is_not_there_is_told_before_a_missing_package(engine: Engine) -> None:
    path, _ = engine.write()
    absent = path.with_name(f"absent{path.suffix}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, engine.module, None)
        with pytest.raises(ContractError, match=rf"{absent.name}: .*cannot be read"):
            engine.load(absent)


def test_a_missing_package_is_named_with_its_pip_command_and_the_contract_still_read(engine: Engine) -> None:
    path, tiny = engine.write()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, engine.module, None)
        with pytest.raises(BackendError, match=rf'is not installed.*pip install "voxport\[{engine.extra}\]"'):
            engine.load(path)
        assert read_contract(path) == tiny.contract


# --- what it says of itself ---------------------------------------------------------------------------


def test_explain_says_what_runs_where(engine: Engine, model: LoadedBackend) -> None:
    told = model.explain()
    assert (told.backend, told.device, told.precision) == (engine.title, engine.device, "fp32")
    assert told.device_name
    assert told.why
    version = dict(told.versions)[engine.module]
    for fact in (engine.title, engine.device, version):
        assert fact in str(told)


def test_inspect_replays_the_golden_vector(engine: Engine) -> None:
    path, tiny = engine.write()
    found = inspect_model(path)
    assert found.problem is None
    assert found.golden is not None
    assert found.golden.passed
    assert found.contract == tiny.contract


def test_an_identifier_names_the_speaker_whom_numpy_names(engine: Engine) -> None:
    path, tiny = engine.write()
    chosen = engine.options()
    identifier = SpeakerIdentifier.load(path, threads=chosen.threads, runtime=chosen.runtime)
    values = features(31)
    assert identifier.identify_features(values).best.speaker == LABELS[int(np.argmax(tiny.scores(values)))]


def test_a_model_is_pickled_as_its_path_and_options_and_no_other_is_taken_for_it(engine: Engine) -> None:
    path, tiny = engine.write()
    loaded = engine.load(path)
    content = pickle.dumps(loaded)
    assert len(content) < 2000
    again = pickle.loads(content)  # noqa: S301 - our own
    values = features(9)
    np.testing.assert_allclose(again.run(values[None], [9]).scores[0], tiny.scores(values), rtol=0, atol=2e-4)
    assert again.explain() == loaded.explain()
    engine.write(recipe="another")
    with pytest.raises(ContractError, match="another model lies there"):
        pickle.loads(content)  # noqa: S301 - our own


def test_what_is_closed_or_forgotten_gives_the_gpu_s_memory_back(engine: Engine) -> None:
    if not isinstance(engine, Plan):
        pytest.skip("this engine's library frees its memory itself")
    path: Path = engine.write()[0]
    gc.collect()
    kept = len(engine.cuda.device)
    engine.load(path).run(features(9)[None], [9])
    gc.collect()
    assert len(engine.cuda.device) == kept
