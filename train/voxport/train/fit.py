"""Training from a corpus and a recipe to a run folder with a checkpoint."""

import contextlib
import dataclasses
import itertools
import logging
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from voxport.runtime.frontend import pad_value
from voxport.train.batches import FixedCrops, WholeUtterances
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusOptions, CropBatches, Split, open_corpus, split_utterances
from voxport.train.model import build_network
from voxport.train.module import LOG_EVERY, SpeakerModule, TrainingError
from voxport.train.recipe import Recipe, TrainOptions
from voxport.train.run import RunFacts, RunFolder
from voxport.train.saving import RunSaver


@dataclass(frozen=True)
class FitOptions:
    """Where a run goes and how it is carried out; none of this changes what is learnt."""

    out: Path
    corpus: CorpusOptions
    device: str = "auto"  # auto, cpu or cuda
    resume: bool = False
    progress: bool = True


@dataclass(frozen=True)
class FitResult:
    """A finished run. Accuracies in [0, 1] on the validation utterances; time in seconds."""

    model: Path
    steps: int
    best_step: int
    accuracy_whole: float
    accuracy_crop: float
    seconds: float
    parameters: int


def with_steps(recipe: Recipe, steps: int | None, seed: int | None = None) -> Recipe:
    """`recipe` with another length or seed. Warm-up, validation and saving shrink with a shorter run.

    Warm-up is kept to a tenth of the steps at most, else a short run would end inside it.
    """
    train = recipe.train
    if steps is not None:
        train = dataclasses.replace(
            train,
            steps=steps,
            warmup_steps=min(train.warmup_steps, max(1, steps // 10)),
            validate_every=min(train.validate_every, max(1, steps // 4)),
            save_every=min(train.save_every, max(1, steps // 8)),
        )
    if seed is not None:
        train = dataclasses.replace(train, seed=seed)
    return dataclasses.replace(recipe, train=train)


def fit(data: Path, recipe: Recipe, options: FitOptions) -> FitResult:
    """Train `recipe` on the corpus at `data` into the folder `options.out`.

    Raises:
        TrainingError: the folder is taken, the device is missing, or the loss is lost.
        CorpusError: the corpus cannot be used.
    """
    began = time.perf_counter()
    folder = RunFolder(options.out)
    facts = RunFacts(recipe, options.corpus.frontend, str(data.resolve()), options.corpus.skip_bad)
    with folder.lock():
        if options.resume or folder.facts.exists():
            folder.start(facts, options.resume)
        corpus = open_corpus(data, options.corpus)
        split = split_utterances(corpus, recipe.train.valid_fraction, recipe.train.seed)
        if not folder.facts.exists():  # a corpus that cannot be opened leaves no run behind
            folder.start(facts, resume=False)
        saver, parameters = _train(corpus, split, facts, folder, options)
    best = saver.best
    assert best is not None
    return FitResult(
        folder.model,
        recipe.train.steps,
        int(best["step"]),
        best["valid/accuracy_whole"],
        best["valid/accuracy_crop"],
        time.perf_counter() - began,
        parameters,
    )


def _train(
    corpus: Corpus, split: Split, facts: RunFacts, folder: RunFolder, options: FitOptions
) -> tuple[RunSaver, int]:
    recipe = facts.recipe
    train, valid = corpus.indices(split.train), corpus.indices(split.valid).tolist()

    def checkpoint(state: Mapping[str, Tensor], step: int, metrics: dict[str, float]) -> Checkpoint:
        return Checkpoint(recipe, facts.frontend, corpus.labels, state, split, step, metrics, facts.data)

    torch.manual_seed(recipe.train.seed)
    network = build_network(recipe.model, facts.frontend.n_mels, len(corpus.labels))
    module = SpeakerModule(network, recipe.train, torch.from_numpy(corpus.speakers[valid]))
    saver = RunSaver(folder, checkpoint)
    done = steps_done(folder) if options.resume else 0
    batches = CropBatches(corpus, train, recipe.train.batch_size, recipe.train.crop_frames, recipe.train.seed)
    with _quiet():
        trainer = _trainer(recipe.train, folder, saver, options)
        pinned = isinstance(trainer.accelerator, pl.accelerators.CUDAAccelerator)
        trainer.fit(
            module,
            DataLoader(_Steps(batches, done, recipe.train.steps), batch_size=None, pin_memory=pinned),
            _validation(corpus, valid, recipe.train),
            ckpt_path=folder.last if done else None,
            weights_only=True,
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        if not any(row["step"] == recipe.train.steps for row in saver.history):
            trainer.validate(module, _validation(corpus, valid, recipe.train), verbose=False)
    return saver, sum(parameter.numel() for parameter in network.parameters())


class _Steps(IterableDataset[tuple[Tensor, Tensor]]):
    """Training batches from step `start` on; the batch of a step depends on its number alone."""

    def __init__(self, batches: CropBatches, start: int, steps: int) -> None:
        self.batches, self.start, self.steps = batches, start, steps

    def __len__(self) -> int:
        return self.steps  # of the whole run: Lightning counts on from the resumed step

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in itertools.count(self.start):
            features, labels = self.batches.batch(step)
            yield torch.from_numpy(features), torch.from_numpy(labels)


def _validation(corpus: Corpus, indices: list[int], options: TrainOptions) -> list[DataLoader[Any]]:
    frames = [corpus.utterances[i].frames for i in indices]
    crops = FixedCrops(corpus.features, indices, options.crop_frames, pad_value(corpus.frontend), options.seed)
    return [_loader(WholeUtterances(corpus.features, indices, frames)), _loader(crops)]


class _Batches(IterableDataset[Any]):
    """A list of ready batches, as a data set that Lightning can count."""

    def __init__(self, batches: WholeUtterances | FixedCrops) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


def _loader(batches: WholeUtterances | FixedCrops) -> DataLoader[Any]:
    return DataLoader(_Batches(batches), batch_size=None)


def _trainer(options: TrainOptions, folder: RunFolder, saver: RunSaver, fit_options: FitOptions) -> pl.Trainer:
    device = choose_device(fit_options.device)
    precision = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}.get(options.precision)
    if precision is None:  # bf16 halves a step's time on tensor cores and gains nothing on most CPUs
        precision = "bf16-mixed" if device == "cuda" and torch.cuda.is_bf16_supported() else "32-true"
    if precision == "16-mixed" and device == "cpu":
        raise TrainingError('train.precision = "fp16" needs a GPU; use "fp32", "bf16" or "auto" on a CPU')
    callbacks: list[Callback] = [saver]
    if fit_options.progress:
        callbacks.append(RichProgressBar(console_kwargs={"stderr": True}))
    csv = CSVLogger(folder.logs, name="csv", flush_logs_every_n_steps=50)
    return pl.Trainer(
        accelerator=device,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_steps=options.steps,
        max_epochs=-1,
        val_check_interval=min(options.validate_every, options.steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=LOG_EVERY,
        logger=[csv, TensorBoardLogger(folder.logs, name="tensorboard")],
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=fit_options.progress,
    )


def choose_device(device: str) -> str:
    """`auto` → the best there is; a device that is asked for and missing is an error."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("--device cuda: PyTorch sees no CUDA device here; use --device cpu, or mend the driver")
    if device not in ("cpu", "cuda"):
        raise TrainingError(f"--device {device}: must be auto, cpu or cuda")
    return device


def steps_done(folder: RunFolder) -> int:
    """Optimiser steps in the folder's resumable state; 0 where a run was stopped before its first save."""
    if not folder.last.is_file():
        return 0
    content = torch.load(folder.last, map_location="cpu", weights_only=True, mmap=True)
    return int(content["global_step"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice that does not apply here: workers for data that is already in memory."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*IterableDataset.*__len__.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield
