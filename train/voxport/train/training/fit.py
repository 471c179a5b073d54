"""Training from a corpus and a recipe to a run folder with a checkpoint."""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from voxport.corpora.layouts.base import Listing
from voxport.runtime.contract import ConditionLine, Rejection
from voxport.runtime.frontend.spec import Frontend
from voxport.train.augmentation.copies import open_copies
from voxport.train.checkpoint import Checkpoint
from voxport.train.data import Corpus, CorpusOptions, CropBatches, Split, open_corpus, split_utterances
from voxport.train.data.crops import Copies, too_few
from voxport.train.data.split import training_count
from voxport.train.models.layers import use_host_dropout
from voxport.train.models.speaker_net import build_network, count_parameters
from voxport.train.open_set import store_calibration
from voxport.train.recipe import Recipe, TrainOptions
from voxport.train.training.checkpoint_callback import RunSaver, best_validation
from voxport.train.training.compile import check_compilable, compiled_scores
from voxport.train.training.dataloaders import (
    ResidentCrops,
    Share,
    TrainingSteps,
    goes_on_device,
    training_loader,
    validation_loaders,
)
from voxport.train.training.distributed import check_devices, here, one_at_a_time, train_together
from voxport.train.training.lightning_module import SpeakerModule, TrainingError
from voxport.train.training.run_dir import RunFacts, RunFolder
from voxport.train.training.trainer import Hardware, StepBar, build_trainer, choose_device, choose_precision, quiet
from voxport.train.training_level import at_level, training_level

__all__ = ["FitOptions", "FitResult", "choose_device", "fit", "steps_done", "with_steps"]


