"""Contracts: round trip, refusal, and files that are damaged or made to harm."""

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fuzz.values import paths, put
from tests.runtime.test_schema import json_values, outcome
from tests.runtime.tiny_models import FRONTEND, TinyModel, make_tiny, save, tiny_graph
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.backends.onnxrt.file import MAX_CONTRACT_BYTES, MAX_FIELDS, OnnxFile, read_onnx
from voxport.runtime.contract import METADATA_KEY, Array, Contract, Golden, LengthTemperature, Parity, Rejection
from voxport.runtime.errors import ContractError
from voxport.runtime.frontend.presets import PROFILES
from voxport.runtime.results import rank
from voxport.runtime.storage.atomic import file_sha256

share, cosine, tolerance = st.floats(0, 1), st.floats(-1, 1), st.floats(0.01, 0.05)
name = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=12)
array = hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=4), elements=st.floats(width=32)).map(Array.of)
contracts = st.builds(
    Contract,
    labels=st.lists(name.filter(str.strip), min_size=1, max_size=5, unique=True).map(tuple),
    frontend=st.sampled_from(list(PROFILES.values())),
    input_kind=st.sampled_from(["features", "waveform"]),
    min_frames=st.integers(1, 50),
    max_frames=st.integers(50, 10_000),
    precision=st.sampled_from(["fp32", "fp16", "int8"]),
    embedding_size=st.integers(1, 1024),
    score_scale=st.floats(0.1, 100),
    recipe=name,
    checkpoint_sha256=name,
    golden=st.builds(Golden, array, array, tolerance),
    parity=st.none() | st.builds(Parity, st.integers(1, 10**9), st.floats(0, 0.01), cosine, share, tolerance),
    rejection=st.none() | st.builds(Rejection, cosine, share),
)


@given(contracts)
def test_a_contract_comes_back_equal_and_equal_contracts_give_equal_bytes(contract: Contract) -> None:
    text = contract.to_json()
    again = Contract.from_json(text, "file")
    assert again == contract
    assert again.to_json() == text
    np.testing.assert_array_equal(again.golden.input.values, contract.golden.input.values)


@given(contract=contracts)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_contract_comes_back_from_a_file(contract: Contract, tiny: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(path, tiny_graph("features", tiny.project, tiny.classes), contract.to_json())
    assert read_contract(path) == contract


# --- contracts that must be refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "contract version 2, this voxport reads version 1; export the model again"),
        ({"version": "1"}, "contract version '1'"),
        ({"version": None}, "contract version None"),
        ({"labels": []}, "labels must be non-empty and unique"),
        ({"labels": ["a", "a"]}, "labels must be non-empty and unique"),
        ({"min_frames": 0}, "length range"),
        ({"min_frames": 100, "max_frames": 99}, "length range"),
        ({"embedding_size": 0}, "embedding_size"),
        ({"score_scale": 0}, "score_scale must be positive"),
        ({"score_scale": 10**400}, "expected a finite number"),
        ({"precision": "fp8"}, "precision: must be one of fp32, fp16, int8"),
        ({"surprise": 1}, "unknown key surprise"),
        ({"golden": None}, "golden: expected a table"),
    ],
)
def test_a_contract_that_says_nonsense_is_refused(change: dict[str, Any], message: str, tiny: TinyModel) -> None:
    data = json.loads(tiny.contract.to_json()) | change
    with pytest.raises(ContractError, match=f"model.onnx: .*{message}"):
        Contract.from_json(json.dumps(data), "model.onnx")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"', "[" * 100_000, '{"version":' + "1" * 5000 + "}"])
def test_text_that_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        Contract.from_json(text, "file")


@given(st.data(), json_values)
def test_any_json_anywhere_in_a_contract_gives_a_contract_or_an_error_of_ours(
    tiny: TinyModel, data: st.DataObject, value: Any
) -> None:
    document = json.loads(tiny.contract.to_json())
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    made, message = outcome(lambda: Contract.from_json(json.dumps(document), "file"))
    assert json.loads(made.to_json()) == document if made is not None else message.startswith("file: ")


@given(array, st.data())
def test_a_golden_array_of_other_bytes_is_refused(value: Array, data: st.DataObject) -> None:
    text = data.draw(st.text(max_size=20) | st.just(value.base64[:-4]))
    shape = data.draw(st.just(value.shape) | st.lists(st.integers(2, 2**70), min_size=1, max_size=3).map(tuple))
    damaged = Array(shape, text)
    values, message = outcome(lambda: damaged.values)
    assert values.shape == shape if values is not None else "export it again" in message


