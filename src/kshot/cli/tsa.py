"""`kshot tsa`: train TSA-MAML in its stages, and look at what its groups do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from kshot import data as datasets
from kshot.cli.dispatch import dispatch
from kshot.cli.options import DEVICE_TEXT, ROOT_TEXT, Options, chosen
from kshot.cli.signatures import parameters
from kshot.cli.theory import write_findings
from kshot.cli.train import DEFAULT_NAMES, add_common, new_learner, report, training_arguments, training_options
from kshot.data.dataset import Dataset, SplitName
from kshot.errors import CheckpointError, ConfigError
from kshot.experiments.adaptation_curves import accuracy_by_groups, adaptation_steps
from kshot.experiments.findings import Findings
from kshot.experiments.optimum_distances import optimum_distances
from kshot.experiments.solution_clusters import solution_clusters
from kshot.experiments.task_domains import group_usage
from kshot.experiments.task_maps import task_map
from kshot.learners import TSAMAML, Learner
from kshot.runs.config import build_learner
from kshot.runs.run import Checkpoint, Run
from kshot.training import TrainingOptions
from kshot.training.distributed import resolve_device
from kshot.tsa.stages import StageFolder, Stages
from kshot.tsa.train import GroupTraining, train_tsa_maml

VIEWS: dict[str, Callable[..., Findings]] = {
    "steps": adaptation_steps,
    "usage": group_usage,
    "groups": accuracy_by_groups,
    "map": task_map,
    "clusters": solution_clusters,
    "distances": optimum_distances,
}
_HELP = """usage: kshot tsa train|{names} [options]

TSA-MAML (Zhou et al. 2021): several initialisations, one for each group of similar tasks.

commands:
  train      train MAML, solve many tasks from it, cluster the solutions, and train a group for each cluster
{views}

examples:
  kshot tsa train --data cifar-fs --learner.groups 5 --shots 5
  kshot tsa train --data my-mixture --learner.groups 3 --pretrained runs/maml-my-mixture-conv4-seed0
  kshot tsa train --resume runs/tsa-maml-cifar-fs-conv4-seed0
  kshot tsa steps runs/maml-cifar-fs-conv4-seed0 runs/tsa-maml-cifar-fs-conv4-seed0
  kshot tsa usage runs/tsa-maml-my-mixture-conv4-seed0

`kshot tsa train --help` ({names}) explains the options.
"""
_TRAIN = """Train MAML, solve many training tasks from its initialisation theta*, cluster the solutions by k-means, and
train an initialisation for each group. Every stage can be interrupted; --resume RUN goes on where it stopped.

