"""How far tasks' optima are from where the tasks start, and the accuracy on the way (Z21 Theorem 1, Corollary 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from kshot.data.dataset import Dataset, Normalization, Split
from kshot.data.episodes import Episodes
from kshot.data.tasks import split_of
from kshot.errors import ConfigError, check_positive
from kshot.evaluation.plan import EvaluationPlan, plan_evaluation
from kshot.evaluation.results import Protocol
from kshot.evaluation.task_loop import for_tasks
from kshot.experiments.adaptation_curves import Record, columns_of, curves_over_steps, means_of, with_steps_of_maml
from kshot.experiments.findings import Findings
from kshot.experiments.plots import STYLES, curve, finish
from kshot.intervals import with_interval
from kshot.learners import MAML, Learner
from kshot.learners.initialization import as_vectors
from kshot.measures import Statistics
from kshot.report.tables import percent

_FEWEST = 10  # tasks, of which a correlation says something


def optimum_distances(
    learners: Mapping[str, Learner],
    split: Split | Dataset,
    *,
    steps: int = 20,
    optimum_steps: int = 100,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    tasks: int = 100,
    seed: int = 0,
    within_domain: bool | None = None,
    statistics: Statistics | None = None,
    progress: bool = False,
) -> Findings:
    """Squared distance of tasks' optima from where the tasks start, next to the accuracy after each number of steps.

    Theorem 1 of Zhou et al. (2021) bounds the error of a task after q steps by E|theta - theta_T|^2, with theta where
    the task starts and theta_T its optimum; their Corollary 1 compares the theta of the task's group with one theta for
    all tasks. theta_T stands for where `optimum_steps` of gradient descent on the support set lead, and has two forms:
    a network has many optima, and each learner reaches another one. The distance to a learner's own optimum is the
    length of its way; the distance to the first learner's optimum is to the same point for all of them.

    Parameters
    ----------
    learners
        MAML, TSA-MAML and others that build on MAML, of the same architecture, trained, by the names that the picture
        shows; differences are to the first of them.
    split, ways, shots, queries, seed, within_domain, statistics
        As for `kshot.experiments.adaptation_curves.adaptation_steps`.
    steps
        Largest number of gradient steps whose accuracy is shown.
    optimum_steps
        Gradient steps to what stands for a task's optimum.
    tasks
        Number of tasks, at least 2; the intervals shrink with its square root.
    progress
        Show bars on the terminal.

    Returns
    -------
    Findings
        One line per learner and number of steps: accuracy; the squared distances and the loss of the support images at
        the learner's own optimum, which are the same for all steps; paired differences to the first learner; and the
        rank correlation over tasks (Spearman) of how much nearer the own optimum is than that of the first learner and
        how much higher the accuracy, positive if a shorter way goes with a higher accuracy; all with 95% intervals.

    Raises
    ------
    ConfigError
        If an option makes no sense, a learner does not build on MAML or does not fit the images, or learners differ in
        the weights that adapt.
    DataError
        If the split is too small for the tasks.
    """
    check_positive(steps=steps, optimum_steps=optimum_steps)
    split = split_of(split)
    measured: dict[str, _Measured] = {}
    for name, learner in learners.items():
        maml = with_steps_of_maml(name, learner)
        plan = plan_evaluation(
            maml, split, ways=ways, shots=shots, queries=queries, tasks=tasks, seed=seed,
            within_domain=within_domain, statistics=statistics,
        )  # fmt: skip
        bar = name if progress else None
        accuracies, _ = curves_over_steps(maml, plan, normalization=split.normalization, steps=steps, bar=bar)
        bar = f"{name}, optima" if progress else None
        starts, optima, losses = _optima(maml, plan, normalization=split.normalization, steps=optimum_steps, bar=bar)
        if not measured:
            common, first = optima, name
        elif optima.shape != common.shape:
            raise ConfigError(
                f"{name} adapts {optima.shape[1]} weights per task and {first} {common.shape[1]}, so that there is no "
                "distance between them; give runs of one architecture"
            )
        own, to_first = ((ends - starts).square().sum(1).double().cpu().numpy() for ends in (optima, common))
        measured[name] = _Measured(accuracies, own, to_first, losses.double().cpu().numpy())
    rows = _rows(measured, plan.protocol, optimum_steps)
    verdict = _verdict(rows, steps, plan.protocol)
    return Findings(rows, verdict, lambda figure: _draw(figure, rows, plan.protocol), (10, 4))


@dataclass(frozen=True)
class _Measured:
    """Of one learner: accuracies (steps + 1, tasks), squared distances (tasks,) and losses at the optima (tasks,)."""

    accuracies: NDArray[np.float64]
    own: NDArray[np.float64]
    to_first: NDArray[np.float64]
    losses: NDArray[np.float64]


def _optima(
    learner: MAML, plan: EvaluationPlan, *, normalization: Normalization, steps: int, bar: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where each task starts and where its descent ends, (tasks, D) each, and its support loss there, (tasks,)."""

    @torch.enable_grad()
    def ends_of(episodes: Episodes) -> tuple[Tensor, Tensor, Tensor]:
        start = {name: weight.detach().requires_grad_() for name, weight in learner.start(episodes).items()}
        end = {name: weight.detach() for name, weight in learner.adapted(episodes, steps, start=start).items()}
        with torch.no_grad():
            losses = learner.support_losses(episodes, end)
        vectors = [as_vectors(weights[name].detach() for name in learner.adapting) for weights in (start, end)]
        return vectors[0], vectors[1], losses

    pieces = for_tasks(
        learner,
        lambda episodes: learner.by_chunk(ends_of, episodes),
        sampler=plan.sampler,
        numbers=np.arange(plan.protocol.tasks),
        normalization=normalization,
        statistics=plan.protocol.statistics,
        progress=bar,
    )
    starts, optima, losses = zip(*(chunk for piece in pieces for chunk in piece))
    return torch.cat(starts), torch.cat(optima), torch.cat(losses)


