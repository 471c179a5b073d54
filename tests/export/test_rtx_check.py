"""NVIDIA's own parser and builder on what we call fit for TensorRT, and on files that are not."""

import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from tests.export.conftest import LIMITS, Exported
from tests.export.rtx_matrix import in_int8
from voxport.cli.root import cli
from voxport.export.errors import ExportError
from voxport.export.graph.cleanup import write_onnx
from voxport.export.graph.fp16 import to_half
from voxport.export.targets.rtx import isolated
from voxport.export.targets.rtx.check import TensorRTOptions, check_tensorrt
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.contract import METADATA_KEY, OUTPUTS
from voxport.runtime.errors import ContractError

LIMITED = "from voxport.export.targets.rtx import worker; worker._limit(1 << 28)"  # to 256 MiB
rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason='tensorrt_rtx is not installed: pip install "voxport[rtx]"',
)


@pytest.fixture
def bare(exported: Exported, tmp_path: Path) -> Path:
    """The graph of a voxport model, without its contract."""
    path, graph = tmp_path / "bare.onnx", onnx.load(exported.model)
    del graph.metadata_props[:]
    onnx.save(graph, path)
    return path


@rtx
def test_a_file_without_a_contract_is_parsed_and_built(bare: Path) -> None:
    """`test_rtx_matrix` does so with each of ours; here is what the report says."""
    spans = ((1, 20, 40), (2, 100, 40), (8, 150, 40))
    report = check_tensorrt(bare, TensorRTOptions(shapes={"features": spans, "lengths": ((1,), (2,), (8,))}))
    assert (report.taken, report.built, report.failures, report.warnings) == (True, True, (), ())
    assert report.engine_bytes
    assert {each.name: (each.dtype, each.dims) for each in report.inputs} == {
        "features": ("float32", ("batch", "frames", 40)),
        "lengths": ("int64", ("batch",)),
    }
    assert [each.name for each in report.outputs] == list(OUTPUTS)
    assert (report.wide_inputs, report.shape_tensors) == (("lengths",), ())
    assert {each.computes_in for each in report.products} == {"float"}


Inputs = Mapping[str, tuple[int, Sequence[str | int | None]]]


def tiny(path: Path, nodes: list[onnx.NodeProto], inputs: Inputs) -> Path:
    values = [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in inputs.items()]
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "tiny", values, outputs)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


X: Inputs = {"x": (TensorProto.FLOAT, ["n", 4])}


@rtx
def test_each_refused_node_is_named_with_a_way_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="fine"),
        helper.make_node("DynamicQuantizeLinear", ["a"], ["q", "s", "z"], name="layer/Quantize"),
        helper.make_node("Bernoulli", ["a"], ["b"], name="layer/Chance"),
        helper.make_node("Fancy", ["b"], ["y"], name="layer/Fancy", domain="com.acme"),
    ]
    report = check_tensorrt(tiny(tmp_path / "other.onnx", nodes, X))
    assert (report.taken, report.parsed, report.built) == (False, False, None)
    refused = {each.node: each for each in report.refused}
    assert set(refused) == {"layer/Quantize", "layer/Chance", "layer/Fancy"}
    assert "--quantize static" in refused["layer/Quantize"].way_out
    assert refused["layer/Chance"].reason == "the parser does not know this operator"
    assert "Plugin not found" in refused["layer/Fancy"].reason
    assert "com.acme is no standard operator" in refused["layer/Fancy"].way_out
    result = run(tmp_path / "other.onnx", "--tensorrt", "--json")
    assert (result.exit_code, len(json.loads(result.stdout)["refused"])) == (1, 3)
    assert "parser refuses it (3 errors): layer/Quantize (DynamicQuantizeLinear): " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["other.onnx"]


