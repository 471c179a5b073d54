"""The parity gate on ONNX models in OpenVINO: in the file's precision, and in bfloat16 by its own tolerance."""

import json
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from tests.export.conftest import Exported
from tests.export.tiny import OPTIONS, make_checkpoint
from voxport.cli.root import cli
from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import to_bytes
from voxport.export.network.inference_net import deployable_net
from voxport.export.network.layers import AttentionForm
from voxport.export.targets.onnx_graph import ExportOptions, capture
from voxport.export.verification.check import CheckOptions, check
from voxport.runtime import BackendOptions, SpeakerIdentifier, read_contract
from voxport.runtime.privacy import import_openvino

try:
    import_openvino()
except (ImportError, OSError) as problem:
    pytest.skip(f"openvino cannot be imported: {problem}", allow_module_level=True)

from voxport.runtime.backends.ov.session import Engine, OpenVinoOptions

_CPUINFO = Path("/proc/cpuinfo")
CPU_FLAGS = _CPUINFO.read_text(encoding="utf-8") if _CPUINFO.is_file() else ""
BF16 = BackendOptions("cpu", 1, "bf16", runtime="openvino")
needs_bf16 = pytest.mark.skipif(
    "BF16" not in Engine(OpenVinoOptions()).capabilities, reason="this processor does not compute in bfloat16"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXPORT_CACHE", str(tmp_path / "cache"))


def test_float32_passes_by_float32s_tolerance(exported: Exported) -> None:
    command = ["export", "check", str(exported.model), str(exported.checkpoint_path), "--json", "--no-progress"]
    done = CliRunner().invoke(cli, [*command, "--runtime", "openvino"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["tolerance"]["score"] == exported.report.tolerance.score
    (ran,) = [each["detail"] for each in report["checks"] if each["name"] == "run by"]
    assert ran.startswith("OpenVINO in fp32, openvino 20")


@pytest.mark.skipif(" avx2 " not in CPU_FLAGS, reason="OpenVINO fuses attention on processors with AVX2")
@pytest.mark.parametrize("attention", get_args(AttentionForm))
def test_each_attention_is_one_node_of_openvino(attention: AttentionForm) -> None:
    """Product, softmax, product and what changes their layout; nothing as large as frames by frames goes to memory.
    Where heads stand apart, each of them is one node.
    """
    options = ExportOptions()
    graph = capture(deployable_net(make_checkpoint(), attention).float(), make_checkpoint(), options)
    library = import_openvino()
    core = library.Core()
    compiled = core.compile_model(core.read_model(to_bytes(graph), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    made_of = [
        set(node.get_rt_info()["originalLayersNames"].astype(str).split(","))
        for node in compiled.get_runtime_model().get_ordered_ops()
        if "originalLayersNames" in node.get_rt_info()
    ]
    fused: list[tuple[str, ...]] = [("MatMul", "Softmax", "MatMul_1", "Transpose_3")]
    if attention == "by_head":
        assert OPTIONS.num_heads == 2
        fused = [("MatMul", "Softmax", "MatMul_1"), ("MatMul_2", "Softmax_1", "MatMul_3")]
    for layer in range(OPTIONS.num_layers):
        for nodes in fused:
            names = {f"layers.{layer}.attention/{node}" for node in nodes}
            assert [names <= each for each in made_of if names & each] == [True]


@needs_bf16
def test_bfloat16_passes_by_its_own_and_not_by_float32s(exported_sound: Exported) -> None:
    report = check(exported_sound.model, exported_sound.checkpoint_path, CheckOptions(runs=BF16))
    assert report.passed, report.failures
    assert report.agreement is not None
    assert exported_sound.report.tolerance.score < report.agreement.max_abs_score < report.tolerance.score
    assert "rounding all products to bf16" in report.tolerance.reason
    golden = read_contract(exported_sound.model).golden
    assert golden.tolerance_bf16 is not None
    assert golden.tolerance_fp16 is not None
    assert golden.tolerance <= golden.tolerance_fp16 < golden.tolerance_bf16 <= 2 * report.tolerance.score
    told = SpeakerIdentifier.load(exported_sound.model, runtime="openvino", precision="bf16").explain()
    assert "the frontend is computed in float32" in told.notes


def test_what_cannot_be_asked_is_said(exported: Exported) -> None:
    command = ["export", "check", str(exported.model), str(exported.checkpoint_path)]
    refused = CliRunner().invoke(cli, [*command, "--precision", "bf16"])
    assert "bf16 is computed by OpenVINO alone" in refused.output
    pair = CliRunner().invoke(cli, ["export", "check", *[str(exported.model)] * 2, "--runtime", "openvino"])
    assert "needs the checkpoint, as A or B" in pair.output
    with pytest.raises(ExportError, match="runs needs the checkpoint"):
        check(exported.model, exported.model, CheckOptions(runs=BF16))
