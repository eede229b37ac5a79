"""TSA-MAML's training (Z21 section 4.2) in stages that survive a kill: MAML, task solutions, k-means, groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from kshot.data.tasks import AnyDataset
from kshot.errors import CheckpointError, ConfigError
from kshot.files import write_csv
from kshot.learners import TSAMAML, InitializationLearner, learners
from kshot.runs import checkpoints
from kshot.runs.config import describe_data, describe_learner
from kshot.runs.content import check_weights
from kshot.runs.run import Run
from kshot.training.interrupts import TrainingInterrupted
from kshot.training.loop import train
from kshot.training.options import TrainingOptions
from kshot.tsa.clustering import check_clustering, cluster
from kshot.tsa.solutions import solve_tasks
from kshot.tsa.stages import StageFolder, Stages


@dataclass(frozen=True)
class Group:
    """What became of one group, and so of its initialisation.

    Attributes
    ----------
    group
        Its number.
    solutions
        Task solutions that k-means put into the group.
    tasks
        Training tasks that were assigned to it, until the epoch whose weights are kept.
    unused_for
        Training tasks of the steps since the last step with a task of the group.
    lost
        Whether the group had no task for an epoch or longer: its initialisation, or its offset, has stopped learning.
    """

    group: int
    solutions: int
    tasks: int
    unused_for: int
    lost: bool


@dataclass(frozen=True)
class GroupTraining:
    """What `train_tsa_maml` achieved.

    Attributes
    ----------
    run
        The run of the groups' training.
    groups
        What became of each group.
    """

    run: Run
    groups: list[Group]

    def report(self) -> str:
        """A line on how the tasks spread over the groups, and one that names the groups without tasks, if any."""
        total = max(1, sum(group.tasks for group in self.groups))
        shares = ", ".join(f"{group.group}: {100 * group.tasks / total:.1f} %" for group in self.groups)
        lost = [str(group.group) for group in self.groups if group.lost]
        text = f"training tasks of each group: {shares}"
        if lost:
            what = "groups with no task for an epoch or longer, whose weights have stopped learning"
            text += f"\n{what}: {', '.join(lost)}"
        return text


def train_tsa_maml(
    learner: TSAMAML,
    data: AnyDataset,
    *,
    run: Path | str,
    stages: Stages | None = None,
    training: TrainingOptions | None = None,
    resume: bool = False,
) -> GroupTraining:
    """Train theta*, solve many tasks from it, cluster the solutions, and train an initialisation for each group.

    An interrupted stage is resumed where it stopped. At the end the learner holds the weights of the best epoch, and
    `run` is a run folder like that of any training, with ``groups.csv`` on what became of each group.

    Parameters
    ----------
    learner
        Its weights are where the pretraining starts.
    data
        Dataset with the classes to train and to validate on, or a family of functions.
    run
        Folder of all stages.
    stages
        Options of what comes before the groups are trained; None for the defaults.
    training
        Options of training, for the MAML and for the groups; the seed also names the tasks that are solved.
    resume
        Go on with what the folder holds.

    Returns
    -------
    GroupTraining
        The training of the groups, and what became of each.

    Raises
    ------
    ConfigError
        For more groups than task solutions; and as `kshot.train` does.
    CheckpointError
        For a pretrained run of another architecture, and for damaged task solutions; and as `kshot.train` does.
    DataError, DivergenceError, TrainingInterrupted
        As `kshot.train` does.
    """
    options, folder = training or TrainingOptions(), StageFolder(run)
    options = options if options.ways is not None else replace(options, ways=learner.ways)
    stages = _complete(stages or Stages(), folder, options, resume)
    _check(learner, stages)
    parts = {"data": describe_data(data), **describe_learner(learner)}
    folder.take_into_use(parts | {"stages": stages.plain(), "training": options.plain()}, resume)
    if not folder.groups.last.exists():
        if not folder.clusters.exists():
            with _naming_stage("the pretraining", folder):
                _pretrain(learner, data, folder, stages, options, resume)
            with _naming_stage("the task solutions", folder):
                resolved = options.resolved(learner, data.split(options.train_on))
                vectors = solve_tasks(learner, data, options=resolved, folder=folder.solutions, count=stages.solutions)
            found = cluster(
                vectors,
                learner.groups,
                method=stages.clustering,
                components=learner.cluster_components,
                seed=options.seed,
            )
            start = {"config": describe_learner(learner), "learner": learner.state_dict()}
            arrays = {name: torch.from_numpy(array) for name, array in vars(found).items()}
            checkpoints.save(folder.clusters, start | arrays)
        _start(learner, folder)
    with _naming_stage("the training of the groups", folder):
        trained = train(learner, data, run=folder.path, resume=resume, **options.plain())
    epoch = options.tasks_per_epoch or learner.tasks_per_epoch(data.split(options.train_on))
    groups = _groups(learner, folder.read_clusters(describe_learner(learner))["sizes"], epoch)
    write_csv(folder.path / "groups.csv", [asdict(group) for group in groups])
    return GroupTraining(trained, groups)


def _complete(stages: Stages, folder: StageFolder, options: TrainingOptions, resume: bool) -> Stages:
    """The stages with the pretraining's number of epochs: the one that it was started with, if it was started."""
    if stages.pretraining_epochs is not None:
        return stages
    started = resume and folder.options.exists()
    epochs = folder.read_options()["stages"]["pretraining_epochs"] if started else options.max_epochs
    return replace(stages, pretraining_epochs=epochs)


