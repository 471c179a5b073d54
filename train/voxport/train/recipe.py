"""Recipes: everything that decides a training run except the data, in one TOML file each."""

import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from voxport.runtime.errors import VoxportError
from voxport.runtime.storage.serialization import decode
from voxport.train.effects.options import AugmentOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class RecipeError(VoxportError):
    """A recipe is unknown or says something that cannot be trained."""


@dataclass(frozen=True)
class ModelOptions:
    """The network's shape.

    `dropout` is the encoder's; `head_dropout`, between pooling and head, is the same where it is None.
    `stack_frames` neighbouring frames enter the encoder as one, so that it sees that many times fewer.
    `kernel_size` is the Conformer's, in frames as the encoder sees them. With `aggregate_layers` the pooling
    sees a linear map of the input and every layer's output beside the last one's (Zhang et al.: "MFA-Conformer",
    2022). With `band_statistics` the embedding also sees five figures of each mel band of the utterance, its lowest
    value among them (`models.band_statistics`), through a linear layer of their own. With `above_lowest` the network
    hears of each mel band how far it lies above its lowest value in the utterance, "beside" the band or "instead" of
    it; then it hears nothing of that value, in which a frontend that subtracts the mean leaves the recording's mean
    level. `embedding_size` is the width after a linear layer that follows the pooling; None: no such layer.
    `am_scale` and `am_margin` are s and m of AM-Softmax (Wang et al. 2018); the MLP head has neither.
    """

    num_layers: int
    d_model: int = 256
    num_heads: int = 4
    ffn_dim: int = 512
    kernel_size: int = 31
    dropout: float = 0.3
    pooling: Literal["self_attention", "self_attention_max", "attentive_statistics", "mean"] = "self_attention"
    batch_norm: bool = True
    am_scale: float = 30.0
    am_margin: float = 0.35
    encoder: Literal["conformer", "transformer"] = "conformer"
    head: Literal["am_softmax", "mlp"] = "am_softmax"
    head_dropout: float | None = None
    stack_frames: int = 1
    aggregate_layers: bool = False
    embedding_size: int | None = None
    band_statistics: bool = False
    above_lowest: Literal["no", "beside", "instead"] = "no"

    def __post_init__(self) -> None:
        if min(self.num_layers, self.d_model, self.num_heads, self.ffn_dim, self.stack_frames) < 1:
            raise ValueError("num_layers, d_model, num_heads, ffn_dim and stack_frames must be positive")
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model {self.d_model} must be a multiple of num_heads {self.num_heads}")
        if self.kernel_size % 2 == 0 or self.kernel_size < 1:
            raise ValueError(f"kernel_size must be odd and positive, found {self.kernel_size}")
        for name in ("dropout", "head_dropout"):
            share = getattr(self, name)
            if share is not None and not 0 <= share < 1:
                raise ValueError(f"{name} must be in [0, 1), found {share}")
        if self.am_scale <= 0 or self.am_margin < 0:
            raise ValueError("am_scale must be positive and am_margin must not be negative")
        if self.aggregate_layers and self.pooling != "attentive_statistics":
            raise ValueError(f"aggregate_layers needs the pooling 'attentive_statistics', found {self.pooling!r}")
        if self.embedding_size is not None and self.embedding_size < 1:
            raise ValueError(f"embedding_size must be positive, found {self.embedding_size}")
        if self.band_statistics and self.embedding_size is None:
            raise ValueError("band_statistics needs embedding_size: the width in which the two meet")


