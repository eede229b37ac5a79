"""Every recipe passes the command line's parser, builds its learner, and carries the published number."""

from __future__ import annotations

import pytest
import torch

from kshot import recipes
from kshot.cli.options import Options
from kshot.cli.train import new_learner, training_arguments, training_options
from kshot.data.dataset import Dataset
from kshot.data.regression import FAMILIES, RegressionDataset
from kshot.data.tasks import AnyDataset
from kshot.errors import ConfigError
from kshot.training import train
from kshot.tsa.stages import Stages

SHAPES = {  # side of the images, and training classes
    "mini-imagenet": (84, 64),
    "tiered-imagenet": (84, 351),
    "cifar-fs": (32, 64),
    "fc100": (32, 60),
    "group-aircraft-bird-fungi": (84, 6),
    "group-car-bird-fungi": (84, 6),
}
MTL_CELLS = [
    f"mtl-{data}-{shots}shot" for data in ("mini-imagenet", "tiered-imagenet", "cifar-fs", "fc100") for shots in (1, 5)
]


def fake(toy_split, name: str) -> AnyDataset:
    if name in FAMILIES:
        return RegressionDataset(FAMILIES[name])
    size, classes = SHAPES[name]
    train_split = toy_split([1] * classes, size=size, channels=3, dataset=name)
    other = toy_split([1, 1], size=size, channels=3, dataset=name)
    return Dataset(name, train=train_split, val=other, test=other, train_val=train_split)


def test_the_cells_of_the_papers_table_are_there():
    assert set(MTL_CELLS) < set(recipes.names())


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_builds_its_learner(name, toy_split):
    recipe = recipes.load(name)
    names, options, defaults = training_options(["--recipe", name])
    given = options.parse(["--recipe", name], defaults)
    data = fake(toy_split, names["data"])
    learner = new_learner(given, data)
    with torch.no_grad():
        assert learner.eval().backbone(torch.zeros(1, *data.train.image_shape)).dim() == 2
    if names["learner"] == "mtl":
        assert learner.weight.shape[0] == SHAPES[names["data"]][1]
    arguments = training_arguments(given)
    for section in ("learner", "training"):
        for option, value in recipe.options[section].items():
            assert arguments[option] == value if section == "training" else given.learner[option] == value
    if "way-" in name:
        assert f"{given.validation_ways or given.ways}way-{given.validation_shots or given.shots}shot" in name
    elif given.ways == 5:
        assert (given.validation_shots or given.shots) == (1 if "1shot" in name else 5)


@pytest.mark.parametrize("name", [name for name in recipes.names() if "stages" in recipes.load(name).options])
def test_recipe_in_stages_is_one_of_kshot_tsa_train(name, say):
    options = Options("kshot tsa train", "", [])
    options.add_signature(Stages, "stages")
    words = ["--recipe", name]
    _, options, defaults = training_options(words, options, sections=("training", "stages"))
    given = options.parse(words, defaults)
    for option, value in recipes.load(name).options["stages"].items():
        assert given[option] == value
    code, _, err = say("train", *words)
    assert (code, err) == (2, f"error: {name} is trained in stages: kshot tsa train --recipe {name}\n")


@pytest.mark.parametrize("name", MTL_CELLS)
def test_published_value_is_that_of_the_paper(name):
    (value,) = recipes.load(name).published
    shots = 1 if "1shot" in name else 5
    row = recipes.published(
        recipes.load(name).options["data"]["name"], ways=5, shots=shots, learner="mtl", backbone="resnet12"
    )
    assert (row.accuracy, row.ci95, row.source) == (value.accuracy, value.ci95, value.source)


def test_every_cell_of_the_paper_has_a_recipe_that_shows_its_values():
    """Of Z21's tables 1 to 3 and its text: the values of the recipes are those of published.csv, each row once."""
    shown = [value for name in recipes.names() for value in recipes.load(name).published if value.paper == "Z21"]
    rows = [row for row in recipes.published_rows() if row["paper"] == "Z21"]
    expected = [(row["table"], float(row["accuracy"]), row["ci95"] and float(row["ci95"])) for row in rows]
    assert sorted((value.table, value.accuracy, value.ci95 or "") for value in shown) == sorted(expected)


