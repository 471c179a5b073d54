"""TensorRT plans, against fakes of TensorRT and CUDA that compute in NumPy and fail on demand."""

import gc
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fakes.cuda import FakeCuda, installed
from tests.fakes.trt import FakeTensorRT, Shape, make_plan
from tests.runtime.tiny_models import (
    FRONTEND,
    LABELS,
    MAX_FRAMES,
    TinyModel,
    check_rows,
    features,
    make_tiny,
    tone,
)
from voxport.runtime import SpeakerIdentifier, VoxportError, read_contract
from voxport.runtime.backends.load import load_backend
from voxport.runtime.backends.options import DeviceChoice
from voxport.runtime.backends.trt.file import VERSION_COMPATIBLE, sidecar_path, write_sidecar
from voxport.runtime.backends.trt.model import PlanModel, PlanOptions
from voxport.runtime.contract import InputKind
from voxport.runtime.errors import BackendError, ContractError, LengthError

N = FRONTEND.n_mels
PROFILES: list[tuple[Shape, Shape]] = [((1, 5, N), (4, 60, N)), ((1, 5, N), (8, 20, N))]
SAMPLES: list[tuple[Shape, Shape]] = [((1, 640), (2, 9599))]


@dataclass(frozen=True)
class World:
    """A machine with TensorRT and a GPU, both fake."""

    cuda: FakeCuda
    trt: FakeTensorRT
    folder: Path

    def plan(self, tiny: TinyModel, profiles: Any = None, **changes: Any) -> Path:
        """Write a plan of `tiny` and its sidecar."""
        path = self.folder / "model.plan"
        kind = tiny.contract.input_kind
        chosen = profiles or (PROFILES if kind == "features" else SAMPLES)
        path.write_bytes(make_plan(kind, tiny.project, tiny.classes, chosen, **changes))
        write_sidecar(path, tiny.contract, {"tensorrt": "10.3.0", "gpu": "Another GPU"})
        return path


@pytest.fixture(params=["10.16.1.11"])
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    cuda = FakeCuda()
    trt = FakeTensorRT(cuda, request.param)
    with installed(monkeypatch, trt, cuda):
        yield World(cuda, trt, tmp_path)


every_version = pytest.mark.parametrize("world", ["8.6.1", "10.0.1", "10.16.1.11", "11.4.0.106"], indirect=True)


# --- answers ------------------------------------------------------------------------------------------


@every_version
@pytest.mark.parametrize("graphs", [0, 3])
def test_batches_of_any_size_and_length_are_answered_as_numpy_answers_them(
    world: World, tiny: TinyModel, graphs: int
) -> None:
    """More rows than a profile holds, more shapes than graphs are kept, and each shape more than once."""
    model = PlanModel.load(world.plan(tiny), PlanOptions(graphs=graphs))
    for lengths in ([5], [60], [17, 20, 9], [5] * 11, [60, 7, 33, 20, 19], [21, 6], [5], [60], [17, 20, 9]):
        check_rows(model, tiny, features(lengths, seed=sum(lengths)))
    model.close()
    assert world.cuda.clean


@pytest.mark.parametrize("graphs", [0, 2])
def test_a_waveform_plan_takes_samples(world: World, tiny_waveform: TinyModel, graphs: int) -> None:
    model = PlanModel.load(world.plan(tiny_waveform), PlanOptions(graphs=graphs))
    rows = [tone(0.3), tone(0.21, hertz=100, size=0.9), tone(0.5)]
    for _ in range(2):
        check_rows(model, tiny_waveform, rows)


@every_version
def test_graphs_are_used_from_the_second_run_on_and_only_so_many_are_kept(world: World, tiny: TinyModel) -> None:
    model = PlanModel.load(world.plan(tiny), PlanOptions(graphs=2), verify=False)
    for length in (5, 5, 5, 40, 40, 60, 60, 5, 5):
        check_rows(model, tiny, features([length]))
    launched = world.cuda.calls.count("cudaGraphLaunch")
    if world.trt.major < 10:  # one context per profile, so no graphs
        assert launched == 0
        assert "CUDA graphs" not in str(model.explain()).replace("no CUDA graphs", "")
        return
    assert launched == 2 + 1 + 1 + 1
    assert world.cuda.calls.count("cudaGraphExecDestroy") == 2  # of 5, then of 40
    assert len(world.cuda.ready) == 2


def test_similar_lengths_share_a_graph(world: World, tiny: TinyModel) -> None:
    model = PlanModel.load(world.plan(tiny), verify=False)
    for length in (41, 43, 44, 48):
        check_rows(model, tiny, features([length]))
    assert world.cuda.calls.count("cudaGraphInstantiate") == 1
    assert world.cuda.calls.count("cudaGraphLaunch") == 3


