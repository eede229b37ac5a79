"""`kshot train`: the options are those of the chosen learner, of the chosen backbone and of `kshot.train`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from kshot import data as datasets
from kshot import recipes
from kshot.backbones import backbones
from kshot.cli.options import ROOT_TEXT, Options, chosen, parameters
from kshot.data.regression import FAMILIES
from kshot.data.tasks import AnyDataset
from kshot.errors import ConfigError
from kshot.learners import TSAMAML, Learner, learners
from kshot.measures import SQUARED_ERROR
from kshot.report.tables import percent
from kshot.runs.config import build_learner, read_config
from kshot.runs.folder import RunFolder
from kshot.training import TrainingResult, train

_DESCRIPTION = """Train a learner and keep the weights with the best validation accuracy.

What to train is named by --recipe, or by --data, --learner and --backbone; options override the recipe's. The options
below are those of the chosen learner and backbone: kshot train --learner protonet --help shows ProtoNet's."""
_EXAMPLES = [
    "kshot train",
    "kshot train --data cifar-fs --learner mtl --backbone conv4 --backbone.width 64 --max-epochs 40",
    "kshot train --recipe mtl-cifar-fs-5shot --seed 1",
    "kshot train --recipe mtl-cifar-fs-5shot-conv4 --set learner.statistics=joint --run runs/joint",
    "kshot train --resume runs/mtl-cifar-fs-5shot-seed0",
    "torchrun --nproc-per-node 4 -m kshot train --recipe mtl-cifar-fs-5shot --meta-batch 8",
]
DEFAULT_NAMES = {"data": "glyphs", "learner": "mtl", "backbone": "conv4"}
# what kshot.train is given by this module, and what learner and backbone take from the data and the shape of tasks
OWN = {"learner", "data", "run", "resume"}
FROM_DATA = {"backbone", "num_classes", "ways", "in_channels", "image_size"}


def run(arguments: Sequence[str]) -> None:
    """Train a new run, or go on with one that was interrupted."""
    resumed = chosen(arguments, ["resume"]).get("resume")
    if resumed is not None:
        _resume(Path(resumed), arguments)
        return
    names, options, defaults = training_options(arguments)
    given = options.parse(arguments, defaults)
    if given.recipe is not None and "stages" in recipes.load(given.recipe).options:
        raise ConfigError(f"{given.recipe} is trained in stages: kshot tsa train --recipe {given.recipe}")
    if issubclass(learners[names["learner"]], TSAMAML):  # whose groups would start anywhere
        raise ConfigError(f"{names['learner']} is trained in stages: kshot tsa train --data {names['data']}")
    data = datasets.load(names["data"], given.root)
    recipe = given.recipe or f"{names['learner']}-{data.name}-{names['backbone']}"
    folder = given.run or Path("runs") / f"{recipe}-seed{given.seed}"
    if (folder / "checkpoints" / "last.pt").exists():
        raise ConfigError(
            f"{folder} holds a trained run; go on with it by kshot train --resume {folder}, or name another with --run"
        )
    torch.manual_seed(given.seed)
    learner = new_learner(given, data)
    report(train(learner, data, run=folder, **training_arguments(given)))