@pytest.mark.parametrize("name", [name for name in recipes.names() if name.startswith(("maml-l-", "fomaml-"))])
def test_variants_of_maml_differ_from_it_in_one_thing(name):
    own, maml = recipes.load(name), recipes.load(f"maml-{name.partition('maml-')[2].removeprefix('l-')}")
    sections = [section for section in own.options if own.options[section] != maml.options[section]]
    if name.startswith("maml-l-"):
        assert sections == ["backbone"]
        assert own.options["backbone"] == maml.options["backbone"] | {"width": 40, "blocks": 7}
        assert recipes.backbone_in_papers(own.options["backbone"]) == "conv7-40", "which only a text has"
    else:
        assert own.options["learner"] == maml.options["learner"] | {"first_order": True}
        assert sections == ["learner"]


@pytest.mark.parametrize("learner", ["metaoptnet", "r2d2", "tadam", "protonet"])
def test_every_cell_of_a_learner_with_a_solver_or_prototypes_in_w21_has_a_recipe_that_shows_its_value(learner):
    shown = [
        (name, value.accuracy, value.ci95)
        for name in recipes.names()
        if name.startswith(learner)
        for value in recipes.load(name).published
        if value.paper == "W21"
    ]
    rows = [row for row in recipes.published_rows() if row["paper"] == "W21" and row["learner"] == learner]
    expected = [
        (f"{learner}-{row['dataset']}-5way-{row['shots']}shot", float(row["accuracy"]), float(row["ci95"]))
        for row in rows
    ]
    assert sorted(shown) == sorted(expected)


def test_cotraining_of_tadam_becomes_rare_over_the_whole_training():
    for options in (recipes.load(name).options for name in recipes.names() if name.startswith("tadam")):
        tasks = options["training"]["tasks_per_epoch"] * options["training"]["max_epochs"]
        assert options["learner"]["cotraining_tasks"] == tasks


def test_metaoptnet_has_the_head_whose_values_are_quoted():
    """Wang et al. quote Lee et al.'s ridge regression on CIFAR-FS, and their SVM elsewhere."""
    for name in (name for name in recipes.names() if name.startswith("metaoptnet")):
        assert recipes.load(name).options["learner"]["head"] == ("ridge" if "cifar-fs" in name else "svm"), name


def test_values_of_a_cell_say_what_they_were_measured_on():
    values = recipes.load("fomaml-cifar-fs-10way-5shot").published
    assert [str(value) for value in values] == ["51.35 ± 1.16", "53.23 ± 1.12"]
    assert values[0].protocol == "fomaml with conv4-32, 10-way 5-shot, inductive statistics"
    assert values[1].source == "Z21 table 2"
    (quoted,) = recipes.load("anil-mini-imagenet-5way-1shot").published
    assert (str(quoted), quoted.protocol) == ("48 ± 0.7", "anil with conv4-32, 5-way 1-shot"), (
        "which statistics is not said"
    )


def test_cells_share_what_they_do_not_change():
    text = """# A comment.
data: {name: cifar-fs}
backbone: {name: conv4, width: 32}
learner: {name: maml, inner_rate: 0.05}
training: {ways: 5, shots: 5}
cells:
  5way: {}
  10way:
    learner: {inner_rate: 0.1}
    training: {ways: 10}
    published: [Z21 table 2]
"""
    first, second = recipes.recipes_of("maml", text)
    assert (first.name, second.name) == ("maml-5way", "maml-10way")
    assert first.options["learner"] == {"name": "maml", "inner_rate": 0.05}
    assert second.options["learner"] == {"name": "maml", "inner_rate": 0.1}
    assert second.options["training"] == {"ways": 10, "shots": 5}
    assert (first.published, len(second.published)) == ((), 2)
    assert second.text.startswith("# A comment.\n")
    (alone,) = recipes.recipes_of("maml-10way", second.text)
    assert alone == second
    with pytest.raises(ConfigError, match="recipe maml-10way: unknown section trainings"):
        list(recipes.recipes_of("maml", text.replace("    training", "    trainings")))


def test_mtl_validates_with_thirty_queries_and_tsa_maml_has_the_steps_of_the_paper():
    for name in MTL_CELLS:
        assert recipes.load(name).options["training"]["validation_queries"] == 30
    steps = {
        "tsa-maml-cifar-fs": 40_000,
        "tsa-maml-mini-imagenet": 80_000,
        "tsa-maml-tiered-imagenet": 80_000,
        "tsa-maml-group": 40_000,
    }
    for name in (name for name in recipes.names() if name.startswith("tsa-maml")):
        options = recipes.load(name).options["training"]
        tasks = options["tasks_per_epoch"] * options["max_epochs"]
        assert tasks / options["meta_batch"] == next(steps[family] for family in steps if name.startswith(family))


