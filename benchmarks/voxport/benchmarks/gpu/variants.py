"""The ways in which `voxport bench gpu` runs one network, in the order of their worth: the budget may end early."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from voxport.benchmarks.core.settings import BackendPrecision, BackendSpec, Engine
from voxport.benchmarks.gpu.report import GpuSettings
from voxport.runtime.backends.formats import format_of, read_contract
from voxport.runtime.errors import ContractError

BASELINE = "eager fp32"

# ‖Δscores‖ / ‖scores‖ against float64. Full float32 lands far below its bound; the others are what matrix units
# that keep 10 bits (TF32, half) or 7 (bfloat16) leave of a network of a few layers.
ALLOWED: dict[str, float] = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 5e-3, "bf16": 3e-2, "int8": 3e-2}


@dataclass(frozen=True)
class Variant:
    """One back end. `costly` ones compile for long: they run once, and late.

    A spec without a path is made of the network, whose file the run writes first.
    """

    spec: BackendSpec
    costly: bool = False

    @property
    def name(self) -> str:
        return self.spec.name

    def unfit(self, device: str) -> str:
        """Why it cannot run on `device` whatever is installed; empty where it may."""
        captured = self.spec.graphs and self.spec.kind != "compile"
        if device != "cuda" and captured:
            return "CUDA graphs need a GPU"
        if device != "cuda" and self.spec.precision in ("tf32", "fp16") and "onnx" not in self.spec.kind:
            return f"{self.spec.precision} needs a GPU"
        return ""

    @property
    def how(self) -> str:
        """How it computes, in words."""
        onnx = f"ONNX Runtime, {self.spec.device}" + (", I/O binding" if self.spec.binding else "")
        words = {
            "eager": "PyTorch, as it is",
            "torchscript": "torch.jit.trace, frozen",
            "compile": f"torch.compile, {self.spec.mode or 'default'}",
            "aoti": "torch.export, AOTInductor",
            "plain_onnx": onnx,
            "onnx_session": onnx,
            "artefact": "voxport's runtime" + (", TensorRT for RTX" if self.spec.device == "rtx" else ""),
        }
        return words[self.spec.kind] + (", CUDA graphs" if self.spec.graphs else "")


def variants(settings: GpuSettings, plain_onnx: str | None = None) -> tuple[Variant, ...]:
    """All back ends, the most telling first. `plain_onnx` is an ONNX file made here, where none was given."""

    def made(name: str, kind: str, precision: BackendPrecision = "fp32", **rest: Any) -> Variant:
        costly = rest.pop("costly", False)
        path, device = rest.pop("path", ""), rest.pop("device", settings.device)
        return Variant(
            BackendSpec(
                name, kind, path, "candidate", "features", device, settings.threads, precision=precision, **rest
            ),
            costly,
        )

    def sessions(path: str, name: str) -> tuple[Variant, ...]:
        label, precision = f"ONNX Runtime {settings.device.upper()}, {name}", _precision(path)
        where: dict[str, Any] = {"built": path} if path == plain_onnx else {"path": path}
        kind = "plain_onnx" if path == plain_onnx else "onnx_session"
        return (
            made(label, kind, precision, **where),
            made(f"{label}, bound", kind, precision, binding=True, **where),
            made(f"{label}, graphs", kind, precision, binding=True, graphs=True, **where),
        )

    files = list(zip(settings.onnx, _labels(settings.onnx), strict=True))
    if not files and plain_onnx:
        files = [(plain_onnx, "plain export")]
    compiled = partial(made, kind="compile", costly=True)
    found = [
        made(BASELINE, "eager"),
        made("eager tf32", "eager", "tf32"),
        made("eager bf16", "eager", "bf16"),
        made("eager fp32, graphs", "eager", graphs=True),
        made("eager bf16, graphs", "eager", "bf16", graphs=True),
        *(each for path, name in files for each in sessions(path, name)),
        *(
            made(label, "artefact", _precision(path), path=path, device=_device(path, settings))
            for path, label in zip(settings.plans, _labels(settings.plans), strict=True)
        ),
        made("TorchScript fp32", "torchscript"),
        made("TorchScript fp32, graphs", "torchscript", graphs=True),
        made("eager fp16", "eager", "fp16"),
        made("eager fp16, graphs", "eager", "fp16", graphs=True),
        made("eager tf32, graphs", "eager", "tf32", graphs=True),
        made("eager fp32 (control)", "eager"),
        compiled("compile fp32, reduce-overhead", mode="reduce-overhead"),
        compiled("compile fp32"),
        made("AOTInductor fp32", "aoti", costly=True),
        compiled("compile bf16, reduce-overhead", precision="bf16", mode="reduce-overhead"),
        compiled("compile fp32, max-autotune", mode="max-autotune"),
    ]
    for path, name in files[:1] if settings.device == "cuda" else ():
        # TensorRT takes TF32 for float32 products by itself, and the provider has no option against it.
        precision = _precision(path)
        options: dict[str, Any] = {"device": "tensorrt", "binding": True, "grid": settings.cells, "costly": True}
        told = "tf32" if precision == "fp32" else precision
        found.append(made(f"ONNX Runtime TensorRT, {name}", "onnx_session", told, path=path, **options))
        if path != plain_onnx:  # the runtime loads files with a contract
            rtx = f"ONNX Runtime TensorRT for RTX, {name}"
            found.append(made(rtx, "artefact", precision, path=path, device="rtx", costly=True))
    return tuple(each for each in found if not settings.only or each.name == BASELINE or _wanted(each, settings.only))


def _device(path: str, settings: GpuSettings) -> Engine:
    """Where a file runs that decides that itself; else the run's device."""
    devices = format_of(path).devices
    return devices[0] if len(devices) == 1 else settings.device


def _labels(paths: Sequence[str]) -> list[str]:
    """File names; of equal ones, each with a number: a second of the same name would pass for done."""
    names = [Path(path).name for path in paths]
    return [name if names.count(name) == 1 else f"{name} #{names[:i].count(name) + 1}" for i, name in enumerate(names)]


def _wanted(variant: Variant, only: Sequence[str]) -> bool:
    return any(word.lower() in variant.name.lower() for word in only)


def _precision(path: str) -> BackendPrecision:
    """What the model file says of itself; of one without a contract, what its name says."""
    try:
        return read_contract(path).precision
    except ContractError:
        return "fp16" if "fp16" in Path(path).stem else "fp32"
