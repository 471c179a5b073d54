"""`export tensorrt --for rtx`, built by NVIDIA's own library without a GPU; what needs a GPU is a fake."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from tests.export.conftest import Exported
from voxport.cli.root import cli
from voxport.export import pipeline as proven
from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import write_onnx
from voxport.export.graph.fp16 import PRODUCTS
from voxport.export.quantization.qdq import matrix_products, quantize
from voxport.export.targets.rtx import export as to_rtx
from voxport.export.targets.rtx.export import RtxExport, RtxExportOptions, export_rtx, preview_rtx
from voxport.export.targets.trt.profiles import BatchRange
from voxport.export.targets.trt.source import engine_source
from voxport.export.verification.gate import Evidence, Named, gather
from voxport.export.verification.report import ParityError
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.model import OnnxModel
from voxport.runtime.backends.rtx.model import RtxOptions
from voxport.runtime.backends.trt.file import read_plan, read_sidecar
from voxport.runtime.contract import METADATA_KEY
from voxport.runtime.errors import BackendError, ContractError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "voxport[rtx]"',
)
EVIDENCE: dict[Any, Evidence] = {}
LENGTHS = {"min_frames": 5, "max_frames": 64}


@pytest.fixture(autouse=True)
def evidence_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate's evidence takes seconds and is the same for all these tests: each kind of it is gathered once."""

    def gathered(source: Named, *choices: Any) -> Evidence:
        if choices not in EVIDENCE:
            EVIDENCE[choices] = gather(source, *choices)
        return EVIDENCE[choices]

    monkeypatch.setattr(proven, "gather", gathered)


@pytest.fixture
def export(exported: Exported, tmp_path: Path, no_capture: Callable[[], None]) -> Callable[..., RtxExport]:
    no_capture()

    def run(**choices: Any) -> RtxExport:
        return export_rtx(
            exported.checkpoint_path, tmp_path / "out" / "model.rtx", RtxExportOptions(**LENGTHS | choices)
        )

    return run


@pytest.fixture
def quantized(exported: Exported, tmp_path: Path) -> Path:
    """A static int8 file of the same checkpoint, with made-up scales: only its types matter here."""
    model = onnx.load(exported.model)
    contract = read_contract(exported.model).replace(precision="int8")
    del model.metadata_props[:]
    products = matrix_products(model.graph)
    made = quantize(model, "static", [each.layer for each in products], {each.input: 6.0 for each in products})
    path = tmp_path / "int8.onnx"
    write_onnx(path, made, {METADATA_KEY: contract.to_json()})
    return path


def left(tmp_path: Path) -> list[str]:
    return sorted(each.name for each in (tmp_path / "out").glob("*"))


def test_an_engine_is_built_without_a_gpu_and_says_what_was_proven(
    export: Callable[..., RtxExport], exported: Exported, tmp_path: Path
) -> None:
    found = export(batch=BatchRange(1, 2, 4), buckets=(20,), capabilities=("8.9", "12.0"), workspace_mib=256)
    path = tmp_path / "out" / "model.rtx"
    file = read_sidecar(path)
    assert read_plan(path, file)[:4] == b"vtrt"
    assert len(read_plan(path, file)) == found.engine_bytes
    assert left(tmp_path) == ["model.parity.json", "model.parity.md", "model.parity.png", "model.rtx", "model.rtx.json"]
    assert found.parity.passed
    assert (found.proof, file.proof) == ("source", "source")
    assert "this machine has none that CUDA can use" in found.why
    assert dict(file.built_with) == {"tensorrt_rtx": found.version, "compute capability": "8.9, 12.0"}
    assert file.contract.labels == exported.checkpoint.labels
    assert file.contract.precision == "fp16"
    assert file.contract.parity is not None
    beside = json.loads((tmp_path / "out" / "model.rtx.json").read_text())
    assert [each["features"] for each in beside["profiles"]] == [
        [[1, 5, 40], [2, 20, 40], [4, 20, 40]],
        [[1, 21, 40], [2, 64, 40], [4, 64, 40]],
    ]
    products = [node for node in onnx.load(exported.model).graph.node if node.op_type in PRODUCTS]
    assert sum(found.counts().values()) == len(products)
    assert found.counts()["half"] > 0.5 * len(products)


def test_without_capabilities_it_is_for_ampere_and_newer_and_in_float_where_that_is_asked_for(
    export: Callable[..., RtxExport], tmp_path: Path
) -> None:
    found = export(precision="fp32")
    assert found.built_for == "8.0 and newer"
    assert set(found.counts()) == {"float"}
    with pytest.raises(ExportError, match="exists; give another name, or --force"):
        export(precision="fp32")


