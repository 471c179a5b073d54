"""The search for the first part that parts: it names the spoilt one, and nobody where nothing is spoilt."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from tests.export.conftest import Exported
from tests.export.test_artefact import no_convolution_mask
from tests.export.tiny import OPTIONS, make_checkpoint, write_checkpoint
from voxport.cli.root import cli
from voxport.export.errors import ExportError
from voxport.export.inputs.cases import LengthLimits
from voxport.export.inputs.corpus_samples import RealOptions
from voxport.export.network.inference_net import deployable_net
from voxport.export.targets.onnx_graph import ExportOptions, build_graph
from voxport.export.verification.activations import candidates
from voxport.export.verification.bisection import bisect_onnx
from voxport.export.verification.bisection_report import Bisection, bisection_section
from voxport.export.verification.check import CheckOptions, check
from voxport.export.verification.gate import Evidence, Named, gather
from voxport.runtime.contract import OUTPUTS, InputKind, Precision
from voxport.train.checkpoint import checkpoint_sha256
from voxport.train.recipe import ModelOptions

SHORT = LengthLimits(5, 60)


def spoil(model: onnx.ModelProto, weight: str) -> onnx.ModelProto:
    """`model` with one number of one weight changed by half of its largest."""
    tensor = next(each for each in model.graph.initializer if each.name == weight)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[values.size // 2] += np.abs(values).max() / 2
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, weight))
    return model


def written(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@dataclasses.dataclass(frozen=True)
class Deep:
    """A graph of two layers, and the gate's inputs with the eager answers."""

    graph: onnx.ModelProto
    evidence: Evidence


def deep(
    folder: Path, options: ModelOptions = OPTIONS, kind: InputKind = "features", precision: Precision = "fp32"
) -> Deep:
    checkpoint = make_checkpoint(options, "homework_mel40" if kind == "features" else "psf_fbank40")
    path = write_checkpoint(folder / "deep.pt", checkpoint)
    evidence = gather(Named(checkpoint, str(path), checkpoint_sha256(path)), kind, SHORT, precision, RealOptions())
    export = ExportOptions(input_kind=kind, precision=precision, min_frames=5, max_frames=60)
    return Deep(build_graph(checkpoint, export, "deep").graph, evidence)


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Deep:
    return deep(tmp_path_factory.mktemp("deep"))


def search(subject: Deep, folder: Path, change: Callable[[onnx.ModelProto], object] | None = None) -> Bisection:
    graph = onnx.ModelProto()
    graph.CopyFrom(subject.graph)
    if change is not None:
        change(graph)
    return bisect_onnx(written(folder / "graph.onnx", graph), subject.evidence, ())


def test_healthy_graph_parts_nowhere(two_layers: Deep, tmp_path: Path) -> None:
    found = search(two_layers, tmp_path)
    assert found.first is None
    assert found.verdict == "no part is further off than rounding explains"
    assert found.unmatched == ()
    network = deployable_net(two_layers.evidence.checkpoint)
    names = {name for name, part in network.named_modules() if name and name != "layers"}
    assert {part.name for part in found.parts} == {*names, *OUTPUTS}  # every part of the network was compared
    assert all(0 < part.noise < part.bound < 1e-3 for part in found.parts)


@pytest.mark.parametrize(
    "part",
    [
        "project",
        "layers.0.feed_forward_1.expand",
        "layers.0.attention.qkv",
        "layers.1.attention.out",
        "layers.1.convolution.gate",
        "layers.1.feed_forward_2.contract",
    ],
)
def test_spoilt_weight_is_named(two_layers: Deep, tmp_path: Path, part: str) -> None:
    found = search(two_layers, tmp_path, lambda graph: spoil(graph, f"{part}.weight"))
    assert found.first == part
    assert part in found.verdict
    order = [each.name for each in found.parts]
    before = found.parts[: order.index(part)]
    assert not any(each.parts for each in before)
    growth = found.parts[order.index(part)].growth
    assert growth is None or growth > 10  # the first part has none before it


def test_spoilt_head_is_told_from_the_layers(two_layers: Deep, tmp_path: Path) -> None:
    found = search(two_layers, tmp_path, lambda graph: spoil(graph, "class_weight_ES"))
    assert found.first == "scores"
    assert next(part for part in found.parts if part.name == "embedding").difference < 1e-5