def test_memory_is_taken_once(world: World, tiny: TinyModel) -> None:
    model = PlanModel.load(world.plan(tiny), PlanOptions(graphs=3))
    taken = world.cuda.calls.count("cudaMalloc"), world.cuda.calls.count("cudaHostAlloc")
    assert taken == (5, 4)  # four tensors, and the activations that all contexts share
    assert world.cuda.largest == 4096 + 4 * (4 * 60 * N) + 8 * 8 + 4 * 8 * (5 + 8)
    for length in range(5, 61):
        check_rows(model, tiny, features([length, 5]))
    assert (world.cuda.calls.count("cudaMalloc"), world.cuda.calls.count("cudaHostAlloc")) == taken


def test_the_closest_profile_is_chosen(world: World, tiny: TinyModel) -> None:
    model = PlanModel.load(world.plan(tiny), PlanOptions(graphs=0), verify=False)
    for lengths, profile in (([20], 1), ([21], 0), ([9] * 8, 1)):
        check_rows(model, tiny, features(lengths))
        assert next(reversed(model._slots))[0] == profile


def test_inputs_below_a_profile_are_padded_up_to_it(world: World, tiny: TinyModel) -> None:
    for graphs in (0, 4):
        model = PlanModel.load(world.plan(tiny, [((2, 30, N), (2, 60, N))]), PlanOptions(graphs=graphs))
        check_rows(model, tiny, features([5]))


def test_an_identifier_runs_a_plan_and_says_so(world: World, tiny: TinyModel) -> None:
    path = world.plan(tiny)
    assert read_contract(path) == tiny.contract
    devices: tuple[DeviceChoice, ...] = ("auto", "tensorrt")
    for device in devices:
        identifier = SpeakerIdentifier.load(path, device=device)
        values = features(31)
        best = int(np.argmax(tiny.scores(values)))
        assert identifier.identify_features(values).best.speaker == LABELS[best]
        explained = identifier.explain()
        assert (explained.backend, explained.device) == ("TensorRT plan", "tensorrt")
        assert explained.why.startswith("auto:" if device == "auto" else "device 'tensorrt'")
        assert ("tensorrt", "10.16.1.11") in explained.versions
        assert ("CUDA", "12.9") in explained.versions
        text = str(explained)
        assert "Fake GPU (compute capability 9.0)" in text
        assert "1×5 to 4×60, 1×5 to 8×20" in text


def test_a_closed_or_forgotten_plan_gives_everything_back(world: World, tiny: TinyModel) -> None:
    with PlanModel.load(world.plan(tiny)) as model:
        check_rows(model, tiny, features([9]))
    assert world.cuda.clean
    model.close()
    with pytest.raises(BackendError, match="closed"):
        model.run(features(9)[None], [9])
    forgotten = PlanModel.load(world.plan(tiny))
    check_rows(forgotten, tiny, features([9]))
    assert world.cuda.device != {}
    del forgotten
    gc.collect()
    assert world.cuda.clean


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "Runtime",
        "deserialize_cuda_engine",
        "create_execution_context",
        "set_optimization_profile_async",
        "set_tensor_address",
        "set_input_shape",
        "execute_async_v3",
    ],
)
@every_version
def test_each_refusal_of_tensorrt_is_an_error_in_its_own_words(world: World, tiny: TinyModel, call: str) -> None:
    world.trt.fail = {call}
    with pytest.raises(BackendError, match=rf"TensorRT: .* failed \(\[core\] {call}: went wrong\)"):
        PlanModel.load(world.plan(tiny))
    assert world.cuda.clean


def test_shapes_that_are_not_as_promised_are_refused(world: World, tiny: TinyModel) -> None:
    world.trt.fail = {"infer_shapes"}
    with pytest.raises(BackendError, match="the plan also wants mood"):
        PlanModel.load(world.plan(tiny))
    world.trt.fail = {"get_tensor_shape"}
    with pytest.raises(BackendError, match=r"scores should be \(1, 5\), the plan makes it \(1, 5, 1\)"):
        PlanModel.load(world.plan(tiny))
    assert world.cuda.clean


@pytest.mark.parametrize("call", ["set_optimization_profile_async", "set_input_shape", "execute_async_v3"])
@pytest.mark.parametrize("graphs", [0, 2])
def test_a_failed_run_is_an_error_and_the_next_one_works(world: World, tiny: TinyModel, call: str, graphs: int) -> None:
    model = PlanModel.load(world.plan(tiny), PlanOptions(graphs=graphs))
    world.trt.fail = {call}
    with pytest.raises(BackendError, match=call):
        model.run(features(47)[None], [47]) if call != "set_optimization_profile_async" else [
            model.run(features(size)[None], [size]) for size in (15, 47)
        ]
    world.trt.fail = set()
    check_rows(model, tiny, features([47, 9]))
    model.close()
    assert world.cuda.clean


