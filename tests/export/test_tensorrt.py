"""`export tensorrt` against fakes of TensorRT and CUDA, whose engines ask ONNX Runtime and fail on demand."""

import dataclasses
import errno
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.export.conftest import LIMITS, Exported
from tests.export.rtx_matrix import in_int8, stated
from tests.fakes.cuda import FakeCuda, installed
from tests.fakes.trt_builder import BuilderTensorRT
from voxport.export import pipeline as proven
from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import keep_outputs, write_onnx
from voxport.export.quantization.qdq import quantize
from voxport.export.targets.trt import export as to_plan
from voxport.export.targets.trt.export import PlanExport, PlanExportOptions, export_tensorrt, preview_tensorrt
from voxport.export.targets.trt.profiles import BatchRange
from voxport.export.verification.gate import Evidence, Named, gather
from voxport.export.verification.report import ParityError
from voxport.runtime.backends import cuda as cuda_memory
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.trt.file import read_sidecar, sidecar_path
from voxport.runtime.backends.trt.model import PlanModel, PlanOptions
from voxport.runtime.contract import METADATA_KEY, Array
from voxport.runtime.errors import BackendError

EVIDENCE: dict[Any, Evidence] = {}
VERSIONS = ["8.6.1", "10.16.1.11", "11.4.0.106"]


@dataclass(frozen=True)
class World:
    """A machine with TensorRT and a GPU, both fake, and a checkpoint."""

    cuda: FakeCuda
    trt: BuilderTensorRT
    folder: Path
    checkpoint: Path

    @property
    def plan(self) -> Path:
        return self.folder / "out" / "model.plan"

    def export(self, **choices: Any) -> PlanExport:
        return export_tensorrt(self.checkpoint, self.plan, options(**choices))


def options(**choices: Any) -> PlanExportOptions:
    return PlanExportOptions(**{"min_frames": 5, "max_frames": 64, **choices})


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exported: Exported,
    no_capture: Callable[[], None],
) -> Iterator[World]:
    no_capture()
    cuda = FakeCuda()
    trt = BuilderTensorRT(cuda, getattr(request, "param", "10.16.1.11"))
    with installed(monkeypatch, trt, cuda):
        yield World(cuda, trt, tmp_path, exported.checkpoint_path)


@pytest.fixture(autouse=True)
def evidence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate's evidence takes seconds and is the same for all these tests: each kind of it is gathered once."""

    def gathered(source: Named, *choices: Any) -> Evidence:
        if choices not in EVIDENCE:
            EVIDENCE[choices] = gather(source, *choices)
        return EVIDENCE[choices]

    monkeypatch.setattr(proven, "gather", gathered)


