"""TorchScript and .pt2 files written plainly: the same model gives the same bytes, and nothing in them tells where.

What torch saves is a zip archive with traces of the machine that saved it: source files and lines of every
operation, pickled example inputs, an identifier, and names that count up through the process. None of that
is needed to run the model. The members that are needed are written anew, uncompressed and undated.
"""

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from voxport.export.errors import ExportError
from voxport.runtime.backends.pytorch.file import BUILT_WITH_MEMBER, CONTRACT_MEMBER, FRONTEND_MEMBER, MAX_BYTES
from voxport.runtime.contract import Contract
from voxport.runtime.storage.seal import seal_archive

Members = dict[str, bytes]  # by their names without the archive's top folder

_LEFT_OUT = (".debug_pkl", ".data/serialization_id")
_TRACED = "traced_inputs"
_ALIGNMENT = 64  # of every member, so that a reader may map weights into memory, as torch's own writer does
_MANGLED = re.compile(rb"\.___torch_mangle_\d+")
_MODEL, _SAMPLE = "models/model.json", "data/sample_inputs/model.pt"


def members_of(saved: bytes) -> Members:
    """The members of an archive that torch saved, without what tells where it was saved."""
    with ZipFile(io.BytesIO(saved)) as archive:
        named = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    return {
        name: content
        for name, content in named.items()
        if not name.endswith(_LEFT_OUT) and not name.startswith(_TRACED)
    }


def plain_script(saved: bytes) -> Members:
    """The members of a frozen TorchScript file, its one class named alike in every process."""
    members: Members = {}
    for name, content in members_of(saved).items():
        if name.startswith("code/"):
            # code/__torch__/a/b/___torch_mangle_7.py holds the class __torch__.a.b.___torch_mangle_7.Name
            name = re.sub(r"/___torch_mangle_\d+\.py$", ".py", name)
            content = _MANGLED.sub(b"", content)
        elif name == "data.pkl":
            content = _MANGLED.sub(b"", content)
        members[name] = content
    return members


def plain_program(saved: bytes) -> Members:
    """The members of an exported program without pickles: no example inputs, no notes on who made which node."""
    members = members_of(saved)
    model = json.loads(members[_MODEL])
    for node in model["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    members[_MODEL] = json.dumps(model, separators=(",", ":"), allow_nan=False).encode()
    members[_SAMPLE] = b""
    return members


def write_archive(path: Path, members: Mapping[str, bytes], contract: Contract, built_with: Mapping[str, str]) -> None:
    """Write `members`, a digest at the end, and contract, frontend and `built_with` where torch keeps "extra files".

    Raises:
        ExportError: the file would be larger than the runtime reads.
    """
    extra = {
        CONTRACT_MEMBER: contract.to_json(),
        BUILT_WITH_MEMBER: json.dumps(dict(built_with), sort_keys=True),
        FRONTEND_MEMBER: contract.title,
    }
    content = {**members, **{name: text.encode() for name, text in extra.items()}}
    if sum(map(len, content.values())) > MAX_BYTES - (1 << 20):
        raise ExportError(f"{path.name}: would be larger than {MAX_BYTES:,} bytes; export the model to ONNX")
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", allowZip64=False) as archive:
        for name in sorted(content):
            info = ZipInfo(f"archive/{name}")
            start = buffer.tell() + 30 + len(info.filename.encode())  # the size of a local header
            info.extra = _padding(-start % _ALIGNMENT)
            archive.writestr(info, content[name])
    path.write_bytes(seal_archive(buffer.getvalue()))


def _padding(size: int) -> bytes:
    """An extra field of `size` bytes, or of one alignment more where it is too small to hold its own header."""
    size += _ALIGNMENT if 0 < size < 4 else 0
    return b"FB" + (size - 4).to_bytes(2, "little") + b"Z" * (size - 4) if size else b""
