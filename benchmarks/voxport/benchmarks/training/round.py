"""One round of `voxport bench train`: warm up, count steps, take steps apart. Imports torch."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from voxport.benchmarks.backends.precision import autocast, cuda_event, set_float32
from voxport.benchmarks.system.machine import Fact
from voxport.benchmarks.system.resources import peak_memory
from voxport.benchmarks.tasks.device_peaks import (
    cudnn_version,
    parameters_of,
    product_ceiling,
    wait,
)
from voxport.benchmarks.training.report import Phases, TrainRound, TrainSettings
from voxport.runtime.errors import BackendError, VoxportError
from voxport.runtime.frontend.presets import profile
from voxport.runtime.storage.serialization import decode
from voxport.train.models.speaker_net import SpeakerNet, build_network
from voxport.train.recipe import Recipe, load_recipe

_POOL = 16  # batches from a seed, used in turn
_APART = 10  # steps that are taken apart
_CHECK = 5  # steps between two looks at the clock: a GPU must not wait for each

Batch = tuple[Tensor, Tensor]


def train_round(request: dict[str, Any]) -> dict[str, Any]:
    """Train as `request["settings"]` say; a job of `training.runner`."""
    settings = decode(TrainSettings, request["settings"], "settings")
    seed = settings.seed * 1000 + int(request["round"])
    _prepare(settings, seed)
    recipe = load_recipe(settings.recipe)
    speakers, batches = _batches(settings, recipe, seed)
    trainer = _Trainer(settings, recipe, speakers, batches)
    return {
        "round": trainer.measure(),
        "parameters": parameters_of(trainer.network),
        "speakers": speakers,
        "versions": {"torch": torch.__version__, "cuda": str(torch.version.cuda), "numpy": np.__version__},
    }


def _prepare(settings: TrainSettings, seed: int) -> None:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"device cuda was asked for, but PyTorch {torch.__version__} finds no usable GPU; "
            "install a CUDA build of torch and a driver, or measure with --device cpu"
        )
    if settings.precision in ("tf32", "fp16") and settings.device == "cpu":
        raise BackendError(f"training in {settings.precision} needs a GPU; on a CPU there are fp32 and bf16")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(seed)
    set_float32(settings.precision)


def _batches(settings: TrainSettings, recipe: Recipe, seed: int) -> tuple[int, Iterator[Batch]]:
    """The number of speakers, and batches without end, in the host's memory."""
    if not settings.data:
        rng = np.random.default_rng(seed)
        shape = (settings.batch_size, settings.frames, profile(settings.frontend or recipe.frontend).n_mels)
        pool = [
            (
                torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)),
                torch.from_numpy(rng.integers(0, settings.speakers, settings.batch_size)),
            )
            for _ in range(_POOL)
        ]
        return settings.speakers, itertools.cycle(pool)
    from voxport.train.data import CorpusOptions, CropBatches, open_corpus, split_utterances

    corpus = open_corpus(Path(settings.data), CorpusOptions(profile(settings.frontend or recipe.frontend)))
    split = split_utterances(corpus, recipe.train.valid_fraction, recipe.train.seed)
    crops = CropBatches(corpus, corpus.indices(split.train), settings.batch_size, settings.frames, seed)
    tensors = ((torch.from_numpy(f), torch.from_numpy(s)) for f, s in map(crops.batch, itertools.count()))
    return len(corpus.labels), tensors


@dataclass
class _Split:
    """The moments between the phases of one step: seconds on a CPU, events on a GPU."""

    device: str
    marks: list[Any] = dataclasses.field(default_factory=list)

    def mark(self) -> None:
        if self.device == "cuda":
            event = cuda_event()
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        wait(self.device)
        pairs = list(itertools.pairwise(self.marks))
        if self.device == "cuda":
            return [first.elapsed_time(second) / 1e3 for first, second in pairs]
        return [second - first for first, second in pairs]


