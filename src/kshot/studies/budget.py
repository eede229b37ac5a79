"""How much each cell of a study may cost, and how the options of a training are shortened to that."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kshot.errors import ConfigError

Options = Mapping[str, Mapping[str, Any]]

EPOCHS = 10  # of a shortened training, with a validation after each
_SHARE_OF_VALIDATION = 0.2  # of the budget, at most
_FEWEST_VALIDATION_TASKS = 10
_FORM = re.compile(r"(\d+(?:\.\d+)?) ?(s|min|h)-per-cell")
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """The processor time of the training of one cell.

    Attributes
    ----------
    seconds
        None for what the recipe says.
    """

    seconds: float | None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """The budget of a text such as "full" or "10min-per-cell"; ConfigError for any other."""
        if text == "full":
            return cls(None)
        match = _FORM.fullmatch(text)
        if match is None or float(match[1]) == 0:
            raise ConfigError(
                f"the budget is {text!r}; write full for what the recipes say, or a time such as 10min-per-cell, "
                "30s-per-cell or 2h-per-cell"
            )
        return cls(float(match[1]) * _SECONDS[match[2]])


@dataclass(frozen=True)
class Costs:
    """What a training costs on one machine, from short trials of it.

    Attributes
    ----------
    start
        Seconds before the first step: imports, reading the data, building the network.
    task
        Seconds per training task.
    validation
        Seconds per validation task.
    measuring
        Seconds of all the measurements of the cell.
    memory
        The most memory that the trial held, MiB.
    disk
        Size of the run folder, MiB.
    seconds_are
        "processor" or "clock": what the seconds are of.
    """

    start: float
    task: float
    validation: float
    measuring: float
    memory: float
    disk: float
    seconds_are: str = "processor"

    def training(self, options: Options) -> float:
        """Seconds of a training with these options, of which `resolved_length` is known."""
        epochs, tasks, extra = length_of(options)
        validation = options["training"].get("validation_tasks", 400)
        return self.start + (epochs * tasks + extra) * self.task + epochs * validation * self.validation

    def total(self, options: Options) -> float:
        """Seconds of a cell: training and measuring."""
        return self.training(options) + self.measuring


def length_of(options: Options) -> tuple[int, int, int]:
    """(epochs, tasks per epoch, tasks on top of these) of a training whose options say how long it is.

    A task of TSA-MAML's groups costs about two of MAML, and a task solution one.
    """
    training, stages = options["training"], options.get("stages")
    epochs, tasks = int(training["max_epochs"]), int(training["tasks_per_epoch"])
    if stages is None:
        return epochs, tasks, 0
    pretraining = stages.get("pretraining_epochs") or epochs
    return epochs + pretraining, tasks, epochs * tasks + stages["solutions"]


def shortened(options: Options, costs: Costs, budget: Budget) -> dict[str, dict[str, Any]]:
    """The options of a training that takes the budget, or those of the recipe if the recipe takes less.

    The rate falls along a cosine over the shorter training. Options of learner and backbone that count training tasks
    (``ramp_tasks``, ``cotraining_tasks``) shrink in proportion. Validation has fewer tasks if it would take more than a
    fifth of the budget, but no fewer than ten.

    Raises
    ------
    ConfigError
        If validation alone takes the whole budget.
    """
    shorter: dict[str, dict[str, Any]] = copy.deepcopy({section: dict(part) for section, part in options.items()})
    if budget.seconds is None or costs.training(options) <= budget.seconds:
        return shorter
    per_validation = _SHARE_OF_VALIDATION * budget.seconds / EPOCHS
    affordable = int(per_validation / costs.validation) if costs.validation > 0 else sys.maxsize
    wanted = options["training"].get("validation_tasks", 400)
    validation_tasks = min(wanted, max(affordable, _FEWEST_VALIDATION_TASKS))
    before = costs.start + EPOCHS * validation_tasks * costs.validation
    tasks = int((budget.seconds - before) / costs.task)
    if tasks < EPOCHS:
        raise ConfigError(
            f"a budget of {budget.seconds:g} s is too short: start and {EPOCHS} validations of {validation_tasks} "
            f"tasks alone take {before:.0f} s; give a longer one"
        )
    training = shorter["training"] | {"schedule": "cosine", "patience": 0, "milestones": None}
    training["validation_tasks"] = validation_tasks
    if isinstance(training.get("factor"), list):
        training["factor"] = 0.1  # which the cosine does not use, and one number is what it takes
    if "stages" in shorter:  # half of the time for MAML
        half = EPOCHS // 2
        solutions = min(int(shorter["stages"]["solutions"]), tasks // 8)
        training |= {"max_epochs": max(1, half // 2)}
        shorter["stages"] |= {"pretraining_epochs": half, "solutions": solutions}
        tasks_per_epoch = (tasks - solutions) // (half + 2 * training["max_epochs"])
        total = tasks_per_epoch * (half + training["max_epochs"])
    else:
        tasks_per_epoch, total = tasks // EPOCHS, tasks
        training |= {"max_epochs": EPOCHS}
    shorter["training"] = training | {"tasks_per_epoch": max(1, tasks_per_epoch)}
    epochs, each, _ = length_of(options)
    for section in ("learner", "backbone"):
        for name, value in shorter[section].items():
            if name.endswith("_tasks") and isinstance(value, int) and value > 0:
                shorter[section][name] = max(1, round(value * total / (epochs * each)))
    return shorter