@rtx
def test_what_older_gpus_lack_is_told_with_those_that_have_it(exported: Exported, tmp_path: Path) -> None:
    turing = ("--compute-capability", "7.5")
    result = run(exported.model, "--tensorrt", *turing)
    assert result.exit_code == 1
    assert re.search(
        r"for compute capability 7\.5 TensorRT has no float32 matrix products, and '\S+' is one; each file of "
        r"voxport's has some, also in fp16 and int8: build for one of 8\.0, .* or run the ONNX .* with --device cuda$",
        result.stderr.strip(),
    )
    bfloat, single = TensorProto.BFLOAT16, TensorProto.FLOAT
    for kind, lack in ((single, "no float32 matrix products, and 'mix' is one: write each"), (bfloat, "no bfloat16: ")):
        cast = helper.make_node("Cast", ["x"], ["a"], to=kind)
        back = helper.make_node("Cast", ["b"], ["y"], to=single)
        product = helper.make_node("MatMul", ["a", "a"], ["b"], name="mix")
        path = tiny(tmp_path / f"{kind}.onnx", [cast, product, back], {"x": (single, ["n", 4, 4])})
        result = run(path, "--tensorrt", "--json", *turing)
        (failure,) = json.loads(result.stdout)["failures"]
        assert lack in failure
        assert failure in result.stderr
        assert "--device" not in failure  # no command of ours runs such a file
        named = re.search(r"build for one of ([\d., ]+\d)", failure)
        assert named is not None
        for capability in named[1].split(", "):
            report = check_tensorrt(path, TensorRTOptions(compute_capability=capability))
            assert (report.taken, report.compute_capability) == (True, capability)


@rtx
def test_dynamic_int8_is_refused_for_its_zero_points(bare: Path, tmp_path: Path) -> None:
    path = tmp_path / "dynamic.onnx"
    onnx.save(in_int8(onnx.load(bare), "dynamic"), path)
    result = run(path, "--tensorrt")
    assert result.exit_code == 1
    assert "Non-zero zero point is not supported" in result.stdout
    assert "--quantize static" in result.stdout
    assert "parser refuses it (1 error)" in result.stderr


