"""Do trained networks of finite width predict what the kernels of infinite ones do? (W21, Lemma 1)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from kshot.errors import check_positive
from kshot.experiments import plots
from kshot.experiments.findings import Findings, Record, check_fit, experiments, over_seeds
from kshot.experiments.finite_training import stable_rate, train_anil, train_mtl
from kshot.experiments.trained_networks import TrainedNetworks
from kshot.intervals import PowerLaw, fit_power_law, mean_interval
from kshot.theory.empirical import empirical_kernels
from kshot.theory.infinite_width import Kernels, kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import predict_anil, predict_mtl

_MEASURES = {
    "mtl": "MTL, trained network against kernel predictor",
    "anil": "ANIL, trained network against kernel predictor",
    "mtl_own_kernel": "MTL, against the predictor with its own kernel at the start",
    "ntk": "NTK at the start, against the closed form",
}

INNER_STEPS = 5  # of ANIL's inner loop


def relative_error(values: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of `wanted`."""
    return float((values - wanted).norm() / wanted.norm())


@experiments.register("finite-width")
@dataclass(kw_only=True, eq=False)
class FiniteWidth(TrainedNetworks):
    """Trained networks predict what the kernels say, up to an error that falls with width (W21, Lemma 1).

    Networks are trained by full-batch gradient descent until they fit the training tasks: MTL with one head per task,
    ANIL through real inner loops. Errors are relative: the norm of the difference over that of the prediction; the
    expected slope is that of random kernels, 1/sqrt(width).

    Parameters
    ----------
    widths
        Units in each hidden layer.
    depth
        Weight layers.
    inner_time
        Learning rate of ANIL's inner loop times its 5 steps.
    tasks
        Training tasks; there are 10 test tasks of 5 support and 10 query points.
    points
        Points per training task.
    target_scale
        Factor on all targets: the larger they are, the further the weights move, and the less linear is the network in
        them.
    tolerance
        Training ends when the residuals are below this share of the targets.
    max_steps
        Training ends after so many steps at the latest.
    seeds
        Seeds of tasks and initial weights; one repetition each.
    """

    widths: Sequence[int] = (64, 128, 256, 512, 1024)
    depth: int = 4
    inner_time: float = 0.05
    tasks: int = 8
    points: int = 5
    target_scale: float = 0.1
    tolerance: float = 1e-3
    max_steps: int = 5000
    seeds: Sequence[int] = (0, 1, 2, 3, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(widths=self.widths)
        check_fit(self.seeds, widths=self.widths)
        self.widths = sorted(self.widths)

    def run(self, *, progress: bool = False) -> Findings:
        """The errors for every width, their fitted exponents, and the picture."""
        pairs = [(seed, width) for seed in self.seeds for width in self.widths]
        measured = [self._errors(*pair) for pair in tqdm(pairs, disable=not progress)]
        curves = {
            name: np.asarray([errors[name] for errors in measured]).reshape(len(self.seeds), -1) for name in _MEASURES
        }
        rows = []
        for place, width in enumerate(self.widths):
            row: Record = {"width": width}
            for name, values in curves.items():
                row[name], row[f"{name}_ci95"] = mean_interval(values[:, place])
            rows.append(row | {"seeds": len(self.seeds)})
        laws = {name: fit_power_law(self.widths, values) for name, values in curves.items()}
        exponents = "; ".join(f"{text} {laws[name].exponent_text}" for name, text in _MEASURES.items())
        verdict = (
            "exponent of the error in the width, -0.5 expected, and no flatter against its own kernel: "
            f"{exponents}; {self._protocol()}, {over_seeds(self.seeds, fitted=True)}"
        )
        return Findings(rows, verdict, lambda figure: self._draw(figure, rows, laws), size=(7.4, 4.6))

    def _protocol(self) -> str:
        return (
            f"L = {self.depth}, {self.tasks} training tasks of {self.points} points, targets times "
            f"{self.target_scale:g}, lambda tau = {self.inner_time:g}, widths {self.widths[0]} to {self.widths[-1]}"
        )

    def _errors(self, seed: int, width: int) -> Mapping[str, float]:
        """The relative errors of one width, by the names of `_MEASURES`."""
        tasks = self.drawn(seed)
        network = ReLUNetwork(tasks.query.shape[-1], width=width, depth=self.depth, seed=seed, dtype=torch.float32)
        closed_form = functools.partial(kernels, depth=self.depth)
        at_start = functools.partial(_kernels_of, network)
        points = torch.cat(list(tasks.inputs))
        stop = {"rate": stable_rate(network, tasks), "tolerance": self.tolerance}
        mtl = train_mtl(network, tasks, max_steps=self.max_steps, **stop).predict(tasks)
        anil = train_anil(
            network, tasks, inner_time=self.inner_time, inner_steps=INNER_STEPS, max_steps=self.max_steps, **stop
        ).predict(tasks)
        return {
            "mtl": relative_error(mtl, predict_mtl(closed_form, tasks).values),
            "anil": relative_error(anil, predict_anil(closed_form, tasks, inner_time=self.inner_time).values),
            "mtl_own_kernel": relative_error(mtl, predict_mtl(at_start, tasks).values),
            "ntk": relative_error(at_start(points, points).ntk, closed_form(points, points).ntk),
        }

    def _draw(self, figure: Figure, rows: Sequence[Record], laws: Mapping[str, PowerLaw]) -> None:
        axes = figure.subplots()
        plots.logarithmic(axes)
        for style, (name, text) in enumerate(_MEASURES.items()):
            mean, ci95 = ([float(row[column]) for row in rows] for column in (name, f"{name}_ci95"))
            plots.curve(axes, self.widths, mean, ci95=ci95, label=f"{text} ({laws[name].exponent:.2f})", style=style)
        plots.slope(axes, self.widths, exponent=-0.5, through=(self.widths[0], 1.3 * float(rows[0]["mtl"])))
        plots.finish(axes, "Networks approach their kernels with width", xlabel="width", ylabel="relative error")


def _kernels_of(network: ReLUNetwork, first: Tensor, second: Tensor) -> Kernels:
    """The network's kernels at the weights that it has, for points in float64."""
    return empirical_kernels(network, first.to(network.head.weight.dtype), second.to(network.head.weight.dtype))