The options of training hold for the MAML and for the groups; --pretrained RUN takes a MAML that is trained already."""
_FROM_COMMAND = {"learners", "split", "progress"}


def run(arguments: Sequence[str]) -> None:
    """Train, or show a view of trained runs."""
    lines = "\n".join(f"  {view:11}{_first_line(view)}" for view in VIEWS)
    actions: dict[str, Callable[[Sequence[str]], None]] = {view: partial(_view, view) for view in VIEWS}
    actions = {"train": _train} | actions
    dispatch("kshot tsa", arguments, actions, help_text=_HELP.format(names="|".join(VIEWS), views=lines))


def _first_line(view: str) -> str:
    return (inspect.getdoc(VIEWS[view]) or "").splitlines()[0].rstrip(".")


def _train(arguments: Sequence[str]) -> None:
    resumed = chosen(arguments, ["resume"]).get("resume")
    if resumed is not None:
        _resume(Path(resumed), arguments)
        return
    options = Options("kshot tsa train", _TRAIN, [line.strip() for line in _HELP.splitlines() if "tsa train -" in line])
    options.add_signature(Stages, "stages before the groups are trained")
    names, options, defaults = training_options(
        arguments,
        options,
        default_names=DEFAULT_NAMES | {"learner": "tsa-maml"},
        sections=("training", "stages"),
        choices=["tsa-maml"],
    )
    given = options.parse(arguments, defaults)
    data = datasets.load(names["data"], given.root)
    recipe = given.recipe or f"tsa-maml-{data.name}-{names['backbone']}"
    folder = given.run or Path("runs") / f"{recipe}-seed{given.seed}"
    stages = Stages(**{name: given[name] for name, *_ in parameters(Stages)})
    training = TrainingOptions(**training_arguments(given))
    _report(train_tsa_maml(_tsa_maml(new_learner(given, data)), data, run=folder, stages=stages, training=training))


def _resume(folder: Path, arguments: Sequence[str]) -> None:
    config = StageFolder(folder).read_options()
    options = Options("kshot tsa train --resume RUN", "Go on with an interrupted training.", [])
    add_common(options)
    options.add_signature(TrainingOptions, "training")
    given = options.parse(arguments, config["training"])
    data = datasets.load(config["data"]["name"], given.root)
    torch.manual_seed(given.seed)
    learner = _tsa_maml(build_learner(config))
    training = TrainingOptions(**training_arguments(given))
    stages = Stages(**config["stages"])
    _report(train_tsa_maml(learner, data, run=folder, stages=stages, training=training, resume=True))


def _tsa_maml(learner: Learner) -> TSAMAML:
    if not isinstance(learner, TSAMAML):
        raise CheckpointError(f"{type(learner).__name__} is no TSA-MAML; name a run of tsa-maml")
    return learner


def _report(training: GroupTraining) -> None:
    report(training.run, "kshot tsa train")
    print(f"                   kshot tsa usage {training.run.path}")
    print(training.report())


def _view(name: str, arguments: Sequence[str]) -> None:
    view = VIEWS[name]
    options = Options(
        f"kshot tsa {name}",
        f"{_first_line(name)}.\n\nWrites a table (CSV), a picture (PNG) and a line of verdict.",
        [line.strip() for line in _HELP.splitlines() if f"kshot tsa {name} " in line],
        positional="RUN [RUN ...]",
    )
    options.add("runs", list[Path], text="run folders, as kshot tsa train and kshot train wrote them")
    options.add("--split", SplitName, default="test", text="the classes that tasks are drawn from")
    checkpoint_text = (
        "which weights: best, of the best validation accuracy, or last, after all tasks that the run has learnt from"
    )
    options.add("--checkpoint", Checkpoint, default="best", text=checkpoint_text)
    options.add_signature(view, "options of the view", skip=_FROM_COMMAND)
    options.add("--out", Path, default=Path("tsa"), text="folder for the table, the picture and the verdict")
    options.add("--root", Path | None, text=ROOT_TEXT)
    options.add("--device", str, default="auto", text=DEVICE_TEXT)
    given = options.parse(arguments)
    learners, data = _trained(given.runs, given.root, given.device, given.checkpoint)
    chosen_options = {option: given[option] for option, *_ in parameters(view) if option not in _FROM_COMMAND}
    findings = view(learners, data.split(given.split), progress=True, **chosen_options)
    write_findings(
        findings,
        given.out,
        name=name,
        options=chosen_options
        | {"runs": [str(run) for run in given.runs], "split": given.split, "checkpoint": given.checkpoint},
    )


def _trained(
    runs: Sequence[Path], root: Path | None, device: str, checkpoint: Checkpoint
) -> tuple[dict[str, Learner], Dataset]:
    """The learners of run folders, by the names of these, and the dataset that all of them were trained on."""
    learners: dict[str, Learner] = {}
    trained_on: dict[str, Dataset] = {}
    for run in runs:
        stages = StageFolder(run)
        if stages.options.exists() and not stages.groups.best.exists():
            raise CheckpointError(f"{run} is not trained yet, it has reached {stages.reached}; {stages.advice}")
        trained = Run(run, root=root, checkpoint=checkpoint)
        learners[run.name if run.name not in learners else str(run)] = trained.learner.to(resolve_device(device))
        data = trained.data
        if not isinstance(data, Dataset):
            raise ConfigError(f"{run} learnt tasks of regression; the views are of tasks of classification")
        trained_on[data.name] = data
    if len(trained_on) > 1:
        raise ConfigError(f"the runs were trained on different datasets: {', '.join(trained_on)}; give runs of one")
    return learners, next(iter(trained_on.values()))
