"""Pictures of numbers: learning curves, and accuracy against the time of training.

Explanations stand outside the axes, so that no text covers a curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from kshot.measures import ACCURACY, SQUARED_ERROR
from kshot.report.content import Columns
from kshot.report.names import in_picture
from kshot.report.race import Pace

_TRAINING, _VALIDATION, _BEST = "#E69F00", "#0072B2", "#666666"
_WIDTH, _HEIGHT = 6.4, 3.8  # inches
_LEGEND_LINE = 0.22  # inches
_STYLES = ("-", "--", "-.", ":")


def learning_curves(metrics: Columns, title: str) -> Figure:
    """Training and validation accuracy against the epoch.

    Parameters
    ----------
    metrics
        Columns of metrics.csv: "epoch", "accuracy" of training, "validation_accuracy" with "validation_ci95", all
        fractions; for regression "loss" and "validation_squared_error" instead of the accuracies.
    title
        Text above the picture, the name of the run for instance.
    """
    measure = ACCURACY if "validation_accuracy" in metrics else SQUARED_ERROR
    training, value = (
        measure.scale * metrics[column]
        for column in ("accuracy" if measure is ACCURACY else "loss", f"validation_{measure.name}")
    )
    figure, axes = _axes(_HEIGHT)
    epochs, margin = metrics["epoch"], measure.scale * metrics["validation_ci95"]
    axes.plot(epochs, training, color=_TRAINING, ls="--", marker="s", ms=3, label="training")
    if not np.isnan(value).all():
        axes.plot(epochs, value, color=_VALIDATION, marker="o", ms=3.5, label="validation, with its 95% interval")
        axes.fill_between(epochs, value - margin, value + margin, color=_VALIDATION, alpha=0.18, lw=0)
        best = int(np.nanargmax(measure.sign * value))
        text = f"best {value[best]:.{measure.digits - 1}f}{measure.unit}, epoch {epochs[best]:.0f}"
        axes.axvline(epochs[best], color=_BEST, lw=0.8, ls=":", label=text)
    axes.set(xlabel="epoch", ylabel=measure.title.lower(), xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
    axes.set_title(in_picture(title), loc="left", fontsize=10.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e4e4e4", lw=0.7)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def race_picture(paces: Sequence[Pace]) -> Figure:
    """The best validation accuracy so far against minutes of training, one line per run."""
    figure, axes = _axes(_HEIGHT + _LEGEND_LINE * len(paces))
    lines = []
    for number, pace in enumerate(paces):
        style = _STYLES[number // 10 % len(_STYLES)]  # ten colours
        lines += axes.plot(pace.seconds / 60, pace.best, style, marker="o", ms=3, drawstyle="steps-post")
    axes.set(xscale="log", xlabel="minutes of training, without validation", ylabel="best validation accuracy, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="#e4e4e4", lw=0.7)
    legend = figure.legend(lines, [""] * len(paces), loc="outside lower center", ncols=1, frameon=False, fontsize=8.5)
    for text, pace in zip(legend.get_texts(), paces):
        text.set_text(in_picture(pace.name, 80))  # older versions leave out a label that begins with an underscore
    return figure


def progress_picture(curves: Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]]) -> Figure:
    """Validation accuracy, in percent, against the images seen in training, one line per (name, images, accuracy)."""
    figure, axes = _axes(_HEIGHT + _LEGEND_LINE * ((len(curves) + 1) // 2))
    lines = []
    for number, (_, images, accuracy) in enumerate(curves):
        style = _STYLES[number // 10 % len(_STYLES)]  # ten colours
        lines += axes.plot(images, accuracy, style, marker="o", ms=3)
    axes.set(xscale="log", xlabel="images seen in training", ylabel="validation accuracy, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="#e4e4e4", lw=0.7)
    legend = figure.legend(lines, [""] * len(curves), loc="outside lower center", ncols=2, frameon=False, fontsize=8.5)
    for text, (name, _, _) in zip(legend.get_texts(), curves):
        text.set_text(in_picture(name, 40))
    return figure


def shots_picture(seen: Columns, expected: Columns, target: float, title: str) -> Figure:
    """Accuracy against photographs per class: what was seen with few, and what is expected with more.

    Parameters
    ----------
    seen, expected
        Columns "shots", "accuracy", "low" and "high", the last three as fractions.
    target
        The accuracy that is asked for, 0..1.
    title
        Text above the picture.
    """
    figure, axes = _axes(_HEIGHT)
    low, middle, high = (100 * expected[name] for name in ("low", "accuracy", "high"))
    axes.fill_between(expected["shots"], low, high, color=_VALIDATION, alpha=0.18, lw=0)
    axes.plot(expected["shots"], middle, color=_VALIDATION, label="expected, with its 95% interval")
    margins = [100 * (seen["accuracy"] - seen["low"]), 100 * (seen["high"] - seen["accuracy"])]
    axes.errorbar(
        seen["shots"], 100 * seen["accuracy"], np.abs(margins), fmt="s", ms=4, lw=1, capsize=2, color=_TRAINING,
        label="seen on left-out examples",
    )  # fmt: skip
    axes.axhline(100 * target, color=_BEST, lw=0.8, ls=":", label=f"{100 * target:g} %")
    axes.set(xscale="log", xlabel="photographs per class", ylabel="accuracy, %", ylim=(None, 101))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_title(title, loc="left", fontsize=10.5)
    axes.grid(color="#e4e4e4", lw=0.7)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8.5)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