@pytest.fixture
def ungated(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what comes before the gate: it must not be reached."""

    def reached(*_: object) -> None:
        raise AssertionError("the gate was reached")

    monkeypatch.setattr(to_plan, "prove_and_name", reached)


every_version = pytest.mark.parametrize("world", VERSIONS, indirect=True)


def save(model: onnx.ModelProto, exported: Exported, path: Path) -> None:
    """Another graph under the contract of `exported`, sealed as voxport's own files are."""
    del model.metadata_props[:]
    write_onnx(path, model, {METADATA_KEY: read_contract(exported.model).to_json()})


def nothing_written(world: World) -> bool:
    return not world.plan.parent.exists() or list(world.plan.parent.iterdir()) == []


# --- whole exports ------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", ["8.6.1", "11.4.0.106"], indirect=True)  # other whole exports here are of 10
def test_a_plan_is_built_proven_and_told_about(world: World) -> None:
    found = world.export(batch=BatchRange(1, 4, 16), buckets=(20, 40))
    assert found.parity.passed
    assert found.parity.precision == "fp16"
    assert found.precision.half_share > 0.8
    with PlanModel.load(world.plan) as model:
        assert model.contract.precision == "fp16"
        assert model.contract.parity is not None
    file = json.loads(sidecar_path(world.plan).read_text())
    assert file["sha256"] == hashlib.sha256(world.plan.read_bytes()).hexdigest()
    assert file["built_with"]["tensorrt"] == world.trt.__version__
    assert file["built_with"]["gpu"] == "Fake GPU (compute capability 9.0)"
    assert [each["features"][2] for each in file["profiles"]] == [[16, 20, 40], [16, 40, 40], [16, 64, 40]]
    assert file["precision_proof"]["half_layers"] == found.precision.half_layers > 0
    assert {each.name for each in world.plan.parent.iterdir()} == {
        "model.plan", "model.plan.json", "model.parity.json", "model.parity.md", "model.parity.png"
    }  # fmt: skip
    assert world.cuda.clean


def test_a_float32_plan_is_built_without_half(world: World) -> None:
    found = world.export(precision="fp32", version_compatible=True)
    assert found.precision.half_layers == 0
    assert read_sidecar(world.plan).contract.precision == "fp32"
    with pytest.raises(BackendError, match="carries native code"):
        PlanModel.load(world.plan)
    PlanModel.load(world.plan, PlanOptions(host_code=True)).close()


def test_a_plan_with_other_answers_does_not_get_its_name(world: World, exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported.model)
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    weight.raw_data = bytes(len(weight.raw_data))
    wrong = tmp_path / "wrong.onnx"
    save(model, exported, wrong)
    engines = tmp_path / "engines"
    with pytest.raises(ParityError, match=r"model\.plan: parity failed"):
        world.export(onnx=wrong, engines=engines)
    assert not world.plan.exists()
    assert not sidecar_path(world.plan).exists()
    assert not engines.exists()
    assert world.cuda.clean


def test_the_engine_cache_is_filled_by_what_was_proven_and_proven_again(world: World, tmp_path: Path) -> None:
    engines = tmp_path / "engines"
    first = world.export(engines=engines)
    plan = world.plan.read_bytes()
    second = world.export(engines=engines, force=True)
    assert (first.cached, second.cached, world.trt.builds) == (False, True, 1)
    assert world.plan.read_bytes() == plan
    assert second.parity.passed
    (kept,) = engines.glob("*.plan")
    assert kept.stem == first.key == second.key
    kept.write_bytes(plan[:-1])
    third = world.export(engines=engines, force=True)
    assert (third.cached, world.trt.builds) == (False, 2)
    assert third.note == f"{kept} is damaged; it was built again"
    assert kept.read_bytes() == world.plan.read_bytes()


# --- what is refused ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("ungated")
@every_version
def test_the_parser_is_quoted_with_node_and_file(world: World) -> None:
    world.trt.fail = {"parse"}
    with pytest.raises(ExportError) as caught:
        world.export()
    text = str(caught.value)
    node = "node 0" if world.trt.major < 10 else "node 0 layers.0/Strange (Strange0)"
    assert text.startswith(f"TensorRT cannot read the graph: no importer for Strange0 [{node}, Import.cpp:100]; ")
    assert text.endswith("Import.cpp:104]; and 2 more")
    assert nothing_written(world)


@pytest.mark.usefixtures("ungated")
@pytest.mark.parametrize(
    "call",
    [
        "Builder", "create_network", "create_builder_config", "create_optimization_profile",
        "build_serialized_network", "deserialize_cuda_engine", "create_engine_inspector", "create_execution_context",
        "set_optimization_profile_async", "set_input_shape", "get_engine_information",
    ],
)  # fmt: skip
def test_each_refusal_of_tensorrt_is_an_error_in_its_own_words(world: World, call: str) -> None:
    world.trt.fail = {call}
    with pytest.raises(BackendError, match=rf"TensorRT: .* failed \(\[core\] {call}: went wrong\)"):
        world.export()
    assert nothing_written(world)
    assert world.cuda.clean


@pytest.mark.usefixtures("ungated")
@pytest.mark.parametrize(
    ("call", "choices", "message"),
    [
        ("add_optimization_profile", {}, r"the profile .* is impossible \(\[core\] add_optimization_profile"),
        ("set_flag", {"version_compatible": True}, "did not take the builder flag VERSION_COMPATIBLE"),
        ("set_memory_pool_limit", {"workspace_mib": 64}, "a workspace of 67108864 bytes was asked for, it takes 1"),
        ("combine", {"timings": Path("combine.timings")}, "to the timings of this build failed"),
        ("serialize", {"timings": Path("serialize.timings")}, "writing out the timings failed"),
    ],
)
def test_settings_that_are_not_taken_are_told(
    world: World, call: str, choices: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.folder)
    Path("combine.timings").write_bytes(b"tactic-7")
    world.trt.fail = {call}
    with pytest.raises((ExportError, BackendError), match=message):
        world.export(**choices)
    assert nothing_written(world)


@pytest.mark.usefixtures("ungated")
@every_version
@pytest.mark.parametrize("untold", [False, True])
def test_half_that_came_out_as_float_is_refused_with_figures(world: World, untold: bool) -> None:
    world.trt.silently_float, world.trt.untold = True, untold
    figures = "0 of 0 matrix products, 0 of 0 layers" if untold else r"0 of [1-9]\d+ matrix products, 0 of \d+ layers"
    with pytest.raises(ExportError, match=rf"asked for in half precision and came out mostly in float: {figures}"):
        world.export(onnx=None)
    assert nothing_written(world)


@pytest.mark.usefixtures("ungated")
@pytest.mark.parametrize("world", ["8.6.1"], indirect=True)
def test_what_a_version_does_not_have_is_told(world: World) -> None:
    with pytest.raises(ExportError, match=r"'same-capability': TensorRT 8\.6\.1 has no SAME_COMPUTE_CAPABILITY"):
        world.export(hardware="same-capability")


@pytest.mark.usefixtures("ungated")
@pytest.mark.parametrize("world", ["8.4.3", "9.3.0", "12.0.0"], indirect=True)
def test_a_tensorrt_that_is_not_known_is_refused(world: World) -> None:
    with pytest.raises(BackendError, match=rf"TensorRT {world.trt.__version__} is not known here, 8.6, 10 and 11 are"):
        world.export()


@pytest.mark.usefixtures("ungated")
@pytest.mark.parametrize(
    ("name", "message"), [("model.onnx", r"name it .*model\.plan"), ("taken.plan", "exists; give another name, or --f")]
)
def test_a_name_that_is_no_plans_or_is_taken_is_refused(world: World, name: str, message: str) -> None:
    (world.folder / "taken.plan").touch()
    for call in (export_tensorrt, preview_tensorrt):
        with pytest.raises(ExportError, match=message):
            call(world.checkpoint, world.folder / name, options())


# --- a given ONNX file --------------------------------------------------------------------------------


@pytest.mark.usefixtures("ungated")
def test_an_onnx_file_of_another_checkpoint_or_kind_is_refused(
    world: World, exported: Exported, exported_sound: Exported, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"was not made from .* hash differs"):
        world.export(onnx=exported_sound.model)
    model = onnx.load(exported.model)
    model.graph.node.append(onnx.helper.make_node("MatMulInteger", ["features", "features"], ["strange"]))
    save(model, exported, tmp_path / "dynamic.onnx")
    with pytest.raises(ExportError, match=r"quantizes while it runs \(MatMulInteger\), which TensorRT cannot"):
        world.export(onnx=tmp_path / "dynamic.onnx")
    small = onnx.load(exported.model)
    save(quantize(small, "dynamic", ["project"]), exported, tmp_path / "per_frame.onnx")
    with pytest.raises(ExportError, match="one scale per frame, which TensorRT does not take"):
        world.export(onnx=tmp_path / "per_frame.onnx")
    with pytest.raises(ExportError, match="int8 needs a calibrated graph"):
        world.export(precision="int8")


@every_version
def test_the_page_states_how_each_version_is_asked_for_each_precision(
    world: World, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/tensorrt.md's cells by what reaches the fake library: flags, a typed graph, or nothing."""

    class BuiltError(Exception):
        pass

    def built(*_: object) -> None:
        raise BuiltError  # what comes after the build is no matter of what it was asked for

    monkeypatch.setattr(to_plan, "inspect_plan", built)
    for scheme in ("static", "dynamic"):
        graph = in_int8(onnx.load(exported.model), scheme)
        contract = read_contract(exported.model).replace(precision="int8")
        del graph.metadata_props[:]
        write_onnx(tmp_path / f"{scheme}.onnx", graph, {METADATA_KEY: contract.to_json()})

    def cell(**choices: Any) -> str:
        builds = world.trt.builds
        with pytest.raises((BuiltError, ExportError)) as ended:
            world.export(**choices)
        assert world.trt.builds == builds + (ended.type is BuiltError)
        if ended.type is ExportError:
            assert "TensorRT does not take" in str(ended.value)
            return "refused by us"
        assert world.trt.config is not None
        return "typed only, by flags" if world.trt.config.flags & {"FP16", "INT8"} else "typed only"

    cells = {
        "fp32": cell(precision="fp32"),
        "fp16": cell(precision="fp16"),
        "int8 static": cell(onnx=tmp_path / "static.onnx"),
        "int8 dynamic": cell(onnx=tmp_path / "dynamic.onnx"),
    }
    name = "8.6" if world.trt.major == 8 else str(world.trt.major)
    assert stated("library")[f"TensorRT {name}"] == cells


def test_a_given_onnx_file_decides_input_precision_and_lengths(world: World, exported: Exported) -> None:
    given = preview_tensorrt(world.checkpoint, world.plan, PlanExportOptions(onnx=exported.model))
    made = preview_tensorrt(
        world.checkpoint,
        world.plan,
        options(precision="fp32", min_frames=LIMITS.min_frames, max_frames=LIMITS.max_frames),
    )
    assert given.settings == made.settings
    assert given.key == made.key


def test_a_given_onnx_file_decides_the_outputs(world: World, exported: Exported, tmp_path: Path) -> None:
    contract, graph = read_contract(exported.model), onnx.load(exported.model)
    del graph.metadata_props[:]
    embedding = OnnxModel.load(exported.model).run(contract.golden.input.values[None], [31]).embedding[0]
    golden = dataclasses.replace(contract.golden, embedding=Array.of(embedding))
    voices = contract.replace(outputs=("embedding",), golden=golden)
    path = tmp_path / "voices.onnx"
    write_onnx(path, keep_outputs(graph, ("embedding",)), {METADATA_KEY: voices.to_json()})
    assert world.export(onnx=path).parity.passed
    with PlanModel.load(world.plan) as plan:
        assert plan.contract.outputs == ("embedding",)


@pytest.mark.usefixtures("ungated")
@pytest.mark.parametrize(("option", "name"), [("timings", "--timing-cache"), ("engines", "--engine-cache")])
def test_a_cache_that_cannot_be_written_is_told_before_the_build(
    world: World, monkeypatch: pytest.MonkeyPatch, option: str, name: str
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ExportError, match=rf"new: cannot be written \(Read-only file system\); .* with {name}"):
        world.export(**{option: world.folder / "new" / "file" if option == "timings" else world.folder / "new"})
    assert world.trt.builds == 0
    assert not (world.folder / "new").exists()


# --- timings ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ungated")
def test_timings_are_read_added_to_and_kept(world: World) -> None:
    path = world.folder / "new" / "trt.timings"
    for builds in (1, 2):
        with pytest.raises(AssertionError, match="the gate was reached"):
            world.export(timings=path)
        assert path.read_bytes() == b"\n".join(b"tactic-%d" % n for n in range(1, builds + 1))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.usefixtures("ungated")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"damaged",
            r"reading the timing cache .* delete it, or name another; failed \(timing cache header mismatch\)",
        ),
        (b"another-gpu", r"using the timing cache .* may be damaged or of another GPU or TensorRT"),
        (None, "the timing cache cannot be read"),
    ],
)
def test_timings_that_cannot_be_used_are_told_and_kept(world: World, content: bytes | None, message: str) -> None:
    path = world.folder / "trt.timings"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises((BackendError, ExportError), match=message):
        world.export(timings=path)
    assert content is None or path.read_bytes() == content
    assert world.trt.builds == 0
    assert nothing_written(world)