OFTEN = ["cudaSetDevice", "cudaMalloc", "cudaHostAlloc", "cudaMemcpyAsync", "cudaStreamSynchronize"]
ONCE = [
    "cudaStreamCreateWithFlags", "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
    "cudaGraphDestroy", "cudaGraphLaunch",
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "which"), [(name, which) for name in OFTEN for which in (1, 2, 3)] + [(name, 1) for name in ONCE]
)
def test_each_error_of_cuda_is_named_and_nothing_is_kept(world: World, tiny: TinyModel, call: str, which: int) -> None:
    PlanModel.load(world.plan(tiny)).close()
    happens = world.cuda.calls.count(call)
    assert happens >= which
    world.cuda.calls.clear()
    world.cuda.fail = {call: which}
    if which == happens and call in ("cudaSetDevice", "cudaStreamSynchronize"):
        PlanModel.load(world.plan(tiny)).close()  # the last is close()'s, which tells no errors
        assert world.cuda.clean
        return
    with pytest.raises(BackendError, match=rf"CUDA: {call} failed \(cudaErrorMemoryAllocation: out of memory\)"):
        PlanModel.load(world.plan(tiny))
    assert world.cuda.clean or call == "cudaGraphDestroy"  # what could not be freed may stay


def test_a_failed_recording_leaves_the_stream_usable(world: World, tiny: TinyModel) -> None:
    model = PlanModel.load(world.plan(tiny), verify=False)
    real = world.trt.cuda.stream

    def refuse_while_recording(handle: Any) -> Any:
        stream = real(handle)
        world.trt.fail = {"execute_async_v3"} if stream.recording is not None else set()
        return stream

    world.trt.cuda.stream = refuse_while_recording  # type: ignore[method-assign]
    with pytest.raises(BackendError, match="execute_async_v3"):
        model.run(features(9)[None], [9])
    world.trt.cuda.stream = real  # type: ignore[method-assign]
    world.trt.fail = set()
    check_rows(model, tiny, features([9]))
    check_rows(model, tiny, features([9]))
    assert world.cuda.calls.count("cudaGraphLaunch") == 1


def test_a_plan_of_another_machine_is_told_from_this_one(world: World, tiny: TinyModel) -> None:
    world.trt.fail = {"deserialize_cuda_engine"}
    with pytest.raises(
        BackendError, match=r"built with .*gpu Another GPU.*tensorrt 10\.3\.0; here are tensorrt 10\.16.*Fake GPU"
    ):
        PlanModel.load(world.plan(tiny))


@pytest.mark.parametrize(
    ("profiles", "changes", "message"),
    [
        (None, {"dtypes": {"features": "HALF"}}, "features: float16"),
        (None, {"dtypes": {"scores": "HALF"}}, "scores: float16"),
        (None, {"dtypes": {"lengths": "FLOAT"}}, "lengths: float32"),
        (None, {"extra": "mood"}, "the output mood, which nobody reads"),
        (None, {"on_host": "lengths"}, "computes shapes from lengths"),
        ([((1, 5, 41), (4, 60, 41))], {}, r"features: float32 \(\?, \?, 41\)"),
        ([((1, 5, N), (4, 59, N))], {}, f"promises up to {MAX_FRAMES} frames, the plan's profiles hold 59"),
    ],
)
def test_a_plan_that_is_not_what_its_contract_promises_is_refused(
    world: World, tiny: TinyModel, profiles: Any, changes: dict[str, Any], message: str
) -> None:
    path = world.plan(tiny, profiles, **changes)
    with pytest.raises(ContractError, match=f"model.plan: .*{message}"):
        PlanModel.load(path, verify=False)
    assert world.cuda.clean


@pytest.mark.parametrize("frames", [1, 4, 61])
def test_a_length_out_of_range_is_refused_before_anything_runs(world: World, tiny: TinyModel, frames: int) -> None:
    model = PlanModel.load(world.plan(tiny))
    world.cuda.calls.clear()
    with pytest.raises(LengthError, match=f"{frames} frames"):
        model.run(np.zeros((1, frames, N), np.float32), [frames])
    with pytest.raises(VoxportError):
        model.run(np.zeros((1, 20, N + 1), np.float32), [20])
    assert world.cuda.calls == []