@rtx
def test_what_tensorrt_keeps_silent_about_is_said(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"], name="reshape")]
    inputs: Inputs = {"x": (TensorProto.DOUBLE, ["n", 4]), "s": (TensorProto.INT64, [2])}
    path = tiny(tmp_path / "double.onnx", nodes, inputs)
    report = check_tensorrt(path)
    assert "range of s" in report.failures[0]
    assert (report.shape_tensors, report.wide_inputs) == (("s",), ("s",))
    assert "float64 becomes float32" in report.warnings[0]
    report = check_tensorrt(path, TensorRTOptions(shapes=dict.fromkeys("xs", ((1, 4), (2, 4), (8, 4)))))
    assert report.taken
    assert {each.name: each.source for each in report.profile} == {"x": "given", "s": "given"}


@rtx
def test_our_files_are_judged_by_their_contract(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    graph = onnx.load(exported.model)
    del graph.metadata_props[:]
    write_onnx(path, to_half(graph), {METADATA_KEY: read_contract(exported.model).to_json()})
    result = run(path, "--tensorrt", "--no-build", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["taken"], told["built"]) == (True, None)
    spans = {each["name"]: (each["smallest"], each["largest"], each["source"]) for each in told["profile"]}
    assert spans == {
        "features": ([1, LIMITS.min_frames, 40], [8, LIMITS.max_frames, 40], "contract"),
        "lengths": ([1], [8], "contract"),
    }
    assert told["counts"] == {"matrix product": {"half": 12, "float": 3}, "convolution": {"half": 1}}
    why = Counter(each["why"].partition(" stays")[0] for each in told["products"] if each["why"])
    assert why == {"pooling": 2, "the last product": 1}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["half.onnx"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", "check", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole file, and what can be wrong with one."""
    tiny(tmp_path / "whole.onnx", [helper.make_node("Relu", ["x"], ["y"])], X)
    (tmp_path / "text.onnx").write_bytes(b"hello world" * 9)  # TensorRT parses this
    model = onnx.load(tmp_path / "whole.onnx")
    weight = numpy_helper.from_array(np.ones((4, 300), np.float32), "w")
    model.graph.initializer.append(weight)
    for name, place in (("missing", "gone.bin"), ("outside", "../gone.bin")):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        del tensor.external_data[:]
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    del model.graph.node[:], model.graph.initializer[:]
    (tmp_path / "empty.onnx").write_bytes(model.SerializeToString())
    return tmp_path


@rtx
@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("text.onnx", (), "text.onnx: not a whole ONNX file"),
        ("nowhere.onnx", (), "nowhere.onnx: cannot be read"),
        ("empty.onnx", (), "holds no operators"),
        ("missing.onnx", (), "its external data gone.bin is missing; put it beside the model"),
        ("outside.onnx", (), "the weight w lies at '../gone.bin', outside the model's folder"),
        ("whole.onnx", ("--compute-capability", "9.0"), "builds for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1; choose one"),
        ("whole.onnx", ("--shapes", "z=1x4:1x4:1x4"), "shapes for z: the model's inputs are x"),
        ("whole.onnx", ("--shapes", "x=1x4:2x5:2x4"), "MIN ≤ OPT ≤ MAX must hold"),
        ("whole.onnx", ("--shapes", "x=1x3:2x3:2x3"), "shape of x, 1,3: the model takes any×4"),
    ],
)
def test_bad_input_is_one_clear_sentence(folder: Path, name: str, options: tuple[str, ...], complaint: str) -> None:
    before = sorted(folder.iterdir())
    for more in ((), ("--json",)):
        result = run(folder / name, "--tensorrt", *options, *more)
        assert (result.exit_code, result.stdout) == (1, "")
        assert complaint in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "Missing argument 'B'"),
        (("--no-build",), "--no-build: of --tensorrt alone"),
        (("B.onnx", "--tensorrt"), "judges one file; leave out B.onnx"),
        (("--tensorrt", "--bisect"), "--bisect: about two forms"),
        (("--tensorrt", "--shapes", "x=1:2"), "is not NAME=MIN:OPT:MAX"),
    ],
)
def test_options_that_do_nothing_are_refused(options: tuple[str, ...], complaint: str) -> None:
    result = run("A.onnx", *options)
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_without_the_extra_its_name_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorrt_rtx" else found(name))
    for more in ((), ("--no-build",), ("--json",)):
        result = run(folder / "whole.onnx", "--tensorrt", *more)
        assert (result.exit_code, result.stdout) == (1, "")
        assert 'pip install "voxport[rtx]"' in result.stderr


@rtx
@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with SIGSEGV: the file makes it crash"),
        ("raise SystemExit('too much')", r"ended with code 1 \(too much\)"),
        ("import time; time.sleep(60)", "was not done after 0.5 s"),
        ("", "gave no answer"),
        ("import sys; sys.stderr.write('std::bad_alloc'); print('{}')", "more than the 8 GiB that it may take"),
        (
            'print(\'{"builder_messages": [["ERROR", "Unexpected exception std::bad_alloc"]]}\')',
            "more than the 8 GiB that it may take",
        ),
        (f"{LIMITED}; bytes(1 << 30)", "more than the 8 GiB that it may take.*--memory"),
    ],
)
def test_a_crash_of_the_library_is_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, complaint: str
) -> None:
    monkeypatch.setattr(isolated, "_WORKER", (sys.executable, "-c", code))
    with pytest.raises(ExportError, match=complaint):
        check_tensorrt(folder / "whole.onnx", TensorRTOptions(timeout=0.5 if "sleep" in code else 60))


@rtx
def test_a_file_that_is_not_as_it_was_written_is_refused(exported: Exported, tmp_path: Path) -> None:
    changed = tmp_path / "changed.onnx"
    content = bytearray(exported.model.read_bytes())
    content[len(content) // 2] ^= 1  # in a weight
    changed.write_bytes(content)
    with pytest.raises(ContractError, match="is damaged or was changed"):
        check_tensorrt(changed)


@rtx
def test_too_little_memory_is_not_held_against_the_file(bare: Path) -> None:
    """The library itself, which says it in its log or on stderr."""
    result = run(bare, "--tensorrt", "--memory", "0.001")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "TensorRT wanted more than the 0.001 GiB that it may take" in result.stderr
