"""Accuracy of MAML and TSA-MAML against the steps of adaptation and the number of groups (Z21 figs. 2, 4, 5 and 6)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from kshot.data.dataset import Dataset, Normalization, Split
from kshot.data.episodes import Episodes
from kshot.data.tasks import split_of
from kshot.errors import ConfigError, check_positive
from kshot.evaluation.plan import EvaluationPlan, plan_evaluation
from kshot.evaluation.protocol import evaluate
from kshot.evaluation.results import Protocol
from kshot.evaluation.task_loop import for_tasks
from kshot.experiments.findings import Findings
from kshot.experiments.plots import curve, finish
from kshot.intervals import mean_interval
from kshot.learners import MAML, TSAMAML, Learner
from kshot.learners.base import learners as known_learners
from kshot.learners.base import task_losses
from kshot.measures import Statistics
from kshot.report.tables import percent

Record = dict[str, float | int | str]  # one line of the table


def adaptation_steps(
    learners: Mapping[str, Learner],
    split: Split | Dataset,
    *,
    steps: int = 20,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    tasks: int = 600,
    seed: int = 0,
    within_domain: bool | None = None,
    statistics: Statistics | None = None,
    progress: bool = False,
) -> Findings:
    """Accuracy and loss of unseen tasks against the number of adaptation steps.

    Parameters
    ----------
    learners
        MAML, TSA-MAML and others that build on MAML, trained, by the names that the picture shows; differences are to
        the first of them.
    split
        The classes that tasks are drawn from; a dataset stands for its test split.
    steps
        Largest number of gradient steps on the support set.
    ways
        Classes per task.
    shots
        Support images per class.
    queries
        Query images per class.
    tasks
        Number of tasks, at least 2; the intervals shrink with its square root.
    seed, within_domain
        As for `evaluate`.
    statistics
        Where BatchNorm statistics come from, "transductive" or "inductive"; None for the learners' usual.
    progress
        Show a bar on the terminal.

    Returns
    -------
    Findings
        One line per learner and number of steps, with intervals and paired differences.

    Raises
    ------
    ConfigError
        If an option makes no sense, or a learner does not build on MAML or does not fit the images.
    DataError
        If the split is too small for the tasks.
    """
    check_positive(steps=steps)
    split = split_of(split)
    curves = {}
    for name, learner in learners.items():
        maml = with_steps_of_maml(name, learner)
        plan = plan_evaluation(
            maml, split, ways=ways, shots=shots, queries=queries, tasks=tasks, seed=seed,
            within_domain=within_domain, statistics=statistics,
        )  # fmt: skip
        bar = name if progress else None
        curves[name] = curves_over_steps(maml, plan, normalization=split.normalization, steps=steps, bar=bar)
    protocol = plan.protocol
    first = next(iter(curves.values()))
    rows: list[Record] = []
    for name, (accuracies, losses) in curves.items():
        for step in range(steps + 1):
            numbers = {
                "accuracy": accuracies[step],
                "loss": losses[step],
                "difference": accuracies[step] - first[0][step],
            }
            row: Record = {"run": name, "steps": step}
            rows.append(row | means_of(numbers) | columns_of(protocol))
    return Findings(
        rows, _steps_verdict(rows, steps, protocol), lambda figure: _draw_steps(figure, rows, protocol), (9, 4)
    )


def with_steps_of_maml(name: str, learner: Learner) -> MAML:
    """A learner that builds on MAML; ConfigError for any other."""
    if not isinstance(learner, MAML):
        suitable = sorted(known for known, kind in known_learners.items() if issubclass(kind, MAML))
        raise ConfigError(
            f"{name} is a {type(learner).__name__}, whose steps are not those of MAML; give runs of "
            f"{', '.join(suitable)}"
        )
    return learner


def curves_over_steps(
    learner: MAML, plan: EvaluationPlan, *, normalization: Normalization, steps: int, bar: str | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy and loss of the query images after 0, 1, ..., `steps` gradient steps, (steps + 1, tasks) each.

    Parameters
    ----------
    learner
        In evaluation mode meanwhile.
    plan
        The tasks and the statistics.
    normalization
        Of the images.
    steps
        Largest number of steps.
    bar
        What the progress bar is called; None for no bar.
    """

    def curve_of(episodes: Episodes) -> Tensor:
        weights, points = learner.start(episodes), []
        for step in range(steps + 1):
            if step > 0:
                weights = learner.adapted(episodes, 1, start=weights)
            # cut from what led here: nothing is differentiated but the next step
            weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            scores = learner.scores_under(weights, episodes)
            right = (scores.argmax(-1) == episodes.query_labels).float().mean(1)
            points.append(torch.stack([right, task_losses(scores, episodes.query_labels)]))
        return torch.stack(points)

    @torch.enable_grad()
    def curves_of(episodes: Episodes) -> Tensor:
        return torch.cat(learner.by_chunk(curve_of, episodes), 2)

    pieces = for_tasks(
        learner,
        curves_of,
        sampler=plan.sampler,
        numbers=np.arange(plan.protocol.tasks),
        normalization=normalization,
        statistics=plan.protocol.statistics,
        progress=bar,
    )
    accuracies, losses = torch.cat(pieces, 2).double().cpu().numpy().transpose(1, 0, 2)
    return accuracies, losses