@every_version
def test_a_version_compatible_plan_runs_its_native_code_only_where_that_is_allowed(
    world: World, tiny: TinyModel
) -> None:
    path = world.plan(tiny, host_code=True)
    with pytest.raises(BackendError, match="the plan carries host code, which is not allowed"):
        load_backend(path)
    write_sidecar(path, tiny.contract, {VERSION_COMPATIBLE: "yes"}, {"profiles": []})
    world.trt.calls.clear()
    with pytest.raises(BackendError, match=r"carries native code .* BackendOptions\(host_code=True\)"):
        load_backend(path)
    assert world.trt.calls == []
    rows = features([20])
    answer = PlanModel.load(path, PlanOptions(host_code=True)).run(rows[0][None], [20])
    np.testing.assert_allclose(answer.scores[0], tiny.scores(rows[0]), atol=1e-4)
    assert json.loads(sidecar_path(path).read_text())["profiles"] == []


# --- the files ----------------------------------------------------------------------------------------


def test_a_damaged_plan_never_reaches_tensorrt(world: World, tiny: TinyModel) -> None:
    path = world.plan(tiny)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        ContractError, match=r"model\.plan: is damaged or not the plan that model\.plan\.json describes"
    ):
        PlanModel.load(path)
    path.unlink()
    with pytest.raises(ContractError, match=r"model\.plan: cannot be read"):
        PlanModel.load(path)
    assert world.trt.calls == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "its contract .*cannot be read"),
        ("", "not JSON"),
        ("[1]", "has no voxport.contract"),
        ("{}", "has no voxport.contract"),
        ('{"voxport.contract": {"version": 99}}', "contract version 99"),
        ("[" * 100_000, "not JSON"),
        ('{"voxport.contract": {}, "sha256": 3}', "contract version None"),
        ("\udcff", "not JSON"),
    ],
)
def test_a_sidecar_that_is_no_sidecar_is_refused(
    world: World, tiny: TinyModel, content: str | None, message: str
) -> None:
    path = world.plan(tiny)
    if content is None:
        sidecar_path(path).unlink()
    else:
        sidecar_path(path).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ContractError, match=message):
        PlanModel.load(path)
    with pytest.raises(ContractError, match=message):
        read_contract(path)


def test_a_sidecar_keeps_what_others_wrote_and_shows_no_control_characters(world: World, tiny: TinyModel) -> None:
    path = world.plan(tiny)
    content = json.loads(sidecar_path(path).read_text())
    content |= {"precision_report": {"half": 0.9}, "built_with": {"gpu": "\x1b[2Jevil", "list": [1]}}
    sidecar_path(path).write_text(json.dumps(content))
    PlanModel.load(path)
    world.trt.fail = {"deserialize_cuda_engine"}
    with pytest.raises(BackendError) as caught:
        PlanModel.load(path)
    assert "gpu [2Jevil" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_sidecar_without_the_plans_hash_is_refused(world: World, tiny: TinyModel) -> None:
    path = world.plan(tiny)
    content = json.loads(sidecar_path(path).read_text())
    del content["sha256"]
    sidecar_path(path).write_text(json.dumps(content))
    with pytest.raises(ContractError, match="sha256 must be the plan's"):
        PlanModel.load(path)


@pytest.mark.parametrize("kind", ["features", "waveform"])
def test_a_file_is_taken_for_what_it_is(tmp_path: Path, kind: InputKind) -> None:
    """Without TensorRT a plan is refused for that, not taken for a damaged ONNX file."""
    tiny = make_tiny(tmp_path / "model.onnx", kind)
    named = tmp_path / "model.bin"
    named.write_bytes(b"ftrt" + bytes(60))
    write_sidecar(named, tiny.contract, {})
    assert read_contract(named) == tiny.contract
    for name, content in (("a.pt2", b"x"), ("b.bin", b"PK\x03\x04rest"), ("c.ts", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ContractError, match=r"not a whole TorchScript or \.pt2 file"):
            load_backend(tmp_path / name)


# --- what is missing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["tensorrt", "cuda"])
def test_what_is_missing_is_named_with_its_pip_command(
    world: World, tiny: TinyModel, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt",) if missing == "tensorrt" else ("cuda", "cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=rf'{missing}.* is not installed.*pip install "voxport\[tensorrt\]"'):
        PlanModel.load(world.plan(tiny))
    assert world.cuda.clean


def test_the_older_name_of_cuda_python_is_found(world: World, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda.cudart", world.cuda)
    check_rows(PlanModel.load(world.plan(tiny)), tiny, features([9]))


def test_a_machine_without_a_driver_is_told_so(world: World, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(*_: object) -> None:
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    monkeypatch.setattr(FakeCuda, "_cudaSetDevice", no_driver)
    with pytest.raises(BackendError, match=r"cudaSetDevice failed \(Failed to dlopen .*nvidia-smi"):
        PlanModel.load(world.plan(tiny))


@pytest.mark.parametrize("wrong", [{"gpu": -1}, {"graphs": -1}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="must not be negative"):
        PlanOptions(**wrong)