def test_values_of_a_mixture_say_how_many_tasks_of_which_domain():
    values = recipes.load("maml-l-group-aircraft-bird-fungi").published
    assert [(str(value), value.source) for value in values] == [
        ("72.68", "Z21 text"),
        ("69.73", "Z21 text"),
        ("54.18", "Z21 text"),
    ]
    assert values[0].protocol == "maml with conv7-40, 5-way 5-shot, 600 tasks of aircraft, transductive statistics"
    assert recipes.load("maml-l-group-car-bird-fungi").published == ()


GOOD = "data: {name: cifar-fs}\nbackbone: {name: conv4}\nlearner: {name: mtl}\ntraining: {ways: 5, shots: 5}\n"
DAMAGED = {
    "cut off": GOOD + "stages: [",
    "no mapping": "- a list",
    "empty": "",
    "no section": GOOD.replace("data: {name: cifar-fs}", ""),
    "no name": GOOD.replace("{name: cifar-fs}", "{root: here}"),
    "name is a list": GOOD.replace("cifar-fs", "[cifar-fs]"),
    "section is text": GOOD.replace("{name: conv4}", "conv4"),
    "unknown section": GOOD + "trainings: {}",
    "section without a name": GOOD + "3: {}",
    "cells is a list": GOOD + "cells: [5way]",
    "cell is a number": GOOD + "cells: {5way: 3}",
    "cell breaks a section": GOOD + "cells: {5way: {learner: maml}}",
    "published of another form": GOOD + "published: {value: 3}",
    "published text": GOOD + "published: W21 table 3",
    "published number": GOOD + "published: 84.1",
    "published is no number": GOOD + 'published: {paper: W21, table: "3", accuracy: x, ci95: 1, protocol: ""}',
    "published without ways": GOOD.replace("{ways: 5, shots: 5}", "{shots: 5}") + "published: [W21 table 3]",
    "tag": GOOD + "stages: !!python/object/apply:os.getcwd []",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_recipe_is_listed_with_its_error_and_the_others_work(kind, tmp_path, say, monkeypatch):
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "broken-one.yaml").write_text(DAMAGED[kind])
    known, wrong = recipes.read_folder(tmp_path)
    assert (list(known), list(wrong)) == (["good"], ["broken-one"])
    assert wrong["broken-one"].startswith("recipe broken-one")
    monkeypatch.setattr(recipes, "_shipped", lambda: (known, wrong))
    code, out, err = say("recipes")
    assert (code, err) == (0, "")
    assert "good " in out
    assert f"damaged: {wrong['broken-one']}" in out
    for name in ("broken-one", "broken-one-5way"):
        code, _, err = say("train", "--recipe", name)
        assert (code, err) == (2, f"error: {wrong['broken-one']}\n")


def test_a_recipe_that_is_no_utf8_is_damaged(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"# \xe4\n" + GOOD.encode())
    assert list(recipes.read_folder(tmp_path)[1]) == ["latin"]


def test_all_shipped_recipes_can_be_read():
    assert recipes.damaged() == {}


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'mtl-fc100-5shot'"):
        recipes.load("mtl-fc100-5shots")


def test_another_learner_does_not_get_the_recipes_learner_options():
    words = ["--recipe", "mtl-fc100-5shot", "--learner", "protonet"]
    names, options, defaults = training_options(words)
    given = options.parse(words, defaults)
    assert names["learner"] == given.learner.name == "protonet"
    assert given.backbone.name == "resnet12"
    assert "normalize_features" not in given.learner.as_dict()


def test_wrong_types_and_unknown_keys_in_a_recipe_are_named():
    _, options, _ = training_options([])
    with pytest.raises(ConfigError, match="max-epochs takes a whole number or null, not 'many'"):
        options.parse([], {"max_epochs": "many"})
    _, options, _ = training_options([])
    with pytest.raises(ConfigError, match=r"recipe: learner\.normalise_over; did you mean --learner\.normalize-over"):
        options.parse([], {"learner": {"normalise_over": "batch"}})


def test_train_takes_what_the_parser_gives(toy_data):
    """The options that the command line hands over are exactly those of kshot.train."""
    _, options, _ = training_options(["--data", "toy"])
    given = options.parse(
        ["--max-epochs", "1", "--tasks-per-epoch", "6", "--validation-tasks", "4", "--progress=false"]
    )
    result = train(new_learner(given, toy_data), toy_data, **training_arguments(given)).result
    assert len(result.history) == 1