@pytest.mark.parametrize(
    "change",
    [{"n_fft": 1 << 40}, {"n_mels": 1 << 40}, {"sample_rate": 1 << 40}, {"hop_length": 1 << 40}],
)
def test_a_frontend_that_would_take_gigabytes_is_refused(
    model_path: Path, tiny: TinyModel, change: dict[str, int]
) -> None:
    data = json.loads(tiny.contract.to_json())
    data["frontend"] |= change
    save(model_path, tiny_graph("features", tiny.project, tiny.classes), json.dumps(data))
    with pytest.raises(ContractError, match=f"frontend {next(iter(change))} is"):
        read_contract(model_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("golden.tolerance", 2.0**63, "golden tolerance must be between 0 and 1e\\+06"),
        ("golden.tolerance", -1e-9, "golden tolerance must be between 0"),
        ("golden.tolerance", 15.1, "the golden tolerance is 15.1, above 15 it proves nothing"),
        ("parity.tolerance", 15.1, "the parity tolerance is 15.1, above 15"),
        ("parity.cases", -1, "parity cases must be between 1"),
        ("parity.cases", 0, "parity cases must be between 1"),
        ("parity.max_abs_score", 1e308, "parity max_abs_score must be between 0 and the parity tolerance 0.001"),
        ("parity.max_abs_score", -1e-9, "parity max_abs_score"),
        ("parity.min_cosine", 1.1, "parity min_cosine must be between -1 and 1"),
        ("parity.top1_agreement", 2, "parity top1_agreement must be between 0 and 1"),
        ("rejection.threshold", 1.5, "rejection threshold must be between -1 and 1"),
        ("rejection.false_accept_rate", -0.1, "rejection false_accept_rate must be between 0 and 1"),
        ("labels", ["Anna", ""], "a label is empty"),
        ("labels", ["Anna", " \u3000"], "a label is empty"),
        ("labels", ["Anna", "a" * 1001], "more than 1000 characters"),
        ("score_scale", 1e5, "score_scale is 100000.0, only 0.001 to 10000"),
        ("embedding_size", 1 << 20, "embedding_size is"),
        ("max_frames", 1 << 30, "max_frames is"),
        ("frontend.sample_rate", 1, "f_min 50"),
        ("frontend.f_min", -1, "f_min"),
        ("frontend.floor", 1e300, "frontend floor is"),
        ("frontend.floor", -1, "floor must be positive"),
        ("frontend.sample_scale", -1, "frontend sample_scale is -1.0, only"),
        ("frontend.preemphasis", 1.5, "frontend preemphasis is 1.5, only 0 to 1"),
        ("frontend.power", 0, "frontend power is 0"),
        ("frontend.spectrum_scale", 0, "frontend spectrum_scale is 0"),
        ("frontend.level", 1e300, "frontend level is"),
        ("frontend.quietest", 1e300, "frontend quietest is"),
        ("frontend.win_length", 0, "win_length 0 must be positive"),
        ("frontend.hop_length", -5, "must be positive"),
    ],
)
def test_a_number_that_cannot_be_true_is_refused(
    model_path: Path, tiny: TinyModel, path: str, value: Any, message: str
) -> None:
    data = json.loads(tiny.contract.replace(rejection=Rejection(0.3, 0.05)).to_json())
    *above, last = path.split(".")
    place = data[above[0]] if above else data
    place[last] = value
    save(model_path, tiny_graph("features", tiny.project, tiny.classes), json.dumps(data))
    with pytest.raises(ContractError, match=f"{model_path.name}: .*{message}"):
        read_contract(model_path)


def test_every_number_of_a_contract_has_a_least_and_a_most(model_path: Path, tiny: TinyModel) -> None:
    """One that could be anything would be caught here: each is set to numbers that are true of no model."""
    frontend = dataclasses.replace(tiny.contract.frontend, level=100.0)
    whole = json.loads(tiny.contract.replace(rejection=Rejection(0.3, 0.05), frontend=frontend).to_json())
    numbers = [path for path in paths(whole) if type(value_at(whole, path)) in (int, float) and path != ("version",)]
    assert len(numbers) > 25
    graph = tiny_graph("features", tiny.project, tiny.classes)
    for path in numbers:
        for value in (-(1 << 70), 1 << 70):
            save(model_path, graph, json.dumps(put(whole, path, value)))
            with pytest.raises(ContractError):
                # The golden vector's shapes are held against its bytes.
                check_golden_arrays(read_contract(model_path))


