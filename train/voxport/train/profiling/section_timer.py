"""Where the time of a training step goes, section by section, as Lightning's own loop runs it."""

import functools
import time
from collections import defaultdict
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.profilers import Profiler
from torch.profiler import ProfilerActivity, profile

# What Lightning calls each part of a step ends in one of these.
SECTIONS = {
    ".train_dataloader_next": "data",
    ".batch_to_device": "copy",
    ".training_step": "forward and loss",
    ".backward": "backward",
    ".optimizer_step": "optimiser",
    ".optimizer_zero_grad": "optimiser",
    ".lr_scheduler_step": "optimiser",
    ".logging": "logging",
}
LOOP = "Lightning's loop"


class SectionTimer(Profiler):
    """Seconds per section, each without the sections inside it; counts only while `running`.

    The device is waited for at every border, since work on a GPU is otherwise counted where somebody
    happens to wait for it. Such steps are slower than those of a real run.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.running = device, False
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float, float]] = []  # name, begin, seconds of what it contains

    def start(self, action_name: str) -> None:
        if self.running:
            synchronize(self.device)
            self._open.append((action_name, time.perf_counter(), 0.0))

    def stop(self, action_name: str) -> None:
        if not self.running or not self._open or self._open[-1][0] != action_name:
            return  # it began before the timer ran
        synchronize(self.device)
        name, begin, inside = self._open.pop()
        whole = time.perf_counter() - begin
        section = next((title for suffix, title in SECTIONS.items() if name.endswith(suffix)), LOOP)
        self.seconds[section] += whole - inside
        if self._open:
            outer, outer_begin, outer_inside = self._open.pop()
            self._open.append((outer, outer_begin, outer_inside + whole))

    def watch(self, logger: Logger) -> None:
        """Count what `logger` does as logging."""
        for name in ("log_metrics", "save"):
            setattr(logger, name, self._timed(getattr(logger, name)))

    def _timed(self, function: Any) -> Any:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.profile("logger.logging"):
                return function(*args, **kwargs)

        return timed


class Phases(pl.Callback):
    """Splits a run into warm-up, steps as fast as they go, steps in sections, and steps in operators."""

    def __init__(self, timer: SectionTimer, warmup: int, steps: int, operator_steps: int, pieces: int) -> None:
        self.timer, self._pieces = timer, pieces
        self._plain, self._sections = warmup, warmup + steps
        self._operators = self._sections + steps
        self.total = self._operators + operator_steps  # steps that the run must have
        self.plain_seconds = self.section_seconds = 0.0
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if timer.device.type == "cuda" else [])]
        self.operators = profile(activities=activities, acc_events=True)  # without it torch warns of lost cycles
        self._began = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self._pieces:
            return
        step = (batch_idx + 1) // self._pieces
        if step not in (self._plain, self._sections, self._operators, self.total):
            return
        synchronize(self.timer.device)
        now = time.perf_counter()
        if step == self._plain:
            pass
        elif step == self._sections:
            self.plain_seconds, self.timer.running = now - self._began, True
        elif step == self._operators:
            self.section_seconds, self.timer.running = now - self._began, False
            self.operators.start()
        else:
            self.operators.stop()
        self._began = time.perf_counter()


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
