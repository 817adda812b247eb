from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import timesformer
from timesformer import models
from timesformer.training.recipe import Recipe, RecipeError, load_recipe, recipe_names, recipe_yaml

RECIPES = Path(str(files("timesformer.training"))) / "recipes"


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_that_come_with_the_package_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    options = dict(recipe.model)
    with torch.device("meta"):
        model = models.create(options.pop("name", "timesformer_base"), **options)
    if recipe.init_from_image:
        transformer = isinstance(model, timesformer.TimeSformer)
        assert recipe.init_from_image.startswith("timm/vit_" if transformer else "timm/resnet50.")
    head = (RECIPES / f"{name}.yaml").read_text().splitlines()
    comments = " ".join(line for line in head if line.startswith("#"))
    assert f"--recipe {name}" in comments or name == "demo"
    assert "Cost" in comments
    assert re.search(r"[Ss]core|top-1", comments) or name == "finetune"  # which is for data of all kinds


def test_every_row_of_the_paper_that_is_trained_has_a_recipe() -> None:
    rows = {name.split("/")[0] for name in recipe_names() if "/" in name}
    assert rows == {*(f"table{number}" for number in range(1, 9)), "figure4", "figure5", "figure6", "section4.7"}
    scores = {}
    for name in recipe_names():
        text = (RECIPES / f"{name}.yaml").read_text()
        if match := re.search(r"Expected top-1: ([\d.]+) %", text):
            scores[name] = float(match[1])
    assert scores["table1/ssv2_axial"] == 56.2
    assert scores["table3/k400_long_in21k"] == 80.7
    assert scores["table8/timesformer_96f"] == 62.6
    assert load_recipe("table1/ssv2_axial").model["attention"] == "axial"
    assert load_recipe("table1/ssv2_axial").data.flip == 0
    assert load_recipe("table3/k400_long_in1k").data.stride == 4
    assert load_recipe("table7/diving48_hr").model["image_size"] == 448


def test_a_recipe_on_top_of_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: paper\nmodel: {num_frames: 4}\nepochs: 2\n")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert recipe.model == {**load_recipe("paper").model, "num_frames": 4}
    assert (recipe.epochs, recipe.optimizer) == (2, load_recipe("paper").optimizer)
    (tmp_path / "loop.yaml").write_text(f"base: {tmp_path / 'loop.yaml'}\n")
    with pytest.raises(RecipeError, match="it is its own base"):
        load_recipe(str(tmp_path / "loop.yaml"))
    (tmp_path / "text.yaml").write_text("words")
    with pytest.raises(RecipeError, match="it holds no keys and values"):
        load_recipe(str(tmp_path / "text.yaml"))


def test_there_are_the_named_ones() -> None:
    assert {"paper", "finetune", "scratch"} <= set(recipe_names())


def test_defaults_and_the_paper_recipe_are_appendix_a() -> None:
    for recipe in (Recipe(), load_recipe("paper")):
        assert (recipe.epochs, recipe.batch_size, recipe.label_smoothing, recipe.ema) == (15, 16, 0, 0)
        optimizer = recipe.optimizer
        assert (optimizer.name, optimizer.lr, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.005, 0.9, 1e-4)
        assert (optimizer.schedule, optimizer.milestones, optimizer.warmup) == ("steps", (11, 14), 0)
        assert [round(side * 224) for side in recipe.data.short_side] == [256, 320]
        assert (recipe.data.stride, recipe.data.flip) == (32, 0.5)


