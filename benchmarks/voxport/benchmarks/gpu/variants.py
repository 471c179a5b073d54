"""The ways in which `voxport bench gpu` runs one network, in the order of their worth: the budget may end early."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxport.benchmarks.gpu.report import GpuSettings
from voxport.runtime.backends.formats import read_contract
from voxport.runtime.errors import ContractError

Kind = Literal["eager", "torchscript", "compile", "aoti", "onnx", "artefact"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "int8"]
BASELINE = "eager fp32"

# ‖Δscores‖ / ‖scores‖ against float64. Full float32 lands far below its bound; the others are what matrix units
# that keep 10 bits (TF32, half) or 7 (bfloat16) leave of a network of a few layers.
ALLOWED: dict[str, float] = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "bf16": 3e-2, "int8": 3e-2}


@dataclass(frozen=True)
class Variant:
    """One back end. `graph`: CUDA graphs. `mode`: torch.compile's. `provider` and `binding` are ONNX Runtime's.

    An artefact with the provider "rtx" is an ONNX file that the runtime loads on NVIDIA's plugin.

    `costly` ones compile for long: they run once, and late. `path` is the ONNX file's or the artefact's.
    """

    name: str
    kind: Kind
    precision: Precision = "fp32"
    graph: bool = False
    mode: str = ""
    provider: Literal["", "cpu", "cuda", "tensorrt", "rtx"] = ""
    binding: bool = False
    costly: bool = False
    path: str = ""

    def unfit(self, device: str) -> str:
        """Why it cannot run on `device` whatever is installed; empty where it may."""
        if device != "cuda" and self.graph:
            return "CUDA graphs need a GPU"
        if device != "cuda" and self.precision in ("tf32", "fp16") and self.kind != "onnx":
            return f"{self.precision} needs a GPU"
        return ""

    @property
    def how(self) -> str:
        """How it computes, in words."""
        words = {
            "eager": "PyTorch, as it is",
            "torchscript": "torch.jit.trace, frozen",
            "compile": f"torch.compile, {self.mode or 'default'}",
            "aoti": "torch.export, AOTInductor",
            "onnx": f"ONNX Runtime, {self.provider}" + (", I/O binding" if self.binding else ""),
            "artefact": "voxport's runtime" + (f", ONNX Runtime, {self.provider}" if self.provider else ""),
        }
        return words[self.kind] + (", CUDA graphs" if self.graph else "")


_FIRST: tuple[Variant, ...] = (
    Variant(BASELINE, "eager"),
    Variant("eager tf32", "eager", "tf32"),
    Variant("eager bf16", "eager", "bf16"),
    Variant("eager fp32, graphs", "eager", graph=True),
    Variant("eager bf16, graphs", "eager", "bf16", graph=True),
)
_THEN: tuple[Variant, ...] = (
    Variant("TorchScript fp32", "torchscript"),
    Variant("TorchScript fp32, graphs", "torchscript", graph=True),
    Variant("eager fp16", "eager", "fp16"),
    Variant("eager fp16, graphs", "eager", "fp16", graph=True),
    Variant("eager tf32, graphs", "eager", "tf32", graph=True),
    Variant("eager fp32 (control)", "eager"),
)
_COMPILED: tuple[Variant, ...] = (
    Variant("compile fp32, reduce-overhead", "compile", mode="reduce-overhead", costly=True),
    Variant("compile fp32", "compile", costly=True),
    Variant("AOTInductor fp32", "aoti", costly=True),
    Variant("compile bf16, reduce-overhead", "compile", "bf16", mode="reduce-overhead", costly=True),
    Variant("compile fp32, max-autotune", "compile", mode="max-autotune", costly=True),
)


def variants(settings: GpuSettings, plain_onnx: str | None = None) -> tuple[Variant, ...]:
    """All back ends, the most telling first. `plain_onnx` is an ONNX file made here, where none was given."""
    files = list(zip(settings.onnx, _labels(settings.onnx), strict=True))
    if not files and plain_onnx:
        files = [(plain_onnx, "plain export")]
    onnx = [variant for path, name in files for variant in _onnx(path, name, settings)]
    plans = [
        Variant(label, "artefact", _precision(path), path=path)
        for path, label in zip(settings.plans, _labels(settings.plans), strict=True)
    ]
    found = (*_FIRST, *onnx, *plans, *_THEN, *_COMPILED, *_tensorrt(files, settings))
    return tuple(each for each in found if not settings.only or each.name == BASELINE or _wanted(each, settings.only))


def _labels(paths: Sequence[str]) -> list[str]:
    """File names; of equal ones, each with a number: a second of the same name would pass for done."""
    names = [Path(path).name for path in paths]
    return [name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _wanted(variant: Variant, only: Sequence[str]) -> bool:
    return any(word.lower() in variant.name.lower() for word in only)


def _onnx(path: str, name: str, settings: GpuSettings) -> tuple[Variant, ...]:
    provider: Literal["cpu", "cuda"] = settings.device
    precision = _precision(path)
    label = f"ONNX Runtime {provider.upper()}, {name}"
    return (
        Variant(label, "onnx", precision, provider=provider, path=path),
        Variant(f"{label}, bound", "onnx", precision, provider=provider, binding=True, path=path),
        Variant(f"{label}, graphs", "onnx", precision, provider=provider, binding=True, graph=True, path=path),
    )


def _tensorrt(files: Sequence[tuple[str, str]], settings: GpuSettings) -> tuple[Variant, ...]:
    if settings.device != "cuda":
        return ()
    found = []
    for path, name in files[:1]:
        precision = _precision(path)
        # TensorRT takes TF32 for float32 products by itself, and the provider has no option against it.
        precision = "tf32" if precision == "fp32" else precision
        label = f"ONNX Runtime TensorRT, {name}"
        found.append(Variant(label, "onnx", precision, provider="tensorrt", binding=True, costly=True, path=path))
    for path, name in files[: 1 if settings.onnx else 0]:  # the runtime loads files with a contract, no plain export
        label = f"ONNX Runtime TensorRT for RTX, {name}"
        found.append(Variant(label, "artefact", _precision(path), provider="rtx", costly=True, path=path))
    return tuple(found)


def _precision(path: str) -> Precision:
    """What the model file says of itself; of one without a contract, what its name says."""
    try:
        return read_contract(path).precision
    except ContractError:
        return "fp16" if "fp16" in Path(path).stem else "fp32"
