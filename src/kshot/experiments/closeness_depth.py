"""Does ANIL approach multi-task learning as networks deepen? (W21, Theorem 1 and Figure 1a)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from kshot.errors import ConfigError, check_positive
from kshot.experiments import plots
from kshot.experiments.findings import Experiment, Findings, experiments
from kshot.intervals import fit_power_law, mean_interval
from kshot.theory.kernels import Network, kernels
from kshot.theory.predictors import predict_anil, predict_mtl
from kshot.theory.tasks import squared_distance_tasks

# Mean over 5 runs of 20 test tasks, computed for this project by an independent program on tasks of its own.
REFERENCE = {10: 4.72, 20: 2.31, 30: 1.45, 50: 0.765, 70: 0.496, 90: 0.359, 110: 0.279}


def mean_distance(first: Tensor, second: Tensor) -> float:
    """Norm of the difference over a task's query points, averaged over tasks; predictions are (B, q)."""
    return float(torch.linalg.vector_norm(first - second, dim=-1).mean())


@experiments.register("closeness-depth")
class ClosenessDepth(Experiment):
    """W21, Figure 1a: the distance between the MTL and the ANIL predictor falls with depth.

    Theorem 1 bounds |F_ANIL - F_MTL| by O(lambda tau + 1/L) plus what a finite width adds. Here both are computed from
    the closed-form kernels, for infinite width, on the paper's synthetic tasks.

    depths: numbers L of weight layers.
    network: "relu", "residual", "residual-prenorm" or "residual-postnorm".
    time: learning rate times steps of the test task's head; 0 leaves it as training left it.
    tasks: training tasks.
    points: points of each training task.
    test_tasks: tasks that the distance is averaged over; 5 support and 10 query points each.
    seeds: of the tasks; one repetition each.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 5, 10, 20, 30, 50, 70, 90, 110),
        network: Network = "relu",
        time: float = 0.0,
        tasks: int = 20,
        points: int = 10,
        test_tasks: int = 20,
        seeds: Sequence[int] = (0, 1, 2, 3, 4),
    ) -> None:
        check_positive(depths=depths, tasks=tasks, points=points, test_tasks=test_tasks)
        if len(depths) < 3 or not seeds:
            raise ConfigError(f"the fit needs three depths and one seed at least, not {list(depths)} and {list(seeds)}")
        self.depths = sorted(depths)
        self.network: Network = network
        self.time = time
        self.shape = {"tasks": tasks, "points": points, "test_tasks": test_tasks}
        self.seeds = seeds

    def run(self, progress: bool = False) -> Findings:
        """The distance for every depth, its fitted exponent, and the picture."""
        pairs = [(seed, depth) for seed in self.seeds for depth in self.depths]
        distances = [self._distance(*pair) for pair in tqdm(pairs, disable=not progress)]
        curves = np.asarray(distances).reshape(len(self.seeds), -1)
        rows = []
        for depth, values in zip(self.depths, curves.T):
            mean, ci95 = mean_interval(values)
            row: dict[str, float | int | str] = {"depth": depth, "distance": mean, "distance_ci95": ci95}
            rows.append(row | {"seeds": len(self.seeds), "reference": REFERENCE.get(depth, "")})
        return Findings(rows, self._verdict(curves), lambda figure: self._draw(figure, rows))

    def _distance(self, seed: int, depth: int) -> float:
        sampled = squared_distance_tasks(seed, **self.shape)
        given = (sampled.inputs, sampled.targets, sampled.support, sampled.support_targets, sampled.query, self.time)
        kernel = functools.partial(kernels, depth=depth, network=self.network)
        return mean_distance(predict_anil(kernel, *given).values, predict_mtl(kernel, *given).values)

    def _verdict(self, curves: NDArray[np.float64]) -> str:
        law = fit_power_law(self.depths, curves)
        tail = fit_power_law(self.depths[-3:], curves[:, -3:])
        fold, margin = mean_interval(curves[:, 0] / curves[:, -1])
        return (
            f"{self.network}: |F_ANIL - F_MTL| falls {fold:.1f} ± {margin:.1f} times from L = {self.depths[0]} to "
            f"{self.depths[-1]}, {law} (last three depths {tail.exponent:.2f} ± {tail.ci95:.2f}); Theorem 1 promises "
            f"-1 or steeper; 95% intervals over {len(self.seeds)} seeds"
        )

    def _draw(self, figure: Figure, rows: Sequence[dict[str, float | int | str]]) -> None:
        axes = figure.subplots()
        mean = [float(row["distance"]) for row in rows]
        plots.curve(axes, self.depths, mean, [float(row["distance_ci95"]) for row in rows], "computed, 95% interval")
        known = [depth for depth in self.depths if depth in REFERENCE]
        if known and (self.network, self.time) == ("relu", 0):
            plots.reference(axes, known, [REFERENCE[depth] for depth in known], "reference values")
        plots.slope(axes, self.depths, -1, (self.depths[0], mean[0]))
        plots.finish(axes, "MTL and ANIL approach each other with depth", "depth L", "|F_ANIL - F_MTL|")