def value_at(document: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def check_golden_arrays(contract: Contract) -> None:
    for each in (contract.golden.input, contract.golden.scores):
        assert each.values.size


@pytest.mark.parametrize("label", ["\x1b[2J", "a\nb", "\x00", "\ud800", "\x9b31m", "\u202egnp", "a\u2028b", "\u2066"])
def test_a_name_that_would_steer_a_terminal_is_refused(model_path: Path, tiny: TinyModel, label: str) -> None:
    data = json.loads(tiny.contract.to_json())
    data["labels"][2] = label
    save(model_path, tiny_graph("features", tiny.project, tiny.classes), json.dumps(data))
    with pytest.raises(ContractError, match=r"unprintable|half a character"):
        read_contract(model_path)


def test_text_that_no_file_can_hold_is_refused_wherever_it_stands(tiny: TinyModel) -> None:
    """JSON can name half of a pair; the contract's digest is of its bytes, which there would be none of."""
    data = json.loads(tiny.contract.to_json())
    data["golden"]["input"]["base64"] = "\ud800"
    with pytest.raises(ContractError, match=r"here: golden: input: base64: '\\ud800' has half a character"):
        Contract.from_json(json.dumps(data), "here")


# --- the file's own structure -------------------------------------------------------------------------


def shape_of(tensor: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim)


def test_the_reader_agrees_with_the_onnx_package(either: TinyModel) -> None:
    model = onnx.load(either.path)
    found = read_onnx(either.path, METADATA_KEY, graph=True)
    assert found.contract == {entry.key: entry.value for entry in model.metadata_props}[METADATA_KEY]
    assert found.ir_version == model.ir_version
    assert found.producer == f"{model.producer_name} {model.producer_version}"
    assert found.opsets == tuple((opset.domain, opset.version) for opset in model.opset_import)
    for ours, theirs in ((found.inputs, model.graph.input), (found.outputs, model.graph.output)):
        assert [(tensor.name, tensor.shape) for tensor in ours] == [(each.name, shape_of(each)) for each in theirs]
    assert [tensor.dtype for tensor in found.inputs] == ["float32", "int64"]


def test_without_the_graph_it_is_stepped_over(tiny: TinyModel) -> None:
    assert read_onnx(tiny.path, METADATA_KEY).inputs == ()


def test_old_files_list_their_weights_among_the_inputs(tiny: TinyModel, model_path: Path) -> None:
    model = onnx.load(tiny.path)
    weight = model.graph.initializer[0]
    model.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    model_path.write_bytes(model.SerializeToString())
    assert [tensor.name for tensor in read_onnx(model_path, METADATA_KEY, graph=True).inputs] == ["features", "lengths"]


def test_a_dim_without_a_value_is_unknown(model_path: Path) -> None:
    tensor = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [tensor], [tensor])
    graph.output[0].name = "y"
    save(model_path, graph)
    found = read_onnx(model_path, METADATA_KEY, graph=True)
    assert found.inputs[0].shape == (None, 3)
    assert str(found.inputs[0]) == "x: float32 (?, 3)"


def test_a_file_hash_is_that_of_its_bytes(tiny: TinyModel) -> None:
    import hashlib

    assert file_sha256(tiny.path) == hashlib.sha256(tiny.path.read_bytes()).hexdigest()


def test_another_onnx_file_is_told_how_to_become_one_of_ours(tiny: TinyModel, model_path: Path) -> None:
    save(model_path, tiny_graph("features", tiny.project, tiny.classes))
    with pytest.raises(ContractError, match="no voxport contract; write it with: voxport export onnx"):
        read_contract(model_path)


def test_two_contracts_are_refused(tiny: TinyModel, model_path: Path) -> None:
    text = tiny.contract.to_json()
    save(model_path, tiny_graph("features", tiny.project, tiny.classes), text, text)
    with pytest.raises(ContractError, match="two contracts"):
        read_contract(model_path)


def answered(path: Path) -> OnnxFile | None:
    """The file, or None where it or its contract was refused as it should be."""
    contract, message = outcome(lambda: read_contract(path))
    assert contract is not None or message.startswith(str(path))
    file, message = outcome(lambda: read_onnx(path, METADATA_KEY, graph=True))
    assert file is not None or message.startswith(str(path))
    return file if contract is not None else None


def varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def field(number: int, payload: bytes, claimed: int | None = None) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload) if claimed is None else claimed) + payload


