"""The profile of a training step: sections, operators, and its share of what the device could do."""

import dataclasses
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from voxport.runtime.frontend.presets import profile as frontend_profile
from voxport.runtime.frontend.spec import Frontend
from voxport.runtime.storage.atomic import writing
from voxport.train.data import Corpus, CorpusOptions, Utterance, open_corpus
from voxport.train.data.feature_store import Pack
from voxport.train.profiling.section_timer import LOOP, SECTIONS, Phases, SectionTimer, synchronize
from voxport.train.recipe import Recipe
from voxport.train.training.compile import check_compilable
from voxport.train.training.dataloaders import ResidentCrops, Share, TrainingSteps, training_loader
from voxport.train.training.distributed import Place
from voxport.train.training.fit import build_module, training_source
from voxport.train.training.lightning_module import SpeakerModule, TrainingError
from voxport.train.training.trainer import Hardware, build_trainer, choose_device, choose_precision, quiet

OPERATOR_STEPS = 3  # enough for shares; a trace of more is hard to read
SYNTHETIC_FRAMES = 3  # times the crop: a crop then has places to choose from


@dataclass(frozen=True)
class ProfileOptions:
    """What is profiled. Without `data` the corpus is noise of `speakers` speakers: speed does not depend on speech."""

    data: Path | None = None
    corpus: CorpusOptions | None = None
    speakers: int = 600
    steps: int = 20
    warmup: int = 5
    device: str = "auto"
    accumulate: int = 1
    compiled: bool = False
    resident: Literal["auto", "yes", "no"] = "auto"
    trace: Path | None = None  # where a trace for chrome://tracing or Perfetto is written


@dataclass(frozen=True)
class Part:
    """A section or an operator: milliseconds and calls of an average step, and its share of the step."""

    name: str
    milliseconds: float
    share: float
    calls: float | None = None


@dataclass(frozen=True)
class StepProfile:
    """`steps_per_second` and `step_ms` are of steps without any measurement inside.

    `sections` wait for the device at every border, so that on a GPU their sum is longer than a step.
    `operators` are the ten with the longest time of their own. `step_gflop` counts the matrix products
    and convolutions of forward and backward (multiply and add as two); `ceiling_gflops` is what one large
    matrix product reaches on this device in this precision, and `ceiling_share` the step's part of it.
    """

    recipe: str
    device: str
    threads: int
    precision: str
    batch_size: int
    crop_frames: int
    accumulate: int
    compiled: bool
    resident: bool
    parameters: int
    steps_per_second: float
    step_ms: float
    sections: tuple[Part, ...]
    operators: tuple[Part, ...]
    step_gflop: float
    ceiling_gflops: float
    ceiling_share: float


def profile_step(recipe: Recipe, options: ProfileOptions) -> StepProfile:
    """Run a few steps of `recipe` as `fit` would, and say where their time goes. Keeps no weights.

    Raises:
        TrainingError: the device is missing, or the trace cannot be written.
        CorpusError: the corpus cannot be used.
    """
    device = choose_device(options.device)
    Share(0, 1, options.accumulate).check(recipe.train.batch_size)
    if options.compiled:
        check_compilable(recipe.train)
    # Steps of one length, the longest: else neither their time nor their arithmetic is that of a step.
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, shortest_crop=None))
    with tempfile.TemporaryDirectory(prefix="voxport-profile-") as folder:
        if options.data is None:
            frontend = options.corpus.frontend if options.corpus else frontend_profile(recipe.frontend)
            corpus = synthetic_corpus(recipe, frontend, options.speakers, Path(folder))
        else:
            assert options.corpus is not None
            corpus = open_corpus(options.data, options.corpus)
        return _profile(recipe, corpus, options, device, Path(folder))


def synthetic_corpus(recipe: Recipe, frontend: Frontend, speakers: int, folder: Path) -> Corpus:
    """Noise in a pack in `folder`, in utterances enough for two batches."""
    count = max(speakers, 2 * recipe.train.batch_size)
    frames = np.full(count, SYNTHETIC_FRAMES * recipe.train.crop_frames)
    path = folder / "noise.f32"
    noise = np.random.default_rng(0).standard_normal((int(frames.sum()), frontend.n_mels), dtype=np.float32)
    noise.tofile(path)
    pack = Pack(path, frontend.n_mels, np.cumsum(frames) - frames, frames)
    utterances = tuple(Utterance(f"noise{i}", i % speakers, int(frames[i])) for i in range(count))
    labels = tuple(f"speaker{i}" for i in range(speakers))
    return Corpus("manifest", path, frontend, labels, utterances, (), (), pack)


