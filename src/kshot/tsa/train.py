"""TSA-MAML's training (Z21 section 4.2) in stages that survive a kill: MAML, task solutions, k-means, groups."""

from __future__ import annotations

import csv
import inspect
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from kshot.data.dataset import Dataset
from kshot.errors import CheckpointError, ConfigError
from kshot.files import write_text
from kshot.learners import TSAMAML, InitializationLearner, learners
from kshot.runs import checkpoints
from kshot.runs.config import describe_data, describe_learner
from kshot.runs.folder import RunFolder
from kshot.runs.result import TrainingResult
from kshot.training.interrupts import TrainingInterrupted
from kshot.training.loop import train
from kshot.tsa.clustering import check_clustering, cluster
from kshot.tsa.solutions import solve_tasks
from kshot.tsa.stages import StageFolder, Stages


@dataclass(frozen=True)
class Group:
    """What became of one initialisation.

    solutions: task solutions that k-means put into the group.
    tasks: training tasks that were assigned to it, until the epoch whose weights are kept.
    unused_for: training tasks of the steps since the last one with a task of the group.
    lost: whether a whole epoch came and went without a task for it: the initialisation learns no more.
    """

    group: int
    solutions: int
    tasks: int
    unused_for: int
    lost: bool


@dataclass(frozen=True)
class GroupTraining:
    """What `train_tsa_maml` achieved: the training of the groups, and what became of each."""

    result: TrainingResult
    groups: list[Group]

    def report(self) -> str:
        """A line on how the tasks spread over the groups, and one that names the groups which lost all of theirs."""
        total = max(1, sum(group.tasks for group in self.groups))
        shares = ", ".join(f"{group.group}: {100 * group.tasks / total:.1f} %" for group in self.groups)
        lost = [str(group.group) for group in self.groups if group.lost]
        text = f"training tasks of each group: {shares}"
        if lost:
            text += f"\ngroups without a task for an epoch or longer, which learn no more: {', '.join(lost)}"
        return text