def test_wrong_answers_are_no_engine(
    export: Callable[..., RtxExport], exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = onnx.load(exported.model)
    del wrong.metadata_props[:]
    weight = max(wrong.graph.initializer, key=lambda each: len(each.raw_data))
    weight.raw_data = bytes(len(weight.raw_data))
    monkeypatch.setattr("voxport.export.targets.onnx_graph.capture", lambda *_: wrong)
    with pytest.raises(ParityError):
        export(precision="fp32")
    assert left(tmp_path) == ["model.parity.json", "model.parity.md", "model.parity.png"]


def test_an_engine_that_runs_here_is_proven_itself(
    export: Callable[..., RtxExport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is a fake: its engine asks ONNX Runtime, and cannot be closed twice."""
    loads: list[bool] = []

    class Model(OnnxModel):
        @classmethod
        def load(cls, path: Any, options: Any = None, *, verify: bool = True) -> Any:
            assert Path(path).read_bytes().startswith(b"vtrt")
            assert isinstance(options, RtxOptions)
            assert options.cache is not None
            loads.append(verify)
            kept = next(iter(graphs))
            write_onnx(tmp_path / "asked.onnx", kept, {METADATA_KEY: read_sidecar(path).contract.to_json()})
            return cls._of(tmp_path / "asked.onnx", verify)

        @classmethod
        def _of(cls, path: Path, verify: bool) -> Any:
            return super().load(path, verify=verify)

        def close(self) -> None:
            loads.append(False)

    graphs: list[onnx.ModelProto] = []

    def source(*given: Any) -> Any:
        found = engine_source(*given)
        graphs.append(found.model)
        return found

    monkeypatch.setattr(to_rtx, "engine_source", source)
    monkeypatch.setattr(to_rtx, "check_gpu", lambda built_for: None)
    monkeypatch.setattr(to_rtx, "RtxModel", Model)
    found = export(precision="fp32")
    assert (found.proof, found.why) == ("engine", "")
    assert read_sidecar(tmp_path / "out" / "model.rtx").proof == "engine"
    assert loads == [False, False, True, False]  # loaded and closed for the gate, then for the last look


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (
            {"capabilities": ("9.0",)},
            r"compute capability 9\.0: this TensorRT for RTX builds for 7\.5, .*12\.1; choose",
        ),
        ({"capabilities": ("8.9", "nine")}, "compute capability nine: this TensorRT for RTX builds for"),
        ({"capabilities": ("8.9", "8.9")}, "compute capabilities 8.9, 8.9: one is given twice"),
        (
            {"capabilities": ("7.5", "8.9")},
            "^for compute capability 7.5 TensorRT has no float32 matrix products.*8.9, 12.*or leave out --compute",
        ),
        ({"precision": "int8"}, "int8 needs a calibrated graph"),
        ({"workspace_mib": 0}, "must be at least 1"),
        ({"buckets": (40, 20)}, "they must rise"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(
    export: Callable[..., RtxExport], tmp_path: Path, choices: dict[str, Any], said: str
) -> None:
    with pytest.raises((ExportError, BackendError), match=said):
        export(**choices)
    assert left(tmp_path) == []


def test_an_int8_file_becomes_an_engine_and_bad_files_do_not(
    export: Callable[..., RtxExport],
    exported: Exported,
    quantized: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its scales are made up, so the gate, which is told of elsewhere, is left out."""
    built: list[bytes] = []
    original = to_rtx._target

    def target(engine: bytes, *rest: Any) -> Any:
        built.append(engine)
        return original(engine, *rest)

    monkeypatch.setattr(to_rtx, "_target", target)
    with pytest.raises(ParityError):
        export(onnx=quantized)
    assert built[0].startswith(b"vtrt")

    def refused(path: Path, said: str, kind: type[Exception] = ExportError) -> None:
        with pytest.raises(kind, match=said) as told:
            export(onnx=path)
        assert "\n" not in str(told.value)

    (tmp_path / "text.onnx").write_bytes(b"hello world" * 9)
    refused(tmp_path / "text.onnx", "not a whole ONNX file", ContractError)
    refused(tmp_path / "gone.onnx", "cannot be read", ContractError)
    damaged = bytearray(exported.model.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(damaged)
    refused(tmp_path / "damaged.onnx", "is damaged or was changed", ContractError)

    contract = read_contract(exported.model)
    model = onnx.load(exported.model)
    del model.metadata_props[:]
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="gone.bin")
    write_onnx(tmp_path / "external.onnx", model, {METADATA_KEY: contract.to_json()})
    refused(tmp_path / "external.onnx", "its external data gone.bin is missing")

    model = onnx.load(exported.model)
    del model.metadata_props[:]
    last = next(each for each in model.graph.node if "scores" in each.output)
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Strange", ["before"], ["scores"], name="odd", domain="com.example"))
    model.opset_import.add(domain="com.example", version=1)
    write_onnx(tmp_path / "custom.onnx", model, {METADATA_KEY: contract.to_json()})
    refused(
        tmp_path / "custom.onnx",
        r"custom\.onnx: TensorRT for RTX cannot read the graph: odd \(Strange\): Plugin not found.*ONNX's own",
    )

    model = quantize(onnx.load(exported.model), "dynamic", ["project"])
    del model.metadata_props[:]
    write_onnx(tmp_path / "dynamic.onnx", model, {METADATA_KEY: contract.replace(precision="int8").to_json()})
    refused(tmp_path / "dynamic.onnx", "unsigned activations.*--quantize static")
    assert [name for name in left(tmp_path) if ".parity." not in name] == []


def test_a_network_in_another_precision_than_was_asked_for_is_refused(
    export: Callable[..., RtxExport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxport.export.targets.onnx_graph.to_half", lambda graph: graph)
    with pytest.raises(
        ExportError, match=r"half precision was asked for, and of the network's products are .* in float"
    ):
        export()
    assert left(tmp_path) == []


# --- as a user types it ---------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", "tensorrt", *map(str, arguments)])


LENGTH_OPTIONS = ("--min-frames", "5", "--max-frames", "64")


def test_the_command_says_what_was_proven_and_a_dry_run_what_would_be_built(
    exported: Exported, tmp_path: Path, no_capture: Callable[[], None]
) -> None:
    no_capture()
    asked = (exported.checkpoint_path, "-o", tmp_path / "out" / "model.rtx", "--for", "rtx", *LENGTH_OPTIONS)
    shown = run(*asked, "--dry-run", "--compute-capability", "8.6", "--compute-capability", "8.9")
    assert shown.exit_code == 0, shown.output
    assert "compute capability 8.6, 8.9" in shown.stdout
    assert json.loads(run(*asked, "--dry-run", "--json").stdout)["built_for"] == "8.0 and newer"
    assert left(tmp_path) == []
    done = run(*asked)
    assert done.exit_code == 0, done.output
    for text in ("of the ONNX graph that it was built from; the engine itself was not run", "13 in half, 3 in float"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--onnx", "text.onnx"), "text.onnx: not a whole ONNX file"),
        (("--onnx", "gone.onnx"), "gone.onnx: cannot be read"),
        (("--compute-capability", "9.0"), "compute capability 9.0: this TensorRT for RTX builds for 7.5, "),
    ],
)
def test_bad_input_is_one_clear_sentence(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "text.onnx").write_bytes(b"hello world" * 9)
    monkeypatch.chdir(tmp_path)
    for asked in ((), ("--json",), ("--dry-run",)):
        result = run(exported.checkpoint_path, "-o", "out/model.rtx", "--for", "rtx", *more, *asked)
        assert (result.exit_code, result.stdout) == (1, "")
        assert complaint in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--for", "rtx", "--version-compatible"), "--for rtx: --version-compatible has no meaning there"),
        (("--for", "rtx", "--hardware-compatible", "ampere"), "--hardware-compatible has no meaning there"),
        (("--for", "rtx", "--timing-cache", "t"), "--timing-cache has no meaning there"),
        (("--for", "rtx", "--engine-cache", "e"), "--engine-cache has no meaning there"),
        (("--compute-capability", "8.9"), "--compute-capability: a plan is for the GPU that builds it"),
        (("--for", "cpu"), "'cpu' is not one of 'tensorrt', 'rtx'"),
    ],
)
def test_options_without_a_meaning_are_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = run("model.pt", "-o", tmp_path / "model.rtx", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_plan_s_name_and_a_missing_extra_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("model.pt", "-o", tmp_path / "model.plan", "--for", "rtx")
    assert (result.exit_code, "an RTX engine is told by its suffix; name it" in result.stderr) == (1, True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorrt_rtx" else found(name))
    for more in ((), ("--dry-run",), ("--json",)):
        result = run("model.pt", "-o", tmp_path / "model.rtx", "--for", "rtx", *more)
        assert (result.stdout, len(result.stderr.splitlines())) == ("", 1)
        assert (result.exit_code, 'pip install "voxport[rtx]"' in result.stderr) == (1, True)
    with pytest.raises(BackendError, match="not installed"):
        preview_rtx("model.pt", tmp_path / "model.rtx")
