"""Recipes from somebody else: they name no code, and one that is wrong ends in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from timesformer.training.recipe import RecipeError, load_recipe

HOSTILE = {
    "class_path": "torch.distributed.run.main",
    "init_args": {"args": ["--standalone", "--no-python", "--nproc-per-node", "1", "sh", "-c", "id > PWNED"]},
}
RECIPE = json.dumps({"model": {"name": "timesformer_tiny", "attention": HOSTILE}})


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ({"model": {"name": "timesformer_tiny", "attention": HOSTILE}}, []),
        ({"model": HOSTILE}, []),
        ({"init": HOSTILE}, []),
        ({"data": {"scale": [HOSTILE, HOSTILE]}}, []),
        ({"optimizer": {"milestones": [[[HOSTILE]]]}}, []),
        (HOSTILE, []),
        ({}, [f"model.attention={json.dumps(HOSTILE)}"]),
        ({}, [f"model={json.dumps(HOSTILE)}"]),
        ({}, [f"data={json.dumps(HOSTILE)}"]),
        ({}, [f"data.cache={json.dumps(HOSTILE)}"]),
        ({}, [f"init={json.dumps(HOSTILE)}"]),
    ],
)
def test_code_that_a_recipe_names_is_refused_wherever_it_is(
    recipe: dict[str, Any], settings: Sequence[str], tmp_path: Path
) -> None:
    (tmp_path / "x.yaml").write_text(json.dumps({"epochs": 1, **recipe}))
    with pytest.raises(RecipeError, match="the key 'class_path' names code to be run, which is never allowed") as error:
        load_recipe(str(tmp_path / "x.yaml"), settings)
    assert "x.yaml" in str(error.value)
    assert "\n" not in str(error.value)


# Any import that a hostile recipe causes ends in a file name of its own: what it names is never even looked for.
WATCHED = """
import sys
from pathlib import Path
from timesformer.cli import main
from timesformer.training.recipe import load_recipe, recipe_yaml

recipe_yaml(load_recipe("table1/k400_axial", ["epochs=2"]))  # whatever reading a recipe needs
main(["train", "--data", "nowhere", "--out", "o", "--recipe", "nowhere"])
main(["train", "--data", "nowhere", "--out", "o", "--print-recipe"])
imported = []
sys.addaudithook(lambda event, args: imported.append(args[0]) if event == "import" else None)
for command in COMMANDS:
    code = main(["train", "--data", "nowhere", *command])
    assert code == 1, (command, code)
