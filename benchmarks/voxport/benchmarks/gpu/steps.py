"""The steps of `voxport bench gpu`, each a job in a process of its own. Imports torch."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from voxport.benchmarks.backends.compiled import build_plain_onnx
from voxport.benchmarks.backends.registry import build_backend, kind_of
from voxport.benchmarks.core.inputs import make_inputs
from voxport.benchmarks.core.protocol import Open, Time
from voxport.benchmarks.core.settings import BackendSpec, Cell, InputSpec, Load
from voxport.benchmarks.core.timing import BlockRule
from voxport.benchmarks.gpu.report import Ceilings, GpuBlock, GpuParity, GpuSettings
from voxport.benchmarks.gpu.variants import ALLOWED, Variant
from voxport.benchmarks.system.gpu_state import gpu_states
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.tasks.device_peaks import (
    copy_ceiling,
    cudnn_version,
    launch_us,
    parameters_of,
    product_ceiling,
)
from voxport.benchmarks.worker.server import Worker
from voxport.runtime.backends.onnxrt.session import import_onnxruntime
from voxport.runtime.errors import BackendError, LengthError
from voxport.runtime.frontend.presets import profile
from voxport.runtime.storage.atomic import writing
from voxport.runtime.storage.serialization import decode, encode
from voxport.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxport.train.data.split import Split
from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import load_recipe

_SPEAKERS = 600
_POOL = 4  # distinct inputs of a cell, used in turn
_REFERENCE_ROWS = 8
_MOST_CALLS = 600
_PACKAGES = (
    "torch triton torchaudio numpy onnx onnxscript onnxruntime onnxruntime-gpu tensorrt pytorch-lightning torchmetrics"
).split()


def environment_step(request: dict[str, Any]) -> dict[str, str]:
    """What is there: versions, the GPU as PyTorch sees it, ONNX Runtime's providers."""
    settings = decode(GpuSettings, request["settings"], "settings")
    found = {"python": sys.version.split()[0], "device": settings.device}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    found["torch"] = torch.__version__
    found["CUDA of torch"] = str(torch.version.cuda)
    if settings.device == "cuda":
        if not torch.cuda.is_available():
            raise BackendError(
                f"PyTorch {torch.__version__} finds no usable GPU; install a CUDA build of torch and a driver, or try "
                "the whole way on a CPU with --device cpu"
            )
        told = torch.cuda.get_device_properties(0)
        found["gpu"] = told.name
        found["gpu memory"] = f"{told.total_memory / 2**30:.1f} GiB"
        found["multiprocessors"] = str(told.multi_processor_count)
        found["compute capability"] = f"{told.major}.{told.minor}"
        found["cuDNN"] = cudnn_version()
    try:
        found["providers"] = ", ".join(import_onnxruntime("cpu").get_available_providers())
    except BackendError as problem:
        found["providers"] = f"onnxruntime does not start ({problem})"
    return found


def network_step(request: dict[str, Any]) -> dict[str, Any]:
    """Load the checkpoint, or make a fresh network; write it, and the answers in float64, into the folder."""
    settings, folder = decode(GpuSettings, request["settings"], "settings"), Path(request["folder"])
    if settings.checkpoint:
        checkpoint = load_checkpoint(settings.checkpoint)
        told = f"{Path(settings.checkpoint).name}, recipe {checkpoint.recipe.name}, {len(checkpoint.labels)} speakers"
    else:
        checkpoint = _fresh(settings)
        told = f"recipe {checkpoint.recipe.name} with {_SPEAKERS} speakers, freshly initialised (no checkpoint given)"
    save_checkpoint(checkpoint, folder / "network.pt")
    network = checkpoint.network()
    parameters = parameters_of(network)
    exact = checkpoint.network().double().to(settings.device)
    answers: dict[str, Any] = {}
    with torch.inference_mode():
        for cell in settings.cells:
            source = torch.from_numpy(make_inputs(_inputs(settings, checkpoint), cell, "features").arrays[0])
            # A few rows at a time: attention in float64 takes memory by the square of the length.
            rows = [exact(part.to(settings.device).double()).cpu() for part in torch.split(source, _REFERENCE_ROWS)]
            answers[str(cell)] = torch.cat(rows).numpy()
    with writing(folder / "reference.npz", ".npz") as part:
        np.savez(part, **answers)
    return {"network": told, "parameters": parameters, "plain": _plain_onnx(settings, folder)}


def _fresh(settings: GpuSettings) -> Checkpoint:
    recipe = load_recipe(settings.recipe)
    frontend = profile(recipe.frontend)
    torch.manual_seed(settings.seed)
    state = build_network(recipe.model, frontend.n_mels, _SPEAKERS).state_dict()
    labels = tuple(f"speaker {i}" for i in range(_SPEAKERS))
    return Checkpoint(recipe, frontend, labels, state, Split(("none",), ("none",)), 0, {})


def _plain_onnx(settings: GpuSettings, folder: Path) -> dict[str, str]:
    """Export the network as torch.onnx does it, where no ONNX file was given; how, or why not.

    The older exporter, which needs no onnxscript, writes the example's length into attention's reshapes.
    """
    if settings.onnx:
        return {"path": "", "how": "not needed, an ONNX file was given"}
    if importlib.util.find_spec("onnxscript") is None:
        return {"path": "", "how": "not made, torch.onnx needs onnxscript; give a file with --onnx and --checkpoint"}
    path, network = str(folder / "plain.onnx"), str(folder / "network.pt")
    spec = BackendSpec("plain export", "plain_onnx", network, "candidate", "features", "cpu", 1, built=path)
    try:
        return {"path": path, "how": build_plain_onnx(spec, _inputs(settings, load_checkpoint(network)))}
    except BackendError as problem:
        return {"path": "", "how": f"{problem!s:.300}; give --onnx FILE and --checkpoint"}


