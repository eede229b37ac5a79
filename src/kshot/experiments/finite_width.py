"""Do trained networks of finite width predict what the kernels of infinite ones do? (W21, Lemma 1)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from kshot.errors import ConfigError, check_positive
from kshot.experiments import plots
from kshot.experiments.findings import Experiment, Findings, experiments
from kshot.intervals import PowerLaw, fit_power_law, mean_interval
from kshot.theory.empirical import empirical_kernels
from kshot.theory.finite_training import stable_rate, train_anil, train_mtl
from kshot.theory.kernels import Kernels, kernels
from kshot.theory.networks import ReLUNetwork
from kshot.theory.predictors import predict_anil, predict_mtl
from kshot.theory.tasks import RegressionTasks, squared_distance_tasks

_MEASURES = {
    "mtl": "MTL, trained network against kernel predictor",
    "anil": "ANIL, trained network against kernel predictor",
    "mtl_own_kernel": "MTL, against the predictor with its own kernel at the start",
    "ntk": "NTK at the start, against the closed form",
}


INNER_STEPS = 5


class Given(NamedTuple):
    """What a predictor is given: training tasks and test tasks, with targets scaled."""

    inputs: Tensor
    targets: Tensor
    support: Tensor
    support_targets: Tensor
    query: Tensor


def scaled(tasks: RegressionTasks, factor: float) -> Given:
    """The tasks with all targets multiplied by `factor`."""
    return Given(tasks.inputs, factor * tasks.targets, tasks.support, factor * tasks.support_targets, tasks.query)


def relative_error(values: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what was wanted."""
    return float((values - wanted).norm() / wanted.norm())


@experiments.register("finite-width")
class FiniteWidth(Experiment):
    """W21, Lemma 1: trained networks predict what the kernels say, with an error that falls like 1/sqrt(width).

    Networks are trained by full-batch gradient descent until they fit the training tasks: MTL with a head for each
    task, ANIL through real inner loops. Errors are relative: the norm of the difference over that of the prediction.

    widths: units in each hidden layer.
    depth: weight layers.
    inner_time: learning rate of ANIL's inner loop times its 5 steps.
    tasks: training tasks; there are 10 test tasks of 5 support and 10 query points.
    points: points of each training task.
    target_scale: factor on all targets: the larger they are, the further the weights move, and the less linear is the
        network in them.
    tolerance: training ends when the residuals are below this part of the targets.
    max_steps: training ends after so many steps at the latest.
    seeds: of tasks and initial weights; one repetition each.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        depth: int = 4,
        inner_time: float = 0.05,
        tasks: int = 8,
        points: int = 5,
        target_scale: float = 0.1,
        tolerance: float = 1e-3,
        max_steps: int = 5000,
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
    ) -> None:
        check_positive(widths=widths, depth=depth, tasks=tasks, points=points, target_scale=target_scale)
        if len(widths) < 3 or not seeds:
            raise ConfigError(f"the fit needs three widths and one seed at least, not {list(widths)} and {list(seeds)}")
        self.widths = sorted(widths)
        self.depth = depth
        self.inner_time = inner_time
        self.shape = {"tasks": tasks, "points": points, "test_tasks": 10}
        self.target_scale = target_scale
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.seeds = seeds

    def run(self, progress: bool = False) -> Findings:
        """The errors for every width, their fitted exponents, and the picture."""
        pairs = [(seed, width) for seed in self.seeds for width in self.widths]
        found = [self._errors(*pair) for pair in tqdm(pairs, disable=not progress)]
        curves = {
            name: np.asarray([errors[name] for errors in found]).reshape(len(self.seeds), -1) for name in _MEASURES
        }
        rows = []
        for place, width in enumerate(self.widths):
            row: dict[str, float | int | str] = {"width": width}
            for name, values in curves.items():
                row[name], row[f"{name}_ci95"] = mean_interval(values[:, place])
            rows.append(row | {"seeds": len(self.seeds)})
        laws = {name: fit_power_law(self.widths, values) for name, values in curves.items()}
        exponents = "; ".join(
            f"{text} {laws[name].exponent:.2f} ± {laws[name].ci95:.2f}" for name, text in _MEASURES.items()
        )
        verdict = (
            "exponent of the error in the width, -0.5 expected, and no flatter against its own kernel: "
            f"{exponents}; 95% intervals over {len(self.seeds)} seeds"
        )
        return Findings(rows, verdict, lambda figure: self._draw(figure, rows, laws), size=(7.4, 4.6))

    def _errors(self, seed: int, width: int) -> Mapping[str, float]:
        given = scaled(squared_distance_tasks(seed, **self.shape), self.target_scale)
        network = ReLUNetwork(given.inputs.shape[-1], width, self.depth, seed=seed, dtype=torch.float32)
        closed = functools.partial(kernels, depth=self.depth)
        own = functools.partial(_kernels_of, network)
        points = given.inputs.flatten(0, 1)
        rate = stable_rate(network, given.inputs)
        stop = (self.tolerance, self.max_steps)
        mtl = train_mtl(network, given.inputs, given.targets, rate, *stop)
        anil = train_anil(network, given.inputs, given.targets, rate, self.inner_time, INNER_STEPS, *stop)
        test = (given.query, given.support, given.support_targets)
        return {
            "mtl": relative_error(mtl.predict(*test), predict_mtl(closed, *given).values),
            "anil": relative_error(
                anil.predict(*test), predict_anil(closed, *given, inner_time=self.inner_time).values
            ),
            "mtl_own_kernel": relative_error(mtl.predict(*test), predict_mtl(own, *given).values),
            "ntk": relative_error(own(points, points).ntk, closed(points, points).ntk),
        }

    def _draw(self, figure: Figure, rows: Sequence[dict[str, float | int | str]], laws: Mapping[str, PowerLaw]) -> None:
        axes = figure.subplots()
        for style, (name, text) in enumerate(_MEASURES.items()):
            mean, ci95 = ([float(row[column]) for row in rows] for column in (name, f"{name}_ci95"))
            plots.curve(axes, self.widths, mean, ci95, f"{text} ({laws[name].exponent:.2f})", style)
        plots.slope(axes, self.widths, -0.5, (self.widths[0], 1.3 * float(rows[0]["mtl"])))
        plots.finish(axes, "Networks approach their kernels with width", "width", "relative error")


def _kernels_of(network: ReLUNetwork, first: Tensor, second: Tensor) -> Kernels:
    """The network's kernels at its present weights, for points in float64."""
    return empirical_kernels(network, first.to(network.head.weight.dtype), second.to(network.head.weight.dtype))
