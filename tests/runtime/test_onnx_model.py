"""OnnxModel: answers against NumPy, and everything that must be refused when a file is loaded."""

import math
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.runtime.tiny_models import LABELS, TinyModel, features, make_tiny, save, tiny_graph
from voxport.runtime.backends.base import available_cores, default_threads
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.onnxrt.session import OnnxOptions, start_session
from voxport.runtime.errors import BackendError, ContractError


def test_a_file_may_have_any_name(tiny: TinyModel, tmp_path: Path) -> None:
    other = tmp_path / "named.ort"  # onnxruntime takes this ending for another format
    other.write_bytes(tiny.path.read_bytes())
    assert OnnxModel.load(other).contract == tiny.contract


# --- what run() refuses -------------------------------------------------------------------------------


def test_a_failing_run_is_an_error_of_ours(tiny: TinyModel) -> None:
    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError("out of memory")

    with pytest.raises(BackendError, match="out of memory"):
        OnnxModel(tiny.contract, Broken()).run(features(9)[None], [9])


# --- what load() refuses ------------------------------------------------------------------------------


def test_a_model_that_no_longer_gives_its_recorded_answer_is_refused(model_path: Path) -> None:
    tiny = make_tiny(model_path)
    changed = tiny.project.copy()
    changed[0, 0] += 1.0
    save(model_path, tiny_graph("features", changed, tiny.classes), tiny.contract.to_json())
    with pytest.raises(ContractError, match=r"no longer gives its recorded answer: max .Δscore. \d"):
        OnnxModel.load(model_path)
    model = OnnxModel.load(model_path, verify=False)
    assert model.contract == tiny.contract


def test_a_model_that_answers_nan_is_refused(model_path: Path) -> None:
    tiny = make_tiny(model_path)
    broken = np.full_like(tiny.project, math.nan)
    save(model_path, tiny_graph("features", broken, tiny.classes), tiny.contract.to_json())
    with pytest.raises(ContractError, match="nan"):
        OnnxModel.load(model_path)


def rename_input(graph: onnx.GraphProto) -> None:
    graph.input[0].name = graph.node[0].input[0] = "mels"


def fix_batch(graph: onnx.GraphProto) -> None:
    for tensor in (*graph.input, *graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1


def fix_frames(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 20


def drop_embedding(graph: onnx.GraphProto) -> None:
    del graph.output[1]


def want_more(graph: onnx.GraphProto) -> None:
    graph.input.append(onnx.helper.make_tensor_value_info("mood", onnx.TensorProto.FLOAT, ["batch"]))


def lengths_as_int32(graph: onnx.GraphProto) -> None:
    graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT32
    graph.node.insert(0, onnx.helper.make_node("Cast", ["lengths"], ["lengths64"], to=onnx.TensorProto.INT64))
    for node in list(graph.node)[1:]:
        node.input[:] = ["lengths64" if name == "lengths" else name for name in node.input]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_input, "input features.*the graph has mels"),
        (fix_batch, r"features: float32 \(batch, frames, 40\).*\(1, frames, 40\)"),
        (fix_frames, r"\(batch, 20, 40\)"),
        (drop_embedding, "output embedding"),
        (want_more, "unknown input mood"),
        (lengths_as_int32, "lengths: int32"),
    ],
)
@pytest.mark.parametrize("verify", [True, False])
def test_a_graph_that_is_not_what_the_contract_promises_is_refused(
    model_path: Path, change: Callable[[onnx.GraphProto], None], message: str, verify: bool
) -> None:
    tiny = make_tiny(model_path)
    graph = tiny_graph("features", tiny.project, tiny.classes)
    change(graph)
    save(model_path, graph, tiny.contract.to_json())
    with pytest.raises(ContractError, match=message):
        OnnxModel.load(model_path, verify=verify)


@pytest.mark.parametrize("changes", [{"labels": LABELS[:-1]}, {"embedding_size": 9}, {"input_kind": "waveform"}])
def test_a_contract_that_promises_another_graph_is_refused(model_path: Path, changes: dict[str, Any]) -> None:
    make_tiny(model_path, **changes)
    with pytest.raises(ContractError, match="the contract promises"):
        OnnxModel.load(model_path, verify=False)


