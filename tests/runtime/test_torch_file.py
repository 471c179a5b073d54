"""TorchScript and .pt2 files from strangers: read without torch, and only what voxport writes reaches torch."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.runtime.test_torch_free import run_without
from tests.runtime.tiny_models import LABELS
from tests.runtime.tiny_torch import FORMATS, TinyTorch, make_torch, pickled, rewritten, with_model
from voxport.runtime import ContractError, load_backend, read_contract
from voxport.runtime.backends.pytorch.file import CONTRACT_MEMBER, read_torch
from voxport.runtime.backends.pytorch.program_check import is_plain_expression
from voxport.runtime.contract import METADATA_KEY

CONTRACT = f"archive/{CONTRACT_MEMBER}"


@pytest.fixture(scope="module", params=FORMATS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyTorch:
    return make_torch(tmp_path_factory.mktemp(request.param), request.param, "features")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> TinyTorch:
    return make_torch(tmp_path_factory.mktemp("script"), "torchscript", "features")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> TinyTorch:
    return make_torch(tmp_path_factory.mktemp("program"), "program", "features")


# --- without torch ------------------------------------------------------------------------------------


def test_contract_and_inspection_need_no_torch(made: TinyTorch) -> None:
    code = """
        from voxport.runtime import BackendError, load_backend, read_contract
        from voxport.cli.root import cli

        print(len(read_contract(sys.argv[1]).labels))
        try:
            load_backend(sys.argv[1])
        except BackendError as problem:
            print(problem)
        cli(["inspect", sys.argv[1], "--no-verify"])
    """
    said = run_without(["torch", "onnx"], code, made.path)
    assert said.startswith(f"{len(LABELS)}\n")
    assert 'PyTorch is not installed, and TorchScript and .pt2 files run in it; pip install "voxport[torch]"' in said
    assert "not replayed" in said


def test_the_command_runs_it_where_there_is_no_onnxruntime(script: TinyTorch, tmp_path: Path) -> None:
    """TorchScript stands for both: for a program, torch itself asks whether there is an onnxruntime."""
    np.save(tmp_path / "who.npy", np.ones((20, 40), np.float32))
    code = """
        from voxport.cli.root import cli

        cli(["identify", sys.argv[1], sys.argv[2], "--json"], standalone_mode=False)
    """
    said = json.loads(run_without(["onnxruntime"], code, script.path, tmp_path / "who.npy"))
    assert said["runs_on"]["backend"].startswith("PyTorch, ")
    assert said["results"][0]["file"] == str(tmp_path / "who.npy")


def test_what_the_file_says(made: TinyTorch) -> None:
    found = read_torch(made.path)
    assert found.contract == made.tiny.contract
    assert found.kind == ("torchscript" if made.path.suffix == ".torchscript" else "program")
    assert found.built_with == (("torch", str(torch.__version__)),)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")  # once in a process
def test_torch_itself_finds_the_contract(script: TinyTorch, program: TinyTorch) -> None:
    """The files are ordinary ones: torch's own loaders give the model and the extra file."""
    extra: dict[str, Any] = {METADATA_KEY: ""}
    load: Any = torch.jit.load
    module = load(str(script.path), _extra_files=extra)
    assert json.loads(extra[METADATA_KEY])["labels"] == list(LABELS)
    found: dict[str, Any] = {METADATA_KEY: ""}
    exported = torch.export.load(program.path, extra_files=found)
    assert json.loads(found[METADATA_KEY])["labels"] == list(LABELS)
    values, lengths = torch.rand(3, 20, 40), torch.tensor([20, 11, 5])
    for answer in (module(values, lengths), exported.module()(values, lengths)):
        torch.testing.assert_close(answer, script.module(values, lengths), rtol=0, atol=1e-4)