def train_tsa_maml(
    learner: TSAMAML,
    data: Dataset,
    run: Path | str,
    stages: Stages | None = None,
    training: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> GroupTraining:
    """Train theta*, solve many tasks from it, cluster the solutions, and train an initialisation for each group.

    Whatever stage was interrupted is taken up where it stopped. At the end the learner holds the weights of the best
    epoch, and `run` is a run folder as of any training, with ``groups.csv`` on what became of each group.

    learner: its weights are where the pretraining starts.
    data: dataset with the classes to train and to validate on.
    run: folder of all stages.
    stages: options of what comes before the groups are trained.
    training: options of `kshot.train`, for the MAML and for the groups; the seed names the tasks that are solved, too.
    resume: go on with what the folder holds.

    Raises, besides what `kshot.train` raises, ConfigError for more groups than task solutions, and CheckpointError for
    a pretrained run of another architecture and for damaged task solutions.
    """
    options, folder = _with_defaults(training or {}, learner.ways), StageFolder(run)
    stages = _complete(stages or Stages(), folder, options, resume)
    _check(learner, stages)
    config = {"data": describe_data(data), **describe_learner(learner), "stages": stages.plain(), "training": options}
    folder.take_into_use(config, resume)
    if not folder.groups.last.exists():
        if not folder.clusters.exists():
            with _said_of("the pretraining", folder):
                _pretrain(learner, data, folder, stages, options, resume)
            with _said_of("the task solutions", folder):
                vectors = solve_tasks(learner, data, options, folder.solutions, stages.solutions)
            centroids, sizes = cluster(vectors, learner.groups, stages.clustering, options["seed"])
            found = {"centroids": torch.from_numpy(centroids), "sizes": torch.from_numpy(sizes)}
            start = {"config": describe_learner(learner), "learner": learner.state_dict()}
            checkpoints.save(folder.clusters, start | found)
        _start(learner, folder)
    with _said_of("the training of the groups", folder):
        result = train(learner, data, run=folder.path, resume=resume, **options)
    epoch = options["tasks_per_epoch"] or learner.tasks_per_epoch(data.split(options["train_on"]))
    groups = _groups(learner, checkpoints.load(folder.clusters)["sizes"], epoch)
    _write_groups(folder.path / "groups.csv", groups)
    return GroupTraining(result, groups)


def _with_defaults(training: Mapping[str, Any], ways: int) -> dict[str, Any]:
    """All options of `train` but those that the stages set themselves; tasks have as many ways as the learner."""
    own = ("learner", "data", "run", "resume")
    known = {name: part.default for name, part in inspect.signature(train).parameters.items() if name not in own}
    unknown = sorted(training.keys() - known.keys())
    if unknown:
        raise ConfigError(f"training has no option {', '.join(unknown)}; see kshot.train for those that it has")
    options = known | dict(training)
    return options | {"ways": ways if options["ways"] is None else options["ways"]}


def _complete(stages: Stages, folder: StageFolder, options: Mapping[str, Any], resume: bool) -> Stages:
    """The options with a number for the epochs of the pretraining: the number that it was started with, if it was."""
    if stages.pretraining_epochs is not None:
        return stages
    started = resume and folder.options.exists()
    epochs = folder.read_options()["stages"]["pretraining_epochs"] if started else options["max_epochs"]
    return replace(stages, pretraining_epochs=epochs)


def _check(learner: TSAMAML, stages: Stages) -> None:
    check_clustering(stages.clustering, learner.groups, stages.solutions)
    if stages.pretraining_epochs is not None and stages.pretraining_epochs < 1:
        raise ConfigError(f"pretraining_epochs is {stages.pretraining_epochs}, but must be at least 1")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("the stages of TSA-MAML run in one process; leave out torchrun")


@contextmanager
def _said_of(stage: str, folder: StageFolder) -> Iterator[None]:
    """An interruption says which stage it stopped, and how to go on with all of them."""
    try:
        yield
    except TrainingInterrupted as stop:
        what, _, _ = str(stop).partition(";")  # what follows is on how to go on with this stage alone
        raise TrainingInterrupted(f"{stage}: {what}; {folder.advice}") from stop


def _pretrain(
    learner: TSAMAML, data: Dataset, folder: StageFolder, stages: Stages, options: dict[str, Any], resume: bool
) -> None:
    """Give the learner its theta*: from a run that was named, or from one that is trained here."""
    if stages.pretrained is not None:
        load_pretrained(learner, Path(stages.pretrained))
        return
    if not folder.solving:
        own = options | {"max_epochs": stages.pretraining_epochs}
        result = train(learner.pretraining_learner(), data, run=folder.pretraining.path, resume=resume, **own)
        if result.stopped == "time_limit":
            raise TrainingInterrupted("stopped by the time limit")
    load_pretrained(learner, folder.pretraining.path)


def load_pretrained(learner: TSAMAML, run: Path) -> None:
    """Take theta* from the best checkpoint of a run; CheckpointError where that has another architecture."""
    path = RunFolder(run).best
    content = checkpoints.load(path)
    saved, own = content["config"], describe_learner(learner)
    name = saved["learner"]["name"]
    if not issubclass(learners[name], InitializationLearner):
        raise CheckpointError(f"{run} was trained by {name}, which learns no initialisation; name a run of maml")
    pairs = {f"backbone.{key}": (saved["backbone"].get(key), own["backbone"].get(key)) for key in saved["backbone"]}
    pairs["learner.ways"] = (saved["learner"]["ways"], own["learner"]["ways"])
    differing = [f"{key} is {there!r} there and {here!r} here" for key, (there, here) in pairs.items() if there != here]
    advice = "train with the options of that run's config.yaml, or name another run"
    if differing:
        raise CheckpointError(f"{run} has another architecture: {'; '.join(differing)}; {advice}")
    try:
        learner.load_pretrained(content["learner"])
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit this learner: {error}; {advice}") from error


def _start(learner: TSAMAML, folder: StageFolder) -> None:
    """Put theta* and the groups where the earlier stages found them."""
    found = checkpoints.load(folder.clusters, describe_learner(learner))
    checkpoints.load_weights(learner, found["learner"], folder.clusters)
    learner.start_groups(found["centroids"].to(learner.centroids.device))


def _groups(learner: TSAMAML, sizes: torch.Tensor, epoch: int) -> list[Group]:
    numbers = zip(sizes.tolist(), learner.usage.tolist(), learner.unused_for.tolist())
    return [Group(group, size, tasks, idle, idle >= epoch) for group, (size, tasks, idle) in enumerate(numbers)]


def _write_groups(path: Path, groups: Sequence[Group]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Group)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(group) for group in groups)
    write_text(path, text.getvalue())