@dataclass(frozen=True)
class FitOptions:
    """Where a run goes and how it is carried out. Only `accumulate` changes what is learnt, a little.

    `devices` processes share every batch, each on a device of its own. `accumulate` pieces of a batch go
    through the network one after another, with one optimiser step at the end; batch normalisation then sees
    a piece at a time. `compiled` runs the network through torch.compile. `resident` keeps the corpus in the
    device's memory; auto does so on a GPU with room for it. With `adapt_batch` a corpus that does not fill the
    recipe's batch is trained with a smaller one, and the corpus's `announce` is told; else it is refused.
    `false_accept_rate` is that of the threshold of "nobody known", which is calibrated at the end
    (`voxport.train.open_set`); None leaves it out.
    """

    out: Path
    corpus: CorpusOptions
    device: str = "auto"  # auto, cpu or cuda
    resume: bool = False
    progress: bool = True
    devices: int = 1
    accumulate: int = 1
    compiled: bool = False
    resident: Literal["auto", "yes", "no"] = "auto"
    adapt_batch: bool = False
    false_accept_rate: float | None = 0.05

    def __post_init__(self) -> None:
        if self.false_accept_rate is not None and not 0 < self.false_accept_rate < 1:
            raise TrainingError(f"the false-accept rate must be between 0 and 1, found {self.false_accept_rate}")


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
    batch_size: int = 0
    rejection: Rejection | None = None
    conditions: tuple[ConditionLine, ...] = ()
    temperature: float = 1.0


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

    Under torchrun every process calls this; the first one writes, and all return the same.

    Raises:
        TrainingError: the folder is taken, a device is missing, the loss is lost, or a process died.
        CorpusError: the corpus cannot be used.
    """
    began = time.perf_counter()
    device, place = choose_device(options.device), here()
    _check(recipe, options, device)
    folder = RunFolder(options.out)
    source = options.corpus
    facts = RunFacts(recipe, source.frontend, str(data.resolve()), source.skip_bad, options.accumulate, source.layout)
    with folder.lock() if place.first else contextlib.nullcontext():
        if place.first and (options.resume or folder.facts.exists()):
            folder.start(facts, options.resume)
        with one_at_a_time(folder.path / ".opening", place):
            corpus = open_corpus(data, options.corpus, lambda listing: _check_listed(listing, recipe, options))
        split = split_utterances(corpus, recipe.train.valid_fraction, recipe.train.seed)
        recipe = fitting_batch(recipe, len(split.train), options, options.corpus.announce)
        facts = dataclasses.replace(facts, recipe=recipe)
        check_batch(corpus, split, recipe.train)
        copies = None
        if recipe.augment is not None:
            with one_at_a_time(folder.path / ".opening", place):
                training = corpus.indices(split.train)
                copies = open_copies(corpus, training, recipe.augment, recipe.train.seed, options.corpus)
        if place.first and not options.resume:  # a corpus that cannot be opened leaves no run behind
            folder.start(facts, resume=False)
        job = _Job(corpus, split, facts, folder, options, device, copies, _heard(corpus, split, recipe, options))
        if options.devices > 1 and not place.launched:
            history = train_together(_train, (job,), options.devices, device)
        else:
            history = _train(job)
        known: Checkpoint | None = None
        if place.first:
            known = store_calibration(folder.model, corpus, options.false_accept_rate, device, options.corpus)
    best = best_validation(history)
    assert best is not None
    return FitResult(
        folder.model,
        recipe.train.steps,
        int(best["step"]),
        best["valid/accuracy_whole"],
        best["valid/accuracy_crop"],
        time.perf_counter() - began,
        count_parameters(recipe.model, facts.frontend.n_mels, len(corpus.labels)),
        recipe.train.batch_size,
        None if known is None else known.rejection,
        () if known is None else known.conditions,
        1.0 if known is None else known.temperature,
    )


def fitting_batch(
    recipe: Recipe, training: int, options: FitOptions, announce: Callable[[str], None] | None = None
) -> Recipe:
    """`recipe`, or where `options` allow it one whose batch `training` utterances fill.

    That is the largest power of two of equal parts, of two utterances or more, for devices and pieces; where even
    the smallest is too large the recipe stays, and `check_batch` refuses it.
    """
    parts = max(options.devices, here().world) * options.accumulate
    if training >= recipe.train.batch_size or not options.adapt_batch or training < 2 * parts:
        return recipe
    size = parts * 2 ** int(np.log2(training // parts))
    if announce is not None:
        announce(f"  batch: {size} in place of {recipe.name}'s {recipe.train.batch_size}, for {training} utterances")
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=size))


def _check_listed(listing: Listing, recipe: Recipe, options: FitOptions) -> None:
    """Refuse a corpus that cannot fill a batch before its files are read, which may take hours.

    Raises:
        CorpusError: were all that is listed usable, the training part would be too small.
    """
    counts = Counter(entry.speaker for entry in listing.entries if entry.speaker is not None)
    training = training_count(tuple(counts.values()), recipe.train.valid_fraction)
    size = fitting_batch(recipe, training, options).train.batch_size
    if counts and training < size:
        raise too_few(listing.path, training, size)


def _check(recipe: Recipe, options: FitOptions, device: str) -> None:
    """Refuse what cannot be carried out, before anything is written."""
    place = here()
    check_devices(options.devices, device, place)
    world = max(options.devices, place.world)
    Share(0, world, options.accumulate).check(recipe.train.batch_size, pairs=recipe.train.pair_weight > 0)
    choose_precision(recipe.train.precision, device)
    if options.compiled and world > 1:
        raise TrainingError("--compile works on one device only: batch statistics are gathered between the layers")
    if options.compiled:
        check_compilable(recipe.train)


def check_batch(corpus: Corpus, split: Split, options: TrainOptions) -> None:
    """Raise CorpusError where the training part of `split` does not fill one batch."""
    CropBatches(corpus, corpus.indices(split.train), options.batch_size, options.crop_frames, options.seed)


def _heard(corpus: Corpus, split: Split, recipe: Recipe, options: FitOptions) -> Frontend:
    """The corpus's frontend, which for the model brings sounds to the level of stored features that show theirs.

    Or so far above it as the recipe says.
    """
    level, louder = training_level(corpus, corpus.indices(split.train)), recipe.train.louder_db
    if level is not None and options.corpus.announce is not None:
        above = f"{louder:g} dB above " if louder else "at "
        options.corpus.announce(f"  loudness: sounds will be heard {above}the speech level of these features, {level}")
    return at_level(corpus.frontend, level, louder)


@dataclass(frozen=True)
class _Job:
    """What one of the training processes needs to know."""

    corpus: Corpus
    split: Split
    facts: RunFacts
    folder: RunFolder
    options: FitOptions
    device: str
    copies: Copies | None
    heard: Frontend  # as sounds are heard, at the level of the stored features

    def checkpoint(self, state: Mapping[str, Tensor], step: int, metrics: dict[str, float]) -> Checkpoint:
        facts = self.facts
        return Checkpoint(
            facts.recipe,
            self.heard,
            self.corpus.labels,
            known_speakers(state, facts.recipe, len(self.corpus.labels)),
            self.split,
            step,
            metrics,
            facts.data,
            layout=facts.layout,
        )


def _train(job: _Job) -> list[dict[str, float]]:
    """Train in this process, alone or as one of several; returns the validations so far."""
    options, train, place = job.options, job.facts.recipe.train, here()
    valid = job.corpus.indices(job.split.valid).tolist()
    saver = RunSaver(job.folder, job.checkpoint)
    done = steps_done(job.folder) if options.resume else 0
    callbacks: list[Callback] = [saver, StepBar()] if options.progress and place.first else [saver]
    valid_labels = torch.from_numpy(job.corpus.speakers[valid])
    module = build_module(job.facts.recipe, job.corpus, job.device, options.compiled, options.accumulate, valid_labels)
    with quiet():
        trainer = build_trainer(
            train,
            Hardware(job.device, place, options.accumulate),
            callbacks=callbacks,
            logger=[
                CSVLogger(job.folder.logs, name="csv", flush_logs_every_n_steps=50),
                TensorBoardLogger(job.folder.logs, name="tensorboard"),
            ],
        )
        indices = job.corpus.indices(job.split.train)
        device = trainer.strategy.root_device
        source = training_source(job.corpus, indices, train, device, options.resident, job.copies)
        steps = TrainingSteps(source, train, done, Share(place.rank, place.world, options.accumulate))
        with _explained_stops(job.folder):
            trainer.fit(
                module,
                training_loader(steps, pinned=job.device == "cuda" and isinstance(source, CropBatches)),
                validation_loaders(job.corpus, valid, train),
                ckpt_path=job.folder.last if done else None,
                weights_only=True,
            )
            if not any(row["step"] == train.steps for row in saver.history):
                trainer.validate(module, validation_loaders(job.corpus, valid, train), verbose=False)
    return saver.history


@contextlib.contextmanager
def _explained_stops(folder: RunFolder) -> Iterator[None]:
    """Give what ends a run from outside the words and the exit code that a user needs.

    Lightning turns SIGINT and SIGTERM into SystemExit: without a word, and for SIGTERM with the code of success.
    """
    try:
        yield
    except SIGTERMException as stop:
        raise TrainingError(
            f"{folder.path}: stopped by SIGTERM; the last checkpoint is intact: go on with --resume"
        ) from stop
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    except torch.OutOfMemoryError as problem:
        raise TrainingError(
            f"the device's memory is full ({str(problem).splitlines()[0]:.160}); the last checkpoint is intact. "
            "Lower train.batch_size or train.crop_frames, or give --accumulate, in a new --out"
        ) from problem
    except OSError as problem:  # the logs are written by Lightning
        raise TrainingError(
            f"{folder.path}: cannot be written ({problem}); the last checkpoint is intact. "
            "Make room and go on with --resume"
        ) from problem


def build_module(
    recipe: Recipe, corpus: Corpus, device: str, compiled: bool, accumulate: int, valid_labels: Tensor
) -> SpeakerModule:
    """A fresh network of `recipe` for `corpus`, ready to train on `device` (cpu or cuda)."""
    torch.manual_seed(recipe.train.seed)
    further = len(recipe.augment.speed_speakers) if recipe.augment is not None else 0
    network = build_network(recipe.model, corpus.frontend.n_mels, len(corpus.labels) * (1 + further))
    if device == "cpu":
        use_host_dropout(network)
    scores = compiled_scores(network, device, accumulate) if compiled else None
    return SpeakerModule(network, recipe.train, valid_labels, scores, corpus.frontend.normalize)


def known_speakers(state: Mapping[str, Tensor], recipe: Recipe, speakers: int) -> Mapping[str, Tensor]:
    """`state` without the further speakers that `speed_speakers` made for training: they are no answer."""
    if recipe.augment is None or not recipe.augment.speed_speakers:
        return state
    heads = ("head.weight", "head.out.weight", "head.out.bias")
    return {name: value[:speakers].clone() if name in heads else value for name, value in state.items()}


def training_source(
    corpus: Corpus,
    indices: npt.NDArray[np.int64],
    options: TrainOptions,
    device: torch.device,
    resident: str,
    copies: Copies | None = None,
) -> CropBatches | ResidentCrops:
    """Training batches of the utterances `indices`, from the memory-mapped file or from the device's memory."""
    batches = CropBatches(
        corpus,
        indices,
        options.batch_size,
        options.crop_frames,
        options.seed,
        options.fill,
        copies,
        pairs=options.pair_weight > 0,
    )
    return ResidentCrops(batches, device) if goes_on_device(batches, device, resident) else batches


def steps_done(folder: RunFolder) -> int:
    """Optimiser steps in the folder's resumable state; 0 where a run was stopped before its first save.

    Raises:
        TrainingError: the state cannot be read.
    """
    if not folder.last.is_file():
        return 0
    try:
        return int(torch.load(folder.last, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception as problem:  # damaged bytes make an unpickler raise anything
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise TrainingError(
            f"{folder.last}: cannot be read ({reason:.160}); bring it back from a copy, or remove it: --resume then "
            "starts from the first step"
        ) from problem