def training_options(
    arguments: Sequence[str],
    options: Options | None = None,
    default_names: Mapping[str, str] = DEFAULT_NAMES,
    sections: Sequence[str] = ("training",),
    choices: Collection[str] = learners,
) -> tuple[dict[str, str], Options, dict[str, Any]]:
    """The names of dataset, learner and backbone, the options that they have, and the defaults of the recipe.

    options: what the options are added to; by default those of `kshot train`.
    default_names: what is trained where nothing is named.
    sections: those of a recipe whose options have no prefix.
    choices: the learners that may be named.
    """
    options = options or Options("kshot train", _DESCRIPTION, _EXAMPLES)
    typed = chosen(arguments, ["recipe", "schedule", *DEFAULT_NAMES])
    recipe = recipes.load(typed["recipe"]).options if "recipe" in typed else {}
    named = {section: content["name"] for section, content in recipe.items() if "name" in content}
    named |= {name: typed[name] for name in DEFAULT_NAMES if name in typed}
    usual = {**default_names} | ({"backbone": "mlp"} if named.get("data") in FAMILIES else {})
    names = usual | named
    options.add("--recipe", str | None, None, "a recipe's name; kshot recipes lists them")
    options.add("--data.name", str, usual["data"], "the dataset; kshot data list shows them all")
    if names["learner"] not in choices and names["learner"] in learners:
        raise ConfigError(f"{options.parser.prog} trains {', '.join(choices)}; for {names['learner']} run kshot train")
    options.add("--learner.name", str, usual["learner"], f"one of: {', '.join(sorted(choices))}")
    options.add("--backbone.name", str, usual["backbone"], f"one of: {', '.join(sorted(backbones))}")
    add_common(options)
    options.add("--run", Path | None, None, "folder of the run; by default runs/ and the names and the seed")
    for part, registry in (("learner", learners), ("backbone", backbones)):
        name = names[part]
        options.add_signature(registry[name], f"{part} {name}", f"{part}.", skip=FROM_DATA, among=registry)
    options.add_signature(train, "training", skip=OWN)
    # options that a recipe has for its own learner mean nothing to the one that was typed in its place
    kept = {name: content for name, content in recipe.items() if name in names and content["name"] == names[name]}
    for section in sections:
        kept |= recipe.get(section, {})
    if typed.get("schedule", kept.get("schedule")) != kept.get("schedule"):  # and neither does how the other one steps
        kept = {name: content for name, content in kept.items() if name not in ("milestones", "factor")}
    return names, options, kept


def new_learner(given: Namespace, data: AnyDataset) -> Learner:
    """The learner that the options describe, for the images and classes of `data`."""
    split = data.split(given.train_on)
    ways = split.usual_ways if given.ways is None else given.ways
    channels, size, _ = split.image_shape
    backbone_options = given.backbone.as_dict()
    backbone_class = backbones[backbone_options.pop("name")]
    learner_options = given.learner.as_dict()
    learner_class = learners[learner_options.pop("name")]
    backbone = backbone_class(in_channels=channels, image_size=size, **backbone_options)
    from_data = {"backbone": backbone, "num_classes": split.num_classes, "ways": ways}
    taken = {name for name, *_ in parameters(learner_class)}
    return learner_class(**{name: value for name, value in from_data.items() if name in taken}, **learner_options)


def training_arguments(given: Namespace) -> dict[str, Any]:
    """The options that go to `kshot.train`."""
    return {name: given[name] for name, *_ in parameters(train) if name not in OWN}


def add_common(options: Options) -> None:
    """Add the options of every training, a resumed one included."""
    options.add("--root", Path | None, None, ROOT_TEXT)
    options.add("--resume", Path | None, None, "go on with an interrupted run, by the options of its config.yaml")
    options.add("--set", str | None, None, "key=value, as often as needed: the same as --key value")


def _resume(folder: Path, arguments: Sequence[str]) -> None:
    config = read_config(folder)
    options = Options("kshot train --resume RUN", "Go on with an interrupted run.", _EXAMPLES[-2:-1])
    add_common(options)
    options.add_signature(train, "training", skip=OWN)
    given = options.parse(arguments, config["training"])
    data = datasets.load(config["data"]["name"], given.root)
    torch.manual_seed(given.seed)
    learner = build_learner(config, download=not RunFolder(folder).last.exists())
    report(train(learner, data, run=folder, resume=True, **training_arguments(given)))


def report(result: TrainingResult, command: str = "kshot train") -> None:
    """Print where the run is, how good it is, and what to type next; from one process of several."""
    if os.environ.get("RANK", "0") != "0":
        return
    epochs = len(result.history)
    minutes = result.seconds / 60
    print(f"\nrun                {result.run}")
    best, seen = None, "images"
    if result.best_accuracy == result.best_accuracy:  # nan where nothing was held out
        best = f"{percent(result.best_accuracy, result.best_ci95)} %"
    elif result.best_error == result.best_error:
        seen = "points"
        best = f"mean squared error {SQUARED_ERROR.text(result.best_error, result.best_ci95)}"
    if best is not None:
        print(f"best validation    {best} (95% interval over tasks), epoch {result.best_epoch} of {epochs}")
    print(
        f"time               {minutes:.1f} minutes, {result.images_per_second:.0f} {seen}/s, ended by {result.stopped}"
    )
    print(f"peak memory        {result.peak_memory:.0f} MiB")
    if result.stopped == "time_limit":
        print(f"go on with         {command} --resume {result.run} --time-limit {2 * minutes:.0f}")
    print(f"next               kshot evaluate {result.run}")
