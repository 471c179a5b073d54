"""The steps of `voxport bench gpu`, each a job in a process of its own. Imports torch."""

import importlib.metadata
import importlib.util
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from voxport.benchmarks.core.inputs import voice
from voxport.benchmarks.core.settings import Cell
from voxport.benchmarks.core.timing import BlockRule, Clock, time_calls, warm_up
from voxport.benchmarks.gpu.backends import GpuRunner, open_runner
from voxport.benchmarks.gpu.report import Ceilings, GpuBlock, GpuParity, GpuSettings
from voxport.benchmarks.gpu.variants import ALLOWED, Variant
from voxport.benchmarks.system.gpu_state import gpu_states
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.tasks.device_peaks import (
    copy_ceiling,
    cuda_event,
    cudnn_version,
    launch_us,
    parameters_of,
    product_ceiling,
)
from voxport.runtime.backends.onnxrt.session import import_onnxruntime
from voxport.runtime.errors import BackendError, LengthError
from voxport.runtime.frontend.log_mel import compute_features, min_samples
from voxport.runtime.frontend.presets import profile
from voxport.runtime.storage.serialization import decode, encode
from voxport.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from voxport.train.data.split import Split
from voxport.train.models.speaker_net import build_network
from voxport.train.recipe import load_recipe

_SPEAKERS = 600
_POOL = 4  # distinct inputs of a cell, used in turn
_VOICES = 8
_REFERENCE_ROWS = 8
_DEVICE_CALLS = 30
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
            source = torch.from_numpy(cell_inputs(settings, checkpoint, cell)[0])
            # A few rows at a time: attention in float64 takes memory by the square of the length.
            rows = [exact(part.to(settings.device).double()).cpu() for part in torch.split(source, _REFERENCE_ROWS)]
            answers[str(cell)] = torch.cat(rows).numpy()
    part = folder / f".reference.{os.getpid()}.npz"
    np.savez(part, **answers)
    os.replace(part, folder / "reference.npz")
    return {"network": told, "parameters": parameters, "plain": _plain_onnx(settings, network, folder)}


def _fresh(settings: GpuSettings) -> Checkpoint:
    recipe = load_recipe(settings.recipe)
    frontend = profile(recipe.frontend)
    torch.manual_seed(settings.seed)
    state = build_network(recipe.model, frontend.n_mels, _SPEAKERS).state_dict()
    labels = tuple(f"speaker {i}" for i in range(_SPEAKERS))
    return Checkpoint(recipe, frontend, labels, state, Split(("none",), ("none",)), 0, {})


def _plain_onnx(settings: GpuSettings, network: nn.Module, folder: Path) -> dict[str, str]:
    """Export the network as torch.onnx does it, where no ONNX file was given; how, or why not.

    The older exporter, which needs no onnxscript, writes the example's length into attention's reshapes.
    """
    path = folder / "plain.onnx"
    if settings.onnx:
        return {"path": "", "how": "not needed, an ONNX file was given"}
    if importlib.util.find_spec("onnxscript") is None:
        return {"path": "", "how": "not made, torch.onnx needs onnxscript; give a file with --onnx and --checkpoint"}
    project: Any = network.project
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (torch.randn(2, 200, project.in_features),),
                str(path),
                input_names=["features"],
                output_names=["scores"],
                opset_version=18,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},),
                external_data=False,
            )
    except Exception as problem:  # exporters have no common error
        path.unlink(missing_ok=True)
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        return {"path": "", "how": f"torch.onnx.export failed ({reason:.200}); give --onnx FILE and --checkpoint"}
    return {"path": str(path), "how": f"torch.onnx.export of torch {torch.__version__}, opset 18"}