def test_missing_mask_is_named_with_its_padding(two_layers: Deep, tmp_path: Path) -> None:
    found = search(two_layers, tmp_path, no_convolution_mask)
    assert found.first == "layers.0.convolution.out"
    first = next(part for part in found.parts if part.name == found.first)
    assert "padded with NaN" in first.worst


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions(tmp_path: Path, precision: Precision) -> None:
    subject = deep(tmp_path, precision=precision)
    found = search(subject, tmp_path)
    assert found.first is None, found.verdict
    assert found.unmatched == ()
    wrong = search(subject, tmp_path, lambda graph: spoil(graph, "layers.0.final_norm.gain_D"))
    assert wrong.first == "layers.0.final_norm"


def test_waveform(tmp_path: Path) -> None:
    subject = deep(tmp_path, dataclasses.replace(OPTIONS, num_layers=1), "waveform")
    assert search(subject, tmp_path).first is None
    wrong = search(subject, tmp_path, lambda graph: spoil(graph, "network.layers.0.convolution.value.weight"))
    assert wrong.first == "network.layers.0.convolution.value"
    wrong = search(subject, tmp_path, lambda graph: spoil(graph, "frontend.spectrum.mel_FP"))
    assert wrong.first == "frontend.spectrum"


def test_stacked_statistics_transformer(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, encoder="transformer", pooling="attentive_statistics", stack_frames=3)
    found = search(deep(tmp_path, options), tmp_path)
    assert found.first is None, found.verdict
    assert found.unmatched == ()


def test_rebuild_is_told_from_the_graph(two_layers: Deep, tmp_path: Path) -> None:
    reference = two_layers.evidence.reference
    moved = dataclasses.replace(reference, scores=reference.scores + 0.01)
    evidence = dataclasses.replace(two_layers.evidence, reference=moved)
    found = search(Deep(two_layers.graph, evidence), tmp_path)
    assert found.first is None
    assert "the rebuilt network's, but that is not the eager one" in found.verdict


def test_nameless_graph_and_other_files_are_refused(two_layers: Deep, tmp_path: Path) -> None:
    def nameless(graph: onnx.ModelProto) -> None:
        for node in graph.graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = name.replace("/", "_") if "/" in name else name

    with pytest.raises(ExportError, match="not named after the network's parts"):
        search(two_layers, tmp_path, nameless)
    path = tmp_path / "other.onnx"
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(ExportError, match="only an ONNX file"):
        bisect_onnx(path, two_layers.evidence, ())


def test_check_adds_it_to_the_report(exported: Exported, tmp_path: Path) -> None:
    graph = spoil(onnx.load(exported.model), "layers.0.attention.out.weight")
    path = written(tmp_path / "model.onnx", graph)
    report = check(path, exported.checkpoint_path, CheckOptions(real=RealOptions(0), bisect=True))
    assert not report.passed
    assert report.bisection is not None
    assert report.bisection.first == "layers.0.attention.out"
    assert any("| layers.0.attention.out |" in line and "FIRST" in line for line in bisection_section(report.bisection))


def test_command(exported: Exported, tmp_path: Path) -> None:
    arguments = ["export", "check", str(exported.model), str(exported.checkpoint_path), "--real", "0", "--bisect"]
    result = CliRunner().invoke(cli, [*arguments, "--report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "bisection: no part is further off than rounding explains" in result.stdout
    assert "## Part by part" in (tmp_path / "model.parity.md").read_text("utf-8")
    assert json.loads((tmp_path / "model.parity.json").read_text("utf-8"))["bisection"]["first"] is None
    result = CliRunner().invoke(cli, ["export", "check", str(exported.model), str(exported.model), "--bisect"])
    assert result.exit_code == 2
    assert "--bisect needs the checkpoint" in " ".join(result.stderr.split())


def test_candidates_are_of_the_scope_alone(two_layers: Deep) -> None:
    found = candidates(two_layers.graph, ["layers.1.attention", "layers.1.attention_norm"])
    assert found["layers.1.attention_norm"] == ["layers.1.attention_norm/LayerNormalization"]
    assert all(name.startswith(("layers.1.attention/", "layers.1.attention.")) for name in found["layers.1.attention"])
