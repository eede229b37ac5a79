"""How errors after gradient steps and fitted functions are shown: table, CSV, the picture of Finn et al. (2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tabulate import tabulate

from kshot.experiments.regression import StepError, TaskFit
from kshot.files import csv_text

_COLOURS = ("#666666", "#E69F00", "#D55E00", "#0072B2", "#009E73", "#CC79A7")  # Okabe and Ito's, with line styles
_LINES = ("--", ":", "-.", "-")


def error_lines(errors: Sequence[StepError]) -> str:
    """A table of one row per learner and number of shots and one column per number of steps, and the protocol."""
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
    """One CSV line per learner, number of shots and number of steps, with intervals and paired differences."""
    records = []
    for error in errors:
        at, difference = error.result.protocol, error.difference
        record: dict[str, object] = {"name": error.name, "learner": error.result.learner, "steps": error.steps}
        record |= {"dataset": at.dataset, "split": at.split, "shots": at.shots, "queries": at.queries}
        record |= {"tasks": at.tasks, "seed": at.seed, "squared_error": error.result.mean, "ci95": error.result.ci95}
        record["difference"] = "" if difference is None else difference.mean
        record["difference_ci95"] = "" if difference is None else difference.ci95
        records.append(record)
    return csv_text(records)


def fits_csv(fits: Sequence[TaskFit]) -> str:
    """One CSV line per learner and input: the true value, and the prediction after each number of steps.

    The support points come first, without predictions.
    """
    records: list[dict[str, object]] = []
    for one in fits:
        columns = {f"after_{steps}_steps": values for steps, values in one.by_steps.items()}
        for x, y in zip(one.support, one.support_values):
            records.append({"name": one.name, "support": 1, "x": x, "true": y} | dict.fromkeys(columns, ""))
        for place, (x, y) in enumerate(zip(one.inputs, one.truth)):
            predicted = {name: values[place] for name, values in columns.items()}
            records.append({"name": one.name, "support": 0, "x": x, "true": y} | predicted)
    return csv_text(records)


def picture(fits: Sequence[Sequence[TaskFit]], title: str) -> Figure:
    """One row of panels per number of shots, one panel per learner: the function, the points, the predictions."""
    rows, columns = len(fits), len(fits[0])
    figure = Figure(figsize=(5.2 * columns, 3.3 * rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for line, several in zip(axes, fits):
        for panel, one in zip(line, several):
            _draw(panel, one)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _draw(axes: Axes, one: TaskFit) -> None:
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