def cell_inputs(settings: GpuSettings, checkpoint: Checkpoint, cell: Cell) -> list[npt.NDArray[np.float32]]:
    """Voice-like features (batch, frames, n_mels), the same in every process; several, used in turn."""
    rng = np.random.default_rng((settings.seed, cell.batch, cell.frames))
    frontend = checkpoint.frontend
    samples = min_samples(frontend, cell.frames)
    bank = np.stack(
        [compute_features(voice(samples, frontend.sample_rate, rng), frontend)[: cell.frames] for _ in range(_VOICES)]
    )
    return [np.ascontiguousarray(bank[rng.integers(_VOICES, size=cell.batch)]) for _ in range(_POOL)]


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
    """Open one back end, hold its answers against float64, and time it at every cell.

    What is done is added to the file `request["partial"]` line by line: a crash at a large cell keeps the small ones.
    A cell that the model does not take (a plan has its largest batch and length) is left out, and told.
    """
    settings, folder = decode(GpuSettings, request["settings"], "settings"), Path(request["folder"])
    variant, number = decode(Variant, request["variant"], "variant"), int(request["round"])
    checkpoint = load_checkpoint(folder / "network.pt")
    before = _device_used(settings)
    start = time.perf_counter()
    runner = open_runner(variant, settings, checkpoint.network())
    answers = np.load(folder / "reference.npz")
    with open(request["partial"], "a", encoding="utf-8") as log:

        def say(kind: str, value: Any) -> None:
            log.write(json.dumps({kind: encode(value)}) + "\n")
            log.flush()

        built: float | None = None
        left_out = []
        for cell in settings.cells:
            inputs = cell_inputs(settings, checkpoint, cell)
            try:
                scores = runner.run(inputs[0])
            except LengthError as problem:
                left_out.append(f"{cell} left out: {problem}")
                continue
            if number == 0:
                say("parity", _parity(variant, cell, scores, answers[str(cell)]))
            # torch.compile compiles at its first call only: opening without it would seem free.
            built = time.perf_counter() - start if built is None else built
            say("block", _block(variant, cell, runner, inputs, settings, number))
        if len(left_out) == len(settings.cells):
            raise BackendError(left_out[0])
    used = _device_used(settings)
    grown = None if used is None or before is None else max(0, used - before)
    return {"build_seconds": built, "device_bytes": grown, "facts": runner.facts(), "left_out": left_out}


def _device_used(settings: GpuSettings) -> int | None:
    """Bytes in use on the device, by anybody: also what libraries beside PyTorch took."""
    if settings.device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    return total - free


def _parity(variant: Variant, cell: Cell, scores: npt.NDArray[np.float32], exact: npt.NDArray[np.float64]) -> GpuParity:
    allowed = ALLOWED[variant.precision]
    if scores.shape != exact.shape or not np.isfinite(scores).all():
        return GpuParity(variant.name, cell, None, None, 0.0, allowed, same=False)
    away = scores.astype(np.float64) - exact
    relative = float(np.linalg.norm(away) / np.linalg.norm(exact))
    top1 = float(np.mean(scores.argmax(axis=1) == exact.argmax(axis=1)))
    return GpuParity(variant.name, cell, float(np.abs(away).max()), relative, top1, allowed, same=relative <= allowed)


def _block(
    variant: Variant,
    cell: Cell,
    runner: GpuRunner,
    inputs: list[npt.NDArray[np.float32]],
    settings: GpuSettings,
    number: int,
) -> GpuBlock:
    rule = BlockRule(
        seconds=settings.seconds,
        warmup_seconds=settings.warmup,
        warmup_cap=max(1.0, 4 * settings.warmup),
        window_seconds=0.03,
        max_calls=_MOST_CALLS,
    )
    clock = Clock()

    def call(turn: int) -> object:
        return runner.run(inputs[turn % len(inputs)])

    warmup = warm_up(call, rule, clock)
    walls, _ = time_calls(call, rule, clock)
    last = cell == settings.cells[-1]  # asking nvidia-smi takes as long as a cell
    states = gpu_states() if settings.device == "cuda" and last else ()
    return GpuBlock(number, variant.name, cell, warmup, tuple(walls), _device_ns(runner, inputs[0], settings), states)


def _device_ns(runner: GpuRunner, features: npt.NDArray[np.float32], settings: GpuSettings) -> tuple[int, ...]:
    """Nanoseconds between CUDA events around calls whose input is on the device already; none on a CPU."""
    call = runner.on_device(features) if settings.device == "cuda" else None
    if call is None:
        return ()
    pairs = []
    for _ in range(_DEVICE_CALLS):
        begin, end = cuda_event(), cuda_event()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        pairs.append(round(begin.elapsed_time(end) * 1e6))
    return tuple(pairs)
