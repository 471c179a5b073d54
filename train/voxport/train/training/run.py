"""A whole training run from names and paths: what `voxport train fit` and `voxport.train.fit` do."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from voxport.corpora.layouts.base import AS_FOUND
from voxport.runtime.frontend.presets import profile
from voxport.runtime.frontend.spec import Frontend
from voxport.train.data import CorpusOptions, LayoutOptions
from voxport.train.data.builder import holds_sounds
from voxport.train.effects.options import AugmentOptions
from voxport.train.recipe import Recipe, load_recipe
from voxport.train.training.fit import FitOptions, FitResult, with_steps
from voxport.train.training.fit import fit as train_recipe
from voxport.train.training.lightning_module import TrainingError
from voxport.train.training.run_dir import RunFolder


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out; the defaults are those of `voxport train fit`.

    `steps` and `seed` replace the recipe's, `frontend` (a profile's name) the one that recipe and corpus choose.
    `augment` None changes the copies of sound files alone; `noise` and `rirs` are folders to take noises and room
    responses from. `cache` is the folder of computed features, `jobs` the processes that compute them; with `skip_bad`
    unusable utterances are left out. `layout` says how the corpus is read where it does not say so itself. The rest is
    that of `FitOptions`; `announce` is told in lines what was recognized in the corpus, and `progress` shows bars.
    """

    steps: int | None = None
    seed: int | None = None
    frontend: str | None = None
    augment: bool | None = None
    noise: str | os.PathLike[str] | None = None
    rirs: str | os.PathLike[str] | None = None
    skip_bad: bool = False
    cache: Path | None = None
    jobs: int | None = None
    layout: LayoutOptions = AS_FOUND
    device: str = "auto"  # auto, cpu or cuda
    devices: int = 1
    accumulate: int = 1
    compiled: bool = False
    resident: Literal["auto", "yes", "no"] = "auto"
    false_accept_rate: float | None = 0.05
    progress: bool = False
    announce: Callable[[str], None] | None = None


def fit(
    recipe: str | os.PathLike[str] | Recipe,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: RunOptions | None = None,
) -> FitResult:
    """Train `recipe` on the corpus at `data` into the new folder `out`: OUT/model.pt, logs, and what resuming needs.

    Args:
        recipe: the name of one that comes with voxport, a path that ends in .toml, or a `Recipe`. The batch size of a
            file or a `Recipe` is kept; that of a name shrinks where the corpus does not fill it.
        data: a folder, a manifest or a shard.
        out: where the run goes. Under torchrun every process calls this; the first one writes.
        options: all else.

    Raises:
        RecipeError: no such recipe, or one that cannot be read.
        CorpusError: the corpus cannot be used.
        TrainingError: the folder is taken, a device is missing, or the loss is lost.
    """
    chosen, source = options or RunOptions(), Path(data)
    by_name = not isinstance(recipe, Recipe) and Path(recipe).suffix != ".toml"
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(os.fspath(recipe))
    sounds = holds_sounds(source, chosen.layout)
    loaded = _augmented(with_steps(loaded, chosen.steps, chosen.seed), sounds, chosen)
    frontend = profile(chosen.frontend or loaded.frontend_for(sounds=sounds))
    fitting = dataclasses.replace(_fit_options(Path(out), frontend, chosen), adapt_batch=by_name)
    return train_recipe(source, loaded, fitting)


def resume(out: str | os.PathLike[str], options: RunOptions | None = None) -> FitResult:
    """Go on with the run in `out` where it was stopped, to the same result.

    Recipe, corpus, frontend and the pieces of a batch are those that the run began with, whatever `options` say.

    Raises:
        CorpusError: the corpus cannot be used.
        TrainingError: there is no run, a device is missing, or the loss is lost.
    """
    begun = RunFolder(Path(out)).read()
    chosen = dataclasses.replace(
        options or RunOptions(), skip_bad=begun.skip_bad, layout=begun.layout, accumulate=begun.accumulate
    )
    fitting = dataclasses.replace(_fit_options(Path(out), begun.frontend, chosen), resume=True)
    return train_recipe(Path(begun.data), begun.recipe, fitting)


def _fit_options(out: Path, frontend: Frontend, chosen: RunOptions) -> FitOptions:
    corpus = CorpusOptions(
        frontend,
        chosen.skip_bad,
        chosen.cache,
        chosen.jobs,
        progress=chosen.progress,
        layout=chosen.layout,
        announce=chosen.announce,
    )
    shared = ("device", "progress", "devices", "accumulate", "compiled", "resident", "false_accept_rate")
    return FitOptions(out, corpus, **{name: getattr(chosen, name) for name in shared})


def _augmented(recipe: Recipe, sounds: bool, chosen: RunOptions) -> Recipe:
    """`recipe` with the augmentation that is wanted, for a corpus of `sounds` or of stored features."""
    augment = None if chosen.augment is False else recipe.augment_for(sounds=sounds)
    if chosen.augment and augment is None:
        augment = AugmentOptions()
    if chosen.noise is None and chosen.rirs is None:
        return dataclasses.replace(recipe, augment=augment)
    if augment is None or not sounds:
        raise TrainingError(
            "--noise and --rirs change sounds: leave out --no-augment, and give a corpus of sound files"
        )
    noise = augment.noise_folder if chosen.noise is None else os.path.abspath(chosen.noise)
    rirs = augment.rir_folder if chosen.rirs is None else os.path.abspath(chosen.rirs)
    return dataclasses.replace(recipe, augment=dataclasses.replace(augment, noise_folder=noise, rir_folder=rirs))
