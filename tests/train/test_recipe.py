"""Recipes: those that come along, and what is refused."""

import dataclasses
from pathlib import Path

import pytest

from voxport.train.recipe import ModelOptions, RecipeError, TrainOptions, load_recipe, recipe_names
from voxport.train.training.fit import with_steps


def test_every_recipe_loads_and_is_explained() -> None:
    names = recipe_names()
    assert "sap_am_bn_3layers" in names
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.summary


def test_best_reference_row_is_what_its_source_says() -> None:
    recipe = load_recipe("sap_am_bn_3layers")
    model, train = recipe.model, recipe.train
    assert (model.num_layers, model.d_model, model.num_heads, model.ffn_dim, model.kernel_size) == (3, 256, 4, 512, 31)
    assert (model.dropout, model.am_scale, model.am_margin, model.batch_norm) == (0.3, 30.0, 0.35, True)
    assert (train.steps, train.batch_size, train.crop_frames) == (70_000, 32, 128)
    assert (train.learning_rate, train.warmup_steps) == (1e-3, 1_000)
    assert recipe.reference is not None
    assert recipe.reference.public == 0.88125


# heads, layers, pooling, batch norm, batch, steps; then train, valid, public, private, minutes as the source has them
ROWS = {
    "sap_am": ((4, 2, "self_attention", False, 32, 70_000), (1.0, 0.9306, 0.84325, 0.84200, 35)),
    "sap_am_batch128_8heads": ((8, 2, "self_attention", False, 128, 70_000), (1.0, 0.9460, 0.83675, 0.83550, None)),
    "sap_max_am": ((4, 2, "self_attention_max", True, 32, 70_000), (1.0, 0.9085, 0.86400, 0.86100, 36)),
    "sap_max_am_long": ((4, 2, "self_attention_max", True, 32, 100_000), (1.0, 0.9140, 0.86250, 0.86050, 47)),
    "sap_max_am_batch128_long": (
        (4, 2, "self_attention_max", True, 128, 100_000),
        (1.0, 0.9325, 0.83850, 0.83325, 138),
    ),
    "sap_am_bn": ((4, 2, "self_attention", True, 32, 70_000), (1.0, 0.9384, 0.87150, 0.87325, 35)),
    "sap_am_bn_3layers": ((4, 3, "self_attention", True, 32, 70_000), (1.0, 0.9433, 0.88125, 0.87900, 47)),
    "sap_am_bn_4layers": ((4, 4, "self_attention", True, 32, 70_000), (None, None, 0.865, None, None)),
}


@pytest.mark.parametrize("name", ROWS)
def test_reference_table(name: str) -> None:
    recipe = load_recipe(name)
    (heads, layers, pooling, batch_norm, batch, steps), figures = ROWS[name]
    model = recipe.model
    assert (model.num_heads, model.num_layers, model.pooling, model.batch_norm) == (heads, layers, pooling, batch_norm)
    assert model == dataclasses.replace(
        ModelOptions(num_layers=layers), num_heads=heads, pooling=model.pooling, batch_norm=batch_norm
    )
    assert recipe.train == TrainOptions(steps=steps, batch_size=batch)
    assert recipe.reference is not None
    assert dataclasses.astuple(recipe.reference) == figures


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("summary = 'x'\n[model]\nnum_layers = 2\nlayers = 3", "unknown key layers"),
        ("summary = 'x'\n[model]\nd_model = 2", "missing key num_layers"),
        ("summary = 'x'\n[model]\nnum_layers = 2.0", "num_layers: expected int"),
        ("summary = 'x'\n[model]\nnum_layers = 2\nkernel_size = 4", "kernel_size must be odd"),
        ("summary = 'x'\n[model]\nnum_layers = 2\nd_model = 10", "multiple of num_heads"),
        ("summary = 'x'\nname = 'y'\n[model]\nnum_layers = 2", "remove the key name"),
        ("summary = 'x'\n[model]\nnum_layers = 2\n[train]\nsteps = 0", "must be positive"),
        (
            "summary = 'x'\n[model]\nnum_layers = 2\n[train]\nshortest_crop = 129",
            "shortest_crop must be in 1…crop_frames, 128",
        ),
        ("summary = 'x'\n[model]\nnum_layers = 2\npooling = 'max'", "must be one of self_attention, "),
        ("summary = 'x'\n[model]\nnum_layers = 2\nencoder = 'lstm'", "must be one of conformer, transformer"),
        ("summary = 'x'\n[model]\nnum_layers = 2\nhead_dropout = 1.0", "head_dropout must be in"),
        ("summary = 'x'\n[model]\nnum_layers = 2\nam_scale = 0.0", "am_scale must be positive"),
        ("summary = 'x'\n[model]\nnum_layers = true", "num_layers: expected int"),
        ("summary = 'x'\n[model]\nnum_layers = 2\n[train]\nlearning_rate = nan", "finite"),
        ("summary = ", "not a TOML file"),
    ],
)
def test_bad_recipes_are_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(str(path))
    assert "mine.toml" in str(error.value)


def test_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="sap_am_bn_3layers"):
        load_recipe("best")
    with pytest.raises(RecipeError, match="no such recipe file"):
        load_recipe("missing.toml")


def test_fewer_steps_shrink_the_schedule_with_them() -> None:
    short = with_steps(load_recipe("sap_am_bn_3layers"), 800).train
    assert (short.steps, short.warmup_steps, short.validate_every) == (800, 80, 200)
    assert with_steps(load_recipe("sap_am_bn_3layers"), None) == load_recipe("sap_am_bn_3layers")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("second_crop = [20]", "second_crop must be"),
        ("second_crop = [20, 129]", "second_crop must be"),
        ("second_crop = [20, 40]\nshortest_crop = 30", "exclude each other"),
        ('alone = 1.5\nfill = "repeat"', "alone is a share from 0 to 1, found 1.5"),
        ("alone = 0.5", "alone needs fill"),
        ("louder_db = 61.0", "louder_db must be between"),
        ("second_crop_weight = 0.0", "second_crop_weight must be positive"),
        ('optimizer = "sgd"', "must be one of adamw, muon"),
    ],
)
def test_impossible_second_crops_and_optimisers(tmp_path: Path, table: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'summary = "x"\n[model]\nnum_layers = 1\n[train]\ncrop_frames = 128\n{table}\n')
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(path))


def test_band_statistics_need_a_width_to_meet_in() -> None:
    with pytest.raises(ValueError, match="band_statistics needs embedding_size"):
        ModelOptions(1, band_statistics=True)