def _check(learner: TSAMAML, stages: Stages) -> None:
    check_clustering(stages.clustering, learner.groups, stages.solutions, components=learner.cluster_components)
    if stages.pretraining_epochs is not None and stages.pretraining_epochs < 1:
        raise ConfigError(f"pretraining_epochs is {stages.pretraining_epochs}, but must be at least 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("the stages of TSA-MAML run in one process; leave out torchrun")


@contextmanager
def _naming_stage(stage: str, folder: StageFolder) -> Iterator[None]:
    """Within this context an interruption says which stage it stopped, and how to go on with all of them."""
    try:
        yield
    except TrainingInterrupted as stop:
        what, _, _ = str(stop).partition(";")  # what follows is on how to go on with this stage alone
        raise TrainingInterrupted(f"{stage}: {what}; {folder.advice}") from stop


def _pretrain(
    learner: TSAMAML, data: AnyDataset, folder: StageFolder, stages: Stages, options: TrainingOptions, resume: bool
) -> None:
    """Give the learner its theta*: from a run that was named, or from one that is trained here."""
    if stages.pretrained is not None:
        load_pretrained(learner, Path(stages.pretrained))
        return
    if not folder.solving:
        pretraining = replace(options, max_epochs=stages.pretraining_epochs).plain()
        maml = learner.pretraining_learner()
        result = train(maml, data, run=folder.pretraining.path, resume=resume, **pretraining).result
        if result is not None and result.stopped == "time_limit":
            raise TrainingInterrupted("stopped by the time limit")
    load_pretrained(learner, folder.pretraining.folder)


def load_pretrained(learner: TSAMAML, run: Path) -> None:
    """Take theta* from the best checkpoint of a run; CheckpointError if that has another architecture."""
    path = Run(run).best
    content = checkpoints.load(path)
    check_weights(content, path)
    saved, here = content["config"], describe_learner(learner)
    name = saved["learner"]["name"]
    if not issubclass(learners[name], InitializationLearner):
        raise CheckpointError(f"{run} was trained by {name}, which learns no initialisation; name a run of maml")
    pairs = {f"backbone.{key}": (value, here["backbone"].get(key)) for key, value in saved["backbone"].items()}
    if "ways" in saved["learner"]:  # a head for any number of classes fits this one
        pairs["learner.ways"] = (saved["learner"]["ways"], here["learner"]["ways"])
    differing = [
        f"{key} is {first!r} there and {second!r} here" for key, (first, second) in pairs.items() if first != second
    ]
    advice = "train with the options of that run's config.yaml, or name another run"
    if differing:
        raise CheckpointError(f"{run} has another architecture: {'; '.join(differing)}; {advice}")
    try:
        learner.load_pretrained(content["learner"])
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit this learner: {error}; {advice}") from error


def _start(learner: TSAMAML, folder: StageFolder) -> None:
    """Start theta* and the groups from what the earlier stages left."""
    clusters = folder.read_clusters(describe_learner(learner))
    checkpoints.load_weights(learner, clusters["learner"], folder.clusters)
    device = learner.centroids.device
    learner.start_groups(clusters["centroids"].to(device), axes=clusters["axes"].to(device))


def _groups(learner: TSAMAML, sizes: torch.Tensor, epoch: int) -> list[Group]:
    numbers = zip(sizes.tolist(), learner.usage.tolist(), learner.unused_for.tolist())
    return [Group(group, size, tasks, idle, idle >= epoch) for group, (size, tasks, idle) in enumerate(numbers)]
