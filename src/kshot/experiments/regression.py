"""How gradient steps fit a function: errors by the number of steps, and the classical picture of Finn et al. (2017)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from kshot.data.dataset import SplitName
from kshot.data.episodes import TaskShape
from kshot.data.regression import RegressionDataset, RegressionSampler
from kshot.data.tasks import AnyDataset
from kshot.errors import ConfigError
from kshot.evaluation.features import device_of, evaluating
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Difference, Evaluation, compare
from kshot.learners import InitializationLearner, Learner

_POINTS = 201  # of a curve in the picture
_COLOURS = ("#666666", "#E69F00", "#D55E00", "#0072B2", "#009E73", "#CC79A7")  # Okabe and Ito's, each with a line style
_LINES = ("--", ":", "-.", "-")


@dataclass(frozen=True)
class StepError:
    """What a learner's tasks cost after so many gradient steps.

    result: its `values` are the squared errors of the tasks.
    difference: to the first learner at the same shots and steps, on the same tasks; None for the first learner itself.
    """

    name: str
    steps: int
    result: Evaluation
    difference: Difference | None


@dataclass(frozen=True)
class Prediction:
    """One task and what a learner makes of it: inputs (P,), true values (P,), and predictions (P,) by number of steps.

    support, support_values: the K points that the learner adapts to, (K,).
    """

    name: str
    support: NDArray[np.float64]
    support_values: NDArray[np.float64]
    inputs: NDArray[np.float64]
    truth: NDArray[np.float64]
    by_steps: Mapping[int, NDArray[np.float64]]


def step_errors(
    learners: Mapping[str, Learner],
    data: AnyDataset,
    shots: Sequence[int] = (5, 10),
    steps: Sequence[int] = (0, 1, 5, 10),
    split: SplitName = "test",
    queries: int = 100,
    tasks: int = 600,
    seed: int = 0,
    progress: bool = False,
) -> list[StepError]:
    """The squared error of learners that adapt weights after each number of gradient steps, on the same tasks.

    learners: trained ones by the names that tables show; differences are to the first of them.
    data: the family of functions.
    shots: numbers of support points.
    steps: numbers of gradient steps on the support points; 0 is the initialisation as it is.
    split: the tasks, all of one distribution.
    queries: query points a task.
    tasks: number of tasks; the intervals shrink with its square root.
    seed: names the set of tasks.
    progress: show a bar on the terminal.

    Raises ConfigError for data of classes, and for learners that do not adapt weights.
    """
    part = _regression(data).split(split)
    settings = [(name, count, number) for count in shots for name in learners for number in steps]
    found: list[StepError] = []
    first: dict[tuple[int, int], Evaluation] = {}
    for name, count, number in tqdm(settings, unit="setting", disable=not progress):
        with _taking(learners[name], number) as learner:
            result = evaluate(learner, part, shots=count, queries=queries, tasks=tasks, seed=seed)
        reference = first.setdefault((count, number), result)
        difference = compare(result, reference) if reference is not result else None
        found.append(StepError(name, number, result, difference))
    return found


def predictions(
    learners: Mapping[str, Learner],
    data: AnyDataset,
    shots: int = 10,
    steps: Sequence[int] = (0, 1, 5, 10),
    split: SplitName = "test",
    task: int = 0,
    seed: int = 0,
) -> list[Prediction]:
    """One task of a family of functions of one variable, and what each learner makes of it; arguments as `step_errors`.

    task: its number. Raises ConfigError for functions of several variables, which no picture shows.
    """
    part = _regression(data).split(split)
    if part.family.bounds is None:
        raise ConfigError(
            f"{part.dataset} are functions of {part.family.input_size} variables: there is no curve to draw"
        )
    numbers, grid = np.asarray([task]), np.linspace(*part.family.bounds, _POINTS)[:, None]
    sampler = RegressionSampler(part, TaskShape(1, shots, 0), seed=seed)
    truth, found = sampler.values(numbers, grid)[0], []
    for name, learner in learners.items():
        episodes = sampler.episodes(numbers, device_of(learner))
        inputs = torch.from_numpy(grid).to(episodes.support)[None]
        asked = replace(episodes, query=inputs, query_labels=torch.zeros_like(inputs))
        by_steps = {}
        for number in steps:
            with _taking(learner, number) as taking, evaluating(taking, "float32"):
                by_steps[number] = taking.scores(asked)[0, :, 0].double().cpu().numpy()
        support, values = (part[0, :, 0].double().cpu().numpy() for part in (asked.support, asked.support_labels))
        found.append(Prediction(name, support, values, grid[:, 0], truth, by_steps))
    return found


def error_lines(errors: Sequence[StepError]) -> str:
    """A table: a row for each learner and number of shots, a column for each number of steps, and the protocol."""
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for error in errors:
        shots = error.result.protocol.shots
        row = rows.setdefault((error.name, shots), {"": error.name, "shots": str(shots)})
        row[_after(error.steps)] = error.result.measure.text(error.result.mean, error.result.ci95)
    at = errors[0].result.protocol
    body = tabulate(list(rows.values()), headers="keys", disable_numparse=True)
    return (
        f"{body}\n\nMean squared error after gradient steps on the support points, mean ± 95% confidence interval over "
        f"tasks.\nProtocol: {at.queries} query points, {at.tasks} tasks of {at.dataset}/{at.split}, seed {at.seed}."
    )


def errors_csv(errors: Sequence[StepError]) -> str:
    """One line for each learner, number of shots and number of steps, with intervals and paired differences."""
    records = []
    for error in errors:
        at, difference = error.result.protocol, error.difference
        record: dict[str, object] = {"name": error.name, "learner": error.result.learner, "steps": error.steps}
        record |= {"dataset": at.dataset, "split": at.split, "shots": at.shots, "queries": at.queries}
        record |= {"tasks": at.tasks, "seed": at.seed, "squared_error": error.result.mean, "ci95": error.result.ci95}
        record["difference"] = "" if difference is None else difference.mean
        record["difference_ci95"] = "" if difference is None else difference.ci95
        records.append(record)
    return _csv(records)


def predictions_csv(found: Sequence[Prediction]) -> str:
    """One line for each learner and input: the true value, and the prediction after each number of steps.

    The support points come first, without predictions.
    """
    records: list[dict[str, object]] = []
    for one in found:
        columns = {f"after_{steps}_steps": values for steps, values in one.by_steps.items()}
        for x, y in zip(one.support, one.support_values):
            records.append({"name": one.name, "support": 1, "x": x, "true": y} | dict.fromkeys(columns, ""))
        for place, (x, y) in enumerate(zip(one.inputs, one.truth)):
            own = {name: values[place] for name, values in columns.items()}
            records.append({"name": one.name, "support": 0, "x": x, "true": y} | own)
    return _csv(records)


def picture(found: Sequence[Sequence[Prediction]], title: str) -> Figure:
    """A row of panels for each number of shots, a panel for each learner: the function, the points, the predictions."""
    rows, columns = len(found), len(found[0])
    figure = Figure(figsize=(5.2 * columns, 3.3 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for line, several in zip(axes, found):
        for panel, one in zip(line, several):
            _draw(panel, one)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _draw(axes: Axes, one: Prediction) -> None:
    axes.plot(one.inputs, one.truth, color="black", lw=1.8, label="true function")
    for place, (steps, values) in enumerate(one.by_steps.items()):
        look: dict[str, Any] = {"color": _COLOURS[place % len(_COLOURS)], "ls": _LINES[place % len(_LINES)]}
        axes.plot(one.inputs, values, lw=1.5, label=_after(steps), **look)
    axes.plot(
        one.support, one.support_values, ls="", marker="^", ms=7, color="black", mfc="white", label="support", zorder=5
    )
    axes.set_title(f"{one.name}, {len(one.support)} shots", loc="left", fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e4e4", lw=0.7)
    axes.set_axisbelow(True)
    axes.set(xlabel="x", ylabel="y")
    axes.label_outer()


def _after(steps: int) -> str:
    return "before adaptation" if steps == 0 else f"after {steps} step{'s' if steps > 1 else ''}"


@contextmanager
def _taking(learner: Learner, steps: int) -> Iterator[InitializationLearner]:
    """The learner with this number of gradient steps in evaluation, and afterwards as it was."""
    if not isinstance(learner, InitializationLearner):
        raise ConfigError(f"{type(learner).__name__} takes no gradient steps; choose a learner that adapts weights")
    if steps < 0:
        raise ConfigError(f"steps is {steps}, but must be at least 0")
    before = learner.test_inner_steps
    learner.test_inner_steps = steps
    try:
        yield learner
    finally:
        learner.test_inner_steps = before


def _regression(data: AnyDataset) -> RegressionDataset:
    if not isinstance(data, RegressionDataset):
        raise ConfigError(f"{data.name} holds classes and no functions; name a run that was trained on sinusoids")
    return data


def _csv(records: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
