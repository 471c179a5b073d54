"""Many recipes on one corpus: trained one after another, resumably, and measured alike.

OUT/runs/RECIPE/seed-N/   a run's folder, with result.json and det.npz once it is finished and measured
OUT/ablation.json, ablation.md, *.png   the table and its pictures
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxport.runtime.errors import VoxportError
from voxport.runtime.frontend.presets import profile
from voxport.runtime.storage.atomic import writing
from voxport.runtime.storage.serialization import decode
from voxport.train.checkpoint import load_checkpoint
from voxport.train.data import Corpus, CorpusOptions, open_corpus, split_utterances
from voxport.train.evaluation.breakdown import Bucket
from voxport.train.evaluation.evaluate import EvaluateOptions, Evidence, evaluate
from voxport.train.evaluation.verification import Det
from voxport.train.recipe import Recipe, Reference, load_recipe
from voxport.train.reporting import write_json
from voxport.train.training.fit import FitOptions, FitResult, check_batch, choose_device, fit, steps_done, with_steps
from voxport.train.training.run_dir import RunFacts, RunFolder

# The rows of the reference table, in its order, after the sample that they change.
REFERENCE_TABLE = (
    "official_sample",
    "sap_am",
    "sap_am_batch128_8heads",
    "sap_max_am",
    "sap_max_am_long",
    "sap_max_am_batch128_long",
    "sap_am_bn",
    "sap_am_bn_3layers",
    "sap_am_bn_4layers",
)
Announce = Callable[[str], None]


@dataclass(frozen=True)
class AblationOptions:
    """What is trained, and where to. `steps` replaces the recipes' own; `seeds` run from each recipe's seed on.

    `corpus.frontend` is for recipes' own frontends only where `own_frontends` is false.
    """

    out: Path
    corpus: CorpusOptions
    own_frontends: bool = True
    recipes: tuple[str, ...] = REFERENCE_TABLE
    steps: int | None = None
    seeds: int = 1
    device: str = "auto"
    progress: bool = True


@dataclass(frozen=True)
class RunResult:
    """One finished run, measured on its validation utterances with the network of its best validation.

    `steps_per_second` counts validation and start too. `minutes` is None where the run was interrupted,
    since nobody knows how long it took in all; so is `steps_per_second` where nothing was left to train.
    Verification figures are None where the validation utterances make no trials.
    """

    recipe: str
    seed: int
    steps: int
    best_step: int
    batch_size: int
    crop_frames: int
    parameters: int
    utterances: int
    accuracy_whole: float
    accuracy_crop: float
    calibration_error: float
    by_length: tuple[Bucket, ...]
    eer: float | None
    min_dcf_01: float | None
    min_dcf_05: float | None
    steps_per_second: float | None
    minutes: float | None
    reference: Reference | None


@dataclass(frozen=True)
class Ablation:
    """All runs on one corpus, in the order of the table, with what a reader must know in `notes`."""

    data: str
    kind: str
    speakers: int
    steps: int | None
    seeds: int
    device: str
    runs: tuple[RunResult, ...]
    notes: tuple[str, ...]


def run_folder(out: Path, recipe: str, seed: int) -> RunFolder:
    """Where the run of `recipe` (a name) with `seed` is."""
    return RunFolder(out / "runs" / recipe / f"seed-{seed}")


def ablate(
    data: Path,
    options: AblationOptions,
    announce: Announce = lambda _: None,
    so_far: Callable[[Ablation], None] = lambda _: None,
) -> Ablation:
    """Train and measure every recipe with every seed; what is finished already is not done again.

    `so_far` is given the table after every run, since all of them may take days.

    Raises:
        VoxportError: a recipe is unknown or cannot be trained, or OUT holds runs with other options.
    """
    recipes, notes = _distinct([load_recipe(name) for name in options.recipes], options.steps)
    planned = [
        with_steps(recipe, options.steps, recipe.train.seed + k) for recipe in recipes for k in range(options.seeds)
    ]
    corpus = open_corpus(data, options.corpus)  # first of all: a corpus that is no good costs no training
    options = dataclasses.replace(options, corpus=dataclasses.replace(options.corpus, announce=None))  # told once
    for recipe in planned:
        _check_batch(corpus, recipe)
    done = Ablation(
        str(data.resolve()),
        corpus.kind,
        len(corpus.labels),
        options.steps,
        options.seeds,
        choose_device(options.device),
        runs=(),
        notes=tuple(notes),
    )
    with RunFolder(options.out).lock():
        for number, recipe in enumerate(planned, start=1):
            announce(f"{number}/{len(planned)}: {recipe.name}, seed {recipe.train.seed}, {recipe.train.steps:,} steps")
            done = dataclasses.replace(done, runs=(*done.runs, _finished(data, recipe, options)))
            if number < len(planned):
                missing = f"Not finished yet: {number} of {len(planned)} runs are in this table."
                so_far(dataclasses.replace(done, notes=(missing, *notes)))
    return done


def _check_batch(corpus: Corpus, recipe: Recipe) -> None:
    """Refuse a recipe whose batch the corpus does not fill: before the first run, not after days."""
    split = split_utterances(corpus, recipe.train.valid_fraction, recipe.train.seed)
    try:
        check_batch(corpus, split, recipe.train)
    except VoxportError as problem:
        raise VoxportError(f"{recipe.name}: {problem}; or leave this recipe out with --recipes") from problem


def _distinct(recipes: Sequence[Recipe], steps: int | None) -> tuple[list[Recipe], list[str]]:
    """The recipes that differ at this number of steps: what only trains longer is then the same run."""
    kept: list[Recipe] = []
    notes = []
    for recipe in recipes:
        if any(recipe.name == other.name for other in kept):
            raise VoxportError(f"recipe {recipe.name} is named twice; runs are told apart by their recipe's name")
        twin = next((other for other in kept if _same_training(recipe, other, steps)), None)
        if twin is None:
            kept.append(recipe)
        else:
            length = with_steps(recipe, steps).train.steps
            notes.append(f"{recipe.name} is {twin.name} at {length:,} steps, and was not trained again.")
    return kept, notes


def _same_training(left: Recipe, right: Recipe, steps: int | None) -> bool:
    a, b = with_steps(left, steps), with_steps(right, steps)
    return (a.model, a.train, a.frontend) == (b.model, b.train, b.frontend)


def _finished(data: Path, recipe: Recipe, options: AblationOptions) -> RunResult:
    """The result of one run: read, or trained (on) and measured."""
    folder = run_folder(options.out, recipe.name, recipe.train.seed)
    corpus = options.corpus
    if options.own_frontends:
        corpus = dataclasses.replace(corpus, frontend=profile(recipe.frontend))
    facts = RunFacts(recipe, corpus.frontend, str(data.resolve()), corpus.skip_bad)
    path = folder.path / "result.json"
    if path.is_file():
        folder.start(facts, resume=True)  # refuses a run that was begun with other options
        return _read_result(path)
    begun = steps_done(folder) if folder.facts.exists() else 0
    resume = folder.facts.exists()
    try:
        fitted = fit(
            data,
            recipe,
            FitOptions(folder.path, corpus, options.device, resume, options.progress, false_accept_rate=None),
        )
    except VoxportError as problem:
        raise VoxportError(f"{recipe.name}, seed {recipe.train.seed}: {problem}") from problem
    result, evidence = _measure(data, recipe, corpus, fitted, begun if resume else None, options.device)
    if result.eer is not None:
        _write_det(evidence.det, folder.path / "det.npz")
    write_json(result, path)
    return result


def _measure(
    data: Path, recipe: Recipe, corpus: CorpusOptions, fitted: FitResult, begun: int | None, device: str
) -> tuple[RunResult, Evidence]:
    """`begun` is the step at which an interrupted run went on; None where this one ran in one go."""
    options = EvaluateOptions(device=choose_device(device), lengths=())  # the table has no pieces
    evaluation, evidence = evaluate(load_checkpoint(fitted.model), open_corpus(data, corpus), options)
    verification, train = evaluation.verification, recipe.train
    left = train.steps - (begun or 0)
    return RunResult(
        recipe=recipe.name,
        seed=train.seed,
        steps=train.steps,
        best_step=fitted.best_step,
        batch_size=train.batch_size,
        crop_frames=train.crop_frames,
        parameters=fitted.parameters,
        utterances=evaluation.utterances,
        accuracy_whole=evaluation.accuracy_whole,
        accuracy_crop=evaluation.accuracy_crop,
        calibration_error=evaluation.calibration_error,
        by_length=evaluation.by_length,
        eer=verification.eer if verification else None,
        min_dcf_01=verification.min_dcf_01 if verification else None,
        min_dcf_05=verification.min_dcf_05 if verification else None,
        steps_per_second=left / fitted.seconds if left else None,
        minutes=fitted.seconds / 60 if begun is None else None,
        reference=recipe.reference,
    ), evidence


def _read_result(path: Path) -> RunResult:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise VoxportError(f"{path}: not JSON ({problem}); remove the file to measure the run again") from problem
    return decode(RunResult, content, str(path))


def _write_det(det: Det, path: Path) -> None:
    try:
        with writing(path) as part, open(part, "wb") as file:
            np.savez(file, false_accept=det.false_accept, miss=det.miss, threshold=det.threshold)
    except OSError as problem:
        raise VoxportError(f"{path}: cannot be written ({problem})") from problem


def read_det(out: Path, run: RunResult) -> Det:
    """The DET curve of a finished run that has one."""
    path = run_folder(out, run.recipe, run.seed).path / "det.npz"
    try:
        with np.load(path, allow_pickle=False) as content:
            return Det(content["false_accept"], content["miss"], content["threshold"])
    except (OSError, ValueError, KeyError) as problem:
        raise VoxportError(f"{path}: cannot be read ({problem}); remove the run's folder to train it anew") from problem