def _profile(recipe: Recipe, corpus: Corpus, options: ProfileOptions, device: str, folder: Path) -> StepProfile:
    where = torch.device(device)
    timer = SectionTimer(where)
    phases = Phases(timer, options.warmup, options.steps, OPERATOR_STEPS, options.accumulate)
    train = dataclasses.replace(recipe.train, steps=phases.total)
    labels = torch.zeros(1, dtype=torch.long)  # of a validation that does not take place
    module = build_module(recipe, corpus, device, options.compiled, options.accumulate, labels)
    source = training_source(corpus, np.arange(len(corpus.utterances)), train, where, options.resident)
    steps = TrainingSteps(source, train, 0, Share(0, 1, options.accumulate))
    flop = options.accumulate * _flop(module, next(iter(steps)))
    loggers = [CSVLogger(folder, name="csv"), TensorBoardLogger(folder, name="tensorboard")]
    for logger in loggers:
        timer.watch(logger)
    settings: dict[str, Any] = {"callbacks": [phases], "logger": loggers, "profiler": timer, "limit_val_batches": 0}
    with quiet():
        trainer = build_trainer(train, Hardware(device, Place(), options.accumulate), **settings)
        pinned = device == "cuda" and not isinstance(source, ResidentCrops)
        trainer.fit(module, training_loader(steps, pinned))
    if options.trace is not None:
        _write_trace(phases.operators, options.trace)
    seconds = phases.plain_seconds / options.steps
    ceiling = matrix_ceiling(where, _dtype(recipe, device))
    return StepProfile(
        recipe=recipe.name,
        device=torch.cuda.get_device_name(where) if device == "cuda" else platform.processor() or platform.machine(),
        threads=torch.get_num_threads(),
        precision=choose_precision(recipe.train.precision, device),
        batch_size=train.batch_size,
        crop_frames=train.crop_frames,
        accumulate=options.accumulate,
        compiled=options.compiled,
        resident=isinstance(source, ResidentCrops),
        parameters=sum(parameter.numel() for parameter in module.network.parameters()),
        steps_per_second=1 / seconds,
        step_ms=1e3 * seconds,
        sections=_sections(timer, phases.section_seconds, options.steps),
        operators=_operators(phases.operators, where),
        step_gflop=flop / 1e9,
        ceiling_gflops=ceiling / 1e9,
        ceiling_share=flop / seconds / ceiling,
    )


def _flop(module: SpeakerModule, batch: tuple[Tensor, Tensor]) -> float:
    """Floating-point operations of forward and backward of one batch, counted on the way through."""
    network, (features, labels) = module.network.to(batch[0].device), batch
    counter = FlopCounterMode(display=False)
    with counter:
        network.head.loss(network(features), labels).backward()  # type: ignore[no-untyped-call]
    network.zero_grad()
    return float(counter.get_total_flops())


def matrix_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product: the best of seven."""
    size = 8192 if device.type == "cuda" else 1024
    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(7):
        synchronize(device)
        began = time.perf_counter()
        left @ right
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def _dtype(recipe: Recipe, device: str) -> torch.dtype:
    precision = choose_precision(recipe.train.precision, device)
    return {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}[precision]


def _sections(timer: SectionTimer, seconds: float, steps: int) -> tuple[Part, ...]:
    """In the order of a step; what no section claims is the loop's."""
    measured = {name: timer.seconds[name] for name in dict.fromkeys(SECTIONS.values())}
    measured[LOOP] = seconds - sum(measured.values())
    return tuple(Part(name, 1e3 * value / steps, value / seconds) for name, value in measured.items())


def _operators(run: profile, device: torch.device) -> tuple[Part, ...]:
    events = run.key_averages()
    if device.type == "cuda":
        times = {event.key: float(event.self_device_time_total) for event in events}
    else:
        times = {event.key: float(event.self_cpu_time_total) for event in events}
    total = sum(times.values()) or 1.0
    calls = {event.key: event.count / OPERATOR_STEPS for event in events}
    longest = sorted(times, key=lambda name: times[name], reverse=True)[:10]
    return tuple(Part(name, times[name] / OPERATOR_STEPS / 1e3, times[name] / total, calls[name]) for name in longest)


def _write_trace(run: profile, path: Path) -> None:
    try:
        with writing(path, ".json") as part:
            run.export_chrome_trace(str(part))
    except (OSError, RuntimeError) as problem:
        raise TrainingError(f"{path}: the trace cannot be written ({problem})") from problem
