"""Every recipe passes the command line's parser, builds its learner, and carries the published number."""

from __future__ import annotations

import pytest
import torch

from kshot import recipes
from kshot.cli.train import new_learner, training_arguments, training_options
from kshot.data.dataset import Dataset
from kshot.errors import ConfigError
from kshot.training import train

SHAPES = {  # side of the images, and training classes
    "mini-imagenet": (84, 64),
    "tiered-imagenet": (84, 351),
    "cifar-fs": (32, 64),
    "fc100": (32, 60),
}
MTL_CELLS = [f"mtl-{data}-{shots}shot" for data in SHAPES for shots in (1, 5)]


def fake(toy_split, name: str) -> Dataset:
    size, classes = SHAPES[name]
    train_split = toy_split([1] * classes, size=size, channels=3, dataset=name)
    other = toy_split([1, 1], size=size, channels=3, dataset=name)
    return Dataset(name, train_split, other, other, train_split)


def test_the_cells_of_the_papers_table_are_there():
    assert set(MTL_CELLS) < set(recipes.names())


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_builds_its_learner(name, toy_split):
    recipe = recipes.load(name)
    names, options, defaults = training_options(["--recipe", name])
    given = options.parse(["--recipe", name], defaults)
    data = fake(toy_split, names["data"])
    learner = new_learner(given, data)
    size, classes = SHAPES[names["data"]]
    with torch.no_grad():
        assert learner.eval().features(torch.zeros(1, 3, size, size)).dim() == 2
    if names["learner"] == "mtl":
        assert learner.weight.shape[0] == classes
    arguments = training_arguments(given)
    for option, value in recipe.options["training"].items():
        assert arguments[option] == value
    if given.ways == 5:
        assert (given.validation_shots or given.shots) == (1 if "1shot" in name else 5)


@pytest.mark.parametrize("name", MTL_CELLS)
def test_published_value_is_that_of_the_paper(name):
    recipe = recipes.load(name)
    shots = 1 if "1shot" in name else 5
    row = recipes.published(recipe.options["data"]["name"], 5, shots, "mtl", "resnet12")
    assert (row.accuracy, row.ci95, row.source) == (
        recipe.published.accuracy,
        recipe.published.ci95,
        recipe.published.source,
    )


def test_published_rows():
    assert len(recipes.published_rows()) == 192
    assert str(recipes.published("cifar-fs", 5, 5, "mtl", "resnet12")) == "84.1 ± 0.1"
    assert recipes.published("cifar-fs", 5, 1, "maml", "conv4-32", "transductive").paper == "Z21"
    assert recipes.published("cifar-fs", 5, 5, "mtl", "conv4-64") is None


def test_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean mtl-fc100-5shot"):
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
    with pytest.raises(ConfigError, match="max-epochs takes a whole number, not 'many'"):
        options.parse([], {"max_epochs": "many"})
    _, options, _ = training_options([])
    with pytest.raises(ConfigError, match=r"recipe: learner\.statistic; did you mean --learner\.statistics"):
        options.parse([], {"learner": {"statistic": "joint"}})


def test_train_takes_what_the_parser_gives(toy_data):
    """The options that the command line hands over are exactly those of kshot.train."""
    _, options, _ = training_options(["--data", "toy"])
    given = options.parse(
        ["--max-epochs", "1", "--tasks-per-epoch", "6", "--validation-tasks", "4", "--progress=false"]
    )
    result = train(new_learner(given, toy_data), toy_data, **training_arguments(given))
    assert len(result.history) == 1
