"""TorchScript and .pt2 files, read and judged as far as they are before PyTorch sees them. Needs no PyTorch."""

import contextlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import cache

from fuzz.values import edited
from voxport.runtime import ContractError
from voxport.runtime.backends.pytorch.file import open_archive, read_torch
from voxport.runtime.backends.pytorch.program_check import check_program, is_plain_expression
from voxport.runtime.backends.pytorch.script_check import check_script
from voxport.runtime.contract import METADATA_KEY

Members = Mapping[str, bytes]

SIZES = (
    "Max(Integer(1), Add(Mul(Integer(2), Symbol('s0', integer=True)), Pow(Symbol('u1'), Integer(-2))))",
    "FloorDiv(Symbol('s0', positive=True, integer=True), Integer(2))",
)
_CODE = """class Net(Module):
  __parameters__ = []
  def forward(self: __torch__.Net, inputs: Tensor, lengths: Tensor) -> Tuple[Tensor, Tensor]:
    _0 = torch.lt(torch.arange(torch.size(inputs, 1), device=ops.prim.device(lengths)), torch.unsqueeze(lengths, 1))
    mean = torch.div(torch.sum(torch.where(_0, inputs, 0.), [1]), -2)
    return (torch.matmul(mean, CONSTANTS.c0), mean)
"""
_PICKLE = (
    b"\x80\x02c__torch__\nNet\n)\x81(ctorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQK\0K\x04K\x01\x89NtRb."
)


def script_members(contract_json: bytes) -> Members:
    """The members of a TorchScript file that passes every check."""
    return {
        "data.pkl": _PICKLE,
        "constants.pkl": _PICKLE,
        "constants/0": bytes(16),
        "code/__torch__/net.py": _CODE.encode(),
        "version": b"3\n",
        **_facts(contract_json),
    }


def program_members(contract_json: bytes) -> Members:
    """The members of a .pt2 program that passes every check."""
    tree = json.dumps([1, {"type": "builtins.tuple", "context": "null", "children_spec": []}])
    node = {"target": "_operator.pow", "inputs": [{"arg": {"as_sym_int": {"as_name": "s0"}}}, {"arg": {"as_int": 2}}],
            "metadata": {}}  # fmt: skip
    model = {
        "graph_module": {
            "graph": {"nodes": [node, node | {"target": "torch.ops.aten.matmul.default"}], "inputs": []},
            "sizes": {"expr_str": SIZES[0]},
            "in_spec": tree,
        },
        "range_constraints": {"s0": {"min_val": 5, "max_val": 60}},
        "guards_code": [],
    }
    weight = {"config": {"project": {"path_name": "weight_0", "use_pickle": False, "tensor_meta": {"dtype": 7}}}}
    return {
        "archive_format": b"pt2",
        "models/model.json": json.dumps(model).encode(),
        "data/weights/model_weights_config.json": json.dumps(weight).encode(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "data/weights/weight_0": bytes(16),
        "data/sample_inputs/model.pt": b"",
        **_facts(contract_json),
    }


def _facts(contract_json: bytes) -> Members:
    return {
        "byteorder": b"little",
        f"extra/{METADATA_KEY}": contract_json,
        "extra/voxport.built_with": b'{"torch": "2.11.0", "device": "cpu"}',
    }


def archive_of(members: Members) -> bytes:
    """A plain zip archive with one folder at the top."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
    return buffer.getvalue()


def torch_file(data: bytes) -> None:
    """Any bytes as such a file: what it says, the checks of its kind, and the copy that PyTorch would be given."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.NamedTemporaryFile(suffix=".pt2", dir=folder) as file, contextlib.suppress(ContractError):
        file.write(data)
        file.flush()
        found = read_torch(file.name)
        with open_archive(file.name) as archive:
            assert archive.describe() == found
            if found.kind != "package":
                check: Callable[..., None] = check_script if found.kind == "torchscript" else check_program
                check(archive)
                assert len(archive.copy()) <= 2 * len(data) + 10_000


def torch_member(data: bytes) -> None:
    """A file in which one member is these bytes: the first byte chooses it, and whether script or program."""
    members = dict(_right_members()[data[0] % 2 if data else 0])
    names = sorted(members)
    members[names[data[0] // 2 % len(names) if data else 0]] = data[1:]
    torch_file(archive_of(members))


def torch_values(data: bytes) -> None:
    """A program in whose JSON some values are others."""
    members = dict(_right_members()[1])
    documents = sorted(name for name in members if name.endswith((".json", "built_with")))
    name = documents[data[0] % len(documents) if data else 0]
    members[name] = json.dumps(edited(json.loads(members[name]), data[1:])).encode()
    torch_file(archive_of(members))


@cache
def _right_members() -> tuple[Members, Members]:
    from fuzz.seeds import contracts

    text = contracts()[1]
    return script_members(text), program_members(text)


def torch_size(data: bytes) -> None:
    """The text of a symbolic size: judged in a bounded time, and what is let through is only what it says."""
    text = data.decode("utf-8", "replace")
    if is_plain_expression(text):
        assert "__" not in text
        assert "." not in text