HEADER = b"\x08\x0a"  # IR version 10
OURS = field(1, METADATA_KEY.encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + field(14, OURS, claimed=1 << 60), "bytes are missing"),
        (HEADER + field(14, OURS + field(2, b"{}", claimed=1 << 60)), "bytes are missing"),
        (HEADER + field(7, field(11, b"", claimed=1 << 40)), "bytes are missing"),
        (HEADER + field(14, OURS + field(2, b"\xff\xfe")), "not UTF-8"),
        (HEADER + b"\xff" * 12, "no ONNX"),
        (HEADER + b"\x00", "no ONNX"),
        (HEADER + b"\x0b\x0c", "no ONNX"),
        (HEADER + b"\x0f", "no ONNX"),
        (b"\x12\x01a", "no ONNX version"),
    ],
)
def test_lengths_that_lie_are_refused(model_path: Path, content: bytes, message: str) -> None:
    model_path.write_bytes(content)
    with pytest.raises(ContractError, match=message):
        read_onnx(model_path, METADATA_KEY, graph=True)
    assert answered(model_path) is None


def test_neither_a_huge_contract_nor_other_huge_metadata_is_read_into_memory(model_path: Path) -> None:
    huge = MAX_CONTRACT_BYTES + 1
    entry = OURS + varint(2 << 3 | 2) + varint(huge)
    other = field(1, b"weights") + varint(2 << 3 | 2) + varint(huge)
    for content, message in ((entry, "at most"), (other, "no voxport contract")):
        head = HEADER + varint(14 << 3 | 2) + varint(len(content) + huge) + content
        with model_path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + huge)  # zeros that take no disk
        tracemalloc.start()
        with pytest.raises(ContractError, match=message):
            read_contract(model_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_a_flood_of_tiny_fields_is_refused(model_path: Path) -> None:
    model_path.write_bytes(HEADER * (MAX_FIELDS + 1))
    with pytest.raises(ContractError, match=f"more than {MAX_FIELDS} fields"):
        read_contract(model_path)


@pytest.mark.parametrize(
    "graph",
    [
        field(11, field(1, b"x")) * 65,
        field(12, field(1, b"x" * 2000)),
        field(11, field(1, b"x") + field(2, field(1, field(2, field(1, b"") * 17)))),
    ],
)
def test_a_graph_with_too_many_or_too_large_tensors_is_refused(model_path: Path, graph: bytes) -> None:
    model_path.write_bytes(HEADER + field(7, graph))
    with pytest.raises(ContractError, match=r"more than|at most"):
        read_onnx(model_path, METADATA_KEY, graph=True)


def test_the_largest_contract_that_is_read_holds_a_hundred_thousand_speakers(model_path: Path) -> None:
    labels = tuple(f"speaker-{i:012d}" for i in range(100_000))
    scores = Array.of(np.zeros(len(labels)))
    tiny = make_tiny(model_path, labels=labels, golden=Golden(Array.of(np.zeros((12, FRONTEND.n_mels))), scores, 1e-3))
    assert read_contract(model_path) == tiny.contract


def test_the_temperature_for_a_length_lies_between_its_neighbours(tmp_path: Path) -> None:
    plain = read_contract(make_tiny(tmp_path / "m.onnx", "features").path)
    assert "temperature_by_length" not in plain.to_json()  # older readers stay able to read it
    assert plain.replace(temperature=3.0).temperature_for(1.5) == 3.0
    points = (LengthTemperature(1.0, 2.0), LengthTemperature(4.0, 8.0))
    told = plain.replace(temperature_by_length=points)
    assert Contract.from_json(told.to_json(), "m") == told
    wanted = {0.1: 2.0, 1.0: 2.0, 2.0: 4.0, 4.0: 8.0, 900.0: 8.0, 2.0 * 2**0.5: 4.0 * 2**0.5}
    for seconds, temperature in wanted.items():
        assert told.temperature_for(seconds) == pytest.approx(temperature)
    with pytest.raises(ValueError, match="must rise in seconds"):
        plain.replace(temperature_by_length=points[::-1])
    with pytest.raises(ContractError, match="temperature_by_length"):
        Contract.from_json(told.to_json().replace('"seconds": 1.0', '"seconds": -1.0'), "m")


def test_probabilities_follow_the_length_of_the_sound(tmp_path: Path) -> None:
    points = (LengthTemperature(0.2, 10.0), LengthTemperature(0.8, 1.0))
    contract = read_contract(make_tiny(tmp_path / "m.onnx", "features").path).replace(temperature_by_length=points)
    scores = np.arange(len(contract.labels), dtype=np.float32)
    for seconds, temperature in ((0.1, 10.0), (3.0, 1.0), (0.4, 10**0.5)):
        shares = np.exp(scores / temperature) / np.exp(scores / temperature).sum()
        assert rank(scores, contract, 1, seconds).ranked[0].probability == pytest.approx(shares[-1])