assert not Path("PWNED").exists()
print("imported:", sorted(set(imported)))
"""


def test_no_command_imports_or_runs_what_a_recipe_names(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(RECIPE)
    (tmp_path / "on_top.yaml").write_text("base: x.yaml\nepochs: 3\n")
    (tmp_path / "init.yaml").write_text(json.dumps({"init": HOSTILE}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(RECIPE)
    alone = json.dumps(HOSTILE)
    commands = [
        ["--out", "o", "--recipe", "x.yaml", "--print-recipe"],
        ["--out", "o", "--recipe", "x.yaml"],
        ["--out", "o", "--recipe", "on_top.yaml", "--print-recipe"],
        ["--out", "o", "--recipe", "init.yaml", "--print-recipe"],
        ["--out", "run", "--resume", "--print-recipe"],
        ["--out", "run", "--resume"],
        *(
            ["--out", "o", "--set", f"{key}={alone}", "--print-recipe"]
            for key in ("model.attention", "model", "data", "data.scale", "optimizer", "init", "init_from_image")
        ),
    ]
    code = WATCHED.replace("COMMANDS", repr(commands))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"
    errors = [line for line in done.stderr.splitlines() if "class_path" in line]
    assert len(errors) == len(commands)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {depht: 3}", "model.depht=3: timesformer_base has no option 'depht': did you mean depth?"),
        ("model: {attention: [a, b]}", "model.attention=['a', 'b']: must be text"),
        ("model: {attention: spacey}", "attention='spacey' is not one of space_only, joint_space_time"),
        ("model: {attention: {a: b}}", "model.attention={'a': 'b'}: must be one value or a flat list of them"),
        ("model: {image_size: [[1], 2]}", "model.image_size=[[1], 2]: must be one value or a flat list of them"),
        ("model: {depth: 2.0}", "model.depth=2.0: must be a whole number"),
        ("model: {depth: true}", "model.depth=True: must be a whole number"),
        ("model: {drop_path: true}", "model.drop_path=True: must be a number"),
        ("model: {drop_path: .nan}", "model.drop_path=nan: must be a finite number"),
        ("model: {name: i3d_r50, patch_size: 8}", "model.patch_size=8: i3d_r50 has no option 'patch_size'"),
        ("model: {name: timesformer_huge}", "model.name='timesformer_huge' is not one of timesformer_tiny"),
        ("model: {name: [1]}", "model.name=[1] is not one of timesformer_tiny"),
        ("init: somewhere\nmodel: {depht: 3}", "model.depht=3: no model has an option 'depht': did you mean depth?"),
        ("init: somewhere\nmodel: {depth: x}", "model.depth='x': must be a whole number"),
        ("model: timesformer_tiny", "model='timesformer_tiny': must hold keys and values"),
        ("model: {1: 2}", "model: the key 1 must be text"),
        ("1: 2", "the key 1 must be text"),
        ("epoch: 3", "epoch=3: there is no such key: did you mean epochs?"),
        ("data: {strid: 3}", "data.strid=3: there is no such key: did you mean stride?"),
        ("steps: many", "steps='many': must be a whole number"),
        ("epochs: 3.0", "epochs=3.0: must be a whole number"),
        ("epochs: '3'", "epochs='3': must be a whole number"),
        ("epochs: true", "epochs=True: must be a whole number"),
        ("epochs: null", "epochs=None: must be a whole number"),
        ("optimizer: {lr: true}", "optimizer.lr=True: must be a number"),
        ("optimizer: {lr: .inf}", "optimizer.lr=inf: must be a finite number"),
        ("optimizer: {lr: 1e999}", "optimizer.lr=inf: must be a finite number"),
        ("optimizer: {decay_all: 1}", "optimizer.decay_all=1: must be true or false"),
        ("optimizer: {milestones: 3}", "optimizer.milestones=3: must be a list"),
        ("optimizer: {milestones: [1, 2.5]}", "optimizer.milestones.1=2.5: must be a whole number"),
        ("data: {scale: [1]}", "data.scale=[1]: must be a list of 2"),
        ("data: {scale: [1, 2, 3]}", "data.scale=[1, 2, 3]: must be a list of 2"),
        ("data: {cache: 3}", "data.cache=3: must be text: in quotes where it looks like something else"),
        ("data: {sampling: all}", "data.sampling='all': must be one of 'clip', 'segments'"),
        ("data: 7", "data=7: must hold keys and values"),
        ("base: [paper]", "base=['paper']: must be the name of a recipe"),
        ("a: &a [x]\nb: [*a, *a", "is not YAML of plain values"),
        ("words", "it holds no keys and values"),
        ("a: !!python/object/apply:os.system ['id > PWNED']", "is not YAML of plain values"),
        ("[" * 200, "lie more than 64 deep in each other"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_the_value(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(str(tmp_path / "x.yaml"))
    assert message in str(error.value)
    assert f"recipe {tmp_path / 'x.yaml'}: " in str(error.value)
    assert "\n" not in str(error.value)


def test_recipes_on_top_of_each_other_end(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.yaml").write_text(f"base: {tmp_path / f'{number + 1}.yaml'}\n")
    with pytest.raises(RecipeError, match="more than 16 recipes on top of each other"):
        load_recipe(str(tmp_path / "0.yaml"))
    for name in ("\0", "x" * 5000, "/dev/zero"):
        with pytest.raises(RecipeError, match="is neither a file nor one of"):
            load_recipe(name)


def test_aliases_that_repeat_a_recipe_without_end_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(RecipeError, match=r"has more than [0-9]+ values"):
        load_recipe(str(tmp_path / "x.yaml"))


def test_numbers_are_read_as_people_write_them() -> None:
    settings = {
        "1e-4": 1e-4, "5e-5": 5e-5, ".5": 0.5, "1E2": 100.0, "3": 3.0, "0.25": 0.25, "2.5e-1": 0.25, "1.0e-6": 1e-6,
    }  # fmt: skip
    for text, value in settings.items():
        assert load_recipe("scratch", [f"optimizer.lr={text}"]).optimizer.lr == value
    assert load_recipe("scratch", ["model.drop_path=1e-1"]).model["drop_path"] == 0.1
    for text, truth in {"true": True, "on": True, "yes": True, "false": False, "off": False}.items():
        assert load_recipe("scratch", [f"compile={text}"]).compile is truth
    assert load_recipe("scratch", ["optimizer.clip_grad=null"]).optimizer.clip_grad is None
    for text in ("010", "0x10", "1:30", "²", "٣"):  # 8, 16 and 90 to YAML 1.1; the last two to Python's `isdigit`
        with pytest.raises(RecipeError, match="must be a whole number"):
            load_recipe("scratch", [f"epochs={text}"])


def test_text_that_looks_like_a_number_stays_text(tmp_path: Path) -> None:
    from timesformer.training.recipe import recipe_yaml

    for text in ("2024", "1e5", "3.5", "true", "2020-01-01", "null.pth"):
        recipe = load_recipe("scratch", [f"init={text}"])
        assert recipe.init == text
        (tmp_path / "x.yaml").write_text(recipe_yaml(recipe))
        assert load_recipe(str(tmp_path / "x.yaml")) == recipe
    assert load_recipe("scratch", ["init=null"]).init is None


def test_a_whole_model_given_as_a_setting_takes_the_place_of_the_recipes() -> None:
    recipe = load_recipe("scratch", ["model={name: i3d_r50, num_frames: 16}", "data={stride: 4}"])
    assert recipe.model == {"name": "i3d_r50", "num_frames": 16}
    assert (recipe.data.stride, recipe.data.sampling) == (4, "segments")
    with pytest.raises(RecipeError, match="recipe scratch: data=7: must hold keys and values"):
        load_recipe("scratch", ["data=7"])
    with pytest.raises(RecipeError, match=r"setting 'data.stride=\[1': is not YAML of plain values"):
        load_recipe("scratch", ["data.stride=[1"])


@pytest.mark.parametrize(
    "base", ["/etc/passwd", "../secret.yaml", "link.yaml", "sub/../../secret.yaml", "a\0b", "loop"]
)
def test_a_base_is_a_recipe_or_lies_beside_the_file_that_names_it(base: str, tmp_path: Path) -> None:
    """What is elsewhere is not opened: an error over its content would show it."""
    (tmp_path / "secret.yaml").write_text("seed: hunter2\n")
    folder = tmp_path / "received"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (folder / "loop").symlink_to("loop")
    (folder / "mine.yaml").write_text(yaml.safe_dump({"base": base}))
    with pytest.raises(RecipeError, match=r"mine\.yaml: .*base=") as refused:
        load_recipe(str(folder / "mine.yaml"))
    assert "hunter2" not in str(refused.value)


def test_a_base_beside_a_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "low.yaml").write_text("base: paper\nseed: 5\n")
    (tmp_path / "mine.yaml").write_text("base: sub/low.yaml\nepochs: 2\n")
    monkeypatch.chdir("/")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert (recipe.seed, recipe.epochs) == (5, 2)
