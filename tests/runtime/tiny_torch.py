"""The tiny models of `tiny_models` as PyTorch modules, and as TorchScript and .pt2 files of them."""

import atexit
import dataclasses
import functools
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.runtime.tiny_models import MAX_FRAMES, MIN_FRAMES, SCALE, TinyModel, make_tiny
from voxport.export.targets.pytorch.archive import Members, write_archive
from voxport.export.targets.pytorch.capture import Subject, program_members, to_program, to_torchscript
from voxport.runtime.contract import InputKind
from voxport.runtime.length_range import LengthRange

FORMATS = ("torchscript", "program")
FACTS = {"torch": str(torch.__version__)}


class TinyNet(nn.Module):
    """The masked mean over time and two matrix products that `tiny_graph` is."""

    project: Tensor
    classes: Tensor

    def __init__(self, kind: InputKind, tiny: TinyModel) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("project", torch.from_numpy(np.float32(tiny.project)))
        self.register_buffer("classes", torch.from_numpy(np.float32(tiny.classes)))

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        valid = torch.arange(inputs.shape[1], device=lengths.device) < lengths[:, None]
        if self.kind == "waveform":
            inputs = torch.stack([inputs.abs(), inputs * inputs, torch.cos(40 * inputs)], dim=2)
        clean = torch.where(valid[:, :, None], inputs, 0.0)
        vector = (clean.sum(dim=1) / lengths[:, None].to(clean.dtype)) @ self.project
        embedding = vector / torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        return SCALE * (embedding @ self.classes), embedding


@dataclasses.dataclass(frozen=True, eq=False)
class TinyTorch:
    """A file on disk, its members, and the ONNX model whose answers it must give."""

    path: Path
    members: Members
    tiny: TinyModel
    module: nn.Module

    def write(self, path: Path, **changes: Any) -> Path:
        """The same file again, with `changes` in its contract."""
        write_archive(path, self.members, self.tiny.contract.replace(**changes), FACTS)
        return path


def make_torch(folder: Path, form: str, kind: InputKind) -> TinyTorch:
    tiny = make_tiny(folder / "tiny.onnx", kind)
    module = TinyNet(kind, tiny).eval()
    allowed = LengthRange.of_input(tiny.contract)
    width = (tiny.contract.frontend.n_mels,) if kind == "features" else ()
    frames = (MIN_FRAMES + MAX_FRAMES) // 2 if kind == "features" else allowed.shortest + 100
    subject = Subject(module, torch.zeros(2, frames, *width), allowed.shortest, allowed.longest)
    members = to_torchscript(subject) if form == "torchscript" else program_members(to_program(subject))
    path = folder / ("model.torchscript" if form == "torchscript" else "model.pt2")
    write_archive(path, members, tiny.contract, FACTS)
    return TinyTorch(path, members, tiny, module)


@functools.cache
def remembered_torch(form: str, kind: InputKind) -> TinyTorch:
    """One for all tests of a process: capturing a module takes a while. It is read and never changed."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-torch-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_torch(folder, form, kind)


def rewritten(source: Path, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of the archive `source` with its members changed."""
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def with_model(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    """A change of a program's JSON."""

    def apply(members: dict[str, bytes]) -> None:
        model = json.loads(members["archive/models/model.json"])
        change(model)
        members["archive/models/model.json"] = json.dumps(model).encode()

    return apply


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()