# --- damaged and hostile archives ---------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refused(path: Path, message: str) -> None:
    """Both readers refuse the file, name it, and say the same."""
    for read in (read_contract, load_backend):
        with pytest.raises(ContractError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_files_that_are_something_else(tmp_path: Path, script: TinyTorch) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "a PyTorch checkpoint, not a model file.*voxport export onnx")
    np.savez(tmp_path / "arrays.npz", values=np.zeros(3))
    refused(tmp_path / "arrays.npz", r"arrays of NumPy \(\.npz\), not a model")
    load: Any = torch.jit.load
    torch.jit.save(load(str(script.path)), str(tmp_path / "plain.pt"))
    refused(tmp_path / "plain.pt", "this TorchScript file has no voxport contract.*voxport export torchscript")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update({"archive/../../evil": b""}), "a member is called"),
        (lambda m: m.update({"/etc/passwd": b""}), "a member is called"),
        (lambda m: m.update({"archive/a\x1b[2Jb": b""}), "a member is called"),
        (lambda m: m.update({"other/thing": b""}), "two top folders"),
        (lambda m: m.pop(CONTRACT), "has no voxport contract"),
        (lambda m: m.update({CONTRACT: b"{"}), "the contract is not JSON"),
        (lambda m: m.update({CONTRACT: b"[]"}), "contract version None"),
        (lambda m: m.update({CONTRACT: b"\xff\xfe"}), "its contract is not UTF-8"),
        (lambda m: m.update({CONTRACT: b" " * (9 << 20)}), "at most 8388608 are read"),
        (lambda m: m.update({"archive/extra/voxport.built_with": b"[1]"}), "no JSON object"),
        (lambda m: m.update({"archive/extra/voxport.built_with": b"{" * 9000}), "no JSON"),
    ],
)
def test_archives_that_voxport_did_not_write(
    made: TinyTorch, tmp_path: Path, change: Callable[[dict[str, bytes]], Any], message: str
) -> None:
    refused(rewritten(made.path, tmp_path / made.path.name, change), message)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(made: TinyTorch, tmp_path: Path) -> None:
    with zipfile.ZipFile(made.path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["archive/extra/bomb"] = bytes(40 << 20)
    path = zipped(tmp_path / made.path.name, members, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    refused(path, "is compressed or encrypted")


def test_a_member_twice_is_refused(made: TinyTorch, tmp_path: Path) -> None:
    path = tmp_path / made.path.name
    path.write_bytes(made.path.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(CONTRACT, made.tiny.contract.to_json())
    refused(path, "twice")


def test_a_table_of_contents_that_claims_too_much(made: TinyTorch, tmp_path: Path) -> None:
    path = tmp_path / made.path.name
    whole = bytearray(made.path.read_bytes())
    struct.pack_into("<I", whole, len(whole) - 64 - 10, 0x7FFFFFFF)  # before the digest
    path.write_bytes(whole)
    refused(path, "table of contents claims 2147483647 bytes")
    many = {f"archive/{number:06d}{'x' * 200}": b"" for number in range(5000)}
    refused(zipped(path, many), "table of contents claims")
    assert path.stat().st_size > 1 << 20


def test_a_damaged_byte_is_found(made: TinyTorch, tmp_path: Path) -> None:
    """The archive's own checksums cover all that reaches torch."""
    path = tmp_path / made.path.name
    whole = bytearray(made.path.read_bytes())
    at = bytes(whole).index(np.float32(made.tiny.project).tobytes()[:64])
    whole[at] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ContractError, match="Bad CRC-32"):
        load_backend(path, verify=False)


# --- TorchScript: nothing but arithmetic --------------------------------------------------------------


class Writes(nn.Module):
    """Writes a file when it is called."""

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        torch.save(values, "stolen.bin")
        return values, values


class Loops(nn.Module):
    """Never ends."""

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        while bool((lengths > 0).any()):
            values = values + 1
        return values, values


class Restores(nn.Module):
    """Runs code while it is loaded."""

    def forward(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return values, values

    @torch.jit.export
    def __getstate__(self) -> int:
        return 1

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        self.training = False


@pytest.mark.parametrize(
    ("module", "message"),
    [(Writes, "(the code Expr|a call of torch.save)"), (Loops, "the code While"), (Restores, "the function __")],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_code_that_does_more_is_not_loaded(
    script: TinyTorch, tmp_path: Path, module: type[nn.Module], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(module()), buffer, _extra_files={METADATA_KEY: script.tiny.contract.to_json()})
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if "debug_pkl" not in name}
    path = zipped(tmp_path / "model.torchscript", members)
    with pytest.raises(ContractError, match=f"holds {message}.*so it is not loaded"):
        load_backend(path)
    assert read_contract(path).labels == LABELS
    assert not (tmp_path / "stolen.bin").exists()


def code_member(members: dict[str, bytes]) -> str:
    return next(name for name in members if name.endswith(".py"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"torch.matmul(", b"torch.from_file(", "a call of torch.from_file"),
        (b"torch.matmul(", b"ops.aten.save(", "a call of ops.aten.save"),
        (b"torch.matmul(", b"ops.prim.PythonOp(", "a call of ops.prim.PythonOp"),
        (b"torch.matmul(", b"(torch.save)(", "a call of torch.save"),
        (b"torch.matmul(", b"[torch.save][0](", "a call of something computed"),
        (b"    return ", b"    while True:\n      pass\n    return ", "the code While"),
        (b"    return ", b"    import os\n    return ", "the code Import"),
        (b"def forward(", b"def __setstate__(", "the function __setstate__"),
        (b"def forward(", b"def forward((", "cannot be read as code"),
        (b"    return ", b"    x = " + b"(" * 5000 + b"\n    return ", "cannot be read as code"),
    ],
)
def test_changed_code_is_not_loaded(script: TinyTorch, tmp_path: Path, old: bytes, new: bytes, message: str) -> None:
    def change(members: dict[str, bytes]) -> None:
        name = code_member(members)
        assert old in members[name]
        members[name] = members[name].replace(old, new)

    with pytest.raises(ContractError, match=message):
        load_backend(rewritten(script.path, tmp_path / "model.torchscript", change))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.pkl", pickle.dumps(Evil(), protocol=2), "the name '(posix|nt) mkdir' in data.pkl"),
        ("constants.pkl", pickle.dumps(Evil(), protocol=4), "the pickle code STACK_GLOBAL in constants.pkl"),
        ("data.pkl", b"\x80\x02nonsense", "data.pkl is no pickle"),
        ("evil.pkl", b"", "the member evil.pkl"),
        ("code/__torch__/../../x.py", b"", "a member is called"),
    ],
)
def test_changed_pickles_are_not_loaded(
    script: TinyTorch, tmp_path: Path, name: str, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(script.path, tmp_path / "m.torchscript", lambda m: m.update({f"archive/{name}": content}))
    with pytest.raises(ContractError, match=message):
        load_backend(path)
    assert not (tmp_path / "evil").exists()


# --- .pt2 programs: no pickles, no code ---------------------------------------------------------------

RUNS_CODE = "__import__('os').mkdir('evil')"


def set_first_size(model: Any, text: str) -> None:
    for value in model["graph_module"]["graph"]["tensor_values"].values():
        for size in value["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = text
                return


def set_target(model: Any, text: str) -> None:
    model["graph_module"]["graph"]["nodes"][-1]["target"] = text


def set_tree(model: Any, text: str) -> None:
    model["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = text


def raise_to(model: Any, power: int) -> None:
    node = {"target": "_operator.pow", "inputs": [{"arg": {"as_int": power}}], "outputs": [], "metadata": {}}
    model["graph_module"]["graph"]["nodes"].append(node)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_model(lambda m: set_first_size(m, RUNS_CODE)), "the size __import__"),
        (with_model(lambda m: set_first_size(m, "Pow(Integer(9), Integer(999999999))")), "the size Pow"),
        (with_model(lambda m: m.update(guards_code=[RUNS_CODE])), "guards, which are code"),
        (with_model(lambda m: m["range_constraints"].update({RUNS_CODE: {}})), "the symbol"),
        (with_model(lambda m: set_target(m, "torch.ops.aten.from_file.default")), "the operator torch.ops.aten.from_f"),
        (with_model(lambda m: set_target(m, "torch.hub.load")), "the operator torch.hub.load"),
        (with_model(lambda m: set_target(m, "torch.ops.higher_order.cond")), "the operator torch.ops.higher_order"),
        (with_model(lambda m: set_target(m, "_operator.attrgetter")), "the operator _operator.attrgetter"),
        (with_model(lambda m: set_tree(m, '[1, {"__enum__": true, "fqn": "this:x"}]')), "the in_spec"),
        (with_model(lambda m: set_tree(m, '[1, {"type": "collections.defaultdict"}]')), "the in_spec"),
        (with_model(lambda m: raise_to(m, 10**9)), "a large power"),
        (with_model(lambda m: m["graph_module"].update(treespec_namedtuple_fields={"os": 1})), "treespec_namedtuple"),
        (lambda m: m.update({"archive/data/sample_inputs/model.pt": pickled(Evil())}), "a pickle, data/sample_inputs"),
        (lambda m: m.update({"archive/data/weights/weight_0": b""}), "the empty data/weights/weight_0"),
        (
            lambda m: m.update({"archive/data/constants/model.pt": pickled(Evil())}),
            "the member data/constants/model.pt",
        ),
        (lambda m: m.update({"archive/models/other.json": b"{}"}), "the member models/other.json"),
        (lambda m: m.update({"archive/models/model.json": b"{"}), "models/model.json is no JSON"),
        (lambda m: m.update({"archive/data/aotinductor/model/x.so": b""}), "not one model"),
    ],
)
def test_changed_programs_are_not_loaded(
    program: TinyTorch,
    tmp_path: Path,
    change: Callable[[dict[str, bytes]], Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(program.path, tmp_path / "model.pt2", change)
    with pytest.raises(ContractError, match=message):
        load_backend(path)
    assert not (tmp_path / "evil").exists()


def test_pickled_weights_are_not_loaded(program: TinyTorch, tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        name = "archive/data/weights/model_weights_config.json"
        members[name] = members[name].replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        assert b"true" in members[name]

    with pytest.raises(ContractError, match="a pickle, by its data/weights"):
        load_backend(rewritten(program.path, tmp_path / "model.pt2", change))


def test_a_native_package_that_is_no_library_is_refused(program: TinyTorch, tmp_path: Path) -> None:
    def change(members: dict[str, bytes]) -> None:
        for name in [name for name in members if "/models/" in name or "/data/" in name]:
            del members[name]
        members["archive/data/aotinductor/model/x.wrapper.so"] = b"\x7fELF and no more"

    path = rewritten(program.path, tmp_path / "model.pt2", change)
    assert read_torch(path).kind == "package"
    from voxport.runtime import BackendError

    with pytest.raises(BackendError, match="compiled for the machine none"):
        load_backend(path)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s69', positive=True, integer=True)",
        "Min(Integer(40), Mul(Integer(40), Symbol('s82', positive=True, integer=True)))",
        "Add(Mul(Integer(398), FloorDiv(Symbol('s85', positive=True, integer=True), Integer(160))), Integer(398))",
        "Pow(Symbol('s82'), Integer(2))",
        "2*1",
    ],
)
def test_sizes_that_are_arithmetic(text: str) -> None:
    assert is_plain_expression(text) is (text != "2*1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        7,
        "s69.__class__",
        "open('x')",
        "Symbol('os')",
        "Integer(1)(2)",
        "[Integer(1) for s1 in s2]",
        "lambda: 1",
        "Pow(Integer(10), s5)",
        "Pow(Integer(2))",
        "Integer(99999999999999999999)",
        "(" * 3000,
        "-" * 3999 + "1",
        "Integer(1)" + " " * 5000,
    ],
)
def test_sizes_that_are_more(text: Any) -> None:
    assert not is_plain_expression(text)
