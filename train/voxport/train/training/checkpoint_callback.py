"""The Lightning callback that writes a run's files: `last.ckpt` to resume from, `model.pt` to use.

A saved state holds the validation of its step, where one is due: Lightning does not make up for it when it goes on
from a state of before, so the run would forget a network that may be its best.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn

from voxport.train.checkpoint import Checkpoint, save_checkpoint
from voxport.train.training.lightning_module import SpeakerModule, TrainingError
from voxport.train.training.run_dir import RunFolder

METRICS = ("valid/accuracy_whole", "valid/accuracy_crop")


def best_validation(history: Sequence[dict[str, float]]) -> dict[str, float] | None:
    """The validation with the highest accuracy on whole utterances; of equals, the later one."""
    return max(history, key=lambda row: (row["valid/accuracy_whole"], row["step"]), default=None)


class RunSaver(pl.Callback):
    """Saves the resumable state every `save_every` steps, and the best network after validations.

    Of several processes only the first writes; the others know what it knows.
    `checkpoint(state, step, metrics)` builds the checkpoint to save.
    """

    def __init__(self, folder: RunFolder, checkpoint: Callable[[Any, int, dict[str, float]], Checkpoint]) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self.history: list[dict[str, float]] = []  # one entry per validation: step and both accuracies

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])

    @property
    def best(self) -> dict[str, float] | None:
        """The validation whose network is in `model.pt`."""
        return best_validation(self.history)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SpeakerModule)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # a state between two optimiser steps could not be resumed
        if not _is_due(pl_module, pl_module.options.validate_every):  # else it is saved after the validation
            self._save_if_due(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, SpeakerModule)
        row = {"step": float(trainer.global_step)}
        row.update({name: float(trainer.callback_metrics[name]) for name in METRICS})
        self.history = [old for old in self.history if old["step"] != row["step"]] + [row]
        if self.best == row:
            _refuse_non_finite(pl_module)
            if trainer.is_global_zero:
                state = pl_module.network.state_dict()
                save_checkpoint(self.checkpoint(state, trainer.global_step, row), self.folder.model)
        if trainer.state.fn == TrainerFn.FITTING:  # a validation after the end changes nothing that is resumed
            self._save_if_due(trainer, pl_module)

    def _save_if_due(self, trainer: pl.Trainer, module: SpeakerModule) -> None:
        if _is_due(module, module.options.save_every) or module.global_step == module.options.steps:
            self._save_last(trainer, module)

    def _save_last(self, trainer: pl.Trainer, module: SpeakerModule) -> None:
        _refuse_non_finite(module)
        part = self.folder.last.with_suffix(".part")
        try:
            trainer.save_checkpoint(part)  # by all processes; the first one writes
            if trainer.is_global_zero:
                os.replace(part, self.folder.last)
        except (OSError, RuntimeError) as problem:  # torch's zip writer reports a full disk as RuntimeError
            raise TrainingError(
                f"{self.folder.last}: cannot be written ({problem}); the checkpoint before it is intact. "
                "Make room and go on with --resume"
            ) from problem
        finally:
            if trainer.is_global_zero:
                part.unlink(missing_ok=True)


def _is_due(module: SpeakerModule, every: int) -> bool:
    return module.global_step % min(every, module.options.steps) == 0


def _refuse_non_finite(module: SpeakerModule) -> None:
    """Good weights must never be overwritten by lost ones, which the sparse check of the loss may miss.

    Batch statistics too: in fp16 an overflow spoils them in a step that leaves the weights alone.
    """
    for name, value in module.network.state_dict().items():
        if not torch.isfinite(value).all():
            raise TrainingError(
                f"weights {name} are no longer finite at step {module.global_step}; the last checkpoint is intact. "
                'Lower train.learning_rate, lengthen train.warmup_steps, or use train.precision = "fp32"'
            )