class _Trainer:
    """A network with its optimiser, and the steps that are timed: those of `voxport train fit`, without Lightning."""

    def __init__(self, settings: TrainSettings, recipe: Recipe, speakers: int, batches: Iterator[Batch]) -> None:
        self.settings, self.batches = settings, batches
        n_mels = profile(settings.frontend or recipe.frontend).n_mels
        self.network: SpeakerNet = build_network(recipe.model, n_mels, speakers).train().to(settings.device)
        # The scores alone are compiled: the loss is a few small operations.
        self.scores: Any = torch.compile(self.network) if settings.compile else self.network
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.train.learning_rate, weight_decay=recipe.train.weight_decay
        )
        self.scaler = torch.amp.grad_scaler.GradScaler(settings.device, enabled=settings.precision == "fp16")
        self.loss = torch.zeros(())

    def step(self, split: _Split | None = None) -> None:
        """One optimiser step; with `split`, its phases are marked."""
        marks = split.mark if split is not None else _nothing
        marks()
        features, labels = next(self.batches)
        features, labels = self._moved(features), self._moved(labels)
        marks()
        with autocast(self.settings.precision, self.settings.device):
            self.loss = self.network.head.loss(self.scores(features), labels)
        marks()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(self.loss))
        marks()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        marks()

    def _moved(self, tensor: Tensor) -> Tensor:
        if self.settings.device == "cpu":
            return tensor
        return tensor.pin_memory().to("cuda", non_blocking=True)

    def measure(self) -> TrainRound:
        """Warm up, run whole steps, take some apart, count operations, and measure the ceiling."""
        settings = self.settings
        start = time.perf_counter()
        self.step()
        wait(settings.device)
        first = time.perf_counter() - start
        warmup_steps, _ = self._run(max(settings.warmup, 1e-6))
        if settings.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        steps, seconds = self._run(settings.seconds)
        device_bytes = torch.cuda.max_memory_allocated() if settings.device == "cuda" else None
        resident = peak_memory()
        phases = self._phases()
        loss = float(self.loss.detach())
        if not np.isfinite(loss):
            raise VoxportError(f"the loss is {loss} after {steps} steps: measure in fp32, or with another recipe")
        ceiling, note = product_ceiling(settings.device, settings.precision)
        return TrainRound(
            steps=steps,
            seconds=seconds,
            warmup_steps=warmup_steps + 1,
            first_step=first,
            phases=phases,
            gflop=self._gflop(),
            ceiling=ceiling,
            ceiling_note=note,
            resident=resident,
            device_bytes=device_bytes,
            loss=loss,
            facts=_facts(settings),
        )

    def _run(self, seconds: float) -> tuple[int, float]:
        """Steps until `seconds` have passed, and how many they truly were."""
        wait(self.settings.device)
        start, steps = time.perf_counter(), 0
        while True:
            self.step()
            steps += 1
            if steps % _CHECK and self.settings.device == "cuda":
                continue
            wait(self.settings.device)
            passed = time.perf_counter() - start
            if passed >= seconds and steps >= 2:
                return steps, passed

    def _phases(self) -> Phases:
        apart = []
        for _ in range(_APART):
            split = _Split(self.settings.device)
            self.step(split)
            apart.append(split.seconds())
        data, forward, backward, optimiser = (statistics.median(column) for column in zip(*apart, strict=True))
        return Phases(data, forward, backward, optimiser)

    def _gflop(self) -> float:
        """Operations of one step, in units of 10⁹: what PyTorch's counter sees of the forward and backward pass.

        Attention is taken apart for it: the counter does not know every fused kernel.
        """
        features, labels = (self._moved(each) for each in next(self.batches))
        counter = FlopCounterMode(display=False)
        with counter, nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
            torch.autograd.backward(self.network.head.loss(self.network(features), labels))
        return float(counter.get_total_flops()) / 1e9


def _nothing() -> None:
    return None


def _facts(settings: TrainSettings) -> tuple[Fact, ...]:
    found = [Fact("threads", str(torch.get_num_threads()))]
    if settings.device == "cuda":
        found += [Fact("gpu", torch.cuda.get_device_name()), Fact("cudnn", cudnn_version())]
    return tuple(found)
