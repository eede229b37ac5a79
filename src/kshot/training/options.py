"""The options of training: their names, defaults and meaning, each written once.

`kshot.train`, the command line, config.yaml and the stages of TSA-MAML all read the dataclass below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from kshot.data.dataset import Split
from kshot.data.episodes import TaskShape
from kshot.data.tasks import AnySplit
from kshot.errors import ConfigError, did_you_mean
from kshot.learners.base import Learner
from kshot.training.option_types import check_option_types

OptimizerName = Literal["radam", "sgd", "adam", "adamw", "adamax", "sgdp", "sgdw", "adabound", "adamp", "muon"]
ScheduleName = Literal["plateau", "step", "cosine", "linear", "constant"]
LoggerName = Literal["tensorboard", "wandb"]
Precision = Literal["float32", "bf16"]

# A default training shows every image about 50 times, within bounds: fewer images than the first number leave a network
# untrained, more than the second take hours on a CPU.
_TIMES_EACH_IMAGE = 50
_FEWEST_IMAGES, _MOST_IMAGES = 400_000, 2_000_000

_AT_LEAST = {
    "meta_batch": 1,
    "tasks_per_epoch": 1,
    "max_epochs": 1,
    "validation_tasks": 2,  # an interval needs two
    "validation_ways": 1,
    "validation_shots": 1,
    "validation_queries": 1,
    "patience": 0,
    "plateau_patience": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "momentum": 0,
    "time_limit": 0,
}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How `kshot.train` trains; the section "training" of a run's config.yaml.

    Raises ConfigError if an option is out of range, is not among its choices, or contradicts another one.

    Parameters
    ----------
    ways
        Classes per training task; None for 5. Regression tasks have none. Training on more ways than are tested is
        common, and makes the training accuracy lower than the validation accuracy.
    shots
        Support images per class of a training task, or support points per regression task.
    queries
        Query images per class of a training task, or query points per regression task.
    within_domain
        Draw all classes of a training or validation task from one domain (alphabet, superclass), or from all of them;
        None for what the dataset says: a mixture asks for one domain per task.
    meta_batch
        Tasks per step; None for the learner's own number (W21: 6).
    tasks_per_epoch
        Tasks per epoch, rounded up to whole steps; None for the learner's own number (W21: 1600).
    max_epochs
        Epochs at most; None for as many as show each training image about 50 times, but 400,000 images at least and
        2,000,000 at most. Recipes state their own number.
    validation_tasks
        Validation tasks after each epoch, the same ones every time.
    validation_ways
        Classes per validation task; None for as many as a training task has.
    validation_shots
        Support images per class of a validation task; None for as many as in training.
    validation_queries
        Query images per class of a validation task.
    patience
        Epochs without a better validation accuracy after which training stops; 0 never stops early.
    optimizer
        Name of the optimiser; sgdp, sgdw, adabound and adamp need an extra package: ``pip install kshot[optimizers]``.
        muon makes the momentum of convolutions orthogonal, and is sgd for the rest; it asks for a rate as sgd does.
    learning_rate
        Learning rate of the first epoch; adamax runs at twice this rate, as in the release of W21.
    weight_decay
        Weight decay; None for 0.01 with adamw and 0 with all others (W21).
    momentum
        Momentum of sgd, sgdp, sgdw and muon; the Adam family keeps its betas of 0.9 and 0.999.
    nesterov
        Nesterov momentum, for sgd, sgdp, sgdw and muon.
    clip_gradient_value
        Cut each entry of the gradient to [-value, value], as MAML's release does at 10; None cuts nothing.
    clip_gradient_norm
        Shorten the gradient of all parameters together to this length, as Meta-LSTM's release does to 0.25; None
        shortens nothing.
    schedule
        Learning rate schedule. "plateau" multiplies the rate by `factor` after `plateau_patience` epochs without a
        better validation accuracy, "step" at each of the `milestones` or each time that `step_every` epochs have
        passed; "cosine" and "linear" lower it to 0 over `max_epochs`, the latter by the same amount each epoch.
    plateau_patience
        Epochs that the plateau schedule waits.
    factor
        What the rate is multiplied by. The step schedule takes one number, or a list of one per milestone.
    milestones
        Epochs after which the step schedule lowers the rate.
    step_every
        Epochs between two steps of the step schedule, in the place of `milestones`.
    train_on
        Classes to train on. "train+val" adds the validation classes; nothing is then held out, so there is no
        validation, no early stopping and no plateau schedule, and the weights of the last epoch are kept.
    augment
        Random crop, colour jitter and mirroring, if the dataset is of photographs (characters change meaning when
        mirrored); False for none.
    seed
        Names the training tasks, their augmentation and dropout masks, and the validation tasks.
    device
        "auto" for a GPU if there is one, otherwise the CPU; or a torch device such as "cpu" or "cuda:1".
    precision
        What the backbone computes in. "bf16" is about twice as fast, on many CPUs too, but bends the gradients of
        learners that adapt weights: those of MAML on 32 px have a cosine of about 0.8 with the exact ones.
    channels_last
        Memory layout of images and convolutions, usually the faster one; changes rounding only.
    compile
        Compile the backbone with torch.compile, which costs a minute or two at the start.
    loggers
        "tensorboard" or "wandb" in addition to metrics.csv; both need a run folder and a package of their own.
    progress
        Show a line with loss, accuracy, speed and time left, and say once how long a long training will take.
    time_limit
        Minutes of the whole run, earlier sittings and validation included; training then stops and can be resumed with
        a higher limit. None for no limit.
    """

    ways: int | None = None
    shots: int = 5
    queries: int = 5
    within_domain: bool | None = None
    meta_batch: int | None = None
    tasks_per_epoch: int | None = None
    max_epochs: int | None = None
    validation_tasks: int = 400
    validation_ways: int | None = None
    validation_shots: int | None = None
    validation_queries: int = 15
    patience: int = 15
    optimizer: OptimizerName = "radam"
    learning_rate: float = 1e-3
    weight_decay: float | None = None
    momentum: float = 0.9
    nesterov: bool = False
    clip_gradient_value: float | None = None
    clip_gradient_norm: float | None = None
    schedule: ScheduleName = "plateau"
    plateau_patience: int = 4
    factor: float | list[float] = 0.1
    milestones: list[int] | None = None
    step_every: int | None = None
    train_on: Literal["train", "train+val"] = "train"
    augment: bool = True
    seed: int = 0
    device: str = "auto"
    precision: Precision = "float32"
    channels_last: bool = True
    compile: bool = False
    loggers: list[LoggerName] | None = None
    progress: bool = True
    time_limit: float | None = None

    def __post_init__(self) -> None:
        check_option_types(self.plain(), get_type_hints(TrainingOptions))
        self._check_ranges()
        self._check_choices()
        self._check_schedule()
        if self.nesterov and self.momentum == 0:
            raise ConfigError(
                "nesterov looks ahead along the momentum, which is 0; choose a momentum, or nesterov=false"
            )
        if self.train_on == "train+val" and (self.schedule == "plateau" or self.patience > 0):
            raise ConfigError(
                "training on train+val holds nothing out, so no validation accuracy can steer it; "
                "choose patience=0 and schedule=step, cosine, linear or constant"
            )

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TrainingOptions:
        """The options of the mapping `options`; ConfigError for a name that is none of them, with one that is close."""
        known = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(
                f"training has no option {', '.join(map(repr, unknown))}{did_you_mean(unknown[0], known)}; "
                f"help(kshot.TrainingOptions) explains those it has"
            )
        return cls(**options)

    def plain(self) -> dict[str, Any]:
        """The options by name, as config.yaml holds them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def decay(self) -> float:
        """The weight decay, by default 0.01 for adamw, whose point it is, and 0 for all others (W21)."""
        if self.weight_decay is not None:
            return self.weight_decay
        return 0.01 if self.optimizer == "adamw" else 0.0

    def resolved(self, learner: Learner, split: AnySplit) -> ResolvedOptions:
        """The options for a learner on a split: a value for each None that stands for a default.

        Raises ConfigError if the learner cannot learn tasks of so many ways, and DataError if the split is too small.

        Parameters
        ----------
        learner
            What is trained; some defaults are its own.
        split
            The classes that it is trained on.
        """
        ways = split.usual_ways if self.ways is None else self.ways
        validation_ways = ways if self.validation_ways is None else self.validation_ways
        learner.check_ways(ways)
        learner.check_ways(validation_ways)
        chosen = {
            "ways": ways,
            "validation_ways": validation_ways,
            "validation_shots": self.shots if self.validation_shots is None else self.validation_shots,
            "weight_decay": self.decay,
            "meta_batch": self.meta_batch or learner.meta_batch,
            "tasks_per_epoch": self.tasks_per_epoch or learner.tasks_per_epoch(split),
        }
        resolved = ResolvedOptions(**self.plain() | chosen)
        if self.max_epochs is not None:
            return resolved
        return replace(resolved, max_epochs=_default_epochs(learner, split, resolved))

    def _check_ranges(self) -> None:
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:  # nor is nan
                raise ConfigError(f"{name} is {value}, but must be at least {least}")
        if self.momentum >= 1:
            raise ConfigError(f"momentum is {self.momentum}, but must be below 1")
        for name in ("clip_gradient_value", "clip_gradient_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}, but must be above 0; null clips nothing")

    def _check_choices(self) -> None:
        choices = {"optimizer": OptimizerName, "schedule": ScheduleName, "precision": Precision}
        for option, names in choices.items():
            if getattr(self, option) not in get_args(names):
                known = ", ".join(get_args(names))
                raise ConfigError(f"there is no {option} {getattr(self, option)!r}; choose one of: {known}")

    def _check_schedule(self) -> None:
        factors = self.factor if isinstance(self.factor, Sequence) else [self.factor]
        milestones = self.milestones or []
        if not all(0 < part < math.inf for part in factors):
            raise ConfigError(f"factor is {self.factor}, but must be above 0")
        if self.schedule == "plateau" and not all(part < 1 for part in factors):
            raise ConfigError(f"factor is {self.factor}, but the plateau schedule lowers the rate: it must be below 1")
        if self.schedule == "plateau" and isinstance(self.factor, Sequence):
            raise ConfigError(f"factor is {self.factor}, but the plateau schedule takes one number")
        given = bool(milestones) + (self.step_every is not None)
        if given != (self.schedule == "step"):
            raise ConfigError(
                f"schedule is {self.schedule!r} and milestones are {milestones}, step_every is {self.step_every}: step "
                f"needs one of them, others do not"
            )
        if self.step_every is not None and (self.step_every < 1 or isinstance(self.factor, Sequence)):
            raise ConfigError(
                f"step_every is {self.step_every} and factor {self.factor}, but they must be a whole number of epochs, "
                f"at least 1, and one number"
            )
        if self.schedule == "step" and isinstance(self.factor, Sequence) and len(factors) != len(milestones):
            raise ConfigError(f"{len(factors)} factors were given for {len(milestones)} milestones; give one for each")


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(TrainingOptions):
    """Options as training uses them and config.yaml holds them: no None is left that stands for a default."""

    ways: int
    meta_batch: int
    tasks_per_epoch: int
    max_epochs: int
    validation_ways: int
    validation_shots: int
    weight_decay: float

    @property
    def shape(self) -> TaskShape:
        """Shape of the training tasks."""
        return TaskShape(self.ways, self.shots, self.queries)

    @property
    def validation_shape(self) -> TaskShape:
        """Shape of the validation tasks."""
        return TaskShape(self.validation_ways, self.validation_shots, self.validation_queries)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch: an epoch is rounded up to whole steps."""
        return math.ceil(self.tasks_per_epoch / self.meta_batch)


def _default_epochs(learner: Learner, split: AnySplit, options: ResolvedOptions) -> int:
    """Epochs that show each image about 50 times, within bounds; a family of functions has no end of points."""
    sampler = learner.sampler(split, options.shape, seed=options.seed, within_domain=options.within_domain)
    images_per_task = sampler.episodes(np.zeros(1, np.int64)).images().shape[1]
    images = _TIMES_EACH_IMAGE * len(split.images) if isinstance(split, Split) else _MOST_IMAGES
    images = min(max(images, _FEWEST_IMAGES), _MOST_IMAGES)
    return math.ceil(images / (options.steps_per_epoch * options.meta_batch * images_per_task))
