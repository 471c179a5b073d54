"""Every engine that runs model files, with the tiny models as its files: what `test_engines` asks of each.

TensorRT, TensorRT for RTX and their GPU are fakes that compute in NumPy. A further engine is one `Engine` more.
"""

import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.cuda import FakeCuda, forget_libraries
from tests.fakes.rtx import START, FakeRtx
from tests.fakes.trt import FakeTensorRT, make_plan
from tests.runtime.tiny_models import FRONTEND, TinyModel, make_tiny
from voxport.runtime import BackendOptions, load_backend
from voxport.runtime.backends.options import LoadedBackend
from voxport.runtime.backends.rtx.library import PORTABLE
from voxport.runtime.backends.rtx.model import BUILT_FOR
from voxport.runtime.backends.trt.file import write_sidecar
from voxport.runtime.contract import InputKind
from voxport.runtime.length_range import LengthRange


class Engine(ABC):
    """One engine: how its files are written and loaded, and the words that it promises to use."""

    name: str
    title: str  # what explain() calls it
    device = "cpu"
    no_device = "tensorrt"  # one that it cannot run on
    module: str  # the package that it runs on
    extra: str  # of voxport, which brings it

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch

    def forget(self) -> None:  # noqa: B027 - most engines have nothing to forget
        """Drop what the runtime remembers of a library that is a fake."""

    @abstractmethod
    def write(self, kind: InputKind = "features", **changes: Any) -> tuple[Path, TinyModel]:
        """A file of the tiny model of `kind`, `changes` in its contract, and the model in NumPy."""

    def options(self, **options: Any) -> BackendOptions:
        return BackendOptions(**{"threads": 1, **options})

    def load(self, path: Path, *, verify: bool = True, **options: Any) -> LoadedBackend:
        return load_backend(path, self.options(**options), verify=verify)


class OnnxRuntime(Engine):
    name, title, module, extra = "onnxruntime", "ONNX Runtime", "onnxruntime", "cpu"

    def write(self, kind: InputKind = "features", **changes: Any) -> tuple[Path, TinyModel]:
        tiny = make_tiny(self.folder / "model.onnx", kind, **changes)
        return tiny.path, tiny


class OpenVino(OnnxRuntime):
    name, title, module, extra = "openvino", "OpenVINO", "openvino", "openvino"
    no_device = "cuda"

    def options(self, **options: Any) -> BackendOptions:
        return super().options(runtime="openvino", cache=self.folder / "cache", **options)


class TorchScript(Engine):
    name, title, module, extra = "torchscript", "PyTorch, TorchScript", "torch", "torch"

    def write(self, kind: InputKind = "features", **changes: Any) -> tuple[Path, TinyModel]:
        from tests.runtime.tiny_torch import remembered_torch

        made = remembered_torch(self.name, kind)
        return made.write(self.folder / made.path.name, **changes), made.tiny


class Program(TorchScript):
    name, title = "program", "PyTorch, .pt2 program"


class Plan(Engine):
    name, title, module, extra = "plan", "TensorRT plan", "tensorrt", "tensorrt"
    device, no_device = "tensorrt", "cpu"
    ending, start, built_with = ".plan", b"", {"tensorrt": "10.16.1.11"}

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, patch)
        self.cuda = FakeCuda()
        self.install()
        patch.setitem(sys.modules, "cuda.bindings.runtime", self.cuda)
        self.forget()

    def forget(self) -> None:
        forget_libraries()

    def install(self) -> None:
        self.patch.setitem(sys.modules, self.module, FakeTensorRT(self.cuda))

    def write(self, kind: InputKind = "features", **changes: Any) -> tuple[Path, TinyModel]:
        tiny = make_tiny(self.folder / "tiny.onnx", kind)
        allowed = LengthRange.of_input(tiny.contract)
        width = (FRONTEND.n_mels,) if kind == "features" else ()
        profiles = [((1, allowed.shortest, *width), (4, allowed.longest, *width))]
        path = self.folder / f"model{self.ending}"
        path.write_bytes(self.start + make_plan(kind, tiny.project, tiny.classes, profiles))
        write_sidecar(path, tiny.contract.replace(**changes), self.built_with)
        return path, tiny


class RtxEngine(Plan):
    name, title, module, extra = "rtx", "TensorRT for RTX engine", "tensorrt_rtx", "rtx"
    device = "rtx"
    ending, start, built_with = ".rtx", START, {"tensorrt_rtx": "1.7.1.116", BUILT_FOR: PORTABLE}

    def install(self) -> None:
        self.cuda.capability = (8, 9)
        self.patch.setitem(sys.modules, self.module, FakeRtx(self.cuda))

    def options(self, **options: Any) -> BackendOptions:
        return super().options(cache=self.folder / "cache", **options)


ENGINES: tuple[type[Engine], ...] = (OnnxRuntime, OpenVino, TorchScript, Program, Plan, RtxEngine)