def test_a_damaged_graph_is_refused_with_the_file_named(tiny: TinyModel, model_path: Path) -> None:
    graph = tiny_graph("features", tiny.project, tiny.classes)
    graph.node[0].op_type = "Identity"
    save(model_path, graph, tiny.contract.to_json())
    model_path.write_bytes(model_path.read_bytes().replace(b"ReduceSum", b"ReduceSun"))
    with pytest.raises(ContractError, match=r"model\.onnx: onnxruntime cannot load it"):
        OnnxModel.load(model_path)


# --- devices, packages, threads -----------------------------------------------------------------------


def test_cuda_that_is_not_there_is_an_error_with_the_way_out(tiny: TinyModel) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(BackendError, match=r"'cuda' was asked for.*CPUExecutionProvider.*voxport\[gpu\]"):
        OnnxModel.load(tiny.path, OnnxOptions("cuda"))


class FakeOnnxRuntime(types.ModuleType):
    """An onnxruntime that offers CUDA and then, as the real one does, starts on the CPU, or fails."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__("onnxruntime")
        import onnxruntime

        self.SessionOptions = onnxruntime.SessionOptions
        self.ExecutionMode = onnxruntime.ExecutionMode
        self.asked: list[Any] = []
        self.failure = failure

    def preload_dlls(self) -> None:
        print("Failed to load libcudnn.so.9")  # noqa: T201, the real one prints too

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, path: str, providers: list[Any], **_: object) -> Any:
        self.asked = providers
        if self.failure is not None:
            raise self.failure
        return types.SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])


def test_cuda_that_does_not_start_is_an_error_and_no_fallback(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeOnnxRuntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    with pytest.raises(BackendError, match=r"could not start it \(Failed to load libcudnn\.so\.9\); check the driver"):
        start_session(tiny.path, OnnxOptions("cuda"))
    assert fake.asked[0][1]["cudnn_conv_algo_search"] == "HEURISTIC"
    assert capsys.readouterr().out == ""


def test_a_failing_device_and_a_bad_file_are_told_apart(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidGraph

    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOnnxRuntime(RuntimeError("CUDA failure 100")))
    with pytest.raises(BackendError, match="CUDA failure 100"):
        start_session(tiny.path, OnnxOptions("cuda"))
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOnnxRuntime(InvalidGraph("a node")))
    with pytest.raises(ContractError, match=r"features\.onnx: onnxruntime cannot load it \(a node\)"):
        start_session(tiny.path, OnnxOptions("cuda"))


def test_half_an_onnxruntime_is_an_error_with_the_way_out(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", types.ModuleType("onnxruntime"))
    with pytest.raises(BackendError, match="only in part; pip uninstall -y onnxruntime onnxruntime-gpu"):
        OnnxModel.load(tiny.path)


def test_both_onnxruntime_packages_are_named(tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="both onnxruntime and onnxruntime-gpu are installed"):
        OnnxModel.load(tiny.path)


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"device": "auto"}, {"threads": 0}, {"threads": 100_000}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match=r"unknown device|threads must be"):
        OnnxOptions(**wrong)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 2), (64, 2)])
def test_small_machines_get_one_thread(cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxport.runtime.backends.base.available_cores", lambda: cores)
    assert default_threads() == threads


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000\n", 1), ("250000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 8)]
)
def test_a_containers_quota_counts(quota: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    assert available_cores(tmp_path / "cpu.max") == cores
    assert available_cores(tmp_path / "absent") == 8


def test_the_session_runs_as_asked_and_never_spins(tiny: TinyModel) -> None:
    session = start_session(tiny.path, OnnxOptions(threads=3))
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert not options.enable_mem_pattern
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_only_long_runs_give_their_memory_back(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "long.onnx", max_frames=2000)
    session = RecordingSession(start_session(tiny.path, OnnxOptions()))
    model = OnnxModel(tiny.contract, session)
    kept = 1200  # frames of 10 ms in 12 s, all rows of a batch together
    for rows, frames, gives_back in (
        (1, kept, False),
        (1, kept + 1, True),
        (2, kept // 2, False),
        (3, kept // 2, True),
    ):
        model.run(np.zeros((rows, frames, tiny.contract.frontend.n_mels), np.float32), [frames] * rows)
        options = session.options[-1]
        asked = options and options.get_run_config_entry("memory.enable_memory_arena_shrinkage")
        assert (asked == "cpu:0") is gives_back


class RecordingSession:
    def __init__(self, session: Any) -> None:
        self.session, self.options = session, list[Any]()

    def run(self, outputs: Any, inputs: dict[str, Any], options: Any = None) -> Any:
        self.options.append(options)
        return self.session.run(outputs, inputs, options)
