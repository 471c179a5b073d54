"""RTX engines, against fakes of TensorRT for RTX and CUDA that compute in NumPy and fail on demand."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.cuda import FakeCuda, installed
from tests.fakes.rtx import START, CudaGraphStrategy, Diagnostics, FakeRtx, Kernels, Validity, shapes_of
from tests.fakes.trt import Shape, make_plan
from tests.runtime.tiny_models import FRONTEND, TinyModel, features
from tests.runtime.tiny_models import check_rows as check_answers
from voxport.runtime import BackendOptions, load_backend, read_contract
from voxport.runtime.backends.formats import format_of
from voxport.runtime.backends.rtx.library import PORTABLE
from voxport.runtime.backends.rtx.model import BUILT_FOR, RtxModel, RtxOptions
from voxport.runtime.backends.trt.file import write_sidecar
from voxport.runtime.errors import BackendError, ContractError
from voxport.runtime.inspection import inspect_model

N = FRONTEND.n_mels
PROFILES: list[tuple[Shape, Shape]] = [((1, 5, N), (4, 60, N)), ((1, 5, N), (8, 20, N))]


@dataclass(frozen=True)
class World:
    """A machine with TensorRT for RTX and an RTX GPU, both fake."""

    cuda: FakeCuda
    trt: FakeRtx
    folder: Path

    def engine(self, tiny: TinyModel, built_for: str = PORTABLE) -> Path:
        path = self.folder / "model.rtx"
        path.write_bytes(START + make_plan("features", tiny.project, tiny.classes, PROFILES))
        write_sidecar(path, tiny.contract, {"tensorrt_rtx": "1.7.1.116", BUILT_FOR: built_for})
        return path

    def load(self, tiny: TinyModel, verify: bool = True, **options: Any) -> RtxModel:
        return RtxModel.load(self.engine(tiny), RtxOptions(cache=self.folder / "cache", **options), verify=verify)

    @property
    def kept(self) -> list[Path]:
        return sorted((self.folder / "cache" / "rtx").glob("*"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    cuda = FakeCuda()
    cuda.capability = (8, 9)
    trt = FakeRtx(cuda)
    with installed(monkeypatch, trt, cuda):
        yield World(cuda, trt, tmp_path)


def check_rows(model: RtxModel, tiny: TinyModel, lengths: list[int]) -> None:
    check_answers(model, tiny, features(lengths, seed=sum(lengths)))


@pytest.mark.parametrize("graphs", [True, False])
def test_batches_are_answered_as_numpy_answers_them(world: World, tiny: TinyModel, graphs: bool) -> None:
    """More rows than a profile holds, and shapes that come again. Only the library records graphs."""
    with world.load(tiny, graphs=graphs) as model:
        for lengths in ([5], [60], [17, 20, 9], [5] * 11, [60, 7, 33, 20, 19], [5], [60]):
            check_rows(model, tiny, lengths)
    wanted = CudaGraphStrategy.WHOLE_GRAPH_CAPTURE if graphs else CudaGraphStrategy.DISABLED
    assert {config.cuda_graph_strategy for config in world.trt.configs} == {wanted}
    assert not any("Capture" in call for call in world.cuda.calls)
    assert world.cuda.clean


def test_with_graphs_similar_lengths_become_one_shape_and_without_they_do_not(world: World, tiny: TinyModel) -> None:
    seen = []
    for graphs in (True, False):
        model = world.load(tiny, verify=False, graphs=graphs)
        check_rows(model, tiny, [41])
        check_rows(model, tiny, [44])
        seen.append(len(world.trt.caches[-1].shapes))
    assert seen == [1, 2]


@pytest.mark.parametrize("kernels", ["lazy", "eager", "none"])
def test_the_library_is_told_when_to_compile(world: World, tiny: TinyModel, kernels: Any) -> None:
    model = world.load(tiny, kernels=kernels)
    assert {each.dynamic_shapes_kernel_specialization_strategy for each in world.trt.configs} == {
        Kernels[kernels.upper()]
    }
    assert f"kernels of a shape: {kernels}" in str(model.explain())


def test_compiled_kernels_are_kept_at_loading_and_closing_and_found_again(world: World, tiny: TinyModel) -> None:
    with world.load(tiny) as model:
        (path,) = world.kept
        first = shapes_of(path.read_bytes())
        assert len(first) == 1  # of the golden vector
        check_rows(model, tiny, [60])
    second = shapes_of(path.read_bytes())
    assert second > first
    before = path.stat().st_mtime_ns
    model = world.load(tiny)
    assert world.trt.caches[-1].shapes == second
    model.close()
    assert path.stat().st_mtime_ns == before  # nothing new
    assert world.kept == [path]


def test_each_engine_gpu_driver_and_version_has_kernels_of_its_own(
    world: World, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.load(tiny).close()
    world.cuda.capability = (12, 0)
    world.load(tiny).close()
    world.cuda.capability = (8, 9)
    monkeypatch.setattr(world.trt, "__version__", "1.8.0.1")
    world.load(tiny).close()
    monkeypatch.setattr(FakeCuda, "_cudaDriverGetVersion", lambda _: 13020)
    world.load(tiny).close()
    assert len(world.kept) == 4
    assert len({path.name.partition("-")[0] for path in world.kept}) == 1  # one engine


def test_kernels_that_the_library_refuses_are_compiled_anew_and_that_is_said(world: World, tiny: TinyModel) -> None:
    world.load(tiny).close()
    world.trt.machine = "another"
    model = world.load(tiny)
    assert "did not fit, and are compiled anew" in str(model.explain())
    model.close()
    assert world.kept[0].read_bytes().startswith(b"another")


def test_kernels_that_cannot_be_kept_stop_loading_and_not_closing(world: World, tiny: TinyModel) -> None:
    (world.folder / "cache").write_bytes(b"a file")
    with pytest.raises(BackendError, match=r"cache.rtx: compiled kernels cannot be kept there .*VOXPORT_CACHE"):
        world.load(tiny)
    (world.folder / "cache").unlink()
    model = world.load(tiny, verify=False)
    (world.folder / "cache" / "rtx").rmdir()
    with pytest.warns(RuntimeWarning, match="compiled kernels cannot be kept"):
        model.close()
    assert world.cuda.clean
    with pytest.raises(BackendError, match="closed"):
        model.keep_kernels()


@pytest.mark.parametrize(
    ("capability", "built_for", "said"),
    [
        ((9, 0), PORTABLE, "does not take this GPU, Fake GPU .compute capability 9.0.*export tensorrt.*device 'cuda'"),
        ((10, 0), PORTABLE, "does not take this GPU"),
        ((8, 7), PORTABLE, "does not take this GPU"),
        ((7, 5), PORTABLE, "is for compute capability 8.0 and newer, .*7.5.; .*--compute-capability 7.5"),
        ((12, 0), "8.6, 8.9", "is for compute capability 8.6, 8.9, .*--compute-capability 12.0"),
    ],
)
def test_a_gpu_that_is_not_taken_is_named_with_a_way_out(
    world: World, tiny: TinyModel, capability: tuple[int, int], built_for: str, said: str
) -> None:
    world.cuda.capability = capability
    with pytest.raises(BackendError, match=rf"model\.rtx: .*{said}"):
        RtxModel.load(world.engine(tiny, built_for))
    assert world.cuda.clean


@pytest.mark.parametrize(
    ("capability", "built_for"), [((8, 0), PORTABLE), ((12, 1), PORTABLE), ((13, 0), PORTABLE), ((7, 5), "7.5, 8.9")]
)
def test_gpus_that_are_taken(
    world: World, tiny: TinyModel, capability: tuple[int, int], built_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOXPORT_CACHE", str(world.folder / "cache"))
    world.cuda.capability = capability
    RtxModel.load(world.engine(tiny, built_for)).close()


def test_a_machine_without_a_driver_is_told_so_in_one_sentence(world: World, tiny: TinyModel) -> None:
    world.cuda.fail["cudaGetDeviceProperties"] = 1
    with pytest.raises(
        BackendError, match="runs on an NVIDIA GPU, and this machine has none that CUDA can use"
    ) as told:
        world.load(tiny)
    assert "\n" not in str(told.value)
    assert world.cuda.clean


@pytest.mark.parametrize("module", ["tensorrt_rtx", "cuda"])
def test_what_is_missing_is_named_with_its_pip_command(
    world: World, tiny: TinyModel, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = ("cuda.bindings.runtime", "cuda.cudart") if module == "cuda" else (module,)
    for name in gone:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r'pip install "voxport\[rtx\]"'):
        world.load(tiny)


def test_the_library_s_reasons_for_an_engine_that_is_not_valid_are_put_into_words(
    world: World, tiny: TinyModel
) -> None:
    world.trt.validity = Validity.INVALID, Diagnostics.VERSION_MISMATCH | Diagnostics.OLD_CUDA_DRIVER
    with pytest.raises(BackendError, match=r"another version of TensorRT for RTX; the NVIDIA driver is too old"):
        world.load(tiny)
    world.trt.validity = Validity.INVALID, 0  # as it says without a driver: then loading says more
    world.load(tiny).close()
    world.trt.validity = Validity.SUBOPTIMAL, 0
    assert "may be slower here" in str(world.load(tiny).explain())


CALLS = (
    *("Runtime", "deserialize_cuda_engine", "create_runtime_config", "create_runtime_cache", "set_runtime_cache"),
    *("create_execution_context", "set_input_shape", "execute_async_v3", "serialize"),
)


@pytest.mark.parametrize("call", CALLS)
def test_each_refusal_is_an_error_in_the_library_s_words(world: World, tiny: TinyModel, call: str) -> None:
    world.trt.fail.add(call)
    with pytest.raises(BackendError, match=f"TensorRT for RTX: .* failed .*{call}"):
        world.load(tiny)


def test_a_setting_that_the_library_does_not_take_is_told(world: World, tiny: TinyModel) -> None:
    world.trt.fail.add("cuda_graph_strategy")
    with pytest.raises(BackendError, match="CUDA graphs were set to WHOLE_GRAPH_CAPTURE and are not"):
        world.load(tiny)
    assert world.cuda.clean


def test_an_engine_without_its_contract_or_damaged_never_reaches_the_library(world: World, tiny: TinyModel) -> None:
    path = world.engine(tiny)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ContractError, match="SHA-256"):
        RtxModel.load(path)
    (world.folder / "model.rtx.json").unlink()
    with pytest.raises(ContractError, match="keep both files together"):
        RtxModel.load(path)
    assert world.trt.calls == []


def test_the_table_of_formats_knows_an_engine_by_its_name_and_by_its_first_bytes(
    world: World, tiny: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.engine(tiny)
    options = BackendOptions(device="rtx", kernels="eager", graphs=0, cache=world.folder / "cache")
    model = load_backend(path, options)
    assert isinstance(model, RtxModel)
    told = str(model.explain())
    assert "kernels of a shape: eager" in told
    assert "no CUDA graphs" in told
    with pytest.raises(BackendError, match="an RTX engine cannot run on device 'cpu'; ask for 'rtx' or 'auto'"):
        load_backend(path, BackendOptions(device="cpu"))
    with pytest.raises(BackendError, match="precision fp16 was asked for, the engine is fp32"):
        load_backend(path, BackendOptions(precision="fp16", cache=world.folder / "cache"))
    found = inspect_model(path, verify=False)
    assert ("parity passed by", "the engine, on a GPU") in found.file.rows
    write_sidecar(path, tiny.contract, {"tensorrt_rtx": "1.7"}, proof="source")
    assert "the engine was not run" in dict(inspect_model(path, verify=False).file.rows)["parity passed by"]
    other = world.folder / "engine.bin"
    other.write_bytes(b"vtrt" + bytes(60))
    write_sidecar(other, tiny.contract, {})
    assert format_of(other).name == "rtx"
    assert read_contract(other) == tiny.contract


@pytest.mark.parametrize("wrong", [{"gpu": -1}, {"kernels": "sometimes"}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BackendError):
        RtxOptions(**wrong)
