"""Lightning's Trainer as voxport runs it: devices, precision, processes, and little to do per step."""

import contextlib
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from voxport.train.models.layers import CpuLayerSync
from voxport.train.recipe import TrainOptions
from voxport.train.training.distributed import Place
from voxport.train.training.lightning_module import LOG_EVERY, TrainingError


@dataclass(frozen=True)
class Hardware:
    """What a run is carried out on. `device` is cpu or cuda; `accumulate` pieces make one batch."""

    device: str
    place: Place
    accumulate: int


def choose_device(device: str) -> str:
    """`auto` → the best there is; a device that is asked for and missing is an error."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: PyTorch sees no CUDA device here; use --device cpu, or mend the driver")
    if device not in ("cpu", "cuda"):
        raise TrainingError(f"--device {device}: must be auto, cpu or cuda")
    return device


def choose_precision(precision: str, device: str) -> str:
    """Lightning's name for a recipe's precision on `device` (cpu or cuda).

    Raises:
        TrainingError: fp16 on a CPU.
    """
    if precision == "fp16" and device == "cpu":
        raise TrainingError('train.precision = "fp16" needs a GPU; use "fp32", "bf16" or "auto" on a CPU')
    if precision == "auto":  # bf16 halves a step's time on tensor cores and gains nothing on most CPUs
        precision = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]


class StateFile(TorchCheckpointIO):
    """Writes a state where it is asked for, and waits until the disk has it.

    Lightning's own goes by way of the system's temporary folder, which may be a fuller disk, and where a killed
    run leaves its half.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], *_: Any, **__: Any) -> None:
        """Write `checkpoint` to `path`."""
        with open(path, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


def build_trainer(options: TrainOptions, hardware: Hardware, **settings: Any) -> pl.Trainer:
    """A Trainer for one run; `settings` (callbacks, loggers, a profiler) are Lightning's own."""
    pieces = hardware.accumulate
    return pl.Trainer(
        accelerator=hardware.device,
        precision=choose_precision(options.precision, hardware.device),  # type: ignore[arg-type]
        max_steps=options.steps,
        max_epochs=-1,
        accumulate_grad_batches=pieces,
        val_check_interval=min(options.validate_every, options.steps) * pieces,  # Lightning counts pieces here
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=LOG_EVERY,
        use_distributed_sampler=False,  # the batches divide themselves
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,  # Lightning's draws itself once per step
        **_processes(hardware),
        **settings,
    )


def _processes(hardware: Hardware) -> dict[str, Any]:
    place = hardware.place
    if not place.launched:
        return {"devices": 1, "plugins": [StateFile()]}
    torchrun = TorchElasticEnvironment.detect()
    plugins: list[Any] = [StateFile(), TorchElasticEnvironment() if torchrun else LightningEnvironment()]
    if hardware.device == "cpu":
        plugins.append(CpuLayerSync())
    return {
        "devices": place.world // place.nodes,
        "num_nodes": place.nodes,
        # Synchronised batch normalisation keeps its running statistics equal by itself.
        "strategy": DDPStrategy(broadcast_buffers=False),
        "sync_batchnorm": hardware.device == "cuda",
        "plugins": plugins,
    }


class StepBar(pl.Callback):
    """A progress bar on stderr that draws itself five times a second, however short a step is."""

    def __init__(self) -> None:
        columns = (TextColumn("Training"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, *times, console=Console(stderr=True), auto_refresh=False)
        self._drawn = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._bar.start()
        self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        now = time.monotonic()
        if now - self._drawn > 0.2 or trainer.global_step == trainer.max_steps:
            self._drawn = now
            self._bar.update(self._task, completed=trainer.global_step, refresh=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._bar.stop()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice that does not apply here, such as workers for data that is already in memory."""
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    with warnings.catch_warnings(), _silent_writers():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*IterableDataset.*__len__.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # a batch follows from its step
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")  # a profile validates nothing
        yield


@contextlib.contextmanager
def _silent_writers() -> Iterator[None]:
    """TensorBoard's thread raises in the run what it meets, a full disk say; its own traceback tells nothing more."""
    others = threading.excepthook

    def is_writer(thread: threading.Thread | None) -> bool:
        return type(thread).__module__.startswith("tensorboard.")

    def hook(told: Any) -> None:
        if not is_writer(told.thread):
            others(told)

    threading.excepthook = hook
    try:
        yield
    finally:
        for thread in filter(is_writer, threading.enumerate()):
            if getattr(thread, "exception", None) is not None:  # it is about to print
                thread.join(1.0)
        threading.excepthook = others