# --- interruption, and what is missing ----------------------------------------------------------------


@pytest.mark.usefixtures("ungated")
@pytest.mark.parametrize("progress", [False, True])
def test_ctrl_c_ends_the_build_and_leaves_nothing(world: World, progress: bool) -> None:
    world.trt.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        world.export(progress=progress)
    assert world.trt.builds == 0
    assert nothing_written(world)


def test_a_kill_while_it_is_proven_leaves_what_was_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.plan.parent.mkdir()
    world.plan.write_bytes(b"older")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PlanModel, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        world.export(force=True)
    assert [each.name for each in world.plan.parent.iterdir()] == ["model.plan"]
    assert world.plan.read_bytes() == b"older"
    assert world.cuda.clean


@pytest.mark.parametrize("missing", [("tensorrt",), ("cuda",), ("tensorrt", "cuda")])
def test_what_is_missing_is_named_at_once_and_a_dry_run_goes_on(
    world: World, missing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = preview_tensorrt(world.checkpoint, world.plan, options())
    names = {"tensorrt": ("tensorrt",), "cuda": ("cuda", "cuda.bindings.runtime", "cuda.cudart")}
    for package in missing:
        for name in names[package]:
            monkeypatch.setitem(sys.modules, name, None)
    cuda_memory.cuda_module.cache_clear()
    with pytest.raises(BackendError) as caught:
        world.export()
    for package, said in (("tensorrt", "tensorrt is not installed"), ("cuda", "needs the package cuda-python")):
        assert (said in str(caught.value)) == (package in missing)
    assert 'pip install "voxport[tensorrt]"' in str(caught.value)
    found = preview_tensorrt(world.checkpoint, world.plan, options())
    assert found.machine is None
    assert len(found.missing) == len(missing)
    assert found.settings == whole.settings
    assert found.key.rpartition("-")[0] == whole.key.rpartition("-")[0]
    assert found.key.endswith("-?")
    assert nothing_written(world)
