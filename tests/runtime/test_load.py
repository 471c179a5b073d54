"""Which back end and which device a model gets, and what explain() says about it."""

import dataclasses
import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.runtime.tiny_models import FRONTEND, LABELS, TinyModel, features, make_tiny
from voxport.cli.root import cli
from voxport.runtime import BackendOptions, SpeakerIdentifier, VoxportError, load_backend, read_contract
from voxport.runtime.backends.base import Answer
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.onnxrt.session import OnnxOptions, start_session
from voxport.runtime.backends.onnxrt.tensorrt_provider import profile_shapes
from voxport.runtime.contract import Contract
from voxport.runtime.errors import BackendError, ContractError

CPU, CUDA, TRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


class FakeOnnxRuntime(types.ModuleType):
    """An onnxruntime with GPU providers. It computes on the CPU and says what it was asked for."""

    def __init__(self, offered: list[str], starts: list[str] | None = None, failure: Exception | None = None) -> None:
        super().__init__("onnxruntime")
        import onnxruntime

        self.real = onnxruntime
        self.__version__ = "1.31.1"
        self.SessionOptions, self.ExecutionMode = onnxruntime.SessionOptions, onnxruntime.ExecutionMode
        self.RunOptions = onnxruntime.RunOptions
        self.offered, self.starts, self.failure = offered, offered if starts is None else starts, failure
        self.asked: list[list[Any]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.nodes: dict[str, int] = {}
        self.bindings: list[FakeBinding] = []

    def get_available_providers(self) -> list[str]:
        return self.offered

    def InferenceSession(self, path: str, sess_options: Any, providers: list[Any], **options: Any) -> Any:
        self.asked.append(providers)
        names = [one if isinstance(one, str) else one[0] for one in providers]
        if names[0] != CPU and self.failure is not None:
            raise self.failure
        session = self.real.InferenceSession(path, sess_options=sess_options, providers=[CPU])
        return FakeSession(self, session, [name for name in names if name in self.starts])


class FakeSession:
    def __init__(self, runtime: FakeOnnxRuntime, session: Any, providers: list[str]) -> None:
        self._runtime, self._session, self._providers = runtime, session, providers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return self._providers

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            types.SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
            for name, count in self._runtime.nodes.items()
        ]

    def run(self, outputs: Any, inputs: dict[str, Any], options: Any = None) -> Any:
        assert self._providers[0] == CPU, "a run on the GPU is bound"
        return self._session.run(outputs, inputs, options)

    def io_binding(self) -> "FakeBinding":
        return FakeBinding(self._session.io_binding())

    def run_with_iobinding(self, binding: "FakeBinding", options: Any = None) -> None:
        assert binding.done == ["inputs", "outputs", "synchronize_inputs"]
        binding.done.append("run")
        self._runtime.shapes.append(binding.shapes[0])
        self._runtime.bindings.append(binding)
        self._session.run_with_iobinding(binding.real, options)


class FakeBinding:
    """The CPU's, which is asked for the GPU's memory and notes in which order it is used."""

    def __init__(self, real: Any) -> None:
        self.real, self.done, self.shapes = real, [], []  # type: ignore[var-annotated]

    def _note(self, what: str) -> None:
        if self.done[-1:] != [what]:
            self.done.append(what)

    def bind_cpu_input(self, name: str, values: Any) -> None:
        self._note("inputs")
        self.shapes.append(values.shape)
        self.real.bind_cpu_input(name, values)

    def bind_output(self, name: str, device_type: str, device_id: int) -> None:
        self._note("outputs")
        assert (device_type, device_id) == ("cuda", 0)
        self.real.bind_output(name)

    def synchronize_inputs(self) -> None:
        self._note("synchronize_inputs")

    def synchronize_outputs(self) -> None:
        assert self.done[-1] == "run"
        self._note("synchronize_outputs")

    def copy_outputs_to_cpu(self) -> Any:
        assert self.done[-1] == "synchronize_outputs"
        return self.real.copy_outputs_to_cpu()


def install(patch: pytest.MonkeyPatch, fake: FakeOnnxRuntime, tensorrt: str | None = "10.16.1.11") -> FakeOnnxRuntime:
    patch.setitem(sys.modules, "onnxruntime", fake)
    module = types.ModuleType("tensorrt")
    module.__version__ = tensorrt  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "tensorrt", None if tensorrt is None else module)
    return fake