def accuracy_by_groups(
    learners: Mapping[str, Learner],
    split: Split | Dataset,
    *,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    tasks: int = 600,
    seed: int = 0,
    within_domain: bool | None = None,
    statistics: Statistics | None = None,
    progress: bool = False,
) -> Findings:
    """Accuracy on unseen tasks against the number m of groups, over several trained runs.

    Parameters
    ----------
    learners
        TSA-MAML trained with several m, and MAML for m = 1, by name; differences are to the first of them.
    split, ways, shots, queries, tasks, seed, within_domain, statistics
        As for `adaptation_steps`.
    progress
        Show bars on the terminal.

    Returns
    -------
    Findings
        One line per learner, with intervals and paired differences, by m.

    Raises
    ------
    ConfigError, DataError
        As for `adaptation_steps`.
    """
    rows: list[Record] = []
    first: NDArray[np.float64] | None = None
    for name, learner in learners.items():
        if not isinstance(learner, MAML):
            raise ConfigError(f"{name} is a {type(learner).__name__}; give runs of tsa-maml, and of maml for one group")
        groups = learner.groups if isinstance(learner, TSAMAML) else 1
        result = evaluate(
            learner, split, ways=ways, shots=shots, queries=queries, tasks=tasks, seed=seed,
            within_domain=within_domain, statistics=statistics, progress=progress,
        )  # fmt: skip
        first = result.accuracies if first is None else first
        row: Record = {"run": name, "learner": result.learner, "groups": groups}
        means = means_of({"accuracy": result.accuracies, "difference": result.accuracies - first})
        rows.append(row | means | columns_of(result.protocol))
        protocol = result.protocol
    reference = next(iter(learners))
    rows.sort(key=lambda row: row["groups"])
    shown = [f"m = {row['groups']} {percent(float(row['accuracy']), float(row['accuracy_ci95']))} %" for row in rows]
    verdict = f"Accuracy by the number of groups: {', '.join(shown)}"
    gains = [
        f"{row['run']} {percent(float(row['difference']), float(row['difference_ci95']), signed=True)}"
        for row in rows
        if row["run"] != reference
    ]
    verdict += f"; paired, points above {reference}: {', '.join(gains)}" if gains else ""
    verdict += f" ({protocol}; 95% intervals over tasks)."
    return Findings(rows, verdict, lambda figure: _draw_groups(figure, rows, protocol, reference), (10, 4))


def means_of(numbers: Mapping[str, NDArray[np.float64]]) -> Record:
    """The mean over tasks of each of `numbers`, (tasks,) each, and the half-width of its 95% interval."""
    return {
        column: value
        for name, values in numbers.items()
        for column, value in ((name, float(values.mean())), (f"{name}_ci95", mean_interval(values).ci95))
    }


def columns_of(protocol: Protocol) -> Record:
    """The protocol as columns of the table."""
    return {name: "" if value is None else value for name, value in asdict(protocol).items()}


def _steps_verdict(rows: list[Record], steps: int, protocol: Protocol) -> str:
    last = [row for row in rows if row["steps"] == steps]
    shown = [f"{row['run']} {percent(float(row['accuracy']), float(row['accuracy_ci95']))} %" for row in last]
    gains = [percent(float(row["difference"]), float(row["difference_ci95"]), signed=True) for row in last]
    differences = [f"{row['run']} less {last[0]['run']} {gain} points" for row, gain in zip(last[1:], gains[1:])]
    paired = f"; paired: {', '.join(differences)}" if differences else ""
    return f"After {steps} steps: {', '.join(shown)}{paired} ({protocol}; 95% intervals over tasks)."


def _draw_steps(figure: Figure, rows: list[Record], protocol: Protocol) -> None:
    figure.suptitle(f"{protocol}; bands are 95% intervals", fontsize=8.5)
    for axes, quantity, scale, label in zip(
        figure.subplots(1, 2), ("accuracy", "loss"), (100, 1), ("accuracy, %", "cross-entropy of the query images")
    ):
        for style, name in enumerate(dict.fromkeys(row["run"] for row in rows)):
            of_run = [row for row in rows if row["run"] == name]
            values, margins = (
                [scale * float(row[column]) for row in of_run] for column in (quantity, f"{quantity}_ci95")
            )
            curve(axes, [row["steps"] for row in of_run], values, ci95=margins, label=str(name), style=style)
        finish(axes, quantity, xlabel="gradient steps on the support set", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)


def _draw_groups(figure: Figure, rows: list[Record], protocol: Protocol, reference: str) -> None:
    figure.suptitle(str(protocol), fontsize=8.5)
    left, right = figure.subplots(1, 2)
    _panel_by_groups(left, rows, "accuracy")
    finish(left, "accuracy of unseen tasks", xlabel="m, the number of groups", ylabel="accuracy, %")
    right.axhline(0, color="#999999", lw=0.8)
    _panel_by_groups(right, [row for row in rows if row["run"] != reference], "difference")
    finish(right, f"above {reference}, on the same tasks", xlabel="m, the number of groups", ylabel="points")


def _panel_by_groups(axes: Axes, rows: list[Record], column: str) -> None:
    """Every training with its interval, and a line through the means of the trainings with as many groups."""
    by_groups = defaultdict(list)
    for row in rows:
        by_groups[int(row["groups"])].append(100 * float(row[column]))
    means = [np.mean(values) for values in by_groups.values()]
    axes.plot(list(by_groups), means, color="#0072B2", lw=1.4, label="mean of the trainings")
    places, values, margins = ([float(row[name]) for row in rows] for name in ("groups", column, f"{column}_ci95"))
    axes.errorbar(
        places, 100 * np.asarray(values), 100 * np.asarray(margins), ls="", marker="o", ms=4, capsize=3,
        color="#0072B2", label="one training, with its 95% interval over tasks",
    )  # fmt: skip
    axes.set_xticks(list(by_groups))