def _inputs(settings: GpuSettings, checkpoint: Checkpoint) -> InputSpec:
    return InputSpec(checkpoint.frontend, settings.seed, pool=_POOL)


def ceilings_step(request: dict[str, Any]) -> Ceilings:
    """Matrix products in every precision, a copy, an empty kernel, and what the network asks for."""
    settings, folder = decode(GpuSettings, request["settings"], "settings"), Path(request["folder"])
    torch.set_num_threads(settings.threads)
    precisions = ("fp32", "tf32", "bf16", "fp16") if settings.device == "cuda" else ("fp32",)
    products = tuple(Fact(each, f"{product_ceiling(settings.device, each)[0]:.1f}") for each in precisions)
    checkpoint = load_checkpoint(folder / "network.pt")
    network = checkpoint.network().to("meta")
    asked = []
    for cell in settings.cells:
        counter = FlopCounterMode(display=False)
        source = torch.zeros(cell.batch, cell.frames, checkpoint.frontend.n_mels, device="meta")
        with counter, torch.no_grad(), nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
            network(source)
        asked.append(Fact(str(cell), f"{counter.get_total_flops() / 1e9:.4f}"))
    return Ceilings(products, copy_ceiling(settings.device), launch_us(settings.device), tuple(asked))


def variant_step(request: dict[str, Any]) -> dict[str, Any]:
    """Open one back end in the worker of `voxport bench latency`, compare its answers with float64, and time it.

    What is done is added to the file `request["partial"]` line by line: a crash at a large cell keeps the small ones.
    A cell that the model does not take (a plan has its largest batch and length) is left out, and told.
    """
    settings, folder = decode(GpuSettings, request["settings"], "settings"), Path(request["folder"])
    variant, number = decode(Variant, request["variant"], "variant"), int(request["round"])
    reason = variant.unfit(settings.device)
    if reason:
        raise BackendError(reason)
    spec = _placed(variant.spec, folder, Path(request["built"]))
    inputs = InputSpec(load_checkpoint(folder / "network.pt").frontend, settings.seed, pool=_POOL)
    before = _device_used(settings)
    start = time.perf_counter()
    if spec.kind in ("torchscript", "aoti") and not Path(spec.built).exists():
        build_backend(spec, inputs)
    worker = Worker()
    opened = worker.open(Open(spec, inputs))
    answers = np.load(folder / "reference.npz")
    with open(request["partial"], "a", encoding="utf-8") as log:

        def say(kind: str, value: Any) -> None:
            log.write(json.dumps({kind: encode(value)}) + "\n")
            log.flush()

        built: float | None = None
        left_out = []
        for cell in settings.cells:
            backend, calls = worker.inputs(cell, Load())
            try:
                scores = backend.run(calls.arrays[0], calls.lengths)
            except LengthError as problem:
                left_out.append(f"{cell} left out: {problem}")
                continue
            if number == 0:
                say("parity", _parity(variant, cell, scores, answers[str(cell)]))
            # torch.compile compiles at its first call only: opening without it would seem free.
            built = time.perf_counter() - start if built is None else built
            say("block", _block(variant, cell, worker, settings, number))
        if len(left_out) == len(settings.cells):
            raise BackendError(left_out[0])
    used = _device_used(settings)
    grown = None if used is None or before is None else max(0, used - before)
    return {"build_seconds": built, "device_bytes": grown, "facts": opened.facts, "left_out": left_out}


def _placed(spec: BackendSpec, folder: Path, built: Path) -> BackendSpec:
    """A spec that is made of the network gets its file, and a place for what is made of it."""
    if spec.path or spec.built:
        return spec
    place = str(built / f"{zlib.crc32(spec.name.encode()):08x}{kind_of(spec).suffix}")
    return dataclasses.replace(spec, path=str(folder / "network.pt"), built=place if kind_of(spec).builder else "")


def _device_used(settings: GpuSettings) -> int | None:
    """Bytes in use on the device, by anybody: also what libraries beside PyTorch took."""
    if settings.device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free


def _parity(variant: Variant, cell: Cell, scores: npt.NDArray[np.float32], exact: npt.NDArray[np.float64]) -> GpuParity:
    allowed = ALLOWED[variant.spec.precision]
    if scores.shape != exact.shape or not np.isfinite(scores).all():
        return GpuParity(variant.name, cell, None, None, 0.0, allowed, same=False)
    away = scores.astype(np.float64) - exact
    relative = float(np.linalg.norm(away) / np.linalg.norm(exact))
    top1 = float(np.mean(scores.argmax(axis=1) == exact.argmax(axis=1)))
    return GpuParity(variant.name, cell, float(np.abs(away).max()), relative, top1, allowed, same=relative <= allowed)


def _block(variant: Variant, cell: Cell, worker: Worker, settings: GpuSettings, number: int) -> GpuBlock:
    rule = BlockRule(
        seconds=settings.seconds,
        warmup_seconds=settings.warmup,
        warmup_cap=max(1.0, 4 * settings.warmup),
        window_seconds=0.03,
        max_calls=_MOST_CALLS,
    )
    timed = worker.time(Time(cell, rule, Load()))
    last = cell == settings.cells[-1]  # asking nvidia-smi takes as long as a cell
    states = gpu_states() if settings.device == "cuda" and last else ()
    return GpuBlock(
        round=number,
        backend=variant.name,
        cell=cell,
        warmup=timed.warmup,
        wall_ns=timed.wall_ns,
        device_ns=timed.device_ns,
        gpus=states,
        cpu_ns=timed.cpu_ns,
    )
