"""`kshot train`: its options are those of the chosen learner, the chosen backbone and `TrainingOptions`."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from kshot import data as datasets
from kshot import recipes
from kshot.backbones import backbones
from kshot.cli.options import ROOT_TEXT, Options, chosen
from kshot.data.regression import FAMILIES
from kshot.data.tasks import AnyDataset
from kshot.errors import ConfigError
from kshot.learners import TSAMAML, Learner, learners
from kshot.learners.create import FROM_DATA, create_described
from kshot.measures import SQUARED_ERROR
from kshot.report.tables import percent
from kshot.runs.config import build_learner, describe_data, describe_learner, folder_for, read_config
from kshot.runs.run import Run
from kshot.training import TrainingOptions, train

_DESCRIPTION = """Train a learner and keep the weights with the best validation accuracy.

Name what to train by --recipe, or by --data, --learner and --backbone; options override the recipe's. Without any, it
trains multi-task learning on glyphs, in minutes. Ctrl-C saves the run; --resume RUN goes on with it.

The options below are those of the chosen learner and backbone: kshot train --learner protonet --help shows ProtoNet's.
Without --max-epochs or a recipe, the number of epochs depends on the dataset; a training that will take long says how
long, and --time-limit MINUTES bounds it. The training accuracy that it shows is of augmented images, with dropout, and
often of more ways than validation has, so it can be the lower of the two."""
EXAMPLES = [
    "kshot train",
    "kshot train --data cifar-fs --learner mtl --backbone conv4 --backbone.width 64 --max-epochs 40",
    "kshot train --recipe mtl-cifar-fs-5shot --seed 1",
    "kshot train --recipe mtl-cifar-fs-5shot-conv4 --set learner.normalize_over=batch --run runs/batch",
    "kshot train --resume runs/mtl-cifar-fs-5shot-seed0",
    "torchrun --nproc-per-node 4 -m -- kshot train --recipe mtl-cifar-fs-5shot --meta-batch 8",
]
DEFAULT_NAMES = {"data": "glyphs", "learner": "mtl", "backbone": "conv4"}


def run(arguments: Sequence[str]) -> None:
    """Train a new run, or go on with an interrupted one."""
    resumed = chosen(arguments, ["resume"]).get("resume")
    if resumed is not None:
        _resume(Path(resumed), arguments)
        return
    names, options, defaults = training_options(arguments)
    given = options.parse(arguments, defaults)
    if given.recipe is not None and "stages" in recipes.load(given.recipe).options:
        raise ConfigError(f"{given.recipe} is trained in stages: kshot tsa train --recipe {given.recipe}")
    if issubclass(learners[names["learner"]], TSAMAML):  # without the stages before, its groups would start anywhere
        raise ConfigError(f"{names['learner']} is trained in stages: kshot tsa train --data {names['data']}")
    data = datasets.load(names["data"], given.root)
    recipe = given.recipe or f"{names['learner']}-{data.name}-{names['backbone']}"
    learner = new_learner(given, data)
    folder = given.run or _default_folder(Path("runs") / f"{recipe}-seed{given.seed}", given, learner, data)
    if (folder / "checkpoints" / "last.pt").exists():
        raise ConfigError(
            f"{folder} holds a trained run; go on with it by kshot train --resume {folder}, or name another with --run"
        )
    report(train(learner, data, run=folder, **training_arguments(given)))


def _default_folder(folder: Path, given: Namespace, learner: Learner, data: AnyDataset) -> Path:
    """The folder, or one with a hash of the options in its name if a run with other options is there."""
    options = TrainingOptions(**training_arguments(given))
    resolved = options.resolved(learner, data.split(options.train_on))
    config = {"data": describe_data(data), **describe_learner(learner), "training": resolved.plain()}
    return folder_for(folder, config)


def training_options(
    arguments: Sequence[str],
    options: Options | None = None,
    *,
    default_names: Mapping[str, str] = DEFAULT_NAMES,
    sections: Sequence[str] = ("training",),
    choices: Collection[str] = learners,
) -> tuple[dict[str, str], Options, dict[str, Any]]:
    """The names of dataset, learner and backbone, the options that they have, and the defaults of the recipe.

    Parameters
    ----------
    arguments
        The words of the command line.
    options
        What the options are added to; None for a new list, that of `kshot train`.
    default_names
        What is trained if nothing is named.
    sections
        The sections of a recipe whose options have no prefix.
    choices
        The learners that may be named.
    """
    options = options or Options("kshot train", _DESCRIPTION, EXAMPLES)
    typed = chosen(arguments, ["recipe", "schedule", *DEFAULT_NAMES])
    recipe = recipes.load(typed["recipe"]).options if "recipe" in typed else {}
    named = {section: content["name"] for section, content in recipe.items() if "name" in content}
    named |= {name: typed[name] for name in DEFAULT_NAMES if name in typed}
    usual = {**default_names} | ({"backbone": "mlp"} if named.get("data") in FAMILIES else {})
    names = usual | named
    options.add("--recipe", str | None, text="a recipe's name; kshot recipes lists them")
    options.add("--data.name", str, default=usual["data"], text="the dataset; kshot data list shows them all")
    if names["learner"] not in choices and names["learner"] in learners:
        raise ConfigError(f"{options.parser.prog} trains {', '.join(choices)}; for {names['learner']} run kshot train")
    options.add("--learner.name", str, default=usual["learner"], text=f"one of: {', '.join(sorted(choices))}")
    options.add("--backbone.name", str, default=usual["backbone"], text=f"one of: {', '.join(sorted(backbones))}")
    add_common(options)
    run_text = "folder of the run; null for runs/RECIPE-seedN, with the names of the parts if there is no recipe, "
    run_text += "and with a hash of the options if a run with other options is there"
    options.add("--run", Path | None, text=run_text, metavar="FOLDER")
    for part, registry in (("learner", learners), ("backbone", backbones)):
        name = names[part]
        options.add_signature(registry[name], f"{part} {name}", prefix=f"{part}.", skip=FROM_DATA, among=registry)
    options.add_signature(TrainingOptions, "training")
    # options that a recipe has for its own learner mean nothing to the one that was typed in its place
    kept = {name: content for name, content in recipe.items() if name in names and content["name"] == names[name]}
    for section in sections:
        kept |= recipe.get(section, {})
    if typed.get("schedule", kept.get("schedule")) != kept.get("schedule"):  # and neither does how the other one steps
        kept = {name: content for name, content in kept.items() if name not in ("milestones", "factor")}
    return names, options, kept


def new_learner(given: Namespace, data: AnyDataset) -> Learner:
    """The learner that the options describe, for the images and classes of `data`."""
    description = {"learner": given.learner.as_dict(), "backbone": given.backbone.as_dict()}
    return create_described(description, data, ways=given.ways, train_on=given.train_on, seed=given.seed)


def training_arguments(given: Namespace) -> dict[str, Any]:
    """The fields of `TrainingOptions`."""
    return {field.name: given[field.name] for field in fields(TrainingOptions)}


def add_common(options: Options) -> None:
    """Add the options that every training has, a resumed one included."""
    resume_text = "go on with the interrupted run in this folder, with the options of its config.yaml"
    options.add("--root", Path | None, text=ROOT_TEXT, metavar="FOLDER")
    options.add("--resume", Path | None, text=resume_text, metavar="RUN")
    options.add("--set", str | None, text="the same as --key value; may be repeated", metavar="KEY=VALUE")


def _resume(folder: Path, arguments: Sequence[str]) -> None:
    config = read_config(folder)
    options = Options("kshot train --resume RUN", "Go on with an interrupted run.", EXAMPLES[-2:-1])
    add_common(options)
    options.add_signature(TrainingOptions, "training")
    given = options.parse(arguments, config["training"])
    data = datasets.load(config["data"]["name"], given.root)
    torch.manual_seed(given.seed)
    learner = build_learner(config, download=not Run(folder).last.exists())
    report(train(learner, data, run=folder, resume=True, **training_arguments(given)))


def report(run: Run, command: str = "kshot train") -> None:
    """Print where the run is, how good it is, how training ended, and what to type next; in one process of several."""
    if os.environ.get("RANK", "0") != "0":
        return
    result = run.result
    assert result is not None, "the training has just ended"
    minutes = result.seconds / 60
    print(f"\nrun                {run.path}")
    best, seen = None, "images"
    if not math.isnan(result.best_accuracy):  # as it is if nothing was held out
        best = f"{percent(result.best_accuracy, result.best_ci95)} %"
    elif not math.isnan(result.best_error):
        seen = "points"
        best = f"mean squared error {SQUARED_ERROR.text(result.best_error, result.best_ci95)}"
    if best is not None:
        epoch = f"epoch {result.best_epoch}" if result.best_epoch > 0 else "before the end of epoch 1"
        print(f"best validation    {best} (95% interval over {result.validation_tasks} tasks), {epoch}")
    print(f"ended              {result.ending}")
    print(f"time               {minutes:.1f} minutes, {result.images_per_second:.0f} {seen}/s in training")
    print(f"peak memory        {result.peak_memory:.0f} MiB")
    if result.stopped == "time_limit":
        print(f"go on with         {command} --resume {run.path} --time-limit {max(1, 2 * math.ceil(minutes))}")
    print(f"next               kshot evaluate {run.path}")