@dataclass(frozen=True)
class TrainOptions:
    """The optimiser's run: linear warm-up, then a half cosine down to zero at `steps`.

    Lengths are in frames, `validate_every` and `save_every` in optimiser steps. An utterance shorter than
    the crop is filled up with the frontend's pad value, or with `fill = "repeat"` goes round and round.
    With `shortest_crop` every batch has a length of its own, drawn evenly from there to `crop_frames`.
    With `second_crop` = [shortest, longest] every crop is seen a second time in the same step, as a piece of it whose
    length is drawn evenly from that range, the same for all of a batch; its loss counts `second_crop_weight` times.
    With `pair_weight` a batch holds two utterances of each of its speakers, and a loss on embeddings, which counts so
    many times, brings the second crop of one near the first of the other (`models.pair_loss`).
    With `agreement_weight` the distance (1 - cosine) of the second crop's embedding from the first's counts so often.
    `alone` is the share of crops that are normalised over themselves, as a sound of their own is, where the frontend
    normalises over the utterance; the others keep the whole utterance's mean, which no short sound has.
    A network that learns from stored features hears sounds at their median speech level, or `louder_db` above it.
    `optimizer` is AdamW for all weights, or Muon for the matrices of hidden layers and AdamW for the rest.
    """

    steps: int = 70_000
    batch_size: int = 32
    crop_frames: int = 128
    shortest_crop: int | None = None
    second_crop: tuple[int, ...] = ()
    second_crop_weight: float = 0.5
    pair_weight: float = 0.0
    agreement_weight: float = 0.0
    alone: float = 0.0
    louder_db: float = 0.0
    fill: Literal["pad", "repeat"] = "pad"
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 1_000
    valid_fraction: float = 0.1
    validate_every: int = 2_000
    save_every: int = 500
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = 87

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.crop_frames, self.validate_every, self.save_every) < 1:
            raise ValueError("steps, batch_size, crop_frames, validate_every and save_every must be positive")
        self._check_crops()
        if not -60 <= self.louder_db <= 60:
            raise ValueError(f"louder_db must be between -60 and 60, found {self.louder_db}")
        if self.batch_size < 2:
            raise ValueError("batch_size must be at least 2: batch normalisation needs two utterances")
        if not 0 < self.valid_fraction < 1:
            raise ValueError(f"valid_fraction must be between 0 and 1, found {self.valid_fraction}")
        if self.warmup_steps < 0 or self.learning_rate <= 0:
            raise ValueError("warmup_steps must not be negative and learning_rate must be positive")

    def _check_crops(self) -> None:
        if self.shortest_crop is not None and not 1 <= self.shortest_crop <= self.crop_frames:
            raise ValueError(f"shortest_crop must be in 1…crop_frames, {self.crop_frames}; found {self.shortest_crop}")
        if self.second_crop:
            if len(self.second_crop) != 2 or not 1 <= self.second_crop[0] <= self.second_crop[1] <= self.crop_frames:
                raise ValueError(
                    f"second_crop must be [shortest, longest] in 1…crop_frames, {self.crop_frames}; "
                    f"found {list(self.second_crop)}"
                )
            if self.shortest_crop is not None:
                raise ValueError("shortest_crop and second_crop exclude each other: leave out one of the two")
        if self.second_crop_weight <= 0:
            raise ValueError(f"second_crop_weight must be positive, found {self.second_crop_weight}")
        if self.pair_weight < 0 or (self.pair_weight > 0 and (not self.second_crop or self.batch_size % 2)):
            raise ValueError(
                "pair_weight must not be negative, and needs second_crop and an even batch_size; found "
                f"{self.pair_weight}, {list(self.second_crop)} and {self.batch_size}"
            )
        if self.agreement_weight < 0 or (self.agreement_weight > 0 and not self.second_crop):
            raise ValueError(
                f"agreement_weight must not be negative, and needs second_crop; found {self.agreement_weight}"
            )
        if not 0 <= self.alone <= 1:
            raise ValueError(f"alone is a share from 0 to 1, found {self.alone}")
        if self.alone > 0 and self.fill != "repeat":
            raise ValueError('alone needs fill = "repeat": padding would count in the mean of a crop')


@dataclass(frozen=True)
class Reference:
    """Figures that a source reported for this recipe: accuracies in [0, 1], time in minutes."""

    train: float | None = None
    valid: float | None = None
    public: float | None = None
    private: float | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Recipe:
    """A named, complete description of a training run. Without `augment` nothing is changed in what is learnt."""

    name: str
    summary: str
    model: ModelOptions
    train: TrainOptions = TrainOptions()
    frontend: str = "homework_mel40"
    reference: Reference | None = None
    augment: AugmentOptions | None = None

    def augment_for(self, *, sounds: bool) -> AugmentOptions | None:
        """The augmentation for a corpus of sound files or of stored features.

        A recipe that says nothing has the usual one for sounds. Stored features are taken as they are, as the
        homework's reference took them.
        """
        return AugmentOptions() if self.augment is None and sounds else self.augment

    def frontend_for(self, *, sounds: bool) -> str:
        """The frontend for a corpus of sound files or of stored features.

        The homework's log-mels keep the recording's loudness, since its files do. Sound files get the
        same ones at one speech level.
        """
        return "speech_mel40" if sounds and self.frontend == "homework_mel40" else self.frontend


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with voxport, sorted."""
    folder = resources.files("voxport.train") / "recipes"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe by its name, or from a path that ends in .toml.

    Raises:
        RecipeError: no such recipe or file, not TOML, an unknown key or an impossible value.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe file")
        name, text = path.stem, path.read_bytes()
    elif name_or_path in recipe_names():
        name = name_or_path
        text = (resources.files("voxport.train") / "recipes" / f"{name}.toml").read_bytes()
    else:
        raise RecipeError(f"no recipe {name_or_path!r}; there are {', '.join(recipe_names())}, or give a .toml file")
    try:
        table = tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise RecipeError(f"{name_or_path}: not a TOML file ({problem})") from problem
    if "name" in table:
        raise RecipeError(f"{name_or_path}: a recipe is named by its file; remove the key name")
    return decode(Recipe, {"name": name, **table}, name_or_path, RecipeError)