ALL = [TRT, CUDA, CPU]


# --- auto ---------------------------------------------------------------------------------------------


def test_on_a_machine_without_a_gpu_auto_is_the_cpu(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeOnnxRuntime([CPU]))
    explained = SpeakerIdentifier.load(tiny.path, threads=3).explain()
    assert (explained.backend, explained.device, explained.threads) == ("ONNX Runtime", "cpu", 3)
    assert explained.providers == (CPU,)
    assert explained.precision == "fp32"
    assert explained.versions == (("onnxruntime", "1.31.1"),)
    assert explained.why == "auto: this onnxruntime is built for the CPU alone"


def test_auto_takes_a_gpu_that_starts_and_never_builds_an_engine(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, FakeOnnxRuntime(ALL))
    fake.nodes = {CUDA: 12, CPU: 3}
    explained = SpeakerIdentifier.load(tiny.path).explain()
    assert (explained.device, explained.why) == ("cuda", "auto: onnxruntime starts on the GPU")
    assert explained.notes[0] == f"{CUDA} runs 12 nodes, {CPU} runs 3 nodes"
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("fake", "reason"),
    [
        (FakeOnnxRuntime(ALL, failure=RuntimeError("CUDA failure 100: no device")), "CUDA failure 100"),
        (FakeOnnxRuntime(ALL, starts=[CPU]), "it offers CPUExecutionProvider"),
    ],
)
def test_auto_goes_to_the_cpu_where_the_gpu_does_not_start_and_says_why(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, fake: FakeOnnxRuntime, reason: str
) -> None:
    install(monkeypatch, fake)
    identifier = SpeakerIdentifier.load(tiny.path)
    assert identifier.explain().device == "cpu"
    assert identifier.explain().why.startswith("auto: the GPU cannot be used (")
    assert reason in identifier.explain().why
    values = features(20)
    np.testing.assert_allclose(identifier.scores_features(values), tiny.scores(values), atol=1e-4)
    with pytest.raises(BackendError, match=reason):
        SpeakerIdentifier.load(tiny.path, device="cuda")


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_runs_on_the_gpu_are_bound_one_binding_for_each_so_that_threads_may_share(
    tiny: TinyModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: Any
) -> None:
    fake = install(monkeypatch, FakeOnnxRuntime(ALL))
    model = load_backend(tiny.path, BackendOptions(device, cache=tmp_path))
    assert "inputs and outputs are bound to the GPU's memory" in model.explain().notes
    rows = features([20, 33, 57, 9] * 5)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda row: model.run(row[None], [len(row)]), rows))
    for answer, row in zip(answers, rows, strict=True):
        np.testing.assert_allclose(answer.scores[0], tiny.scores(row), atol=1e-3)
        np.testing.assert_allclose(answer.embedding[0], tiny.embedding(row), atol=1e-5)
    assert len({id(binding) for binding in fake.bindings}) == 1 + len(rows)  # the golden vector's, and theirs


def test_a_failing_bound_run_is_an_error_of_ours(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeOnnxRuntime(ALL))
    model = load_backend(tiny.path, BackendOptions("cuda"))

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(FakeBinding, "bind_cpu_input", fail)
    with pytest.raises(BackendError, match="CUDA failure 2: out of memory"):
        model.run(features(20)[None], [20])