def _rows(measured: Mapping[str, _Measured], protocol: Protocol, optimum_steps: int) -> list[Record]:
    first = next(iter(measured.values()))
    rows: list[Record] = []
    for name, of_run in measured.items():
        for step, accuracies in enumerate(of_run.accuracies):
            values = {
                "accuracy": accuracies,
                "difference": accuracies - first.accuracies[step],
                "squared_distance": of_run.own,
                "distance_difference": of_run.own - first.own,
                "squared_distance_to_first": of_run.to_first,
                "distance_to_first_difference": of_run.to_first - first.to_first,
                "optimum_loss": of_run.losses,
            }
            row: Record = {"run": name, "steps": step, "optimum_steps": optimum_steps}
            row |= means_of(values)
            nearer, better = first.own - of_run.own, accuracies - first.accuracies[step]
            correlation, low, high = rank_correlation(nearer, better)
            row |= {"correlation": correlation, "correlation_low95": low, "correlation_high95": high}
            rows.append(row | columns_of(protocol))
    return rows


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's rank correlation with its 95% interval by Fisher's transformation; nan if either does not vary.

    Parameters
    ----------
    first, second
        (tasks,) each, at least ten of them, since fewer say nothing: nan for these too.
    """
    if len(first) < _FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return math.nan, math.nan, math.nan
    value = float(spearmanr(first, second).statistic)
    # the variance of the transformed rank correlation, Fieller, Hartley and Pearson (1957)
    middle, half_width = math.atanh(np.clip(value, -0.999999, 0.999999)), 1.96 * math.sqrt(1.06 / (len(first) - 3))
    return value, math.tanh(middle - half_width), math.tanh(middle + half_width)


def _verdict(rows: Sequence[Record], steps: int, protocol: Protocol) -> str:
    shown = []
    names = list(dict.fromkeys(row["run"] for row in rows))
    for name in names:
        of_run = {int(row["steps"]): row for row in rows if row["run"] == name}
        row = of_run[steps]
        text = f"{name} {_distance(row, 'squared_distance')} to its own optimum"
        if name != names[0]:
            text += f" ({_distance(row, 'distance_difference', signed=True)} against {names[0]})"
            text += f", {_distance(row, 'squared_distance_to_first')} to that of {names[0]}"
            gains = [_gain(of_run[step], step) for step in sorted({1, steps})]
            text += f", accuracy {', '.join(gains)}"
        shown.append(text)
    return f"Mean squared distance of a task's start: {'; '.join(shown)} ({protocol}; 95% intervals over tasks)."


def _distance(row: Record, column: str, *, signed: bool = False) -> str:
    return with_interval(float(row[column]), float(row[f"{column}_ci95"]), "+.3f" if signed else ".3f")


def _gain(row: Record, step: int) -> str:
    gain = percent(float(row["difference"]), float(row["difference_ci95"]), signed=True)
    return f"{gain} points after {step} step{'s' if step > 1 else ''}"


def _draw(figure: Figure, rows: Sequence[Record], protocol: Protocol) -> None:
    figure.suptitle(f"{protocol}; bands and bars are 95% intervals", fontsize=8.5)
    distances, accuracies = figure.subplots(1, 2)
    names = list(dict.fromkeys(str(row["run"]) for row in rows))
    for place, (column, label) in enumerate(
        (("squared_distance", "to its own optimum"), ("squared_distance_to_first", f"to the optimum of {names[0]}"))
    ):
        last = [next(row for row in rows if row["run"] == name) for name in names]
        values, margins = ([float(row[key]) for row in last] for key in (column, f"{column}_ci95"))
        places = np.arange(len(names)) + 0.16 * (2 * place - 1)
        distances.errorbar(places, values, margins, ls="", ms=6, capsize=3, label=label, **STYLES[place])
    distances.set_xticks(range(len(names)), names, rotation=15 if len(names) > 3 else 0)
    distances.set_xlim(-0.5, len(names) - 0.5)
    distances.set_ylim(bottom=0)
    finish(distances, "squared distance of a task's start", xlabel="", ylabel="")
    for style, name in enumerate(names):
        of_run = [row for row in rows if row["run"] == name]
        values, margins = ([100 * float(row[key]) for row in of_run] for key in ("difference", "difference_ci95"))
        curve(accuracies, [row["steps"] for row in of_run], values, ci95=margins, label=name, style=style)
    finish(
        accuracies, f"accuracy above that of {names[0]}", xlabel="gradient steps on the support set", ylabel="points"
    )
    accuracies.xaxis.get_major_locator().set_params(integer=True)
