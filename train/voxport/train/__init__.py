"""Training: recipe → data → model → checkpoint.

    from voxport.train import RunOptions, fit

    result = fit("voxport", "corpus/", "runs/first", RunOptions(steps=2000))
    print(result.model, result.accuracy_whole)

`fit` is the command `voxport train fit`, `resume` the same with --resume. torch is imported with the first name.
"""

import warnings
from typing import TYPE_CHECKING

from voxport.runtime.imports import on_demand

if TYPE_CHECKING:
    from voxport.train.checkpoint import CheckpointError
    from voxport.train.data import CorpusError, LayoutOptions
    from voxport.train.recipe import Recipe, RecipeError, load_recipe, recipe_names
    from voxport.train.training.fit import FitResult
    from voxport.train.training.lightning_module import TrainingError
    from voxport.train.training.run import RunOptions, fit, resume

__all__ = [
    "CheckpointError",
    "CorpusError",
    "FitResult",
    "LayoutOptions",
    "Recipe",
    "RecipeError",
    "RunOptions",
    "TrainingError",
    "fit",
    "load_recipe",
    "recipe_names",
    "resume",
]

# Of joblib, which scikit-learn imports, where there is no /dev/shm. Nothing here works in parallel by it.
warnings.filterwarnings("ignore", message=".*joblib will operate in serial mode", category=UserWarning)

# Imported when first asked for: who reads a recipe does not wait for torch.
_LATER = {
    "CheckpointError": "checkpoint",
    "CorpusError": "data",
    "FitResult": "training.fit",
    "LayoutOptions": "data",
    "Recipe": "recipe",
    "RecipeError": "recipe",
    "RunOptions": "training.run",
    "TrainingError": "training.lightning_module",
    "fit": "training.run",
    "load_recipe": "recipe",
    "recipe_names": "recipe",
    "resume": "training.run",
}

__getattr__, __dir__ = on_demand(__name__, _LATER)