def test_auto_does_not_hide_a_wrong_file(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers differently on the GPU is refused, not run on the CPU."""
    tiny = make_tiny(model_path)
    golden = tiny.contract.golden
    make_tiny(model_path, golden=dataclasses.replace(golden, tolerance=0.0))
    fake = install(monkeypatch, FakeOnnxRuntime(ALL))
    with pytest.raises(ContractError, match="no longer gives its recorded answer"):
        SpeakerIdentifier.load(model_path)
    assert len(fake.asked) == 1


# --- ONNX Runtime's TensorRT provider -----------------------------------------------------------------


def test_tensorrt_gets_one_profile_and_its_own_cache(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, FakeOnnxRuntime(ALL))
    explained = load_backend(tiny.path, BackendOptions("tensorrt", cache=tmp_path, max_batch=4)).explain()
    (name, options), (second, _), third = fake.asked[0]
    assert (name, second, third) == (TRT, CUDA, CPU)
    assert options["trt_profile_min_shapes"] == "features:1x5x40,lengths:1"
    assert options["trt_profile_opt_shapes"] == "features:1x60x40,lengths:1"
    assert options["trt_profile_max_shapes"] == "features:4x60x40,lengths:4"
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("0", "0")
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert Path(options["trt_engine_cache_path"]).is_dir()
    assert (
        Path(options["trt_engine_cache_path"]).parent == Path(options["trt_timing_cache_path"]) == tmp_path / "tensorrt"
    )
    assert explained.providers == (TRT, CUDA, CPU)
    assert ("tensorrt", "10.16.1.11") in explained.versions


def test_whatever_makes_another_engine_makes_another_cache(
    tiny: TinyModel, tiny_waveform: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, FakeOnnxRuntime(ALL))
    first = BackendOptions("tensorrt", cache=tmp_path)
    for path, options in (
        (tiny.path, first),
        (tiny.path, first),
        (tiny.path, dataclasses.replace(first, max_batch=3)),
        (tiny.path, dataclasses.replace(first, precision="fp16")),
        (tiny_waveform.path, first),
    ):
        load_backend(path, options)
    install(monkeypatch, fake, "10.3.0")
    load_backend(tiny.path, first)
    folders = [providers[0][1]["trt_engine_cache_path"] for providers in fake.asked]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 5


def test_profiles_of_waveforms_are_in_samples(tiny_waveform: TinyModel) -> None:
    shapes = profile_shapes(tiny_waveform.contract, 2)
    assert shapes["min"] == "waveform:1x640,lengths:1"
    assert shapes["max"] == "waveform:2x9599,lengths:2"
    longer = profile_shapes(tiny_waveform.contract.replace(max_frames=2000), 2)
    assert longer["opt"] == "waveform:1x64000,lengths:1"
    assert profile_shapes(dataclasses.replace(tiny_waveform.contract, input_kind="features", max_frames=900), 1)[
        "opt"
    ] == (f"features:1x400x{FRONTEND.n_mels},lengths:1")


def test_a_batch_never_leaves_the_profile(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, FakeOnnxRuntime(ALL))
    model = load_backend(tiny.path, BackendOptions("tensorrt", max_batch=2))
    fake.shapes.clear()
    rows = features([9, 30, 5, 7, 60])
    batch = np.full((5, 200, 40), np.nan, np.float32)  # padding far beyond the profile
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    answer = model.run(batch, [len(row) for row in rows])
    assert fake.shapes == [(2, 30, 40), (2, 7, 40), (1, 60, 40)]
    for scores, row in zip(answer.scores, rows, strict=True):
        np.testing.assert_allclose(scores, tiny.scores(row), atol=1e-4)


@pytest.mark.parametrize("version", ["11.4.0.106", "8.6.1"])
def test_a_tensorrt_that_the_provider_cannot_use_is_named(
    tiny: TinyModel, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, FakeOnnxRuntime(ALL), version)
    with pytest.raises(
        BackendError, match=rf"needs TensorRT 10 and {version} is installed; pip install .*tensorrt>=10"
    ):
        SpeakerIdentifier.load(tiny.path, device="tensorrt")
    assert fake.asked == []


@pytest.mark.parametrize("starts", [[CPU], [CUDA, CPU]])
def test_tensorrt_that_does_not_start_is_an_error_and_no_fallback(
    tiny: TinyModel, starts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FakeOnnxRuntime(ALL, starts=starts), None)
    with pytest.raises(BackendError, match=r"'tensorrt' was asked for.*could not start it.*TensorRT 10 libraries"):
        SpeakerIdentifier.load(tiny.path, device="tensorrt")


def test_tensorrt_that_takes_no_node_is_an_error(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install(monkeypatch, FakeOnnxRuntime(ALL))
    fake.nodes = {CUDA: 15}
    with pytest.raises(BackendError, match="TensorrtExecutionProvider took no part of this model"):
        SpeakerIdentifier.load(tiny.path, device="tensorrt")


def test_an_onnxruntime_without_tensorrt_is_told_so(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeOnnxRuntime([CPU]))
    with pytest.raises(BackendError, match=r"'tensorrt' was asked for, but this onnxruntime has only CPU"):
        SpeakerIdentifier.load(tiny.path, device="tensorrt")


def test_a_cache_that_cannot_be_made_is_an_error(
    tiny: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FakeOnnxRuntime(ALL))
    (tmp_path / "tensorrt").write_text("a file")
    with pytest.raises(BackendError, match="engines cannot be cached there"):
        load_backend(tiny.path, BackendOptions("tensorrt", cache=tmp_path))


def test_a_session_on_tensorrt_needs_the_contract(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, FakeOnnxRuntime(ALL))
    with pytest.raises(BackendError, match="needs the model's contract"):
        start_session(tiny.path, OnnxOptions("tensorrt"))


# --- precision, options -------------------------------------------------------------------------------


def test_another_precision_than_the_models_is_refused(tiny: TinyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    SpeakerIdentifier.load(tiny.path, device="cpu", precision="fp32")
    with pytest.raises(BackendError, match=r"precision fp16 was asked for, the model is fp32; .*or ask for device"):
        SpeakerIdentifier.load(tiny.path, device="cpu", precision="fp16")
    with pytest.raises(BackendError, match=r"precision int8 was asked for, the model is fp32; export it in int8$"):
        SpeakerIdentifier.load(tiny.path, device="cpu", precision="int8")
    fake = install(monkeypatch, FakeOnnxRuntime(ALL))
    explained = SpeakerIdentifier.load(tiny.path, device="tensorrt", precision="fp16").explain()
    assert fake.asked[0][0][1]["trt_fp16_enable"] == "1"
    assert explained.precision == "fp16"


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"device": ""}, {"precision": "fp8"}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="choose one of"):
        BackendOptions(**wrong)


def test_more_than_no_rows_must_run_at_once() -> None:
    with pytest.raises(BackendError, match="max_batch must be at least 1"):
        OnnxOptions("tensorrt", max_batch=0)


def test_a_back_end_of_ones_own_runs_but_cannot_explain(tiny: TinyModel) -> None:
    class Own:
        contract: Contract = tiny.contract

        def run(self, inputs: Any, lengths: Any) -> Answer:
            return Answer(np.zeros((len(inputs), len(LABELS)), np.float32), np.zeros((len(inputs), 8), np.float32))

    identifier = SpeakerIdentifier(Own())
    assert identifier.scores_features(features(9)).shape == (len(LABELS),)
    with pytest.raises(VoxportError, match="Own does not say where it runs"):
        identifier.explain()


# --- for people ---------------------------------------------------------------------------------------


def test_the_printed_explanation_holds_every_fact(tiny: TinyModel) -> None:
    text = str(OnnxModel.load(tiny.path, OnnxOptions(threads=2)).explain())
    names = ["back end", "device", "why", "providers", "threads", "precision", "versions"]
    assert [line[:11].strip() for line in text.splitlines()] == names
    for part in ("ONNX Runtime", "cpu: ", "device 'cpu' was asked for", CPU, "2", "fp32", "onnxruntime "):
        assert f"  {part}" in text


def test_identify_says_what_runs_where(tiny: TinyModel, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", features(20))
    arguments = ["identify", str(tiny.path), str(tmp_path / "one.npy"), "--device", "cpu"]
    report = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)
    assert report["runs_on"]["device"] == "cpu"
    assert report["runs_on"]["providers"] == [CPU]
    assert report["runs_on"]["why"] == "device 'cpu' was asked for"
    result = CliRunner().invoke(cli, [*arguments, "--explain"])
    assert "back end   ONNX Runtime" in result.stderr
    assert "back end" not in result.stdout
    wrong = CliRunner().invoke(cli, [*arguments[:-1], "tensorrt"])
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith("error: device 'tensorrt' was asked for")


@pytest.mark.parametrize("name", ["a\0b.onnx", "a\0b.plan", "a\0b.pt2", "\ud800.onnx", "\ud800.engine"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    for read in (read_contract, load_backend, SpeakerIdentifier.load):
        with pytest.raises(ContractError):
            read(name)