def test_settings_change_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("scratch", ["epochs=3", "model.depth=2", "data.scale=[0.5,1]", "optimizer.milestones=[1,2]"])
    assert recipe.epochs == 3
    assert recipe.model["depth"] == 2
    assert recipe.model["name"] == "timesformer_tiny"
    assert recipe.data.scale == (0.5, 1.0)
    assert recipe.optimizer.milestones == (1, 2)
    file = tmp_path / "mine.yaml"
    file.write_text(recipe_yaml(recipe))
    assert load_recipe(str(file)) == recipe


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["epochs"], "setting 'epochs' is not of the form key=value"),
        (["epoch=3"], "epoch"),
        (["data.strid=3"], "strid"),
        (["epochs=many"], "epochs"),
        (["data.sampling=all"], "'clip', 'segments'"),
        (["epochs=0"], "epochs=0 must be a whole number from 1 up to"),
        (["micro_batch_size=99"], "micro_batch_size=99 must be in 1"),
        (["steps=0"], "steps=0 must be a whole number from 1 up to"),
        (["optimizer.warmup=2"], r"optimizer.warmup=2.0 must be a number from 0 below 1"),
        (["ema=1"], r"ema=1.0 must be a number from 0 below 1"),
    ],
)
def test_wrong_settings(settings: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe("scratch", settings)
    assert "\n" not in str(error.value)


def test_steps_are_rounded_to_passes() -> None:
    assert load_recipe("paper").num_epochs(1000) == 15
    recipe = load_recipe("scratch", ["steps=100", "batch_size=16"])
    assert recipe.num_epochs(160) == 10
    assert recipe.num_epochs(161) == 9
    assert recipe.num_epochs(5) == 100
    assert recipe.num_epochs(10**6) == 1


def test_unknown_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe 'scrach' is neither a file nor one of .*scratch"):
        load_recipe("scrach")
    (tmp_path / "r.yaml").write_text("epochs: [")
    with pytest.raises(RecipeError):
        load_recipe(str(tmp_path / "r.yaml"))


def test_epochs_count_where_they_are_asked_for() -> None:
    assert load_recipe("scratch", ["epochs=7"]).num_epochs(1000) == 7
    assert load_recipe("scratch").num_epochs(160) == 1400


def test_the_nearer_of_epochs_and_steps_counts(tmp_path: Path) -> None:
    def length(text: str, *settings: str) -> tuple[int, int | None]:
        (tmp_path / "mine.yaml").write_text(text)
        recipe = load_recipe(str(tmp_path / "mine.yaml"), settings)
        assert load_recipe("scratch").steps == 14000
        (tmp_path / "saved.yaml").write_text(recipe_yaml(recipe))
        assert load_recipe(str(tmp_path / "saved.yaml")) == recipe, "what is saved is the same run"
        return recipe.num_epochs(160), recipe.steps

    assert length("base: scratch\nepochs: 7\n") == (7, None)
    assert length("base: scratch\nepochs: 7\nsteps: null\n") == (7, None)
    assert length("base: paper\nepochs: 3\n", "steps=100") == (10, 100)
    assert length("base: paper\nsteps: 100\n") == (10, 100)
    assert length("base: paper\nsteps: 100\n", "epochs=4") == (4, None)
    (tmp_path / "base.yaml").write_text("base: scratch\nepochs: 9\n")
    assert length(f"base: {tmp_path / 'base.yaml'}\nseed: 3\n") == (9, None)
    assert length(f"base: {tmp_path / 'base.yaml'}\nsteps: 100\n") == (10, 100)
    with pytest.raises(RecipeError, match=r"mine\.yaml: epochs=7 and steps=100: give one of them"):
        length("base: scratch\nepochs: 7\nsteps: 100\n")
    with pytest.raises(RecipeError, match="epochs=7 and steps=100: give one of them"):
        load_recipe("scratch", ["epochs=7", "steps=100"])
    with pytest.raises(ValueError, match="epochs=7 and steps=100: give one of them"):
        Recipe(epochs=7, steps=100)


def test_a_setting_of_the_length_takes_the_place_of_the_recipes(tmp_path: Path) -> None:
    assert (load_recipe("scratch", ["epochs=3", "seed=1"]).epochs, load_recipe("scratch", ["epochs=3"]).steps) == (
        3,
        None,
    )
    assert load_recipe("paper", ["steps=20"]).steps == 20
    assert load_recipe("scratch", ["steps=20", "epochs=3", "steps=null"]).num_epochs(160) == 3, "the last of one key"
    for settings in (["epochs=null"], ["epochs=null", "steps=100"]):
        with pytest.raises(RecipeError, match="epochs=None: must be a whole number"):
            load_recipe("scratch", settings)


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("settings", [[], ["epochs=7"], ["steps=9"]])
def test_what_is_saved_is_the_same_run(name: str, settings: list[str], tmp_path: Path) -> None:
    recipe = load_recipe(name, settings)
    (tmp_path / "recipe.yaml").write_text(recipe_yaml(recipe))
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe


def test_a_recipe_for_all_models_gives_drop_path_to_those_that_have_it() -> None:
    assert load_recipe("scratch", ["model={name: x3d_s, drop_path: 0.1}"]).model["drop_path"] == 0.1
    with pytest.raises(RecipeError, match=r"model\.drop_path='x': must be a number"):
        load_recipe("scratch", ["model={name: x3d_s, drop_path: x}"])
    with pytest.raises(RecipeError, match=r"model\.patch_size=16: x3d_s has no option 'patch_size'"):
        load_recipe("scratch", ["model={name: x3d_s, patch_size: 16}"])


def test_a_single_clip_cannot_be_mixed() -> None:
    for settings in (["micro_batch_size=1", "data.mixup=0.2"], ["batch_size=1", "data.cutmix=1"]):
        with pytest.raises(RecipeError, match=r"data\.mixup=.*data\.cutmix=.*two clips"):
            load_recipe("scratch", settings)
    assert load_recipe("scratch", ["micro_batch_size=2", "data.mixup=0.2"]).data.mixup == 0.2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "setting 'epoch' is not in a recipe: did you mean epochs?"),
        ("lr=3", r"setting 'lr' is not in a recipe: did you mean optimizer.lr?"),
        ("optimizer.learning_rate=3", "setting 'optimizer.learning_rate' is not in a recipe"),
        ("label_smoothing=2", r"label_smoothing=2.0 must be a number from 0 up to 1"),
        ("optimizer.lr=-1", "optimizer.lr=-1.0 must be a number from 0 up to 1000000"),
        ("data.short_side=[2,1]", "data.short_side=.* must be two rising numbers"),
        ("data.fraction=0", "data.fraction=0.0 must be a number above 0, up to 1"),
        ("model.num_classes=7", "model.num_classes=7: the data decide on the classes"),
    ],
)
def test_settings_that_are_not_allowed(setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("scratch", [setting])
